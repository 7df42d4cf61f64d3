//! `allowedUris`: where the models of a StorageClass may come from, whatever its claims say.
//!
//! Pure. An entry allows the place that it names and all below it. It is compared component by component, never as
//! text: `s3://models/team` does not allow `s3://models/team-b`. A component `*` stands for any one component.

use modelmount::{Error, ErrorKind, ModelUri, Result, Scheme};

use super::template::leads_elsewhere;

/// See the [module documentation](self).
#[derive(Clone, Debug)]
pub(super) struct Allowed {
    places: Vec<Place>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    scheme: Scheme,
    /// Bucket or host, then the components of the path.
    components: Vec<String>,
}

impl Allowed {
    /// Parses a comma list or JSON list of URIs.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], naming the entry.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let entries: Vec<String> = if text.starts_with('[') {
            serde_json::from_str(text).map_err(|error| invalid(format!("not a JSON list of strings ({error})")))?
        } else {
            text.split(',').map(|entry| entry.trim().to_owned()).filter(|entry| !entry.is_empty()).collect()
        };
        if entries.is_empty() {
            return Err(invalid("the list is empty, which would allow nothing".to_owned()));
        }
        Ok(Self { places: entries.iter().map(|entry| pattern(entry)).collect::<Result<_>>()? })
    }

    /// Whether the model may be used.
    pub(super) fn allows(&self, uri: &ModelUri) -> bool {
        let Some(asked) = place(uri) else { return false };
        self.places.iter().any(|allowed| allowed.holds(&asked))
    }
}

impl Place {
    fn holds(&self, asked: &Self) -> bool {
        self.scheme == asked.scheme
            && self.components.len() <= asked.components.len()
            && self.components.iter().zip(&asked.components).all(|(allowed, asked)| allowed == "*" || allowed == asked)
    }
}

fn pattern(entry: &str) -> Result<Place> {
    let uri = ModelUri::parse(entry)?;
    let place =
        place(&uri).ok_or_else(|| invalid(format!("{uri} has a component that no comparison can be made with")))?;
    match place.components.iter().find(|component| component.contains('*') && *component != "*") {
        Some(odd) => Err(invalid(format!("{uri}: in {odd:?} the * is only a part; it stands for a whole component"))),
        None => Ok(place),
    }
}

/// The place that a URI names; none for one that could lead elsewhere.
fn place(uri: &ModelUri) -> Option<Place> {
    let web = matches!(uri.scheme().as_str(), "http" | "https");
    let path = match uri.path() {
        path if web => path.split('?').next().unwrap_or_default(),
        path => path,
    };
    // What follows the authority of an object's URI begins with a slash, unless it is nothing.
    let path = if path.is_empty() { path } else { path.strip_prefix('/')? };
    let authority = if web { uri.authority().to_ascii_lowercase() } else { uri.authority().to_owned() };
    let mut components = vec![authority];
    components.extend(path.split('/').map(str::to_owned));
    // The slash at the end of a directory.
    components.pop_if(|last| last.is_empty());
    let strange = |component: &String| leads_elsewhere(component) || component.contains('\\');
    (!components.iter().any(strange)).then(|| Place { scheme: uri.scheme().clone(), components })
}

fn invalid(context: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, context)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn allows(allowed: &str, uri: &str) -> bool {
        Allowed::parse(allowed).unwrap().allows(&ModelUri::parse(uri).unwrap())
    }

    #[test]
    fn a_place_and_all_below_it_are_allowed() {
        for (allowed, uri) in [
            ("s3://models", "s3://models"),
            ("s3://models/", "s3://models/a/b"),
            ("s3://models/team", "S3://models/team/"),
            ("s3://models/team/", "s3://models/team"),
            ("s3://models/*/public", "s3://models/any/public/m"),
            ("s3://*/public", "s3://any/public"),
            ("https://Hub.example/m", "https://hub.EXAMPLE/m/x.gguf?sig=1"),
            ("s3://a, s3://b,", "s3://b/m"),
            (r#"["s3://a,b", "s3://c"]"#, "s3://c/m"),
        ] {
            assert!(allows(allowed, uri), "{allowed} {uri}");
        }
    }

    #[test]
    fn nothing_else_is() {
        for (allowed, uri) in [
            ("s3://models/team", "s3://models/team-b/m"),
            ("s3://models/team", "s3://models"),
            ("s3://models/team", "s3://models/Team/m"),
            ("s3://models/team", "s3://models//team/m"),
            ("s3://models/team", "s3://models?/team/m"),
            ("s3://models", "s3://models-b/m"),
            ("s3://models", "https://models/m"),
            ("s3://models/*/public", "s3://models/a/b/public"),
            ("https://h/m", "http://h/m"),
            ("https://h/m", "https://h@evil/m"),
            ("https://h/m", "https://h:444/m"),
            ("https://h/m", "https://h\\@evil/m"),
            ("https://h/m", "https://h/m/../private"),
            ("https://h/m", "https://h/m/..;/private"),
            ("https://h/m", "https://h/m/..\\private"),
            ("https://h/m/x", "https://h?/m/x"),
        ] {
            assert!(!allows(allowed, uri), "{allowed} {uri}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, hint) in [
            ("", "empty"),
            ("[]", "empty"),
            ("[1]", "JSON list"),
            ("models", "no scheme"),
            ("s3://m/team-*", "whole component"),
            ("s3://m/../x", "component"),
        ] {
            let error = Allowed::parse(text).unwrap_err();
            assert!(error.kind() == ErrorKind::InvalidArgument && error.to_string().contains(hint), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_web_address_that_is_allowed_leads_below_the_place(rest in "[a-c./;\\\\@:#?]{0,14}") {
            let uri = format!("https://h/m{rest}");
            let allowed = Allowed::parse("https://h/m").unwrap();
            // What the HTTP source will really ask for.
            if let (Ok(uri), Ok(url)) = (ModelUri::parse(&uri), reqwest::Url::parse(&uri)) && allowed.allows(&uri) {
                prop_assert_eq!(url.host_str(), Some("h"));
                let below = url.path() == "/m" || url.path().starts_with("/m/");
                prop_assert!(below, "{}", url);
            }
        }
    }
}
