//! What this machine lets a request reach: network addresses and directories.
//!
//! The caller of a node plugin is a pod's author, who must not be able to use the plugin to reach what the pod itself
//! can't: the node's own services on loopback, the cloud's metadata service, mostly on a link-local address, the node's files.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// A range of IP addresses, written `127.0.0.0/8`, `::1/128`, or as one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    base: u128,
    prefix: u32,
}

impl Cidr {
    /// Whether the range holds `address`. IPv4 ranges hold IPv4-mapped IPv6 addresses too.
    pub fn contains(&self, address: IpAddr) -> bool {
        let mask = u128::MAX.checked_shl(128 - self.prefix).unwrap_or(0);
        (as_v6(address) ^ self.base) & mask == 0
    }
}

impl FromStr for Cidr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
            let address: IpAddr = address.parse().ok()?;
            let bits = if address.is_ipv4() { 32 } else { 128 };
            let prefix: u32 = prefix.map_or(Some(bits), |prefix| prefix.parse().ok())?;
            (prefix <= bits).then(|| Self { base: as_v6(address), prefix: prefix + 128 - bits })
        };
        parse().ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidArgument,
                format!("{text:?} is not an address range such as 127.0.0.0/8 or fe80::/10"),
            )
        })
    }
}

fn as_v6(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// What a request may reach. The default allows public and private networks and no files.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    allowed_addresses: Vec<Cidr>,
    file_roots: Vec<PathBuf>,
    plain_http: PlainHttp,
    /// Hosts that may have any address.
    exempt_hosts: Vec<String>,
}

/// Registries that may be spoken to without TLS.
#[derive(Clone, Debug)]
enum PlainHttp {
    Any,
    These(Vec<String>),
}

impl Default for PlainHttp {
    fn default() -> Self {
        Self::These(Vec::new())
    }
}

impl Policy {
    /// The default policy, and these further addresses and roots for `file://`.
    pub fn new(allowed_addresses: Vec<Cidr>, file_roots: Vec<PathBuf>) -> Self {
        Self { allowed_addresses, file_roots, ..Self::default() }
    }

    /// Everything allowed: for a command line, whose user can reach all of it anyway.
    pub fn unrestricted() -> Self {
        let all = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let all = all.map(|address| Cidr { base: as_v6(address), prefix: 0 });
        Self {
            allowed_addresses: all.to_vec(),
            file_roots: vec![PathBuf::from("/")],
            plain_http: PlainHttp::Any,
            exempt_hosts: Vec::new(),
        }
    }

    /// The same policy, under which these registries (a host, or `host:port`) may be spoken to over plain HTTP, where
    /// anybody on the way can read what is sent: content, and credentials.
    #[must_use]
    pub fn with_plain_http(self, registries: Vec<String>) -> Self {
        let registries = registries.into_iter().map(|registry| registry.to_ascii_lowercase()).collect();
        Self { plain_http: PlainHttp::These(registries), ..self }
    }

    /// Checks whether a registry (a host, or `host:port`) may be spoken to over plain HTTP.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] unless it is one of those of [`Self::with_plain_http`].
    pub fn check_plain_http(&self, registry: &str) -> Result<()> {
        match &self.plain_http {
            PlainHttp::Any => Ok(()),
            PlainHttp::These(registries) if registries.contains(&registry.to_ascii_lowercase()) => Ok(()),
            PlainHttp::These(_) => Err(Error::new(
                ErrorKind::PermissionDenied,
                format!(
                    "{registry} may not be spoken to over plain HTTP by this node; its operator can allow it with \
                     --allow-plain-http {registry}"
                ),
            )),
        }
    }

    /// The same policy, under which these hosts may have any address: for what the operator has configured, and no pod.
    #[cfg(feature = "oci")]
    pub(crate) fn exempting(&self, hosts: Vec<String>) -> Self {
        Self { exempt_hosts: hosts, ..self.clone() }
    }

    /// Checks an address that `host` resolved to.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] for loopback, link-local, unspecified, multicast and broadcast addresses and those
    /// of clouds' metadata services, in any notation, unless allowed.
    pub fn check_address(&self, host: &str, address: IpAddr) -> Result<()> {
        let Some(class) = refused_class(address) else { return Ok(()) };
        if self.exempt_hosts.iter().any(|exempt| exempt.eq_ignore_ascii_case(host)) {
            return Ok(());
        }
        if self.allowed_addresses.iter().any(|range| range.contains(address)) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::PermissionDenied,
            format!(
                "{host} has the {class} address {address}, which this node does not let models come from; its operator \
                 can allow it with --allow-address {address}"
            ),
        ))
    }

    /// The directories below which `file://` may read.
    pub fn file_roots(&self) -> &[PathBuf] {
        &self.file_roots
    }
}

/// Where clouds serve a machine's metadata, credentials among them, on addresses that are not link-local.
const METADATA_V4: [Ipv4Addr; 3] = [
    // Alibaba Cloud (ECS user guide, "Instance metadata").
    Ipv4Addr::new(100, 100, 100, 200),
    // Azure's WireServer, which gives the machine's agent its settings (Microsoft Learn, "What is IP address
    // 168.63.129.16?").
    Ipv4Addr::new(168, 63, 129, 16),
    // Oracle Cloud, Compute Classic ("Retrieving Instance Metadata").
    Ipv4Addr::new(192, 0, 0, 192),
];
/// The same over IPv6.
const METADATA_V6: [Ipv6Addr; 2] = [
    // Google's, as its own Config Connector is told of it (its setting `metadataHost`).
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    // Scaleway's (its documentation on Instances, "Using the metadata API").
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

fn refused_class(address: IpAddr) -> Option<&'static str> {
    match address.to_canonical() {
        IpAddr::V4(v4) if v4.is_loopback() => Some("loopback"),
        IpAddr::V4(v4) if v4.is_link_local() => Some("link-local"),
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("unspecified"),
        IpAddr::V4(v4) if v4.is_multicast() || v4.is_broadcast() => Some("multicast"),
        IpAddr::V4(v4) if METADATA_V4.contains(&v4) => Some("metadata"),
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) if v6.is_loopback() => Some("loopback"),
        IpAddr::V6(v6) if v6.is_unspecified() => Some("unspecified"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("link-local"),
        IpAddr::V6(v6) if v6.is_multicast() => Some("multicast"),
        // AWS serves instance metadata over IPv6 at fd00:ec2::254 (EC2 user guide, "Use the IMDS").
        IpAddr::V6(v6) if v6.segments()[..2] == [0xfd00, 0x0ec2] => Some("metadata"),
        IpAddr::V6(v6) if METADATA_V6.contains(&v6) => Some("metadata"),
        // 6to4, NAT64 and the deprecated compatible form carry an IPv4 address.
        IpAddr::V6(v6) => embedded_v4(v6).into_iter().find_map(|v4| refused_class(IpAddr::V4(v4))),
    }
}

/// The IPv4 addresses that an IPv6 address may stand for.
fn embedded_v4(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let bits = address.to_bits();
    let at = |bits: u128, shift: u32| Ipv4Addr::from_bits((bits >> shift) as u32);
    match address.segments() {
        [0x2002, ..] => vec![at(bits, 80)],
        [0x0064, 0xff9b, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0, 0, ..] => vec![at(bits, 0)],
        // For a network's own use (RFC 8215), behind a prefix of 96, 64, 56 or 48 bits, which only the network knows.
        // Prefixes shorter than 96 bits have the address around bits 64 to 71, which are left out (RFC 6052, section 2.2).
        [0x0064, 0xff9b, 1, ..] => {
            let around = (bits >> 64 << 56) | (bits & ((1 << 56) - 1));
            let places = [at(bits, 0), at(around, 24), at(around, 32), at(around, 40)];
            // What begins with 0 is a piece of a longer prefix.
            places.into_iter().filter(|v4| v4.octets()[0] != 0).collect()
        }
        _ => Vec::new(),
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match IpAddr::V6(Ipv6Addr::from_bits(self.base)).to_canonical() {
            IpAddr::V4(v4) if self.prefix >= 96 => write!(f, "{v4}/{}", self.prefix - 96),
            _ => write!(f, "{}/{}", Ipv6Addr::from_bits(self.base), self.prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_and_its_metadata_service_are_refused_in_every_notation() {
        let policy = Policy::default();
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:169.254.169.254",
            "::ffff:127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fd00:42::42",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "::ffff:100.100.100.200",
            "64:ff9b::a83f:8110",
            "64:ff9b:1::a9fe:a9fe",
            "64:ff9b:1:fffe::7f00:1",
            "64:ff9b:1:1:a9:fea9:fe00:0",
            "64:ff9b:1:a9:fe:a9fe::",
            "64:ff9b:1:a9fe:a9:fe00::",
        ] {
            let error = policy.check_address("host", address.parse().unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{address}");
            Policy::unrestricted().check_address("host", address.parse().unwrap()).unwrap();
        }
        for address in
            ["10.0.0.1", "192.168.1.1", "8.8.8.8", "100.100.100.201", "2001:db8::1", "fd12::1", "fd00:42::43"]
        {
            policy.check_address("host", address.parse().unwrap()).unwrap();
        }
        for nat64 in ["64:ff9b::808:808", "64:ff9b:1::808:808", "64:ff9b:1:fffe::a00:1", "64:ff9b:1:1:8:808:800:0"] {
            policy.check_address("host", nat64.parse().unwrap()).unwrap();
        }
    }

    #[test]
    fn an_allowed_range_allows_that_range_alone() {
        let policy = Policy::new(vec!["127.0.0.0/8".parse().unwrap()], vec![]);
        policy.check_address("host", "127.0.0.1".parse().unwrap()).unwrap();
        policy.check_address("host", "::ffff:127.0.0.1".parse().unwrap()).unwrap();
        policy.check_address("host", "169.254.169.254".parse().unwrap()).unwrap_err();
        policy.check_address("host", "::1".parse().unwrap()).unwrap_err();
        for (text, shown) in [("10.1.2.3", "10.1.2.3/32"), ("fe80::/10", "fe80::/10"), ("0.0.0.0/0", "0.0.0.0/0")] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), shown);
        }
        for bad in ["", "10.0.0.0/33", "::/129", "x/8", "10.0.0.0/", "10.0.0/8"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn plain_http_is_for_the_registries_that_are_named() {
        let policy = Policy::default().with_plain_http(vec!["Registry.example:5000".into()]);
        policy.check_plain_http("registry.example:5000").unwrap();
        for registry in ["registry.example", "registry.example:5001", "example:5000"] {
            let error = policy.check_plain_http(registry).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            assert!(error.to_string().contains("--allow-plain-http"), "{error}");
        }
        Policy::default().check_plain_http("registry.example").unwrap_err();
        Policy::unrestricted().check_plain_http("registry.example").unwrap();
    }
}
