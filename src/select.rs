//! Which files of a model are wanted: `allowPatterns` and `ignorePatterns`.
//!
//! Syntax and meaning are KServe's (Python's `fnmatch` over the path relative to the model's root): `*` matches any
//! text, slashes included, `?` one character, `[abc]` and `[!abc]` a set; braces and backslashes stand for themselves.
//! Beyond `fnmatch`: a pattern that ends in `/` means everything below (as in `huggingface_hub`), `**/x` also matches
//! `x` at the root, and an unclosed `[` is an error instead of silently matching nothing.

use std::sync::Arc;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::error::{Error, ErrorKind, Result};

/// A set of files: those that an allow pattern matches (all, if there is none) less those that an ignore pattern
/// matches. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Selection(Arc<Patterns>);

#[derive(Debug, Default)]
struct Patterns {
    allow: Option<GlobSet>,
    ignore: GlobSet,
    /// Both lists as they were written: what is different here may select differently.
    text: String,
}

impl Selection {
    /// Parses both lists, each written as comma list (`*.json,*.safetensors`) or JSON list (`["*.json"]`).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], naming the pattern.
    pub fn parse(allow: Option<&str>, ignore: Option<&str>) -> Result<Self> {
        let text = if allow.or(ignore).is_some() { format!("{allow:?} {ignore:?}") } else { String::new() };
        let allow = allow.map(|text| patterns("allowPatterns", text)).transpose()?;
        let ignore = ignore.map(|text| patterns("ignorePatterns", text)).transpose()?;
        let allow = allow.filter(|set| !set.is_empty());
        Ok(Self(Arc::new(Patterns { allow, ignore: ignore.unwrap_or_default(), text })))
    }

    /// A text that is the same for equal patterns only; empty when there are none.
    pub fn canonical(&self) -> &str {
        &self.0.text
    }

    /// Whether the file at this path is wanted.
    pub fn selects(&self, path: &str) -> bool {
        let Patterns { allow, ignore, .. } = &*self.0;
        allow.as_ref().is_none_or(|allow| allow.is_match(path)) && !ignore.is_match(path)
    }
}

fn patterns(key: &str, text: &str) -> Result<GlobSet> {
    let invalid = |problem: String| Error::new(ErrorKind::InvalidArgument, format!("{key}: {problem}"));
    let trimmed = text.trim();
    // `[ab]*.json` is a pattern, `["a"]` is a list: a list's bracket is followed by a quote or closes at once.
    let inner = trimmed.strip_prefix('[').map(str::trim_start);
    let list: Vec<String> = if inner.is_some_and(|inner| inner.starts_with('"') || inner == "]") {
        serde_json::from_str(trimmed)
            .map_err(|error| invalid(format!("{trimmed:?} is not a JSON list of strings ({error})")))?
    } else {
        trimmed.split(',').map(|pattern| pattern.trim().to_owned()).collect()
    };
    let mut set = GlobSetBuilder::new();
    for pattern in list.iter().filter(|pattern| !pattern.is_empty()) {
        let mut glob = pattern.replace('{', "[{]").replace('}', "[}]");
        if glob.ends_with('/') {
            glob.push('*');
        }
        let glob =
            GlobBuilder::new(&glob).literal_separator(false).backslash_escape(false).build().map_err(|error| {
                invalid(format!("{pattern:?} is not a valid pattern ({}); to match a bracket write [[]", error.kind()))
            })?;
        set.add(glob);
    }
    set.build().map_err(|error| invalid(format!("the patterns can't be combined ({error})")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn selects(allow: &str, ignore: &str, path: &str) -> bool {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Selection::parse(some(allow).as_deref(), some(ignore).as_deref()).unwrap().selects(path)
    }

    #[test]
    fn lists_and_meaning() {
        assert!(selects("", "", "any/thing"));
        assert!(selects("*.json, *.txt", "", "sub/config.json"));
        assert!(!selects("*.json,*.txt", "", "model.bin"));
        assert!(selects(r#"["*.json", "a,b"]"#, "", "a,b"));
        assert!(!selects("*.json", "sub/*", "sub/config.json"));
        assert!(selects("onnx/", "", "onnx/a/b.onnx"));
        assert!(selects("[ab]*.json", "", "a1.json") && !selects("[!ab]*.json", "", "a1.json"));
        assert!(selects("**/x.json", "", "x.json") && selects("**/x.json", "", "a/b/x.json"));
        assert!(selects("{a,b}", "", "b}"), "a comma separates, a brace stands for itself");
        assert!(selects(r"a\b", "", r"a\b"));
        assert!(selects("[]", "", "everything") && selects(",", "", "everything"));
    }

    #[test]
    fn malformed_patterns_are_named() {
        for (text, hint) in [("*.json,[abc", "[abc"), (r#"["a", 3]"#, "JSON list"), (r#"["a""#, "JSON list")] {
            let error = Selection::parse(Some(text), None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains("allowPatterns") && error.to_string().contains(hint), "{error}");
        }
        let error = Selection::parse(None, Some("[z-a]")).unwrap_err();
        assert!(error.to_string().contains("ignorePatterns"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in ".{0,40}", path in ".{0,20}") {
            if let Ok(selection) = Selection::parse(Some(&text), Some(&text)) {
                selection.selects(&path);
            }
        }

        #[test]
        fn a_literal_name_selects_itself_alone(name in "[a-z{}/.]{1,12}[a-z]", other in "[A-Z]{1,5}") {
            let selection = Selection::parse(Some(&serde_json::to_string(&[&name]).unwrap()), None).unwrap();
            prop_assert!(selection.selects(&name) && !selection.selects(&other));
        }
    }
}
