//! Who asks: the checks of Azure's front end, written from its documentation and apart from the client's signing.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use url::Url;

use super::Behaviour;
use crate::azure_blob::Account;
use crate::script::Request;

type Refusal = (u16, &'static str);

/// Whether this request may do what it wants: `r` or `l`.
pub(super) fn check(
    account: &Account,
    behaviour: &Behaviour,
    request: &Request,
    url: &Url,
    query: &BTreeMap<String, String>,
    wanted: char,
) -> Result<(), Refusal> {
    if request.header("x-ms-version").is_none_or(|version| version < "2021-12-02") {
        return Err((400, "UnsupportedHttpVersion"));
    }
    if query.contains_key("sig") {
        return check_signature(account, query, wanted);
    }
    let Some(authorization) = request.header("authorization") else {
        return Err((401, "NoAuthenticationInformation"));
    };
    if let Some(token) = authorization.strip_prefix("Bearer ") {
        // "Requests that use OAuth must carry the intent."
        return match behaviour.token.as_deref() == Some(token) {
            false => Err((401, "InvalidAuthenticationInfo")),
            true if request.header("x-ms-file-request-intent") == Some("backup") => Ok(()),
            true => Err((400, "MissingRequiredHeader")),
        };
    }
    let expected =
        format!("SharedKey {}:{}", account.name, account.sign(&string_to_sign(account, request, url, query)));
    if authorization == expected { Ok(()) } else { Err((403, "AuthenticationFailed")) }
}

/// "Authorize with Shared Key", version 2009-09-19 and later.
fn string_to_sign(account: &Account, request: &Request, url: &Url, query: &BTreeMap<String, String>) -> String {
    let header = |name: &str| request.header(name).unwrap_or_default();
    // Version 2015-02-21 and later: no length is an empty string.
    let length = if header("content-length") == "0" { "" } else { header("content-length") };
    let date = if request.header("x-ms-date").is_some() { "" } else { header("date") };
    let mut lines = vec![
        request.method.clone(),
        header("content-encoding").to_owned(),
        header("content-language").to_owned(),
        length.to_owned(),
        header("content-md5").to_owned(),
        header("content-type").to_owned(),
        date.to_owned(),
        header("if-modified-since").to_owned(),
        header("if-match").to_owned(),
        header("if-none-match").to_owned(),
        header("if-unmodified-since").to_owned(),
        header("range").to_owned(),
    ];
    let mut own: Vec<String> = request
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .filter(|(name, _)| name.starts_with("x-ms-"))
        .map(|(name, value)| format!("{name}:{value}"))
        .collect();
    own.sort();
    lines.extend(own);
    lines.push(format!("/{}{}", account.name, url.path()));
    lines.extend(query.iter().map(|(name, value)| format!("{}:{value}", name.to_ascii_lowercase())));
    lines.join("\n")
}

/// "Create an account SAS", version 2020-12-06 and later.
pub(super) fn account_signature(account: &Account, fields: &BTreeMap<&str, &str>) -> String {
    let field = |name| fields.get(name).copied().unwrap_or_default();
    let names = ["sp", "ss", "srt", "st", "se", "sip", "spr", "sv", "ses"];
    let text: String = names.iter().map(|name| format!("{}\n", field(name))).collect();
    account.sign(&format!("{}\n{text}", account.name))
}

fn check_signature(account: &Account, query: &BTreeMap<String, String>, wanted: char) -> Result<(), Refusal> {
    let fields: BTreeMap<&str, &str> = query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    if fields.get("sig") != Some(&account_signature(account, &fields).as_str()) {
        return Err((403, "AuthenticationFailed"));
    }
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // Whole years are enough for what the tests make.
    let year = 1970 + seconds / 31_556_952;
    let expires: u64 = fields.get("se").and_then(|expiry| expiry.get(..4)?.parse().ok()).unwrap_or(0);
    if expires < year {
        return Err((403, "AuthenticationFailed"));
    }
    let permissions = fields.get("sp").copied().unwrap_or_default();
    if permissions.contains(wanted) { Ok(()) } else { Err((403, "AuthorizationPermissionMismatch")) }
}
