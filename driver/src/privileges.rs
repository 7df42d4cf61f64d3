//! Gives up every privilege that the node plugin does not need.
//!
//! Kubernetes lets a container's mounts be seen by the node only if it is privileged, and then it has all capabilities,
//! whatever the pod asks for. So the plugin drops them itself: all but the right to mount, and the right to read other
//! users' files where the operator has allowed directories of the node (`capabilities(7)`).

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// Drops what is not needed, for good. To be called before any thread is started: capabilities are each thread's own,
/// and a thread has those of the one that starts it.
///
/// # Errors
/// None that a kernel of our time gives.
pub fn drop_unneeded(reads_node_files: bool) -> io::Result<()> {
    let mut needed = CapabilitySet::SYS_ADMIN;
    if reads_node_files {
        needed |= CapabilitySet::DAC_READ_SEARCH;
    }
    let kept = capabilities(None)?.permitted & needed;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}
