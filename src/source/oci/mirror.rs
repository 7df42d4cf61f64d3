//! Mirrors: caches beside a registry (Harbor, a pull-through registry) and nodes that share what they have (Spegel,
//! Dragonfly).
//!
//! A mirror serves content that is asked for by digest, so that nothing it says has to be believed. What it can't say is
//! who may read: most mirrors serve everybody. The registry itself is therefore asked for the manifest, with the
//! caller's credentials, whatever a mirror has. A mirror that *resolves* is believed in the registry's place, which an
//! operator says of one whose content every pod may read.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use url::Url;

use super::reference::DOCKER_HUB;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Digest;
use crate::net::{CaCertificates, HttpClient};
use crate::policy::Policy;

/// How long a mirror that can't be reached is left alone.
const PAUSE: Duration = Duration::from_secs(30);
/// Parts that are remembered, about 100 bytes each.
const MAX_PARTS: usize = 100_000;
/// Stands for every registry.
const ANY: &str = "*";

/// A server that may serve a registry's content, written `REGISTRY=URL`; the registry may be `*`.
///
/// As containerd does it, requests go to `URL/v2/…`, or to `URL/…` if a component of the URL's path is `v2`, and carry the
/// registry's name as the parameter `ns`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryMirror {
    registry: String,
    base: Url,
    resolves: bool,
}

impl RegistryMirror {
    /// The same mirror, which is believed about tags, and asked instead of the registry who may read.
    #[must_use]
    pub fn resolving(self) -> Self {
        Self { resolves: true, ..self }
    }

    pub(super) fn base(&self) -> &Url {
        &self.base
    }

    pub(super) fn resolves(&self) -> bool {
        self.resolves
    }
}

impl FromStr for RegistryMirror {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let shown = crate::uri::shown_text(text);
        let invalid = |problem: &str| {
            Error::new(
                ErrorKind::InvalidArgument,
                format!("{shown:?} is not a mirror such as docker.io=https://mirror.example: {problem}"),
            )
        };
        let (registry, url) = text.split_once('=').ok_or_else(|| invalid("it has no \"=\""))?;
        let base = Url::parse(url).map_err(|_| invalid("what follows \"=\" is no URL"))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(invalid("its URL must be one of http or https"));
        }
        if !base.username().is_empty()
            || base.password().is_some()
            || base.query().is_some()
            || base.fragment().is_some()
        {
            return Err(invalid("its URL must have no user name, query or fragment"));
        }
        let registry = registry.trim().to_ascii_lowercase();
        if registry.is_empty() || registry.contains('/') {
            return Err(invalid("what precedes \"=\" is not a registry's host, or host and port"));
        }
        let hub = matches!(registry.as_str(), "index.docker.io" | "registry-1.docker.io");
        let registry = if hub { DOCKER_HUB.to_owned() } else { registry };
        Ok(Self { registry, base: api(base), resolves: false })
    }
}

/// Where the API begins, with a slash at the end.
fn api(mut base: Url) -> Url {
    let path = base.path().trim_end_matches('/').to_owned();
    let is_api = path.split('/').any(|component| component == "v2");
    base.set_path(&format!("{path}{}", if is_api { "/" } else { "/v2/" }));
    base
}

/// The mirrors of a process. Cloning it shares what is known of them.
#[derive(Clone, Debug, Default)]
pub struct RegistryMirrors {
    mirrors: Arc<[RegistryMirror]>,
    client: Option<HttpClient>,
    memory: Arc<Mutex<Memory>>,
}

#[derive(Debug, Default)]
struct Memory {
    /// Mirrors that can't be reached, and until when they are left alone.
    down: HashMap<Url, Instant>,
    /// Parts that a mirror was asked for last.
    asked: HashSet<(Digest, u64)>,
}

impl RegistryMirrors {
    pub(crate) fn new(mirrors: Vec<RegistryMirror>, policy: &Policy, authorities: &CaCertificates) -> Result<Self> {
        let hosts = mirrors.iter().filter_map(|mirror| mirror.base.host_str().map(str::to_owned)).collect();
        let client = Some(HttpClient::new(&policy.exempting(hosts), authorities)?);
        Ok(Self { mirrors: mirrors.into(), client, memory: Arc::default() })
    }

    /// The mirrors of a registry, and the client that may reach them.
    pub(super) fn of(&self, registry: &str) -> impl Iterator<Item = (&RegistryMirror, &HttpClient)> {
        let client = self.client.iter();
        client.flat_map(move |client| {
            let own = move |mirror: &&RegistryMirror| mirror.registry == registry || mirror.registry == ANY;
            self.mirrors.iter().filter(own).map(move |mirror| (mirror, client))
        })
    }

    /// Whether mirrors are to be asked for a part of a blob. A part that is asked for again may have been wrong, as is
    /// only known when a blob is complete: it comes from the registry itself.
    pub(super) fn serve(&self, blob: Digest, start: u64) -> bool {
        let mut memory = self.memory();
        if memory.asked.remove(&(blob, start)) {
            return false;
        }
        if memory.asked.len() >= MAX_PARTS {
            memory.asked.clear();
        }
        memory.asked.insert((blob, start))
    }

    pub(super) fn is_up(&self, base: &Url) -> bool {
        let memory = self.memory();
        memory.down.get(base).is_none_or(|until| Instant::now() >= *until)
    }

    pub(super) fn is_down(&self, base: &Url) {
        self.memory().down.insert(base.clone(), Instant::now() + PAUSE);
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mirrors_are_written_as_registry_and_url() {
        for (text, registry, base) in [
            ("docker.io=http://127.0.0.1:30020", "docker.io", "http://127.0.0.1:30020/v2/"),
            ("registry-1.docker.io=https://m.example/", "docker.io", "https://m.example/v2/"),
            ("GHCR.io=https://m.example/v2/ghcr", "ghcr.io", "https://m.example/v2/ghcr/"),
            ("h:5000=https://m.example/proxy", "h:5000", "https://m.example/proxy/v2/"),
            ("*=https://m.example", "*", "https://m.example/v2/"),
        ] {
            let mirror: RegistryMirror = text.parse().unwrap();
            assert_eq!((mirror.registry.as_str(), mirror.base.as_str(), mirror.resolves), (registry, base, false));
            assert!(mirror.resolving().resolves);
        }
        for text in [
            "",
            "docker.io",
            "=https://m",
            "docker.io=m.example",
            "docker.io=ftp://m",
            "a/b=https://m",
            "a=https://u:CANARY@m",
            "a=https://m?x",
        ] {
            let error = text.parse::<RegistryMirror>().unwrap_err();
            assert!(error.to_string().contains("is not a mirror") && !error.to_string().contains("CANARY"), "{error}");
        }
    }

    #[test]
    fn a_part_comes_from_mirrors_every_other_time() {
        let mirrors = RegistryMirrors::default();
        let (one, two) = (Digest::of("1"), Digest::of("2"));
        assert!(mirrors.serve(one, 0) && mirrors.serve(one, 8) && mirrors.serve(two, 0));
        assert!(!mirrors.serve(one, 0) && mirrors.serve(one, 0));
        for start in 0..2 * MAX_PARTS as u64 {
            mirrors.serve(two, start);
        }
        assert!(mirrors.memory().asked.len() <= MAX_PARTS);
    }

    #[test]
    fn a_mirror_that_is_down_is_left_alone() {
        let mirrors = RegistryMirrors::default();
        let base = Url::parse("https://m.example/v2/").unwrap();
        assert!(mirrors.is_up(&base));
        mirrors.clone().is_down(&base);
        assert!(!mirrors.is_up(&base));
    }

    proptest! {
        #[test]
        fn any_text_is_a_mirror_or_refused(text in "[a-z.*]{0,6}=?(https?://)?[a-z@:/?#.v2]{0,20}") {
            if let Ok(mirror) = text.parse::<RegistryMirror>() {
                let base = mirror.base();
                prop_assert!(base.path().ends_with('/') && base.path().split('/').any(|part| part == "v2"), "{}", base);
                prop_assert!(base.username().is_empty() && base.query().is_none() && base.fragment().is_none());
            }
        }
    }
}
