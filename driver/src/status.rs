//! One table from what went wrong to the gRPC code that kubelet and the provisioner act on.
//!
//! The code decides what kubelet does next: after a *final* one it never unpublishes the volume, so whoever returns
//! one must have rolled everything back ([`is_final`]). `details` stays empty, as the specification demands. Nothing
//! here knows an RPC.

use std::error::Error as StdError;

use modelmount::ErrorKind;
use tonic::{Code, Status};

use crate::mount::MountError;

/// Longest message of a status, in bytes. Kubelet puts it into an event, which the API server cuts at 1 KiB.
pub const MAX_MESSAGE: usize = 1024;

/// The code for an error of the library.
pub fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
        ErrorKind::FailedPrecondition => Code::FailedPrecondition,
        // Corrupt bytes are discarded and fetched again by the next attempt, which kubelet must therefore make.
        ErrorKind::Unavailable | ErrorKind::Corrupt => Code::Unavailable,
        ErrorKind::ResourceExhausted => Code::ResourceExhausted,
        ErrorKind::Changed | ErrorKind::Cancelled => Code::Aborted,
        ErrorKind::RangesUnsupported | ErrorKind::Io | ErrorKind::Internal => Code::Internal,
        // The enum is open; a kind that this table does not know is a defect of this plugin.
        _ => Code::Internal,
    }
}

/// The code for an error of mounting.
pub fn mount_code(error: &MountError) -> Code {
    match error {
        MountError::InvalidTarget { .. } => Code::InvalidArgument,
        MountError::MissingParent { .. }
        | MountError::NotDirectory { .. }
        | MountError::NotEmpty { .. }
        | MountError::Unsupported { .. } => Code::FailedPrecondition,
        MountError::AlreadyMounted { .. } => Code::AlreadyExists,
        // Both end by themselves: a user goes away, or the next publish brings the snapshot back.
        MountError::Busy { .. } | MountError::MissingTree { .. } => Code::Unavailable,
        MountError::Io { source, .. } => match source.raw_os_error() {
            // ENOSPC: also when the limit on mounts (fs.mount-max) is reached.
            Some(libc::ENOSPC | libc::EDQUOT | libc::ENOMEM | libc::EMFILE | libc::ENFILE) => Code::ResourceExhausted,
            _ => Code::Internal,
        },
    }
}

/// The status for an error of the library: its code, and its whole chain as one line.
pub fn status(error: &modelmount::Error) -> Status {
    Status::new(code(error.kind()), message(&error.report()))
}

impl From<MountError> for Status {
    fn from(error: MountError) -> Self {
        Self::new(mount_code(&error), message(&with_cause(&error)))
    }
}

/// An error and what lies at its bottom, in one line: the layers between say things like "transport error".
pub fn with_cause(error: &(dyn StdError + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    let cause = causes.last().map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

/// Whether kubelet takes the code as the end of the matter: it then forgets the volume without unpublishing it.
///
/// Source: `isFinalError` in Kubernetes' `pkg/volume/csi/csi_client.go`.
pub fn is_final(code: Code) -> bool {
    !matches!(
        code,
        Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable | Code::ResourceExhausted | Code::Aborted
    )
}

/// What may stand in a status: one line without control characters, at most [`MAX_MESSAGE`] bytes.
///
/// Parts of the text come from servers and from users: none of it may break out of the line of a log or a terminal.
pub fn message(text: &str) -> String {
    let mut clean = String::with_capacity(text.len().min(MAX_MESSAGE));
    for character in text.chars() {
        // A line break between two words would otherwise glue them together.
        let character = if matches!(character, '\n' | '\r' | '\t') { ' ' } else { character };
        if character.is_control() {
            continue;
        }
        if clean.len() + character.len_utf8() > MAX_MESSAGE {
            break;
        }
        clean.push(character);
    }
    clean
}

#[cfg(test)]
mod tests {
    use std::io;

    use modelmount::Error;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_has_the_code_that_makes_kubelet_do_the_right_thing() {
        let table = [
            (ErrorKind::InvalidArgument, Code::InvalidArgument, true),
            (ErrorKind::NotFound, Code::NotFound, true),
            (ErrorKind::Unauthenticated, Code::Unauthenticated, true),
            (ErrorKind::PermissionDenied, Code::PermissionDenied, true),
            (ErrorKind::FailedPrecondition, Code::FailedPrecondition, true),
            (ErrorKind::Unavailable, Code::Unavailable, false),
            (ErrorKind::ResourceExhausted, Code::ResourceExhausted, false),
            (ErrorKind::Changed, Code::Aborted, false),
            (ErrorKind::Corrupt, Code::Unavailable, false),
            (ErrorKind::RangesUnsupported, Code::Internal, true),
            (ErrorKind::Cancelled, Code::Aborted, false),
            (ErrorKind::Io, Code::Internal, true),
            (ErrorKind::Internal, Code::Internal, true),
        ];
        for (kind, expected, last) in table {
            let status = status(&Error::new(kind, "context"));
            assert_eq!((status.code(), is_final(status.code())), (expected, last), "{kind:?}");
            assert_eq!((status.message(), status.details()), ("context", &b""[..]));
            // The library and kubelet agree on what is worth another attempt.
            assert_eq!(kind.is_transient(), !last, "{kind:?}");
        }
    }

    #[test]
    fn kubelets_list_of_codes_that_are_not_final_is_complete() {
        let transient: Vec<_> = (0..=16).map(Code::from).filter(|code| !is_final(*code)).collect();
        let expected =
            [Code::Cancelled, Code::DeadlineExceeded, Code::ResourceExhausted, Code::Aborted, Code::Unavailable];
        assert_eq!(transient, expected);
    }

    #[test]
    fn every_error_of_mounting_has_a_code() {
        let path = || "/var/lib/kubelet/x".to_owned();
        let io = |code| MountError::Io { action: "mount".into(), source: io::Error::from_raw_os_error(code) };
        let table = [
            (MountError::InvalidTarget { path: path(), reason: "r" }, Code::InvalidArgument),
            (MountError::MissingParent { path: path() }, Code::FailedPrecondition),
            (MountError::NotDirectory { path: path() }, Code::FailedPrecondition),
            (MountError::NotEmpty { path: path() }, Code::FailedPrecondition),
            (MountError::AlreadyMounted { path: path() }, Code::AlreadyExists),
            (MountError::Busy { path: path() }, Code::Unavailable),
            (MountError::MissingTree { tree: path().into() }, Code::Unavailable),
            (MountError::Unsupported { reason: "r" }, Code::FailedPrecondition),
            (io(libc::EIO), Code::Internal),
            (io(libc::ENOSPC), Code::ResourceExhausted),
        ];
        for (error, expected) in table {
            let text = error.to_string();
            let status = Status::from(error);
            assert_eq!(status.code(), expected, "{text}");
            assert!(status.message().starts_with(&text) && status.details().is_empty());
        }
        assert_eq!(Status::from(io(libc::EIO)).message(), "can't mount: Input/output error (os error 5)");
    }

    #[test]
    fn the_whole_chain_is_told_in_one_plain_line() {
        let inner = io::Error::other("line\nbreak \u{1b}[31mred\u{7f}\u{85}");
        let status = status(&Error::io("can't read", inner));
        assert_eq!(status.message(), "can't read: line break [31mred");
    }

    proptest! {
        #[test]
        fn any_text_becomes_a_short_plain_line(text in "(\\PC|[\\x00-\\x20\u{7f}-\u{9f}ä模🦀]){0,1200}") {
            let message = message(&text);
            prop_assert!(message.len() <= MAX_MESSAGE && !message.contains(char::is_control));
            let whole: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t')).collect();
            // Nothing but control characters is lost, unless the line is too long; then nothing that had fitted is.
            prop_assert!(message.chars().count() == whole.chars().count() || message.len() > MAX_MESSAGE - 4);
        }
    }
}
