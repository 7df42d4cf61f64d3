//! The kernel's table of mounts: `/proc/thread-self/mountinfo`, described in proc_pid_mountinfo(5).
//!
//! The parser is pure and never panics: a line that it can't read is left out. It changes nothing on the system.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

// Not /proc/self: that is the main thread's table, which differs for a thread in a mount namespace of its own.
const MOUNTINFO: &str = "/proc/thread-self/mountinfo";

/// One mount of this mount namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mount {
    /// Identifies the mount while it exists; reused afterwards.
    pub id: u64,
    /// The mount on which this one is mounted.
    pub parent: u64,
    /// Major and minor number of the file system's device.
    pub device: (u32, u32),
    /// The directory of the file system that is shown, as a path inside that file system. `//deleted` is appended by
    /// the kernel when that directory was removed.
    pub root: PathBuf,
    /// Where it is shown, as a path from this process's root.
    pub mount_point: PathBuf,
    /// Whether this mount refuses writes (its file system may be writable elsewhere).
    pub read_only: bool,
    /// Whether set-user-id bits are ignored.
    pub no_suid: bool,
    /// Whether device nodes are ignored.
    pub no_dev: bool,
    /// Whether programs can't be executed.
    pub no_exec: bool,
    /// The file system's type, for instance `ext4`.
    pub fs_type: String,
}

/// Reads the table of mounts of the calling thread's mount namespace.
///
/// The kernel hands the table out page by page. Before Linux 5.8 a mount could be left out when another one vanished
/// between two pages; whoever concludes something from an absence reads it with [`read_settled`].
pub fn read() -> io::Result<Vec<Mount>> {
    fs::read(MOUNTINFO).map(|table| parse(&table))
}

/// Like [`read`], but reads until two passes agree, or ten times on a machine on which mounts never cease to change.
pub fn read_settled() -> io::Result<Vec<Mount>> {
    let mut before = fs::read(MOUNTINFO)?;
    for _ in 0..10 {
        let now = fs::read(MOUNTINFO)?;
        if now == before {
            break;
        }
        before = now;
    }
    Ok(parse(&before))
}

/// Parses a whole table. Lines that are not understood are left out.
pub fn parse(table: &[u8]) -> Vec<Mount> {
    table.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

// 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let (major, minor) = std::str::from_utf8(fields.next()?).ok()?.split_once(':')?;
    let device = (number(major.as_bytes())?, number(minor.as_bytes())?);
    let root = path(fields.next()?)?;
    let mount_point = path(fields.next()?)?;
    let options = fields.next()?;
    // Any number of optional fields, ended by a single hyphen.
    fields.find(|field| *field == b"-")?;
    let fs_type = String::from_utf8_lossy(&unescape(fields.next()?)).into_owned();
    if fs_type.is_empty() {
        return None;
    }
    let has = |name: &[u8]| options.split(|&byte| byte == b',').any(|option| option == name);
    Some(Mount {
        id,
        parent,
        device,
        root,
        mount_point,
        read_only: has(b"ro"),
        no_suid: has(b"nosuid"),
        no_dev: has(b"nodev"),
        no_exec: has(b"noexec"),
        fs_type,
    })
}

fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    // `parse` would accept a sign.
    digits.first()?.is_ascii_digit().then_some(())?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn path(field: &[u8]) -> Option<PathBuf> {
    (!field.is_empty()).then(|| PathBuf::from(OsString::from_vec(unescape(field))))
}

/// Undoes the kernel's `\ooo`, with which it writes space, tab, newline, backslash and hash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                plain.push(first);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_the_manual_page_is_understood() {
        let table = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue\n";
        let expected = Mount {
            id: 36,
            parent: 35,
            device: (98, 0),
            root: "/mnt1".into(),
            mount_point: "/mnt2".into(),
            read_only: false,
            no_suid: false,
            no_dev: false,
            no_exec: false,
            fs_type: "ext3".into(),
        };
        assert_eq!(parse(table), [expected]);
    }

    #[test]
    fn flags_are_those_of_the_mount_and_not_those_of_its_file_system() {
        let mounts = parse(
            b"1 0 8:1 / /a ro,nosuid,nodev,noexec - ext4 /dev/sda1 rw\n2 0 8:1 / /b rw,relatime - ext4 /dev/sda1 ro\n",
        );
        assert!(mounts[0].read_only && mounts[0].no_suid && mounts[0].no_dev && mounts[0].no_exec);
        assert!(!mounts[1].read_only && !mounts[1].no_suid && !mounts[1].no_dev && !mounts[1].no_exec);
    }

    #[test]
    fn a_file_system_without_optional_fields_or_source_is_understood() {
        let mounts = parse(b"7 1 0:40 / /run rw - tmpfs  rw,size=4k\n");
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].fs_type, "tmpfs");
    }

    #[test]
    fn escapes_are_undone_once() {
        let mounts = parse(b"7 1 0:40 /a\\040b /c\\012d\\134040e rw - tmpfs none rw\n");
        assert_eq!(mounts[0].root.as_os_str(), "/a b");
        assert_eq!(mounts[0].mount_point.as_os_str(), "/c\nd\\040e");
        assert_eq!(unescape(b"\\777\\08\\"), b"\\777\\08\\");
    }

    #[test]
    fn a_line_that_is_not_understood_hides_no_other() {
        let mounts = parse(b"garbage\n7 1 0:40 / /run rw - tmpfs none rw\n8 +1 0:40 / /x rw - tmpfs none rw\n9 1 0:4");
        assert_eq!(mounts.iter().map(|mount| mount.id).collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn the_own_table_has_a_root() {
        assert!(read().unwrap().iter().any(|mount| mount.mount_point.as_os_str() == "/"));
        assert!(read_settled().unwrap().iter().any(|mount| mount.mount_point.as_os_str() == "/"));
    }

    // As the kernel does it: seq_path(…, " \t\n\\").
    fn escape(name: &[u8]) -> Vec<u8> {
        name.iter()
            .flat_map(|&byte| match byte {
                b' ' | b'\t' | b'\n' | b'\\' | b'#' => format!("\\{byte:03o}").into_bytes(),
                _ => vec![byte],
            })
            .collect()
    }

    proptest! {
        #[test]
        fn odd_input_never_panics(table in prop::collection::vec(any::<u8>(), 0..400)) {
            parse(&table);
        }

        #[test]
        fn nearly_right_input_never_panics(table in "[0-9:/ ,\\\\a-z\n-]{0,200}") {
            parse(table.as_bytes());
        }

        #[test]
        fn every_name_survives_the_round_trip(name in prop::collection::vec(1..=255u8, 1..60)) {
            let mut line = b"36 35 98:0 / /".to_vec();
            line.extend(escape(&name));
            line.extend(b" rw shared:1 - ext4 /dev/vda rw\n");
            let mounts = parse(&line);
            prop_assert_eq!(mounts.len(), 1);
            prop_assert_eq!(&mounts[0].mount_point.as_os_str().as_bytes()[1..], &name[..]);
        }
    }
}
