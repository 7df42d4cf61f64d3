//! Waits for conditions by asking again and again, so that no test sleeps for a time that somebody guessed.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(10);

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within `deadline`, naming `what` was awaited.
pub async fn eventually(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    until(what, deadline, async || condition().then_some(())).await;
}

/// Waits until `probe` has an answer.
///
/// # Panics
/// When it has none within `deadline`, naming `what` was awaited.
pub async fn until<T>(what: &str, deadline: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        // The probe is given up at the deadline too: a server that accepts and never answers must not hang the test.
        let left = deadline.saturating_sub(start.elapsed());
        if let Ok(Some(answer)) = tokio::time::timeout(left.max(PAUSE), probe()).await {
            return answer;
        }
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain for: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_condition_that_comes_true_is_seen() {
        let mut calls = 0;
        eventually("the third call", Duration::from_secs(5), || {
            calls += 1;
            calls == 3
        })
        .await;
        assert_eq!(calls, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "in vain for: pigs to fly")]
    async fn one_that_does_not_is_named() {
        until("pigs to fly", Duration::from_millis(30), async || std::future::pending::<Option<()>>().await).await;
    }
}
