//! How the address of a plugin's socket is written: `unix:///csi/csi.sock`, or just the path.
//!
//! Pure: looks at the text and never at the disk.

use std::path::{Path, PathBuf};

/// The address is not that of a plugin's socket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("endpoint {endpoint:?} is refused: {reason}; write it like unix:///csi/csi.sock")]
pub struct EndpointError {
    endpoint: String,
    reason: &'static str,
}

/// The absolute path of the socket that `endpoint` names. As the specification demands, it must end in `.sock`.
pub fn socket_path(endpoint: &str) -> Result<PathBuf, EndpointError> {
    let refused = |reason| EndpointError { endpoint: endpoint.to_owned(), reason };
    let path = match endpoint.strip_prefix("unix://").or_else(|| endpoint.strip_prefix("unix:")) {
        Some(path) => path,
        None if endpoint.contains("://") => return Err(refused("only unix sockets are served")),
        None => endpoint,
    };
    if path.contains('\0') {
        return Err(refused("it contains a NUL character"));
    }
    if !path.starts_with('/') {
        return Err(refused("the path must be absolute"));
    }
    let name = Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !path.ends_with(".sock") || name == ".sock" {
        return Err(refused("the socket's name must end in \".sock\""));
    }
    Ok(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_understood_in_every_usual_spelling() {
        for endpoint in ["unix:///csi/csi.sock", "unix:/csi/csi.sock", "/csi/csi.sock"] {
            assert_eq!(socket_path(endpoint), Ok("/csi/csi.sock".into()));
        }
        assert_eq!(socket_path("unix:///a b/ü%20.sock"), Ok("/a b/ü%20.sock".into()));
    }

    #[test]
    fn everything_else_is_refused_with_an_example() {
        for endpoint in [
            "",
            "unix://",
            "csi.sock",
            "unix://csi.sock",
            "tcp://127.0.0.1:10000",
            "http://x/csi.sock",
            "/csi/csi.socket",
            "/csi/csi",
            "/csi/.sock",
            "/csi/csi.sock/",
            "/csi\0/csi.sock",
        ] {
            let error = socket_path(endpoint).expect_err(endpoint).to_string();
            assert!(error.contains("unix:///csi/csi.sock"), "{error}");
        }
    }
}
