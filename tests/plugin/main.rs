//! The plugin, as kubelet sees it: the real binary, its socket, real mounts, real servers.
