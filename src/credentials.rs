//! What the caller brought to prove who it is. Lives in memory only.

use std::collections::BTreeMap;
use std::fmt;

/// A value that is never shown: its `Debug` prints no content, it has no `Display` and no serialization.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Wraps `value`.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, for the one place that must send it.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The caller's credentials: named values, as a Kubernetes Secret holds them. Each source documents the names it reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials(BTreeMap<String, Secret<String>>);

impl Credentials {
    /// No credentials: anonymous access.
    pub fn none() -> Self {
        Self::default()
    }

    /// The first of `names` that is present and not empty. Values are trimmed: a Secret made with `echo` ends in a
    /// newline that no key has.
    pub fn get(&self, names: &[&str]) -> Option<Secret<String>> {
        names
            .iter()
            .filter_map(|name| self.0.get(*name))
            .map(|value| value.expose().trim())
            .find(|value| !value.is_empty())
            .map(|value| Secret::new(value.to_owned()))
    }

    /// Whether there are none at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names, without values.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Credentials {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), Secret::new(value.into()))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_shown_and_values_are_trimmed() {
        let credentials: Credentials = [("AWS_ACCESS_KEY_ID", "AKIA\n"), ("empty", " ")].into_iter().collect();
        assert!(!format!("{credentials:?}").contains("AKIA"));
        let found = credentials.get(&["empty", "awsAccessKeyID", "AWS_ACCESS_KEY_ID"]).unwrap();
        assert_eq!(found.expose(), "AKIA");
        assert_eq!(format!("{found:?}"), "[redacted]");
        assert!(credentials.get(&["empty", "missing"]).is_none());
    }
}
