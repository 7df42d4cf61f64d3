//! The gate: checks who asks, and passes on what is asked.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::TryStreamExt;
use http::header::{AUTHORIZATION, HOST};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::ServiceAccount;
use crate::background::{Background, runtime};
use crate::http::client;
use crate::launch::nonce;

type Body = BoxBody<Bytes, reqwest::Error>;

/// What readers may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody may list and read.
    Public,
    /// The account and the user may list and read.
    Private,
    /// They may list, and no longer read.
    ListOnly,
    /// They are known, and may nothing.
    Nothing,
}

#[derive(Debug)]
pub(super) struct Gate {
    address: SocketAddr,
    state: Arc<State>,
    _task: Background,
}

#[derive(Debug)]
struct State {
    upstream: SocketAddr,
    http: reqwest::Client,
    account: ServiceAccount,
    refresh_token: String,
    client_secret: String,
    access: Mutex<Access>,
    issued: Mutex<BTreeSet<String>>,
}

impl Gate {
    pub(super) async fn start(upstream: SocketAddr, account: ServiceAccount) -> Self {
        let state = Arc::new(State {
            upstream,
            http: client(),
            account,
            refresh_token: format!("1//{}", nonce()),
            client_secret: format!("GOCSPX-{}", nonce()),
            access: Mutex::new(Access::Private),
            issued: Mutex::default(),
        });
        let bound = runtime().spawn(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = bound.await.expect("binding does not panic").expect("there are free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::clone(&state);
        let task = Background::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                let service = service_fn(move |request| {
                    let state = Arc::clone(&state);
                    async move { Ok::<_, Infallible>(state.answer(request).await) }
                });
                connections.spawn(async move {
                    // A connection's failure is its client's to notice.
                    http1::Builder::new().serve_connection(TokioIo::new(socket), service).await.ok();
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, state, _task: task }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn account(&self) -> &ServiceAccount {
        &self.state.account
    }

    pub(super) fn user(&self, token_uri: &str) -> String {
        json!({
            "type": "authorized_user",
            "client_id": "test.apps.googleusercontent.com",
            "client_secret": self.state.client_secret,
            "refresh_token": self.state.refresh_token,
            "token_uri": token_uri,
        })
        .to_string()
    }

    pub(super) fn tokens_issued(&self) -> usize {
        self.state.issued.lock().unwrap().len()
    }

    pub(super) fn allow(&self, access: Access) {
        *self.state.access.lock().unwrap() = access;
    }
}

impl State {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if request.uri().path() == "/token" {
            let (method, body) = (request.method().clone(), request.into_body().collect().await);
            return self.issue(&method, &body.map(|body| body.to_bytes()).unwrap_or_default());
        }
        match self.refusal(&request) {
            Some((status, code)) => error(status, code),
            None => self.pass_on(request).await,
        }
    }

    /// Google's XML API refuses strangers with 401 when they show a token, with 403 when they show none.
    fn refusal(&self, request: &Request<Incoming>) -> Option<(StatusCode, &'static str)> {
        let access = *self.access.lock().unwrap();
        let is_listing = request.uri().query().is_some_and(|query| query.contains("list-type=2"));
        match request.headers().get(AUTHORIZATION) {
            None if access == Access::Public => None,
            None => Some((StatusCode::FORBIDDEN, "AccessDenied")),
            Some(value) if !self.knows(value.to_str().unwrap_or_default()) => {
                Some((StatusCode::UNAUTHORIZED, "AuthenticationRequired"))
            }
            Some(_) => match access {
                Access::Public | Access::Private => None,
                Access::ListOnly if is_listing => None,
                Access::ListOnly | Access::Nothing => Some((StatusCode::FORBIDDEN, "AccessDenied")),
            },
        }
    }

    fn knows(&self, authorization: &str) -> bool {
        let Some(token) = authorization.strip_prefix("Bearer ") else { return false };
        self.issued.lock().unwrap().contains(token) || self.account.has_signed(token)
    }

    /// RFC 6749 section 6.
    fn issue(&self, method: &Method, form: &[u8]) -> Response<Body> {
        let form: std::collections::BTreeMap<_, _> = url::form_urlencoded::parse(form).into_owned().collect();
        let is = |name: &str, value: &str| form.get(name).is_some_and(|found| found == value);
        let known = *method == Method::POST
            && is("grant_type", "refresh_token")
            && is("client_id", "test.apps.googleusercontent.com")
            && is("client_secret", &self.client_secret)
            && is("refresh_token", &self.refresh_token);
        if !known {
            let text = json!({"error": "invalid_grant", "error_description": format!("{form:?}")});
            return respond(StatusCode::BAD_REQUEST, text.to_string());
        }
        let token = format!("ya29.{}", nonce());
        self.issued.lock().unwrap().insert(token.clone());
        let text = json!({"access_token": token, "expires_in": 3599, "token_type": "Bearer"});
        respond(StatusCode::OK, text.to_string())
    }

    async fn pass_on(&self, request: Request<Incoming>) -> Response<Body> {
        let (parts, _) = request.into_parts();
        let is_listing = parts.uri.query().is_some_and(|query| query.contains("list-type=2"));
        let mut headers = parts.headers;
        headers.remove(AUTHORIZATION);
        headers.remove(HOST);
        let url = format!("http://{}{}", self.upstream, parts.uri);
        let answer = self.http.request(parts.method, url).headers(headers).send().await;
        let Ok(answer) = answer else { return error(StatusCode::BAD_GATEWAY, "InternalError") };
        if is_listing && answer.status() == StatusCode::INTERNAL_SERVER_ERROR {
            return error(StatusCode::NOT_FOUND, "NoSuchBucket");
        }
        let mut response = Response::new(());
        *response.status_mut() = answer.status();
        *response.headers_mut() = answer.headers().clone();
        let body = StreamBody::new(answer.bytes_stream().map_ok(Frame::data));
        response.map(|()| BoxBody::new(body))
    }
}

/// An error as the XML API writes it. What follows the code must never be shown.
fn error(status: StatusCode, code: &str) -> Response<Body> {
    respond(status, format!("<?xml version='1.0'?><Error><Code>{code}</Code><Message>CANARY-BODY</Message></Error>"))
}

fn respond(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response
}
