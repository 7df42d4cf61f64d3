//! The store that is asked; in the bucket's own region, once a server has said which one that is.
//!
//! A bucket lies in one region, which requests name and are signed for. Whoever names another one is refused, by an answer
//! that tells the right one: in the header `x-amz-bucket-region`, as Amazon does, or in the element `Region`, as compatible
//! servers do as well. Amazon's own clients then ask again there (`S3RegionRedirector` of botocore), and so does this.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use object_store::ObjectStore;

use super::failure::between;
use crate::error::Result;

/// Statuses of answers in a wrong region.
const WRONG_REGION: &[&str] = &["301", "307", "400"];
/// Longest name of a region.
const MAX_NAME: usize = 32;

type Open = dyn Fn(&str) -> Result<Arc<dyn ObjectStore>> + Send + Sync;

/// See the [module documentation](self).
pub(in crate::source) struct Store {
    asked: Mutex<Asked>,
    /// `None` for stores that have no regions.
    open: Option<Box<Open>>,
}

#[derive(Clone)]
struct Asked {
    store: Arc<dyn ObjectStore>,
    region: String,
    /// Whether a server has named the region. None is followed from there to another one.
    told: bool,
}

impl Store {
    /// One that is nowhere else.
    #[cfg(any(feature = "gcs", feature = "azure"))]
    pub(in crate::source) fn new(store: impl ObjectStore) -> Self {
        Self { asked: Mutex::new(Asked { store: Arc::new(store), region: String::new(), told: false }), open: None }
    }

    /// One that `open` opens in a region, in this one until a server names another.
    #[cfg(feature = "s3")]
    pub(in crate::source) fn in_region(
        region: String,
        open: impl Fn(&str) -> Result<Arc<dyn ObjectStore>> + Send + Sync + 'static,
    ) -> Result<Self> {
        let store = open(&region)?;
        Ok(Self { asked: Mutex::new(Asked { store, region, told: false }), open: Some(Box::new(open)) })
    }

    /// Where it is asked by now.
    pub(super) fn region(&self) -> String {
        self.asked().region.clone()
    }

    /// Whether this refusal, which says nothing of the kind, may be the answer in a wrong region.
    pub(super) fn may_be_elsewhere(&self, error: &object_store::Error) -> bool {
        let refusal = error.to_string();
        let is_one = || WRONG_REGION.contains(&between(&refusal, "status code: ", " ").unwrap_or_default());
        self.open.is_some() && told_region(&refusal).is_none() && is_one()
    }

    /// Asks; and once more in the bucket's region, if the answer is that this is another.
    pub(super) async fn ask<T, F>(&self, question: impl Fn(Arc<dyn ObjectStore>) -> F) -> object_store::Result<T>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let asked = self.asked().clone();
        let error = match question(asked.store).await {
            Err(error) => error,
            answer => return answer,
        };
        let moved = told_region(&error.to_string()).and_then(|told| self.moved(&asked.region, told));
        match moved {
            Some(store) => question(store).await,
            None => Err(error),
        }
    }

    /// The store in the region that was told to whoever asked in another one.
    fn moved(&self, asked: &str, told: &str) -> Option<Arc<dyn ObjectStore>> {
        let open = self.open.as_ref().filter(|_| told != asked)?;
        let mut now = self.asked();
        if now.region != told {
            if now.told {
                return None;
            }
            let store = open(told).ok()?;
            tracing::info!(
                named = now.region,
                region = told,
                "the bucket is in another region than the one that was named"
            );
            *now = Asked { store, region: told.to_owned(), told: true };
        }
        Some(Arc::clone(&now.store))
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// By hand: some stores' own `Debug` shows keys.
impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("region", &self.region()).finish_non_exhaustive()
    }
}

/// The region that a refusal names. It becomes a part of a host's name.
fn told_region(refusal: &str) -> Option<&str> {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let region = between(refusal, "<Region>", "</Region>")?;
    (!region.is_empty() && region.len() <= MAX_NAME && region.bytes().all(is_plain)).then_some(region)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_name_is_a_region() {
        let told = |name: &str| told_region(&format!("400 Bad Request: <Error><Region>{name}</Region>")).is_some();
        assert!(told("eu-central-1") && told("garage"));
        for odd in ["", "EU", "a.b", "a/b", "evil.example/", "x@y", "a b", "\u{1b}", &"x".repeat(33)] {
            assert!(!told(odd), "{odd:?}");
        }
        assert_eq!(told_region("<Region>eu-west-1"), None);
    }
}
