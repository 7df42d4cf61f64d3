//! The caller's identity at Azure, from the URI and the Secret, under the names of KServe and of Azure's own tools.
//!
//! The first that is there is used: a signature in the URI, the account's key, a signature in the Secret, a client
//! secret. Nothing is taken from the machine: no managed identity, no token files.

use std::sync::Arc;

use object_store::StaticCredentialProvider;
use object_store::azure::{AzureAccessKey, AzureCredential, AzureCredentialProvider};
use url::Url;

use super::location::{Location, signature_pairs};
use super::{Account, KEYS};
use crate::credentials::Credentials;
use crate::error::{Error, ErrorKind, Result};
use crate::source::Context;
use crate::source::object::{TokenEndpoint, Tokens, token_url};

/// Gives what requests are signed with.
pub(super) type Provider = AzureCredentialProvider;

const KEY: &[&str] = &["AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY"];
const SIGNATURE: &[&str] = &["AZURE_STORAGE_SAS_TOKEN"];
const TENANT: &[&str] = &["AZURE_TENANT_ID", "AZ_TENANT_ID"];
const CLIENT: &[&str] = &["AZURE_CLIENT_ID", "AZ_CLIENT_ID"];
const CLIENT_SECRET: &[&str] = &["AZURE_CLIENT_SECRET", "AZ_CLIENT_SECRET"];
const AUTHORITY: &[&str] = &["AZURE_AUTHORITY_HOST"];

/// Microsoft's token endpoints, and the clouds that they belong to.
const AUTHORITIES: &[&str] = &[
    "login.microsoftonline.com",
    "login.chinacloudapi.cn",
    "login.partner.microsoftonline.cn",
    "login.microsoftonline.us",
];
/// The right to use storage, in every cloud.
const SCOPE: &str = "https://storage.azure.com/.default";

/// What signs requests; `None` for anonymous access.
pub(super) fn read(
    location: &Location,
    account: &Account,
    credentials: &Credentials,
    context: &Context,
) -> Result<Option<Provider>> {
    let fixed = |credential| Some(Arc::new(StaticCredentialProvider::new(credential)) as Provider);
    if let Some(pairs) = location.signature.as_ref().and_then(signature_pairs) {
        return Ok(fixed(AzureCredential::SASToken(pairs)));
    }
    if let Some(key) = credentials.get(KEY) {
        // The error would quote the key's first wrong character.
        let key = AzureAccessKey::try_new(key.expose()).map_err(|_| invalid(KEY[0], "is no key: it must be base64"))?;
        return Ok(fixed(AzureCredential::AccessKey(key)));
    }
    if let Some(signature) = credentials.get(SIGNATURE) {
        let pairs = signature_pairs(&signature)
            .ok_or_else(|| invalid(SIGNATURE[0], "is no shared access signature: it must have a \"sig=\""))?;
        return Ok(fixed(AzureCredential::SASToken(pairs)));
    }
    client_secret(location, account, credentials, context)
}

fn client_secret(
    location: &Location,
    account: &Account,
    credentials: &Credentials,
    context: &Context,
) -> Result<Option<Provider>> {
    let found = [TENANT, CLIENT, CLIENT_SECRET].map(|names| (names[0], credentials.get(names)));
    let (tenant, client, secret) = match found {
        [(_, None), (_, None), (_, None)] => return Ok(None),
        [(_, Some(tenant)), (_, Some(client)), (_, Some(secret))] => (tenant, client, secret),
        found => {
            let missing: Vec<&str> = found.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| *name).collect();
            let text = format!("the Secret has only a part of an Azure client secret: add {}", missing.join(" and "));
            return Err(Error::new(ErrorKind::Unauthenticated, text));
        }
    };
    let tenant = tenant.expose();
    if tenant.is_empty() || !tenant.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.')) {
        return Err(invalid(TENANT[0], "is no tenant: it must be a directory's id or domain"));
    }
    let authority = credentials.get(AUTHORITY).map(|host| host.expose().clone());
    let authority = authority.unwrap_or_else(|| authority_of(location).to_owned());
    let mut url: Url = token_url(&authority, AUTHORITIES, account.endpoint.as_deref())?;
    url.set_path(&format!("{tenant}/oauth2/v2.0/token"));
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", client.expose().as_str()),
        ("client_secret", secret.expose().as_str()),
        ("scope", SCOPE),
    ];
    let endpoint = TokenEndpoint::new(context.http.clone(), url, &form, KEYS);
    Ok(Some(Arc::new(Tokens::new(Box::new(endpoint), AzureCredential::BearerToken))))
}

fn authority_of(location: &Location) -> &'static str {
    let host = location.host.as_ref().map_or("", |host| host.name.as_str());
    match host {
        host if host.ends_with(".cn") => "https://login.chinacloudapi.cn",
        host if host.ends_with(".usgovcloudapi.net") => "https://login.microsoftonline.us",
        _ => "https://login.microsoftonline.com",
    }
}

fn invalid(key: &str, problem: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("the Secret's key {key} {problem}"))
}
