//! `s3s-fs` behind hyper, in this process.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::background::{Background, runtime};

pub(super) async fn start(data: &Path, access_key: &str, secret_key: &str) -> (SocketAddr, Background) {
    let mut builder = S3ServiceBuilder::new(FileSystem::new(data).expect("the data directory exists"));
    builder.set_auth(SimpleAuth::from_single(access_key, secret_key));
    let service = builder.build();
    // Bound on the runtime that will use it.
    let bound = runtime().spawn(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let listener = bound.await.expect("binding does not panic").expect("there are free ports");
    let address = listener.local_addr().expect("a bound socket has an address");
    let task = Background::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            connections.spawn(async move {
                // A connection's failure is its client's to notice.
                http1::Builder::new().serve_connection(TokioIo::new(socket), service).await.ok();
            });
            while connections.try_join_next().is_some() {}
        }
    });
    (address, task)
}
