//! Connects to a plugin's socket, as the command line and the tests do.

use std::path::PathBuf;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use crate::endpoint::{EndpointError, socket_path};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The address is wrong.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Nobody answers.
    #[error("can't connect to {path:?}; does a plugin serve there?")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the transport said.
        #[source]
        source: tonic::transport::Error,
    },
}

/// Connects to the plugin that serves on `endpoint`. The channel connects anew by itself when the plugin restarts.
pub async fn connect(endpoint: &str) -> Result<Channel, ClientError> {
    let path = socket_path(endpoint)?;
    // The URI is what goes into `:authority`; the connector decides where the bytes go.
    let connector = Connector { path: path.clone() };
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await;
    channel.map_err(|source| ClientError::Connect { path, source })
}

#[derive(Clone, Debug)]
struct Connector {
    path: PathBuf,
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<UnixStream>;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = self.path.clone();
        Box::pin(async move { UnixStream::connect(path).await.map(TokioIo::new) })
    }
}
