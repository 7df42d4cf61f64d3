//! Git's own server, the emulator of Git LFS, and a script for what neither does on demand.

use modelmount::Credentials;
use modelmount::model::MODEL_URI;
use modelmount_test_support::conformance::Attributes;
use modelmount_test_support::git::{PASSWORD, USER};

mod clone;
mod refusals;

/// A path of the repository `model.git` at a revision.
pub(crate) fn at(server: &str, revision: &str, path: &str) -> Attributes {
    [(MODEL_URI, &*format!("git+{server}/model.git@{revision}")), ("path", path)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn uri(uri: &str) -> Attributes {
    [(MODEL_URI.to_owned(), uri.to_owned())].into()
}

/// Those of the user who may read.
pub(crate) fn credentials() -> Credentials {
    password(PASSWORD)
}

pub(crate) fn password(password: &str) -> Credentials {
    [("GIT_USERNAME", USER), ("GIT_PASSWORD", password)].into_iter().collect()
}
