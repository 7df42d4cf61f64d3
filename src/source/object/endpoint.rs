//! The URL of a store's server, as a user writes it.

use url::Url;

use crate::error::{Error, ErrorKind, Result};

/// Checks an endpoint, and writes it in the one form that it has as a URL, without a slash at its end: `HTTPS:Host/` is
/// `https://host`. `example` is what a right one looks like.
pub(in crate::source) fn parse_endpoint(text: &str, example: &str) -> Result<String> {
    let invalid = |problem: &str| {
        let shown = crate::uri::shown_text(text);
        Error::new(ErrorKind::InvalidArgument, format!("endpoint {shown:?} {problem}: write for instance {example}"))
    };
    let url = Url::parse(text).map_err(|_| invalid("is not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(invalid("is not an http:// or https:// URL"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("has a user, a query or a fragment, which can't be used"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wrong_endpoints_are_named_without_their_secrets() {
        assert_eq!(parse_endpoint("http://minio:9000/", "x").unwrap(), "http://minio:9000");
        for text in ["https://h/x", "HTTPS://H:443/x/", "https:h/x", "https:/h/x"] {
            assert_eq!(parse_endpoint(text, "x").unwrap(), "https://h/x");
        }
        for text in ["minio", "minio:9000", "ftp://minio", "https://u:p@minio", "https://minio?sig=s3cr3t", "https://"]
        {
            let error = parse_endpoint(text, "https://s3.example").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            let report = error.report();
            assert!(report.contains("https://s3.example") && !report.contains("u:p") && !report.contains("s3cr3t"));
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_a_url_without_a_slash_at_its_end(text in "([hH]ttps?:/{0,2})?[a-zA-Z@:./?#]{0,20}") {
            if let Ok(endpoint) = parse_endpoint(&text, "x") {
                prop_assert!(!endpoint.ends_with('/') && Url::parse(&endpoint).unwrap().host().is_some());
                prop_assert!(endpoint.starts_with("https://") || endpoint.starts_with("http://"), "{}", endpoint);
            }
        }
    }
}
