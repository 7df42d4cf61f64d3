//! The protocol of registries (OCI distribution specification), as far as pulling needs it: GET and HEAD below `/v2/`.
//!
//! Credentials go to the registry that the URI names, or to the server that gives its tokens, and only when the registry
//! asks for them: never to a mirror, and never to where a redirect leads.

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, Response, StatusCode};
use url::Url;

use super::challenge::{self, Challenge};
use super::failure::{Asked, Failures, MAX_REFUSAL, code};
use super::token::{Gate, Passes};
use crate::error::{ErrorKind, Result};
use crate::net::{HttpClient, Question, origin_text, read_all};

/// A registry, or a mirror of one.
#[derive(Debug)]
pub(super) struct Registry {
    /// Ends in `/`; names of repositories follow.
    base: Url,
    /// The registry that a mirror is asked to stand for, as containerd's `ns`.
    namespace: Option<String>,
    client: HttpClient,
    gate: Gate,
    passes: Passes,
    failures: Failures,
}

impl Registry {
    pub(super) fn new(
        base: Url,
        namespace: Option<String>,
        client: HttpClient,
        gate: Gate,
        failures: Failures,
    ) -> Self {
        Self { base, namespace, client, gate, passes: Passes::default(), failures }
    }

    /// Scheme, host and port, for messages.
    pub(super) fn name(&self) -> String {
        origin_text(&self.base)
    }

    /// Asks for a manifest (`manifests/…`) or a blob (`blobs/…`) of the repository; returns a success, or a redirect if
    /// it is not to be followed (`leaves`).
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        asked: &Asked<'_>,
        leaves: bool,
    ) -> Result<Response> {
        let uri = &self.failures.uri;
        let url = self.url(path)?;
        let mut pass = self.passes.current().await;
        // Once as we are, once with what the answer asks for.
        for attempt in 0..2 {
            let credentials: HeaderMap = pass.iter().map(|pass| (AUTHORIZATION, pass.clone())).collect();
            let (method, headers) = (method.clone(), headers.clone());
            let question = Question { method, url: &url, headers, credentials: &credentials, body: None, leaves };
            let arrival = self.client.follow(question).await.map_err(|error| self.hint(error.within(uri)))?;
            let (answer, place) = (arrival.answer, arrival.url);
            let status = answer.status();
            if status.is_success() || (!leaves && status.is_redirection()) {
                return Ok(answer);
            }
            // A storage host that a redirect led to is not let in by the registry's challenge, nor by its own.
            if status == StatusCode::UNAUTHORIZED && attempt == 0 && place.origin() == url.origin() {
                let challenges = challenges(answer.headers());
                pass = Some(
                    self.passes.renew(&self.client, &self.gate, &self.failures, pass.as_ref(), &challenges).await?,
                );
                continue;
            }
            if challenges(answer.headers())
                .iter()
                .any(|challenge| matches!(challenge, Challenge::Bearer { insufficient: true, .. }))
            {
                return Err(self.failures.refused(&self.name(), StatusCode::FORBIDDEN));
            }
            return Err(self.failure(asked, &place, answer).await);
        }
        Err(self.failures.refused(&self.name(), StatusCode::UNAUTHORIZED))
    }

    fn url(&self, path: &str) -> Result<Url> {
        let repository = &self.failures.reference.repository;
        let mut url = self
            .base
            .join(&format!("{repository}/{path}"))
            .map_err(|_| self.failures.error(ErrorKind::InvalidArgument, "is no place that can be asked for"))?;
        if let Some(namespace) = &self.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        Ok(url)
    }

    async fn failure(&self, asked: &Asked<'_>, place: &Url, answer: Response) -> crate::Error {
        let status = answer.status();
        let body = read_all(answer, MAX_REFUSAL).await.unwrap_or_default();
        self.failures.explain(asked, &origin_text(place), status, code(&body).as_deref())
    }

    /// TLS errors of a registry that speaks plain HTTP tell little.
    fn hint(&self, error: crate::Error) -> crate::Error {
        let tls = error.report().contains("InvalidContentType");
        if !tls {
            return error;
        }
        let text = format!("{} does not speak TLS; if it speaks plain HTTP, set the attribute plainHttp", self.name());
        self.failures.error(ErrorKind::Unavailable, text)
    }
}

fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
    values.flat_map(challenge::parse).collect()
}
