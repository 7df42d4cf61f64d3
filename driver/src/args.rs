//! The command line: every flag is also an environment variable, `MODELMOUNT_` and the flag's name.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use modelmount::cache::KeepFree;
use modelmount::policy::Cidr;
use modelmount::size::parse_size;
use modelmount::source::RegistryMirror;
use modelmount::{Limits, ModelUri};

use crate::http_server::ListenAddress;

/// Turns a model URI into a read-only volume.
#[derive(Debug, Parser)]
#[command(name = "modelmount", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How logs are written.
    #[command(flatten)]
    pub log: Log,
}

/// How logs are written, to standard error.
#[derive(Clone, Debug, Args)]
pub struct Log {
    /// What to log: error, warn, info, debug, trace, or a filter such as info,modelmount=debug
    // object_store tells of every request that it repeats; what comes of it is told anyway.
    #[arg(
        long,
        global = true,
        env = "MODELMOUNT_LOG_LEVEL",
        default_value = "info,object_store=warn",
        value_name = "LEVEL"
    )]
    pub log_level: String,
    /// Form of the log
    #[arg(long, global = true, env = "MODELMOUNT_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the CSI node plugin
    Node(Node),
    /// Serve the CSI controller
    Controller(Controller),
    /// Download models into directories, without Kubernetes
    Pull(Pull),
    /// Show what a URI stands for: files, sizes, versions, without downloading
    Resolve(Resolve),
    /// Hash a directory as the attribute `digest` wants it
    Digest(Digest),
    /// Mount a model through a node plugin's socket
    Mount(Mount),
    /// Unmount what `mount` mounted
    Unmount(Unmount),
    /// Look into a cache, or remove it
    #[command(subcommand)]
    Cache(CacheCommand),
}

/// `modelmount node`
#[derive(Debug, Args)]
pub struct Node {
    /// Socket to serve on, for instance unix:///csi/csi.sock
    #[arg(long, env = "MODELMOUNT_ENDPOINT", value_name = "URL")]
    pub endpoint: String,
    /// Name of this node, as Kubernetes knows it
    #[arg(long, env = "MODELMOUNT_NODE_ID", value_name = "NAME", value_parser = node_id)]
    pub node_id: String,
    /// Directory of the cache
    #[arg(long, env = "MODELMOUNT_CACHE_DIR", value_name = "DIR", default_value = "/var/lib/modelmount")]
    pub cache_dir: PathBuf,
    /// Kubelet's directory; volumes are mounted below it and nowhere else
    #[arg(long, env = "MODELMOUNT_KUBELET_DIR", value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub kubelet_dir: PathBuf,
    /// Name of the CSI driver
    #[arg(long, env = "MODELMOUNT_DRIVER_NAME", value_name = "NAME", default_value = DRIVER_NAME,
          value_parser = driver_name)]
    pub driver_name: String,
    /// Kubelet's plugins_registry: register the plugin there; otherwise node-driver-registrar has to
    #[arg(long, env = "MODELMOUNT_REGISTRATION_DIR", value_name = "DIR")]
    pub registration_dir: Option<PathBuf>,
    /// Serve the controller on the same socket
    #[arg(long, env = "MODELMOUNT_WITH_CONTROLLER")]
    pub with_controller: bool,
    /// Where models may come from.
    #[command(flatten)]
    pub reach: Reach,
    /// Directory that file:// may read; repeatable; none by default
    #[arg(long, env = "MODELMOUNT_ALLOW_FILE_ROOT", value_name = "DIR", value_delimiter = ',')]
    pub allow_file_root: Vec<PathBuf>,
    /// Take the taint modelmount.io/agent-not-ready off this node as soon as kubelet knows the plugin
    #[arg(long, env = "MODELMOUNT_REMOVE_STARTUP_TAINT")]
    pub remove_startup_taint: bool,
    /// What downloads leave free on the cache's file system: a share (10%) or a size (20GiB)
    #[arg(long, env = "MODELMOUNT_KEEP_FREE", value_name = "SHARE", default_value = "10%")]
    pub keep_free: KeepFree,
    /// SELinux label of the cache directory, so that confined pods may read models, for instance
    /// system_u:object_r:container_file_t:s0
    #[arg(long, env = "MODELMOUNT_SELINUX_LABEL", value_name = "LABEL", value_parser = selinux_label)]
    pub selinux_label: Option<String>,
    /// How much is fetched at a time.
    #[command(flatten)]
    pub fetch: Fetch,
    /// Whom to trust.
    #[command(flatten)]
    pub trust: Trust,
    /// Where it can be watched.
    #[command(flatten)]
    pub ports: Ports,
}

/// `modelmount controller`
#[derive(Debug, Args)]
pub struct Controller {
    /// Socket to serve on, for instance unix:///csi/csi.sock
    #[arg(long, env = "MODELMOUNT_ENDPOINT", value_name = "URL")]
    pub endpoint: String,
    /// Name of the CSI driver
    #[arg(long, env = "MODELMOUNT_DRIVER_NAME", value_name = "NAME", default_value = DRIVER_NAME,
          value_parser = driver_name)]
    pub driver_name: String,
    /// Where models may come from.
    #[command(flatten)]
    pub reach: Reach,
    /// Whom sources may be signed by.
    #[command(flatten)]
    pub trust: Trust,
    /// Where it can be watched.
    #[command(flatten)]
    pub ports: Ports,
}

/// Where models may come from, beyond what everybody may reach.
#[derive(Clone, Debug, Args)]
pub struct Reach {
    /// Loopback, link-local or cloud metadata addresses that models may come from, for instance 127.0.0.0/8; repeatable
    #[arg(long, env = "MODELMOUNT_ALLOW_ADDRESS", value_name = "CIDR", value_delimiter = ',')]
    pub allow_address: Vec<Cidr>,
    /// Registry that may be spoken to without TLS, a host or host:port; repeatable
    #[arg(long, env = "MODELMOUNT_ALLOW_PLAIN_HTTP", value_name = "REGISTRY", value_delimiter = ',')]
    pub allow_plain_http: Vec<String>,
    /// Server that may serve a registry's content in its place, for instance docker.io=http://127.0.0.1:30020, or
    /// *=URL for all registries; repeatable, asked in this order
    #[arg(long, env = "MODELMOUNT_REGISTRY_MIRROR", value_name = "REGISTRY=URL", value_delimiter = ',')]
    pub registry_mirror: Vec<RegistryMirror>,
    /// The same for a mirror that is also believed about tags and asked instead of the registry who may read
    #[arg(long, env = "MODELMOUNT_RESOLVING_REGISTRY_MIRROR", value_name = "REGISTRY=URL", value_delimiter = ',')]
    pub resolving_registry_mirror: Vec<RegistryMirror>,
}

/// Where a plugin can be watched, besides its socket.
#[derive(Clone, Copy, Debug, Args)]
pub struct Ports {
    /// Serve /healthz and /readyz there, for instance :9808 or 127.0.0.1:9808
    #[arg(long, env = "MODELMOUNT_HEALTH_ADDRESS", value_name = "ADDRESS")]
    pub health_address: Option<ListenAddress>,
    /// Serve /metrics for Prometheus there, for instance :9809
    #[arg(long, env = "MODELMOUNT_METRICS_ADDRESS", value_name = "ADDRESS")]
    pub metrics_address: Option<ListenAddress>,
}

/// Whom to trust.
#[derive(Clone, Debug, Args)]
pub struct Trust {
    /// PEM file with certificates of authorities to trust besides the system's; repeatable
    #[arg(long, env = "MODELMOUNT_CA_FILE", value_name = "FILE", value_delimiter = ',')]
    pub ca_file: Vec<PathBuf>,
}

/// How much is fetched at a time.
#[derive(Clone, Copy, Debug, Args)]
pub struct Fetch {
    /// Most requests under way at the same time, over all models, each of which has one in any case; fewer where more
    /// would not help
    #[arg(long, env = "MODELMOUNT_CONNECTIONS", value_name = "N", default_value_t = 32,
          value_parser = clap::value_parser!(u16).range(1..=512))]
    pub connections: u16,
    /// Bytes of one ranged request
    #[arg(long, env = "MODELMOUNT_PART_SIZE", value_name = "SIZE", default_value = "16MiB", value_parser = part_size)]
    pub part_size: u64,
}

impl From<Fetch> for Limits {
    fn from(fetch: Fetch) -> Self {
        Self { connections: usize::from(fetch.connections), part_size: fetch.part_size }
    }
}

/// `modelmount pull`
#[derive(Debug, Args)]
pub struct Pull {
    /// What to download and where to: URI DEST [URI DEST ...]
    #[arg(required = true, num_args = 2.., value_names = ["URI", "DEST"])]
    pub pairs: Vec<String>,
    /// Further attributes of the models, as in volumeAttributes; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = attribute)]
    pub attribute: Vec<(String, String)>,
    /// How much is fetched at a time.
    #[command(flatten)]
    pub fetch: Fetch,
    /// Whom to trust.
    #[command(flatten)]
    pub trust: Trust,
}

/// `modelmount resolve`
#[derive(Debug, Args)]
pub struct Resolve {
    /// The model
    pub uri: String,
    /// Further attributes of the model, as in volumeAttributes; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = attribute)]
    pub attribute: Vec<(String, String)>,
    /// Form of the answer
    #[arg(long, default_value = "text")]
    pub output: Output,
    /// Whom to trust.
    #[command(flatten)]
    pub trust: Trust,
}

/// `modelmount digest`
#[derive(Debug, Args)]
pub struct Digest {
    /// A model's directory
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Form of the answer
    #[arg(long, default_value = "text")]
    pub output: Output,
}

/// `modelmount mount`
#[derive(Debug, Args)]
pub struct Mount {
    /// The model
    #[arg(value_parser = |text: &str| ModelUri::parse(text).map(|_| text.to_owned()))]
    pub uri: String,
    /// Where to mount it: a path below the plugin's kubelet directory
    pub target: String,
    /// The plugin's socket
    #[arg(long, env = "MODELMOUNT_ENDPOINT", value_name = "URL")]
    pub endpoint: String,
    /// Further attributes of the volume, as in volumeAttributes; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = attribute)]
    pub attribute: Vec<(String, String)>,
    /// A secret's value, read from a file, as in nodePublishSecretRef; repeatable
    #[arg(long, value_name = "NAME=FILE", value_parser = attribute)]
    pub secret: Vec<(String, String)>,
}

/// `modelmount unmount`
#[derive(Debug, Args)]
pub struct Unmount {
    /// Where it is mounted
    pub target: String,
    /// The plugin's socket
    #[arg(long, env = "MODELMOUNT_ENDPOINT", value_name = "URL")]
    pub endpoint: String,
}

/// `modelmount cache`
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// List the models in a cache
    Ls(CacheLs),
    /// Remove a cache for good, after the plugin was uninstalled
    Rm(CacheRm),
}

/// `modelmount cache ls`
#[derive(Debug, Args)]
pub struct CacheLs {
    /// Directory of the cache
    #[arg(long, env = "MODELMOUNT_CACHE_DIR", value_name = "DIR", default_value = "/var/lib/modelmount")]
    pub cache_dir: PathBuf,
    /// Form of the answer
    #[arg(long, default_value = "text")]
    pub output: Output,
}

/// `modelmount cache rm`
#[derive(Debug, Args)]
pub struct CacheRm {
    /// Remove all of it: every model, and the cache itself
    #[arg(long, required = true)]
    pub all: bool,
    /// Also if volumes have models of it, whose pods then lose their files
    #[arg(long)]
    pub force: bool,
    /// Directory of the cache
    #[arg(long, env = "MODELMOUNT_CACHE_DIR", value_name = "DIR", default_value = "/var/lib/modelmount")]
    pub cache_dir: PathBuf,
}

/// Form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Lines for people.
    Text,
    /// JSON for programs.
    Json,
}

const DRIVER_NAME: &str = "csi.modelmount.io";

fn attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}

fn driver_name(text: &str) -> Result<String, String> {
    // The CSI specification's rule for GetPluginInfoResponse.name; the name becomes a part of paths.
    let ends = |character: Option<char>| character.is_some_and(|character| character.is_ascii_alphanumeric());
    let within = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '.');
    if text.len() <= 63 && ends(text.chars().next()) && ends(text.chars().next_back()) && text.chars().all(within) {
        Ok(text.to_owned())
    } else {
        Err("must be like csi.example.com: letters, digits, dashes and dots, at most 63".to_owned())
    }
}

fn node_id(text: &str) -> Result<String, String> {
    // The CSI specification's "Size Limits" for node_id.
    if text.is_empty() || text.len() > 256 { Err("must have 1 to 256 bytes".to_owned()) } else { Ok(text.to_owned()) }
}

/// SELinux compares labels as text; a misspelt one would make the models unreadable to everybody.
fn selinux_label(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.splitn(4, ':').collect();
    let sound = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
    if parts.len() >= 3 && parts.iter().all(sound) {
        Ok(text.to_owned())
    } else {
        Err("write it as user:role:type:level, for instance system_u:object_r:container_file_t:s0".to_owned())
    }
}

fn part_size(text: &str) -> Result<u64, String> {
    match parse_size(text) {
        // Less means more requests than bytes; more makes a crash and a broken connection expensive.
        Some(size) if (64 << 10..=1 << 30).contains(&size) => Ok(size),
        Some(_) => Err("must be between 64KiB and 1GiB".to_owned()),
        None => Err("is not a size such as 16MiB".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_values_are_refused() {
        for (arguments, hint) in [
            ("pull s3://b/m /d --part-size 1", "between 64KiB and 1GiB"),
            ("pull s3://b/m /d --connections 0", "1..=512"),
            ("pull s3://b/m /d --attribute x", "KEY=VALUE"),
            ("pull s3://b/m", "required"),
            ("node --endpoint unix:///x.sock --node-id n --allow-address localhost", "not an address range"),
            (
                "node --endpoint unix:///x.sock --node-id n --registry-mirror http://m",
                "not a mirror such as docker.io=",
            ),
            ("node --endpoint unix:///x.sock --node-id n --keep-free lots", "neither a share"),
            ("node --endpoint unix:///x.sock --node-id n --selinux-label container_file_t", "user:role:type:level"),
            ("node --endpoint unix:///x.sock --node-id n --driver-name ../x", "like csi.example.com"),
            ("node --endpoint unix:///x.sock --node-id n --health-address 9808", "such as :9808"),
            ("controller --endpoint unix:///x.sock --metrics-address localhost:1", "such as :9808"),
            ("mount nonsense /t --endpoint unix:///x.sock", "not a model URI"),
        ] {
            let error = Cli::try_parse_from(["modelmount"].into_iter().chain(arguments.split(' '))).unwrap_err();
            assert!(error.to_string().contains(hint), "{arguments}: {error}");
        }
    }
}
