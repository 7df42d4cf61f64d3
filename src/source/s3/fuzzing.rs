//! What must hold of what users write about buckets.

use super::settings::Settings;
use crate::source::fuzzing::{CONTEXT, Checks, Written};

pub(in crate::source) const CHECKS: Checks = &[(b's', settings)];

fn settings(input: &[u8]) -> bool {
    let Some(written) = Written::parse(input) else { return false };
    match Settings::read("models", &written.options, &written.credentials, &CONTEXT) {
        Ok(settings) => {
            let endpoint = settings.endpoint.as_deref().unwrap_or("https://s3");
            assert!(endpoint.starts_with("http://") || endpoint.starts_with("https://"), "{endpoint}");
            assert!(!settings.accelerate || settings.endpoint.is_none());
            true
        }
        Err(error) => written.refused(&error),
    }
}
