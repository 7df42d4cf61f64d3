//! Volume attributes and credentials, as a pod's author writes them: no text makes a source panic before it is asked, and
//! none gets a secret into an error.
#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use modelmount::{Context, Credentials, ModelRequest, ModelUri, Policy};

static CONTEXT: LazyLock<Context> = LazyLock::new(|| Context::new(Policy::default()).expect("TLS can be set up"));

/// What no error may show.
const CANARY: &str = "CANARY-9d1f";

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    uri: &'a str,
    several: bool,
    attributes: Vec<(&'a str, &'a str)>,
    credentials: Vec<(&'a str, &'a str)>,
}

fuzz_target!(|input: Input<'_>| {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let mut attributes: BTreeMap<String, String> = input.attributes.iter().map(own).collect();
    attributes.insert(if input.several { "modelUris" } else { "modelUri" }.to_owned(), input.uri.to_owned());
    if let Ok(uri) = ModelUri::parse(input.uri) {
        assert_eq!(uri.expose(), input.uri);
        assert!(!uri.to_string().contains('?'));
    }
    let canaried = input.credentials.iter().map(|(key, value)| ((*key).to_owned(), format!("{value}{CANARY}")));
    let credentials: Credentials = canaried.collect();
    if let Ok(request) = ModelRequest::from_attributes(&attributes)
        && let Err(error) = request.open(&credentials, &CONTEXT)
    {
        assert!(!format!("{error:?} {error:#?}").contains(CANARY), "{error:?}");
    }
});
