//! The label of the cache. That SELinux honours it can only be seen where SELinux is; that it is set, anywhere.

use std::fs;
use std::path::Path;

use rustix::fs::lgetxattr;

use crate::harness::Plugin;

const LABEL: &str = "system_u:object_r:container_file_t:s0";

fn label(path: &Path) -> Option<String> {
    let mut buffer = [0; 256];
    let length = lgetxattr(path, "security.selinux", &mut buffer).ok()?;
    Some(String::from_utf8(buffer[..length].to_vec()).unwrap().trim_end_matches('\0').to_owned())
}

#[tokio::test]
async fn privileged_a_new_cache_and_one_that_was_there_get_the_label() {
    let fresh = Plugin::start(&["--selinux-label", LABEL]).await;
    assert_eq!(label(&fresh.cache()).as_deref(), Some(LABEL));

    let mut plugin = Plugin::start(&[]).await;
    let blob = plugin.cache().join("blobs/sha256/ab");
    fs::create_dir(&blob).unwrap();
    assert_ne!(label(&plugin.cache()).as_deref(), Some(LABEL));
    plugin.add_arguments(&["--selinux-label", LABEL]);
    plugin.restart().await;
    for path in [plugin.cache(), blob, plugin.cache().join("lock")] {
        assert_eq!(label(&path).as_deref(), Some(LABEL), "{path:?}");
    }
}
