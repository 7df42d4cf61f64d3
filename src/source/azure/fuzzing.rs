//! What must hold of Azure's URIs, signatures and listings.

use super::files::fuzzing::listing;
use super::location::{Location, signature_pairs};
use crate::credentials::Secret;
use crate::source::fuzzing::{Checks, Written};

pub(in crate::source) const CHECKS: Checks = &[(b'l', listing), (b'u', location), (b'v', signature)];

fn location(input: &[u8]) -> bool {
    let Some(written) = Written::parse(input).filter(|written| Location::claims(&written.uri)) else { return false };
    match Location::parse(&written.uri) {
        Ok(location) => {
            assert!(!location.container.is_empty() && !location.container.contains(['/', '.', '?', '#']));
            assert!(location.path.is_empty() || location.path.starts_with('/'));
            if let Some(host) = location.host {
                let suffix =
                    [".core.windows.net", ".core.chinacloudapi.cn", ".core.usgovcloudapi.net", ".storage.azure.net"];
                assert!(suffix.iter().any(|suffix| host.name.ends_with(suffix)), "{host:?}");
                assert!(host.name.starts_with(&host.account) && !host.name.contains(['/', '@', ':', '?', '#']));
            }
            true
        }
        Err(error) => written.refused(&error),
    }
}

fn signature(input: &[u8]) -> bool {
    let Some(text) = std::str::from_utf8(input).ok() else { return false };
    let Some(pairs) = signature_pairs(&Secret::new(text.to_owned())) else { return false };
    assert!(pairs.iter().any(|(name, value)| name == "sig" && !value.is_empty()));
    true
}
