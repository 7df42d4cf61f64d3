//! Azure Storage: blobs (`https://ACCOUNT.blob.core.windows.net/CONTAINER/path`, `az://`, `abfs(s)://`) and files
//! (`https://ACCOUNT.file.core.windows.net/SHARE/path`).
//!
//! A model is one blob or file, or everything below a directory. Rights needed: to list and to read (the role Storage
//! Blob Data Reader, or a shared access signature with the permissions `r` and `l`). Versions are pinned by ETag.

use std::sync::Arc;

use object_store::StaticCredentialProvider;
use object_store::azure::{AzureCredential, MicrosoftAzureBuilder};

use super::object::{self, Connector, Dialect, Failures, Key, Meaning, Objects, Store, parse_endpoint, setting};
use super::{Attribute, Context, Options, PlaceKeys, Registration, Source};
use crate::credentials::Credentials;
use crate::error::{Error, ErrorKind, Result};
use crate::uri::ModelUri;

mod files;
#[cfg(any(fuzzing, test))]
pub(super) mod fuzzing;
mod identity;
mod location;

use files::Share;
use location::{Location, Service};

const ACCOUNT: Attribute =
    Attribute { name: "account", meaning: "the storage account, where the URI does not name it (az://container/path)" };
const ENDPOINT: Attribute = Attribute {
    name: "endpoint",
    meaning: "URL of another server that speaks Azure's protocol, for instance Azurite's \
              http://azurite:10000/devstoreaccount1; default: Azure's for the account",
};

pub(super) const REGISTRATION: Registration = Registration {
    name: "azure",
    forms: &[
        "az://container/path",
        "abfs://container@account.dfs.core.windows.net/path",
        "abfss://container@account.dfs.core.windows.net/path",
        "https://account.blob.core.windows.net/container/path",
        "https://account.file.core.windows.net/share/path",
    ],
    attributes: &[ACCOUNT, ENDPOINT],
    place_keys: &[PlaceKeys { names: ACCOUNT_KEYS, attributes: &[ACCOUNT, ENDPOINT], concern: leaves_account_open }],
    claims: Location::claims,
    open,
};

/// As the attribute `account`.
const ACCOUNT_KEYS: &[&str] = &["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"];

const KEYS: &str = "AZURE_STORAGE_ACCESS_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_CLIENT_SECRET";

const CODES: &[(&str, Meaning)] = &[
    ("ContainerNotFound", Meaning::NoContainer),
    ("ShareNotFound", Meaning::NoContainer),
    ("ParentNotFound", Meaning::NoObject),
    // A wrong key, a wrong or expired signature, a clock that is wrong: Azure does not say which.
    ("AuthenticationFailed", Meaning::WrongCredentials),
    ("InvalidAuthenticationInfo", Meaning::WrongCredentials),
    ("NoAuthenticationInformation", Meaning::NoCredentials),
    ("PublicAccessNotPermitted", Meaning::NoCredentials),
    ("ResourceNotFound", Meaning::Hidden),
    ("AuthorizationFailure", Meaning::Denied),
    ("AuthorizationPermissionMismatch", Meaning::Denied),
    ("AuthorizationResourceTypeMismatch", Meaning::Denied),
    ("AuthorizationServiceMismatch", Meaning::Denied),
    ("InsufficientAccountPermissions", Meaning::Denied),
    ("KeyBasedAuthenticationNotPermitted", Meaning::Denied),
];

const BLOBS: Dialect = Dialect {
    server: "Azure Blob Storage",
    container: "container",
    keys: KEYS,
    rights: "the role Storage Blob Data Reader, or a signature with the permissions r and l",
    elsewhere: "not served there; check the account's name",
    codes: CODES,
};

const FILES: Dialect = Dialect {
    server: "Azure Files",
    container: "share",
    rights: "the role Storage File Data Privileged Reader, or a signature with the permissions r and l",
    ..BLOBS
};

/// Where a model's account is served, and under which name it signs.
struct Account {
    name: String,
    /// Without a slash at the end.
    place: String,
    /// The attribute `endpoint`, if it was given.
    endpoint: Option<String>,
}

impl Account {
    fn of(uri: &ModelUri, location: &Location, options: &Options, credentials: &Credentials) -> Result<Self> {
        let invalid = |problem: String| Error::new(ErrorKind::InvalidArgument, format!("{uri} {problem}"));
        let endpoint = setting(options, credentials, ENDPOINT, &[])
            .map(|endpoint| parse_endpoint(&endpoint, "http://azurite:10000/devstoreaccount1"))
            .transpose()?;
        let named = location.host.as_ref().map(|host| host.account.clone());
        let attribute = options.get(ACCOUNT.name).map(|name| name.trim().to_owned());
        if let (Some(named), Some(attribute)) = (&named, &attribute)
            && named != attribute
        {
            return Err(invalid(format!("is of the account {named:?}, and the attribute account is {attribute:?}")));
        }
        let beside = || setting(options, credentials, ACCOUNT, ACCOUNT_KEYS);
        let last = || Some(endpoint.as_deref()?.split_once("://")?.1.rsplit_once('/')?.1.to_owned());
        let name = named.or_else(beside).or_else(last).ok_or_else(|| {
            invalid("does not say in which storage account it is: set the attribute account".to_owned())
        })?;
        if !location::is_account(&name) {
            return Err(invalid(format!("can't be of an account {name:?}: their names are small letters and digits")));
        }
        let place = endpoint.clone().unwrap_or_else(|| match &location.host {
            Some(host) => format!("https://{}", host.name),
            None => format!("https://{name}.blob.core.windows.net"),
        });
        Ok(Self { name, place, endpoint })
    }
}

fn leaves_account_open(uri: &ModelUri, _: &Options) -> bool {
    Location::parse(uri).is_ok_and(|location| location.host.is_none())
}

fn open(uri: &ModelUri, options: &Options, credentials: &Credentials, context: &Context) -> Result<Arc<dyn Source>> {
    let location = Location::parse(uri)?;
    let key = Key::parse(uri, &location.path)?;
    let account = Account::of(uri, &location, options, credentials)?;
    let identity = identity::read(&location, &account, credentials, context)?;
    let service = location.host.as_ref().map_or(Service::Blob, |host| host.service);
    let failures = Failures {
        uri: uri.clone(),
        container: location.container.clone(),
        place: account.place.clone(),
        anonymous: identity.is_none(),
        dialect: if service == Service::File { &FILES } else { &BLOBS },
    };
    Ok(match service {
        Service::Blob => Arc::new(blobs(location, account, identity, failures, key, context)?),
        Service::File => Arc::new(Share::new(location, account, identity, failures, &key, context)?),
    })
}

fn blobs(
    location: Location,
    account: Account,
    identity: Option<identity::Provider>,
    failures: Failures,
    key: Key,
    context: &Context,
) -> Result<Objects> {
    let anonymous = identity.is_none();
    // Without a provider, the machine's own identity would be asked for, even if nothing is to be signed.
    let nobody = || Arc::new(StaticCredentialProvider::new(AzureCredential::BearerToken(String::new()))) as _;
    let store = MicrosoftAzureBuilder::new()
        .with_account(&account.name)
        .with_container_name(&location.container)
        .with_endpoint(account.place.clone())
        .with_allow_http(account.place.starts_with("http://"))
        .with_credentials(identity.unwrap_or_else(nobody))
        .with_skip_signature(anonymous)
        .with_http_connector(Connector::new(context.http.clone()))
        .with_retry(object::retry())
        .build()
        .map_err(|error| {
            let text = format!("{} can't be opened", failures.uri);
            Error::with_source(ErrorKind::InvalidArgument, text, error)
        })?;
    let identity = format!("azure|{}|{}", account.place, location.container);
    Ok(Objects { store: Store::new(store), failures, identity, key })
}
