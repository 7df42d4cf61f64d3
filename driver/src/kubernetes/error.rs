//! What can go wrong between this process and the API server.

use std::error::Error as StdError;
use std::fmt;

use reqwest::StatusCode;
use serde::Deserialize;

use crate::status::{message, with_cause};

/// What went wrong, as far as a caller needs to know it to decide what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ApiErrorKind {
    /// This process does not run in a pod, or the pod has no service account's credentials.
    NotConfigured,
    /// The API server does not accept the token.
    Unauthorized,
    /// The service account has no right to this.
    Forbidden,
    /// There is no such object.
    NotFound,
    /// The object is not what it was when it was read: read it again.
    Conflict,
    /// The API server can't be reached, is overloaded, or fails.
    Unavailable,
    /// The API server's answer makes no sense.
    Unexpected,
}

/// An error of the client: a kind that a program can act on, a context that a person can act on, and a source.
#[derive(Debug)]
pub struct ApiError {
    kind: ApiErrorKind,
    context: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl ApiError {
    pub(super) fn new(kind: ApiErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    pub(super) fn with_source(
        kind: ApiErrorKind,
        context: impl Into<String>,
        source: impl StdError + Send + Sync + 'static,
    ) -> Self {
        Self { kind, context: context.into(), source: Some(Box::new(source)) }
    }

    pub(super) fn within(mut self, context: &str) -> Self {
        self.context = format!("{context}: {}", self.context);
        self
    }

    pub(super) fn network(what: &str, error: reqwest::Error) -> Self {
        let problem = if error.is_timeout() {
            "the API server does not answer in time"
        } else if error.is_connect() {
            "can't connect to the API server"
        } else {
            "the connection to the API server broke"
        };
        Self::with_source(ApiErrorKind::Unavailable, format!("{what}: {problem}"), error)
    }

    /// The error for an answer that is none of success.
    pub(super) fn refusal(what: &str, status: StatusCode, body: &[u8]) -> Self {
        let kind = match status {
            StatusCode::UNAUTHORIZED => ApiErrorKind::Unauthorized,
            StatusCode::FORBIDDEN => ApiErrorKind::Forbidden,
            StatusCode::NOT_FOUND => ApiErrorKind::NotFound,
            // The API server answers a failed `test` of a patch with 422, an overtaken update with 409.
            StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => ApiErrorKind::Conflict,
            StatusCode::TOO_MANY_REQUESTS => ApiErrorKind::Unavailable,
            status if status.is_server_error() => ApiErrorKind::Unavailable,
            _ => ApiErrorKind::Unexpected,
        };
        // A proxy on the way may answer with a page of HTML, which is of no use to anybody.
        let said = serde_json::from_slice(body).map(|Said { message }| message).unwrap_or_default();
        let said = if said.is_empty() { String::new() } else { format!(": {}", message(&said)) };
        Self::new(kind, format!("{what}: the API server answers {}{said}", status.as_u16()))
    }

    /// What a program can act on.
    pub fn kind(&self) -> ApiErrorKind {
        self.kind
    }

    /// The whole of it in one line: what was tried, and what lies at the bottom of the failure.
    pub fn report(&self) -> String {
        message(&with_cause(self))
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl StdError for ApiError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// The part of a `meta/v1.Status` that is meant for people.
#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    message: String,
}
