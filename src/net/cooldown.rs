//! Servers that ask to be left alone for a while are left alone (`Retry-After`, RFC 9110 section 10.2.3).
//!
//! Hubs and registries count requests, and refuse those for longer, or for good, who go on asking. What a server has said to
//! one caller holds for these credentials alone: whoever brings others on the same node has a count of his own.

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

/// Who asks whom, as far as servers tell callers apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Caller(u64);

/// Who is not to ask before when.
#[derive(Debug, Default)]
pub(super) struct Cooldowns {
    hasher: RandomState,
    until: Mutex<HashMap<Caller, Instant>>,
}

impl Cooldowns {
    /// Who asks with this request.
    pub(super) fn caller(&self, url: &Url, headers: &HeaderMap) -> Caller {
        let credentials = headers.get(AUTHORIZATION).map(http::HeaderValue::as_bytes);
        Caller(self.hasher.hash_one((url.origin().ascii_serialization(), credentials)))
    }

    /// Refuses a request that the server asked not to make.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`], with the time to wait.
    pub(super) fn check(&self, caller: Caller, url: &Url, now: Instant) -> Result<()> {
        let left = self.until().get(&caller).map(|until| until.saturating_duration_since(now));
        let Some(left) = left.filter(|left| !left.is_zero()) else { return Ok(()) };
        // No finer: kubelet folds events of the same text into one.
        let minutes = left.as_secs().div_ceil(60).max(1);
        let text = format!("{} asks to be left alone, for {minutes} min at most", origin_text(url));
        Err(Error::new(ErrorKind::Unavailable, text).with_wait(left))
    }

    /// Takes note of an answer.
    pub(super) fn note(&self, caller: Caller, status: StatusCode, headers: &HeaderMap, now: Instant) {
        let Some(wait) = asked_for(status, headers) else { return };
        let mut until = self.until();
        if until.len() >= MOST {
            until.retain(|_, until| *until > now);
        }
        if until.len() < MOST {
            until.insert(caller, now + wait);
        }
    }

    fn until(&self) -> MutexGuard<'_, HashMap<Caller, Instant>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long an answer asks to wait. (That it may name a date instead is not used by servers that count.)
fn asked_for(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    let refused = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let seconds = headers.get(RETRY_AFTER).filter(|_| refused)?.to_str().ok()?.trim().parse().ok()?;
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
        assert_eq!(cooldowns.caller(&path, &token), caller);
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
    fn only_a_refusal_that_names_seconds_is_heeded() {
        let wait = |status: u16, value| {
            asked_for(StatusCode::from_u16(status).unwrap(), &headers(RETRY_AFTER, value)).map(|wait| wait.as_secs())
        };
        assert_eq!((wait(429, "7"), wait(503, " 7 "), wait(429, "86400")), (Some(7), Some(7), Some(300)));
        for (status, value) in
            [(429, "0"), (429, "-1"), (429, "soon"), (429, "99999999999999999999"), (200, "7"), (301, "7")]
        {
            assert_eq!(wait(status, value), None, "{status} {value}");
        }
        assert_eq!(asked_for(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new()), None);
    }

    #[test]
    fn not_everybody_is_remembered() {
        let cooldowns = Cooldowns::default();
        let now = Instant::now();
        let note = |number: u64, now| {
            cooldowns.note(Caller(number), StatusCode::TOO_MANY_REQUESTS, &headers(RETRY_AFTER, "60"), now);
        };
        (0..2 * MOST as u64).for_each(|number| note(number, now));
        assert_eq!(cooldowns.until().len(), MOST);
        note(u64::MAX, now + Duration::from_secs(61));
        assert_eq!(cooldowns.until().len(), 1);
    }
}
