//! Which volume capabilities this plugin has: file systems, mounted read-only, on any number of nodes.
//!
//! Node and controller share this check, so that a claim that the controller accepts never fails on a node for it.
//! Mount flags may be sensitive according to the specification, so no message repeats one.

use tonic::Status;

use crate::csi::VolumeCapability;
use crate::csi::volume_capability::AccessType;
use crate::csi::volume_capability::access_mode::Mode;
use crate::mount::MountOptions;

/// Checks one capability, and says how to mount for it. The volume is mounted read-only whatever it asks for.
///
/// Errors: `INVALID_ARGUMENT`, with a sentence that says what to write instead.
pub fn check(capability: &VolumeCapability) -> Result<MountOptions, Status> {
    check_access_mode(capability)?;
    let mount = match &capability.access_type {
        Some(AccessType::Mount(mount)) => mount,
        Some(AccessType::Block(_)) => {
            return Err(refused("a model can't be a block device: use volumeMode: Filesystem"));
        }
        None => return Err(refused("the volume capability has no access type: mount is required")),
    };
    if !mount.volume_mount_group.is_empty() {
        return Err(refused("a volume mount group can't be applied: all pods of a node share the model's files"));
    }
    options(&mount.mount_flags)
}

/// Checks all capabilities of a request, of which there must be one.
pub fn check_all(capabilities: &[VolumeCapability]) -> Result<(), Status> {
    if capabilities.is_empty() {
        return Err(refused("volume capabilities are required"));
    }
    capabilities.iter().try_for_each(|capability| check(capability).map(drop))
}

fn check_access_mode(capability: &VolumeCapability) -> Result<(), Status> {
    let Some(mode) = &capability.access_mode else {
        return Err(refused("the volume capability has no access mode: use ReadOnlyMany"));
    };
    match Mode::try_from(mode.mode) {
        // Kubelet says "single node writer" for every inline volume, and for ReadWriteOnce: the pod's writes fail, but
        // nobody else's view depends on them.
        Ok(
            Mode::SingleNodeWriter
            | Mode::SingleNodeReaderOnly
            | Mode::MultiNodeReaderOnly
            | Mode::SingleNodeSingleWriter
            | Mode::SingleNodeMultiWriter,
        ) => Ok(()),
        Ok(Mode::MultiNodeSingleWriter | Mode::MultiNodeMultiWriter) => {
            Err(refused("a model is read-only and can't be written from several nodes: use access mode ReadOnlyMany"))
        }
        Ok(Mode::Unknown) | Err(_) => Err(refused("the access mode is unknown: use ReadOnlyMany")),
    }
}

fn options(flags: &[String]) -> Result<MountOptions, Status> {
    let mut options = MountOptions::default();
    // One flag may hold several, as on mount(8)'s command line; of two that contradict each other the last one counts.
    for flag in flags.iter().flat_map(|flags| flags.split(',')).map(str::trim) {
        match flag {
            "ro" | "nosuid" | "nodev" => {}
            "noexec" => options.no_exec = true,
            "noatime" => options.no_atime = true,
            "relatime" => options.no_atime = false,
            _ => {
                return Err(refused(
                    "a mount option is not supported: only ro, nosuid, nodev, noexec, noatime and relatime are",
                ));
            }
        }
    }
    Ok(options)
}

fn refused(sentence: &'static str) -> Status {
    Status::invalid_argument(sentence)
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::csi::volume_capability::{AccessMode, BlockVolume, MountVolume};

    fn mount(mode: i32, flags: &[&str]) -> VolumeCapability {
        let mount_flags = flags.iter().map(ToString::to_string).collect();
        VolumeCapability {
            access_mode: Some(AccessMode { mode }),
            access_type: Some(AccessType::Mount(MountVolume { mount_flags, ..Default::default() })),
        }
    }

    fn refusal(capability: &VolumeCapability) -> String {
        let status = check(capability).expect_err("must be refused");
        assert_eq!(status.code(), Code::InvalidArgument);
        status.message().to_owned()
    }

    #[test]
    fn access_modes_without_a_second_writer_are_fine() {
        // By number: a new mode of a later specification must be looked at, and not be accepted by accident.
        let accepted: Vec<i32> = (-1..20).filter(|mode| check(&mount(*mode, &[])).is_ok()).collect();
        assert_eq!(accepted, [1, 2, 3, 6, 7]);
        for mode in [0, 4, 5, 8] {
            assert!(refusal(&mount(mode, &[])).contains("ReadOnlyMany"));
        }
        assert!(refusal(&VolumeCapability { access_mode: None, ..mount(1, &[]) }).contains("ReadOnlyMany"));
    }

    #[test]
    fn only_file_systems_are_served() {
        let block = VolumeCapability { access_type: Some(AccessType::Block(BlockVolume {})), ..mount(3, &[]) };
        assert!(refusal(&block).contains("Filesystem"));
        assert!(refusal(&VolumeCapability { access_type: None, ..mount(3, &[]) }).contains("required"));
    }

    #[test]
    fn a_file_system_type_is_ignored_and_a_mount_group_is_not() {
        let with =
            |volume: MountVolume| VolumeCapability { access_type: Some(AccessType::Mount(volume)), ..mount(3, &[]) };
        check(&with(MountVolume { fs_type: "ext4".into(), ..Default::default() })).unwrap();
        let group = with(MountVolume { volume_mount_group: "1000".into(), ..Default::default() });
        assert!(refusal(&group).contains("group"));
    }

    #[test]
    fn mount_flags_that_keep_the_volume_safe_are_understood() {
        let of = |flags: &[&str]| check(&mount(3, flags)).unwrap();
        assert_eq!(of(&[]), MountOptions::default());
        assert_eq!(of(&["ro", "nosuid", "nodev", "relatime"]), MountOptions::default());
        assert_eq!(of(&["noexec,noatime"]), MountOptions { no_exec: true, no_atime: true });
        assert_eq!(of(&["noatime", "relatime"]), MountOptions::default());
    }

    #[test]
    fn every_other_mount_flag_is_refused_without_being_repeated() {
        for flag in ["rw", "suid", "dev", "exec", "bind", "", "RO", "ro,rw", "password=secret", "context=x"] {
            let message = refusal(&mount(3, &["ro", flag]));
            assert!(!message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn every_capability_of_a_list_must_be_supported() {
        assert_eq!(check_all(&[]).unwrap_err().code(), Code::InvalidArgument);
        check_all(&[mount(1, &[]), mount(3, &[])]).unwrap();
        assert_eq!(check_all(&[mount(1, &[]), mount(5, &[])]).unwrap_err().code(), Code::InvalidArgument);
    }
}
