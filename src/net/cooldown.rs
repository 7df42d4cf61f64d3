//! Servers that ask to be left alone for a while are left alone (`Retry-After`, RFC 9110 section 10.2.3).
//!
//! Hubs and registries count requests, and refuse those for longer, or for good, who go on asking. What a server has said to
//! one caller holds for these credentials alone: whoever brings others on the same node has a count of his own. Other servers
//! are busy (503): what they say holds for what was asked of them.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use url::Url;

use super::origin_text;
use crate::error::{Error, ErrorKind, Result};

/// Longer than that nobody is left alone: Hugging Face counts in windows of five minutes.
const LONGEST: Duration = Duration::from_secs(300);
/// Callers that are remembered.
const MOST: usize = 1024;

/// Who asks whom, as far as servers tell callers apart, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    anything: u64,
    this: u64,
}

/// Who is not to ask before when.
#[derive(Debug, Default)]
pub(super) struct Cooldowns {
    hasher: RandomState,
    until: Mutex<HashMap<u64, Instant>>,
}

impl Cooldowns {
    /// Who asks with this request.
    pub(super) fn caller(&self, url: &Url, headers: &HeaderMap) -> Caller {
        let credentials = headers.get(AUTHORIZATION).map(http::HeaderValue::as_bytes);
        let key = |path| self.hasher.hash_one((url.origin().ascii_serialization(), credentials, path));
        Caller { anything: key(None), this: key(Some(url.path())) }
    }

    /// Refuses a request that the server asked not to make.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`], with the time to wait.
    pub(super) fn check(&self, caller: Caller, url: &Url, now: Instant) -> Result<()> {
        let until = {
            let until = self.until();
            [caller.anything, caller.this].iter().filter_map(|key| until.get(key)).max().copied()
        };
        let left = until.map(|until| until.saturating_duration_since(now));
        let Some(left) = left.filter(|left| !left.is_zero()) else { return Ok(()) };
        // No finer: kubelet folds events of the same text into one.
        let minutes = left.as_secs().div_ceil(60).max(1);
        let text = format!("{} asks to be left alone, for {minutes} min at most", origin_text(url));
        Err(Error::new(ErrorKind::Unavailable, text).with_wait(left))
    }

    /// Takes note of an answer.
    pub(super) fn note(&self, caller: Caller, status: StatusCode, headers: &HeaderMap, now: Instant) {
        let key = match status {
            StatusCode::TOO_MANY_REQUESTS => caller.anything,
            StatusCode::SERVICE_UNAVAILABLE => caller.this,
            _ => return,
        };
        let Some(wait) = asked_for(headers) else { return };
        let mut until = self.until();
        if until.len() >= MOST {
            until.retain(|_, until| *until > now);
        }
        if until.len() < MOST {
            until.insert(key, now + wait);
        }
    }

    fn until(&self) -> MutexGuard<'_, HashMap<u64, Instant>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long an answer asks to wait. (That it may name a date instead is not used by servers that count.)
fn asked_for(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST)).filter(|wait| !wait.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(name: http::HeaderName, value: &'static str) -> HeaderMap {
        [(name, HeaderValue::from_static(value))].into_iter().collect()
    }

    #[test]
    fn whoever_was_asked_to_wait_waits_and_nobody_else() {
        let cooldowns = Cooldowns::default();
        let (url, other) = (Url::parse("https://hub/a").unwrap(), Url::parse("https://other/a").unwrap());
        let token = headers(AUTHORIZATION, "Bearer CANARY");
        let caller = cooldowns.caller(&url, &token);
        let now = Instant::now();
        cooldowns.note(caller, StatusCode::TOO_MANY_REQUESTS, &headers(RETRY_AFTER, "60"), now);

        let path = Url::parse("https://hub/b").unwrap();
        cooldowns.check(cooldowns.caller(&path, &token), &path, now).unwrap_err();
        let error = cooldowns.check(caller, &url, now + Duration::from_secs(20)).unwrap_err();
        assert_eq!((error.kind(), error.wait()), (ErrorKind::Unavailable, Some(Duration::from_secs(40))));
        assert!(error.report().contains("https://hub asks to be left alone, for 1 min"), "{error:?}");
        cooldowns.check(caller, &url, now + Duration::from_secs(60)).unwrap();

        let others = [(&url, headers(AUTHORIZATION, "Bearer other")), (&url, HeaderMap::new()), (&other, token)];
        for (url, headers) in others {
            cooldowns.check(cooldowns.caller(url, &headers), url, now).unwrap();
        }
    }

    #[test]
    fn a_busy_server_is_left_alone_with_what_it_was_asked() {
        let cooldowns = Cooldowns::default();
        let urls = ["https://hub/a?page=1", "https://hub/a", "https://hub/b"].map(|url| Url::parse(url).unwrap());
        let now = Instant::now();
        let refused = |status| {
            let answer = headers(RETRY_AFTER, "60");
            cooldowns.note(cooldowns.caller(&urls[0], &HeaderMap::new()), status, &answer, now);
            urls.each_ref().map(|url| cooldowns.check(cooldowns.caller(url, &HeaderMap::new()), url, now).is_err())
        };
        assert_eq!(refused(StatusCode::OK), [false; 3]);
        assert_eq!(refused(StatusCode::SERVICE_UNAVAILABLE), [true, true, false]);
        assert_eq!(refused(StatusCode::TOO_MANY_REQUESTS), [true; 3]);
    }

    #[test]
    fn only_seconds_are_heeded() {
        let wait = |value| asked_for(&headers(RETRY_AFTER, value)).map(|wait| wait.as_secs());
        assert_eq!((wait("7"), wait(" 7 "), wait("86400")), (Some(7), Some(7), Some(300)));
        for odd in ["0", "-1", "soon", "", "99999999999999999999", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(wait(odd), None, "{odd}");
        }
        assert_eq!(asked_for(&HeaderMap::new()), None);
    }

    #[test]
    fn not_everybody_is_remembered() {
        let cooldowns = Cooldowns::default();
        let now = Instant::now();
        let note = |number: u64, now| {
            cooldowns.note(
                Caller { anything: number, this: 0 },
                StatusCode::TOO_MANY_REQUESTS,
                &headers(RETRY_AFTER, "60"),
                now,
            );
        };
        (0..2 * MOST as u64).for_each(|number| note(number, now));
        assert_eq!(cooldowns.until().len(), MOST);
        note(u64::MAX, now + Duration::from_secs(61));
        assert_eq!(cooldowns.until().len(), 1);
    }
}
