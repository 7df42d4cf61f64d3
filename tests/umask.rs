//! The umask belongs to the whole process, so this test has a process of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use modelmount_driver::server::Server;

#[tokio::test]
async fn the_mode_of_the_socket_does_not_depend_on_the_umask() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("csi.sock");
    for umask in [0o000, 0o777, 0o022] {
        let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(umask));
        let server = Server::bind(path.to_str().unwrap()).await;
        nix::sys::stat::umask(before);
        drop(server.unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o660, "umask {umask:o}");
    }
}
