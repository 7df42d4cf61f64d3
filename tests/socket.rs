//! Serving and connecting over a real unix socket.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use modelmount_driver::client;
use modelmount_driver::csi::identity_client::IdentityClient;
use modelmount_driver::csi::identity_server::{Identity, IdentityServer};
use modelmount_driver::csi::{GetPluginInfoRequest, GetPluginInfoResponse, ProbeRequest, ProbeResponse};
use modelmount_driver::identity::{Health, IdentityService};
use modelmount_driver::server::{Ended, Server, ServerError, termination};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tonic::{Code, Request, Response, Status};

const LONG: Duration = Duration::from_secs(60);

struct Running {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<Ended, ServerError>>,
}

impl Running {
    async fn start(endpoint: &str, identity: impl Identity, grace: Duration) -> Self {
        let (stop, stopped) = oneshot::channel();
        let server = Server::bind(endpoint).await.unwrap();
        let router = tonic::transport::Server::builder().add_service(IdentityServer::new(identity));
        let stopped = async { drop(stopped.await) };
        Self { stop, ended: tokio::spawn(server.serve(router, stopped, grace)) }
    }

    async fn stop(self) -> Ended {
        self.stop.send(()).unwrap();
        self.ended.await.unwrap().unwrap()
    }
}

fn identity() -> IdentityService {
    IdentityService::new("csi.modelmount.io", Arc::new(Health::default()))
}

async fn name_of(endpoint: &str) -> String {
    let mut client = IdentityClient::new(client::connect(endpoint).await.unwrap());
    client.get_plugin_info(GetPluginInfoRequest {}).await.unwrap().into_inner().name
}

/// An Identity service whose Probe does not answer before it is let go.
#[derive(Clone)]
struct Slow {
    entered: Arc<Semaphore>,
    leave: Arc<Semaphore>,
}

impl Slow {
    fn new() -> Self {
        Self { entered: Arc::new(Semaphore::new(0)), leave: Arc::new(Semaphore::new(0)) }
    }
}

#[tonic::async_trait]
impl Identity for Slow {
    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        self.entered.add_permits(1);
        self.leave.acquire().await.unwrap().forget();
        Ok(Response::new(ProbeResponse { ready: Some(true) }))
    }
}

#[tokio::test]
async fn calls_are_answered_and_the_socket_is_gone_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a b.sock");
    for endpoint in [format!("unix://{}", path.display()), path.display().to_string()] {
        let running = Running::start(&endpoint, identity(), LONG).await;
        assert_eq!(name_of(&endpoint).await, "csi.modelmount.io");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(format!("{:o}", mode & 0o7777), "660");
        // "nothing else beside it"
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(running.stop().await, Ended::Drained);
        assert!(!path.exists());
        assert!(client::connect(&endpoint).await.is_err());
    }
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_served_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("csi.sock");
    let endpoint = format!("unix://{}", path.display());
    drop(StdListener::bind(&path).unwrap());
    assert!(path.exists());

    let running = Running::start(&endpoint, identity(), LONG).await;
    let inode = fs::metadata(&path).unwrap().ino();
    let error = Server::bind(&endpoint).await.unwrap_err();
    assert!(matches!(error, ServerError::InUse { .. }) && error.to_string().contains("another plugin is serving"));
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    assert_eq!(name_of(&endpoint).await, "csi.modelmount.io");
    running.stop().await;
}

#[tokio::test]
async fn what_is_not_a_socket_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("file.sock"), "precious").unwrap();
    fs::create_dir(at("dir.sock")).unwrap();
    drop(StdListener::bind(at("stale")).unwrap());
    symlink(at("stale"), at("link.sock")).unwrap();
    for name in ["file.sock", "dir.sock", "link.sock"] {
        let error = Server::bind(at(name).to_str().unwrap()).await.unwrap_err();
        assert!(matches!(error, ServerError::NotSocket { .. }), "{name}: {error}");
    }
    assert_eq!(fs::read_to_string(at("file.sock")).unwrap(), "precious");
    assert!(at("stale").exists() && at("link.sock").is_symlink());

    let missing = Server::bind(at("missing/csi.sock").to_str().unwrap()).await.unwrap_err();
    assert!(matches!(missing, ServerError::Io { .. }), "{missing}");
    let wrong = Server::bind("tcp://127.0.0.1:1").await.unwrap_err();
    assert!(matches!(wrong, ServerError::Endpoint(_)), "{wrong}");
}

#[tokio::test]
async fn a_socket_that_somebody_put_in_its_place_is_not_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("csi.sock");
    let running = Running::start(path.to_str().unwrap(), identity(), LONG).await;
    fs::rename(&path, directory.path().join("ours.sock")).unwrap();
    let _theirs = StdListener::bind(&path).unwrap();
    running.stop().await;
    assert!(path.exists());
}

#[tokio::test]
async fn a_call_in_flight_is_answered_during_shutdown() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("csi.sock");
    let slow = Slow::new();
    let running = Running::start(path.to_str().unwrap(), slow.clone(), LONG).await;
    let mut client = IdentityClient::new(client::connect(path.to_str().unwrap()).await.unwrap());
    let call = tokio::spawn(async move { client.probe(ProbeRequest {}).await });
    slow.entered.acquire().await.unwrap().forget();

    running.stop.send(()).unwrap();
    // The socket vanishes while the call is still in flight.
    tokio::time::timeout(LONG, async {
        while path.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert!(!call.is_finished() && !running.ended.is_finished());
    slow.leave.add_permits(1);
    assert_eq!(call.await.unwrap().unwrap().into_inner().ready, Some(true));
    assert_eq!(running.ended.await.unwrap().unwrap(), Ended::Drained);
}

#[tokio::test]
async fn a_call_that_never_ends_does_not_keep_the_plugin_from_ending() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("csi.sock");
    let slow = Slow::new();
    let running = Running::start(path.to_str().unwrap(), slow.clone(), Duration::from_millis(20)).await;
    let mut client = IdentityClient::new(client::connect(path.to_str().unwrap()).await.unwrap());
    let _call = tokio::spawn(async move { client.probe(ProbeRequest {}).await });
    slow.entered.acquire().await.unwrap().forget();
    assert_eq!(tokio::time::timeout(LONG, running.stop()).await.unwrap(), Ended::CutShort);
    assert!(!path.exists());
}

#[tokio::test]
async fn both_signals_end_the_service() {
    use nix::sys::signal::{Signal, raise};
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let told = termination().unwrap();
        raise(signal).unwrap();
        tokio::time::timeout(LONG, told).await.unwrap();
    }
}

#[tokio::test]
async fn a_service_without_a_method_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("csi.sock");
    let running = Running::start(path.to_str().unwrap(), Slow::new(), LONG).await;
    let mut client = IdentityClient::new(client::connect(path.to_str().unwrap()).await.unwrap());
    let status = client.get_plugin_info(GetPluginInfoRequest {}).await.unwrap_err();
    assert_eq!((status.code(), status.details()), (Code::Unimplemented, &b""[..]));
    drop(client);
    running.stop().await;
}

// ------------------------------------------------------------ clients that no Rust crate would be

const HEADERS: u8 = 1;
const DATA: u8 = 0;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, stream];
    frame.extend_from_slice(payload);
    frame
}

/// A call of `GetPluginInfo` on an open connection, with this header field as authority. Answers the plugin's name, or
/// the type of the frame that ended the stream instead.
async fn call_raw(connection: &mut UnixStream, stream: u8, authority: &[u8]) -> Result<String, u8> {
    let path = b"/csi.v1.Identity/GetPluginInfo";
    let headers = [
        &b"\x83\x86\x04"[..],
        &[u8::try_from(path.len()).unwrap()],
        path,
        authority,
        b"\x0f\x10\x10application/grpc",
        b"\x40\x02te\x08trailers",
    ]
    .concat();
    connection.write_all(&frame(HEADERS, 0x4, stream, &headers)).await.unwrap();
    connection.write_all(&frame(DATA, 0x1, stream, &[0; 5])).await.unwrap();
    loop {
        let mut head = [0; 9];
        connection.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        connection.read_exact(&mut payload).await.unwrap();
        match (head[3], head[8]) {
            (DATA, of) if of == stream && payload.len() > 5 => {
                return Ok(GetPluginInfoResponse::decode(&payload[5..]).unwrap().name);
            }
            (kind @ (3 | 7), _) => return Err(kind),
            _ => {}
        }
    }
}

async fn connect_raw(path: &Path) -> UnixStream {
    let mut connection = UnixStream::connect(path).await.unwrap();
    connection.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    connection.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    connection
}

fn text(field: &[u8], value: &[u8]) -> Vec<u8> {
    [field, &[u8::try_from(value.len()).unwrap()], value].concat()
}

#[tokio::test]
async fn the_path_of_the_socket_is_accepted_as_authority() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("csi.sock");
    let running = Running::start(path.to_str().unwrap(), identity(), LONG).await;
    let mut connections = Vec::new();
    for authority in [
        // Old grpc-go and grpc-java; indexed, not indexed, never indexed.
        text(b"\x41", b"/csi/csi.sock"),
        text(b"\x01", b"/csi/csi.sock"),
        text(b"\x11", b"/csi/csi.sock"),
        // The C core, which spells the name out.
        text(b"\x40\x0a:authority", b"%2Fcsi%2Fcsi.sock"),
        text(b"\x40\x88\xb8\x3b\x53\x39\xec\x32\x7d\x7f", b"/csi/csi.sock"),
        // "/a.sock" in Huffman code.
        b"\x41\x85\x60\x6b\xa0\xe4\xeb".to_vec(),
        // And a proper one.
        text(b"\x41", b"localhost"),
    ] {
        let mut connection = connect_raw(&path).await;
        let name = tokio::time::timeout(LONG, call_raw(&mut connection, 1, &authority)).await.unwrap();
        assert_eq!(name.as_deref(), Ok("csi.modelmount.io"), "{authority:?}");
        connections.push(connection);
    }

    // The second call refers to the first one's header by number: both ends must count alike. (62 is the newest entry,
    // "te"; the authority came before.)
    let mut connection = connections.swap_remove(0);
    assert_eq!(call_raw(&mut connection, 3, b"\xbf").await.as_deref(), Ok("csi.modelmount.io"));
    drop((connection, connections));
    running.stop().await;
}

#[tokio::test]
async fn without_the_leniency_such_a_call_would_fail() {
    // Should this test fail, `h2` has become lenient, and `server/authority.rs` can go.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("csi.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let router = tonic::transport::Server::builder().add_service(IdentityServer::new(identity()));
    let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
    let server = tokio::spawn(router.serve_with_incoming(incoming));
    let mut connection = connect_raw(&path).await;
    let refused = tokio::time::timeout(LONG, call_raw(&mut connection, 1, &text(b"\x41", b"/csi/csi.sock"))).await;
    assert_eq!(refused.unwrap(), Err(3));
    server.abort();
}
