//! Templates in a StorageClass: `s3://models/${pvc.namespace}/${pvc.annotations['example.com/model']}`.
//!
//! Pure. What is put in comes from whoever may make claims, so it is checked: it can name something below the place
//! where it stands, and can't change the meaning of what stands around it.

use modelmount::{Error, ErrorKind, Result};

/// What there is to say after `${`, for messages.
const KNOWN: &str = "${pvc.namespace}, ${pvc.name}, ${pvc.annotations['…']}, ${pv.name}";

/// Something that is known of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Variable {
    /// The claim's namespace.
    ClaimNamespace,
    /// The claim's name.
    ClaimName,
    /// The name of the PersistentVolume that is being made.
    VolumeName,
    /// An annotation of the claim.
    Annotation(String),
}

impl Variable {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "pvc.namespace" => Some(Self::ClaimNamespace),
            "pvc.name" => Some(Self::ClaimName),
            "pv.name" => Some(Self::VolumeName),
            _ => {
                let key = text.strip_prefix("pvc.annotations[")?.strip_suffix(']')?;
                let quoted = |quote| key.strip_prefix(quote)?.strip_suffix(quote);
                let key = quoted('\'').or_else(|| quoted('"'))?;
                let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
                (!key.is_empty() && key.chars().all(valid)).then(|| Self::Annotation(key.to_owned()))
            }
        }
    }
}

/// A text with variables in it.
#[derive(Clone, Debug)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Variable(Variable),
}

impl Template {
    /// Parses a template; `$${` stands for `${`, and a `$` before anything else for itself.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a variable that does not exist.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            if let Some(before) = rest[..at].strip_suffix('$') {
                literal.push_str(before);
                literal.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            literal.push_str(&rest[..at]);
            let end = rest[at..]
                .find('}')
                .ok_or_else(|| invalid("\"${\" without \"}\": write $${ for the characters themselves".to_owned()))?;
            let inside = &rest[at + 2..at + end];
            let variable = Variable::parse(inside).ok_or_else(|| {
                let shown: String = inside.chars().filter(|c| !c.is_control()).take(64).collect();
                invalid(format!("${{{shown}}} is unknown; there are {KNOWN}; write $${{ for the characters themselves"))
            })?;
            parts.push(Part::Text(std::mem::take(&mut literal)));
            parts.push(Part::Variable(variable));
            rest = &rest[at + end + 1..];
        }
        literal.push_str(rest);
        parts.push(Part::Text(literal));
        Ok(Self { parts })
    }

    /// The variables in it.
    pub(super) fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Variable(variable) => Some(variable),
        })
    }

    /// Whether it needs a claim's annotations.
    pub(super) fn wants_annotations(&self) -> bool {
        self.variables().any(|variable| matches!(variable, Variable::Annotation(_)))
    }

    /// The text with every variable replaced by what `value` says.
    ///
    /// # Errors
    /// Those of `value`; [`ErrorKind::InvalidArgument`] for a value that may not stand in a URI's path.
    pub(super) fn expand(&self, value: impl Fn(&Variable) -> Result<String>) -> Result<String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Variable(variable) => {
                    let value = value(variable)?;
                    check(&value).map_err(|error| error.within(describe(variable)))?;
                    text.push_str(&value);
                }
            }
        }
        Ok(text)
    }
}

/// Nothing that ends a path (`?`, `#`), that hides something from a comparison (`%`, `\`), or that leads up.
fn check(value: &str) -> Result<()> {
    let problem = if value.is_empty() {
        "is empty".to_owned()
    } else if let Some(c) = value.chars().find(|c| c.is_control() || matches!(c, '?' | '#' | '%' | '\\')) {
        format!("contains {c:?}, which may not stand in a model's path here")
    } else if value.split('/').any(leads_elsewhere) {
        "has a component \".\" or \"..\"".to_owned()
    } else {
        return Ok(());
    };
    Err(invalid(problem))
}

/// Whether a component of a path is `.` or `..`, for a server that cuts parameters off its components as well.
pub(super) fn leads_elsewhere(component: &str) -> bool {
    matches!(component.split(';').next(), Some("." | ".."))
}

fn describe(variable: &Variable) -> String {
    match variable {
        Variable::ClaimNamespace => "the claim's namespace".to_owned(),
        Variable::ClaimName => "the claim's name".to_owned(),
        Variable::VolumeName => "the volume's name".to_owned(),
        Variable::Annotation(key) => format!("the claim's annotation {key:?}"),
    }
}

fn invalid(context: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, context)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expand(template: &str, annotation: &str) -> Result<String> {
        Template::parse(template)?.expand(|variable| {
            Ok(match variable {
                Variable::ClaimNamespace => "team".to_owned(),
                Variable::ClaimName => "claim".to_owned(),
                Variable::VolumeName => "pvc-1".to_owned(),
                Variable::Annotation(key) if key == "a.b/c" => annotation.to_owned(),
                Variable::Annotation(_) => unreachable!("no template here has another one"),
            })
        })
    }

    #[test]
    fn variables_are_replaced_and_all_else_stands_for_itself() {
        for (template, expected) in [
            ("", ""),
            ("s3://b/m$1 {x}$", "s3://b/m$1 {x}$"),
            ("s3://${pvc.namespace}/${pvc.name}${pv.name}", "s3://team/claimpvc-1"),
            ("${pvc.annotations['a.b/c']}/${pvc.annotations[\"a.b/c\"]}", "s3://x y/é/s3://x y/é"),
            ("a$${pvc.name}b$$${c}", "a${pvc.name}b$${c}"),
        ] {
            assert_eq!(expand(template, "s3://x y/é").unwrap(), expected);
        }
        assert!(Template::parse("${pvc.annotations['k']}").unwrap().wants_annotations());
        assert!(!Template::parse("${pvc.name}$${pvc.annotations['k']}").unwrap().wants_annotations());
    }

    #[test]
    fn what_does_not_exist_is_answered_with_what_does() {
        for template in
            ["${pvc}", "${}", "${ pvc.name }", "${pvc.annotations}", "${pvc.annotations['']}", "${pvc.annotations[k]}"]
        {
            let error = expand(template, "").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains("${pvc.annotations['…']}, ${pv.name}"), "{error}");
        }
        assert!(expand("a${pvc.name", "").unwrap_err().to_string().contains("without"));
    }

    #[test]
    fn a_value_can_not_change_what_stands_around_it() {
        for value in
            ["", "..", "a/../b", "./a", "a/..", "..;x=1/b", "a?b", "a#b", "a%2fb", "%2e%2e", "a\\..\\b", "a\nb", "a\0"]
        {
            let error = expand("s3://b/${pvc.annotations['a.b/c']}/m", value).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{value:?}");
            assert!(error.to_string().starts_with("the claim's annotation \"a.b/c\": "), "{error}");
        }
        for value in ["a", "a/b", "...", "a..b", ".hidden", "s3://b/k", "x@1.0+é ~"] {
            expand("${pvc.annotations['a.b/c']}", value).unwrap();
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_a_text_without_variables_is_itself(text in "[$a{}'.\\[\\]é]{0,20}") {
            if let Ok(template) = Template::parse(&text) && !text.contains("${") {
                prop_assert_eq!(template.expand(|_| unreachable!("it has none")).unwrap(), text);
            }
        }
    }
}
