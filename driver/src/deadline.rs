//! How long a caller is willing to wait.
//!
//! tonic drops a handler when the caller's deadline has passed, and the caller then sees no more than that. A handler
//! that answers shortly before can say how far it has come.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Request;

/// How long a publish is held when the caller sets no deadline: a little less than kubelet's two minutes
/// (`csiTimeout` in Kubernetes' `pkg/volume/csi/csi_plugin.go`).
const DEFAULT: Duration = Duration::from_secs(110);

/// The moment by which the answer to `request` should leave.
pub fn answer_by<T>(request: &Request<T>) -> Instant {
    let timeout = request.metadata().get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(parse);
    let wait = match timeout {
        // A tenth of it, but no more than 2 s, is left for the answer's way.
        Some(timeout) => timeout - (timeout / 10).min(Duration::from_secs(2)),
        None => DEFAULT,
    };
    // Beyond what an Instant can hold nobody waits anyway.
    Instant::now().checked_add(wait.min(Duration::from_secs(24 * 3600))).unwrap_or_else(Instant::now)
}

/// Reads the header as the gRPC specification writes it: at most eight digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let digits = text.len().checked_sub(1).filter(|digits| (1..=8).contains(digits) && text.is_ascii())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())??;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_read_as_specified() {
        for (text, expected) in [
            ("3S", Duration::from_secs(3)),
            ("119999m", Duration::from_millis(119_999)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
            ("5u", Duration::from_micros(5)),
            ("7n", Duration::from_nanos(7)),
            ("2M", Duration::from_secs(120)),
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
        for text in ["", "S", "3", "3s", "-3S", "123456789S", "3 S", "é", "+3S"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_answer_leaves_before_the_deadline() {
        let at = |timeout: &str| {
            let mut request = Request::new(());
            request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
            answer_by(&request).saturating_duration_since(Instant::now())
        };
        assert!((Duration::from_millis(2500)..=Duration::from_millis(2700)).contains(&at("3S")));
        assert!((Duration::from_secs(117)..=Duration::from_secs(118)).contains(&at("2M")));
        assert!(at("99999999H") <= Duration::from_secs(24 * 3600));
    }
}
