//! Servers that ask to be left alone for a while are left alone (`Retry-After`, RFC 9110 section 10.2.3).
//!
//! Hubs and registries count requests, and refuse those for longer, or for good, who go on asking (429). Other servers are busy
//! (503), and what they say holds for what was asked of them. Each model that is opened takes note for itself: whoever brings
//! other credentials has a count of his own, and must not be kept from asking by what somebody else was told.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use url::Url;

use super::origin_text;
use crate::error::{Error, ErrorKind, Result};

/// Longer than that nobody is left alone: Hugging Face counts in windows of five minutes.
const LONGEST: Duration = Duration::from_secs(300);
/// Servers, and places on them, that are remembered.
const MOST: usize = 64;

/// What is not to be asked before when: an origin, or one path of it.
#[derive(Debug, Default)]
pub(super) struct Cooldowns(Mutex<HashMap<String, Instant>>);

impl Cooldowns {
    /// Refuses a request that the server asked not to make.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`], with the time to wait.
    pub(super) fn check(&self, url: &Url, now: Instant) -> Result<()> {
        let until = {
            let until = self.until();
            if until.is_empty() {
                return Ok(());
            }
            [origin_text(url), place(url)].iter().filter_map(|key| until.get(key)).max().copied()
        };
        let left = until.map(|until| until.saturating_duration_since(now));
        let Some(left) = left.filter(|left| !left.is_zero()) else { return Ok(()) };
        // No finer: kubelet folds events of the same text into one.
        let minutes = left.as_secs().div_ceil(60).max(1);
        let text = format!("{} asks to be left alone, for {minutes} min at most", origin_text(url));
        Err(Error::new(ErrorKind::Unavailable, text).with_wait(left))
    }

    /// Takes note of an answer.
    pub(super) fn note(&self, url: &Url, status: StatusCode, headers: &HeaderMap, now: Instant) {
        let key = match status {
            StatusCode::TOO_MANY_REQUESTS => origin_text(url),
            StatusCode::SERVICE_UNAVAILABLE => place(url),
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

    fn until(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(url: &Url) -> String {
    format!("{}{}", origin_text(url), url.path())
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

    fn urls<const N: usize>(urls: [&str; N]) -> [Url; N] {
        urls.map(|url| Url::parse(url).unwrap())
    }

    #[test]
    fn a_server_that_counts_is_left_alone_for_as_long_as_it_said() {
        let cooldowns = Cooldowns::default();
        let [asked, path, other] = urls(["https://hub/a", "https://hub/b?c", "https://other/a"]);
        let now = Instant::now();
        cooldowns.note(&asked, StatusCode::TOO_MANY_REQUESTS, &headers(RETRY_AFTER, "60"), now);
        let error = cooldowns.check(&path, now + Duration::from_secs(20)).unwrap_err();
        assert_eq!((error.kind(), error.wait()), (ErrorKind::Unavailable, Some(Duration::from_secs(40))));
        assert!(error.report().contains("https://hub asks to be left alone, for 1 min"), "{error:?}");
        cooldowns.check(&path, now + Duration::from_secs(60)).unwrap();
        cooldowns.check(&other, now).unwrap();
    }

    #[test]
    fn a_busy_server_is_left_alone_with_what_it_was_asked() {
        let cooldowns = Cooldowns::default();
        let urls = urls(["https://hub/a?page=1", "https://hub/a", "https://hub/b"]);
        let now = Instant::now();
        let refused = |status| {
            cooldowns.note(&urls[0], status, &headers(RETRY_AFTER, "60"), now);
            urls.each_ref().map(|url| cooldowns.check(url, now).is_err())
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
        let note = |number: usize, now| {
            let url = Url::parse(&format!("https://hub-{number}")).unwrap();
            cooldowns.note(&url, StatusCode::TOO_MANY_REQUESTS, &headers(RETRY_AFTER, "60"), now);
        };
        (0..2 * MOST).for_each(|number| note(number, now));
        assert_eq!(cooldowns.until().len(), MOST);
        note(usize::MAX, now + Duration::from_secs(61));
        assert_eq!(cooldowns.until().len(), 1);
    }
}
