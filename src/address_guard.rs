//! Which addresses requests may go to: the defence against untrusted URLs.
//!
//! An untrusted URL can point into the network of the sender (*server-side request forgery*): at the
//! sender itself, at a neighbour, at the metadata service of a cloud. With
//! [`AddressPolicy::PublicOnly`] a request goes only to public unicast addresses. An address in
//! the URL is checked before each attempt; a name is resolved by a resolver that drops what is not
//! allowed, and the connection goes to the addresses that are left, so that no second lookup can
//! give other ones (*DNS rebinding*).

mod rules;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use url::{Host, Url};

use crate::ConfigError;
pub use rules::AddressRules;

/// Which addresses and ports requests may go to.
///
/// ```
/// use tidings::AddressPolicy;
///
/// // Public addresses, and a receiver of your own; only HTTPS.
/// let policy = AddressPolicy::PublicOnly
///     .allow("10.20.0.0/16")?
///     .deny("10.20.0.1")?
///     .allow_ports([443]);
/// assert!(policy.check_url(&"https://10.20.3.4/".parse()?).is_ok());
/// assert!(policy.check_url(&"https://10.20.0.1/".parse()?).is_err());
/// assert!(policy.check_url(&"http://8.8.8.8:6379/".parse()?).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AddressPolicy {
    /// All addresses: for URLs that you trust.
    #[default]
    Any,
    /// Public unicast addresses: for URLs from people you do not trust.
    ///
    /// Refused are the special ranges of the IANA registries ([IPv4], [IPv6]): loopback, private,
    /// link-local (with the metadata services of clouds), carrier-grade NAT, multicast,
    /// documentation, benchmarking and reserved ones; and what clouds use inside at public
    /// addresses: 168.63.129.16, 161.26.0.0/16 and 166.8.0.0/14.
    ///
    /// Of the forms of IPv6 that carry an IPv4 address, the well-known prefix of NAT64
    /// (`64:ff9b::/96`), which is all that a network without IPv4 gives out, is allowed if the
    /// address in it is. Refused are IPv4-mapped and IPv4-compatible addresses, 6to4, Teredo,
    /// ISATAP and the local prefix of NAT64 (`64:ff9b:1::/48`), because what they lead to is decided
    /// elsewhere.
    ///
    /// What looks like any other public address cannot be recognised: 6rd, NAT64 under a prefix of
    /// a network's own, and the public addresses of one's own network. [`deny`](Self::deny) those
    /// that lead inside.
    ///
    /// [IPv4]: https://www.iana.org/assignments/iana-ipv4-special-registry
    /// [IPv6]: https://www.iana.org/assignments/iana-ipv6-special-registry
    PublicOnly,
    /// One of the above with exceptions: what [`allow`](Self::allow), [`deny`](Self::deny),
    /// [`allow_ports`](Self::allow_ports) and [`deny_ports`](Self::deny_ports) return.
    Rules(AddressRules),
}

impl AddressPolicy {
    /// Allows a range, such as `10.20.0.0/16`, or one address, whatever the policy says about it. A
    /// denied range takes precedence. A range of IPv4 means no address of IPv6.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for `address_policy` when the text is no range and no address.
    pub fn allow(self, range: &str) -> Result<Self, ConfigError> {
        Ok(Self::Rules(self.into_rules().allow(range)?))
    }

    /// Denies a range, or one address. It takes precedence over everything else.
    ///
    /// A range of IPv4 is denied within IPv6 too: as an IPv4-mapped or IPv4-compatible address, as
    /// 6to4, Teredo and ISATAP, and under the prefixes of NAT64 (`64:ff9b::/96`, and
    /// `64:ff9b:1::/48` with the address in the last four bytes).
    ///
    /// # Errors
    ///
    /// As for [`allow`](Self::allow).
    pub fn deny(self, range: &str) -> Result<Self, ConfigError> {
        Ok(Self::Rules(self.into_rules().deny(range)?))
    }

    /// Allows these ports, and those of other calls, and no others.
    #[must_use]
    pub fn allow_ports(self, ports: impl IntoIterator<Item = u16>) -> Self {
        Self::Rules(self.into_rules().allow_ports(ports))
    }

    /// Denies these ports. It takes precedence over [`allow_ports`](Self::allow_ports).
    #[must_use]
    pub fn deny_ports(self, ports: impl IntoIterator<Item = u16>) -> Self {
        Self::Rules(self.into_rules().deny_ports(ports))
    }

    /// Whether a request may go to an address.
    pub fn allows(&self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::PublicOnly => is_public(address),
            Self::Rules(rules) => rules.allows(address),
        }
    }

    /// Whether a request may go to a port.
    pub fn allows_port(&self, port: u16) -> bool {
        match self {
            Self::Any | Self::PublicOnly => true,
            Self::Rules(rules) => rules.allows_port(port),
        }
    }

    /// Checks the port of a URL, and the address in it, in whatever spelling. A name passes: names
    /// are checked when they are resolved, at each new connection. `localhost` and the names below it always mean
    /// this machine ([RFC 6761](https://www.rfc-editor.org/rfc/rfc6761#section-6.3)).
    ///
    /// Use it to refuse such a URL when it is registered; [`Sender`](crate::Sender) checks again.
    ///
    /// # Errors
    ///
    /// [`BlockedAddress`] when the URL has an address or a port that is not allowed.
    pub fn check_url(&self, url: &Url) -> Result<(), BlockedAddress> {
        if let Some(port) = url.port_or_known_default()
            && !self.allows_port(port)
        {
            return Err(BlockedAddress(Blocked::Port(port)));
        }
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            Some(Host::Domain(name)) if is_local(name) && !self.allows(LOOPBACK_V6) => LOOPBACK_V4,
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        if self.allows(address) {
            Ok(())
        } else {
            Err(BlockedAddress::of_address(address))
        }
    }

    fn into_rules(self) -> AddressRules {
        match self {
            Self::Any => AddressRules::new(false),
            Self::PublicOnly => AddressRules::new(true),
            Self::Rules(rules) => rules,
        }
    }
}

/// An address or a port that the policy does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct BlockedAddress(Blocked);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Blocked {
    #[error("the address {0} is not allowed")]
    Address(IpAddr),
    #[error("the port {0} is not allowed")]
    Port(u16),
}

impl BlockedAddress {
    pub(crate) fn of_address(address: IpAddr) -> Self {
        Self(Blocked::Address(address))
    }

    /// The address, if that is what is not allowed.
    pub fn address(&self) -> Option<IpAddr> {
        match self.0 {
            Blocked::Address(address) => Some(address),
            Blocked::Port(_) => None,
        }
    }

    /// The port, if that is what is not allowed.
    pub fn port(&self) -> Option<u16> {
        match self.0 {
            Blocked::Port(port) => Some(port),
            Blocked::Address(_) => None,
        }
    }
}

const LOOPBACK_V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOOPBACK_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Whether a name, in lowercase as in a URL, always means this machine.
fn is_local(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !BLOCKED_V4.iter().any(|net| net.contains(&address))
}

/// Everything outside the global unicast block is refused, except for public addresses in NAT64:
/// that covers `::`, `::1`, the mapped and compatible forms, `100::/64`, `5f00::/16`, `fc00::/7`,
/// `fe80::/10`, `fec0::/10` and `ff00::/8`, and whatever will be assigned there.
fn is_public_v6(address: Ipv6Addr) -> bool {
    if NAT64.contains(&address) {
        return is_public_v4(last_four_bytes(address));
    }
    GLOBAL_UNICAST.contains(&address)
        && !BLOCKED_V6.iter().any(|net| net.contains(&address))
        && !is_isatap(address)
}

/// [RFC 5214], section 6.1: the interface identifier `0000:5efe` or `0200:5efe`, and an IPv4 address.
///
/// [RFC 5214]: https://www.rfc-editor.org/rfc/rfc5214#section-6.1
fn is_isatap(address: Ipv6Addr) -> bool {
    matches!(address.segments(), [_, _, _, _, 0 | 0x200, 0x5efe, _, _])
}

/// The IPv4 address that an IPv6 address leads to, if it has one of the known forms.
fn embedded_v4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else {
        return None;
    };
    if NAT64.contains(&address) || NAT64_LOCAL.contains(&address) || is_isatap(address) {
        return Some(last_four_bytes(address));
    }
    match address.segments() {
        [0x2002, ..] => {
            let [_, _, a, b, c, d, ..] = address.octets();
            Some(Ipv4Addr::new(a, b, c, d))
        }
        // RFC 4380, section 4: every bit of the address is inverted.
        [0x2001, 0, ..] => Some(Ipv4Addr::from_bits(!last_four_bytes(address).to_bits())),
        // `::` and `::1` are addresses of their own.
        _ => address.to_ipv4().filter(|inner| inner.to_bits() > 1),
    }
}

fn last_four_bytes(address: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = address.octets();
    Ipv4Addr::new(a, b, c, d)
}

/// [RFC 6052], section 2.1: the well-known prefix of NAT64.
///
/// [RFC 6052]: https://www.rfc-editor.org/rfc/rfc6052#section-2.1
const NAT64: Ipv6Net = v6([0x64, 0xff9b], 96);

/// [RFC 8215]: the prefix of NAT64 that is used locally.
///
/// [RFC 8215]: https://www.rfc-editor.org/rfc/rfc8215
const NAT64_LOCAL: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48);

const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0], 3);

const BLOCKED_V4: [Ipv4Net; 18] = [
    v4([0, 0, 0, 0], 8),        // this network
    v4([10, 0, 0, 0], 8),       // private
    v4([100, 64, 0, 0], 10),    // carrier-grade NAT, and the metadata of one cloud
    v4([127, 0, 0, 0], 8),      // loopback
    v4([161, 26, 0, 0], 16),    // the inner services of one cloud
    v4([166, 8, 0, 0], 14),     // the inner services of one cloud
    v4([168, 63, 129, 16], 32), // the inner service of one cloud
    v4([169, 254, 0, 0], 16),   // link-local, and the metadata of most clouds
    v4([172, 16, 0, 0], 12),    // private
    v4([192, 0, 0, 0], 24),     // protocol assignments
    v4([192, 0, 2, 0], 24),     // documentation
    v4([192, 88, 99, 0], 24),   // 6to4 relays
    v4([192, 168, 0, 0], 16),   // private
    v4([198, 18, 0, 0], 15),    // benchmarking
    v4([198, 51, 100, 0], 24),  // documentation
    v4([203, 0, 113, 0], 24),   // documentation
    v4([224, 0, 0, 0], 4),      // multicast
    v4([240, 0, 0, 0], 4),      // reserved, and broadcast
];

/// Blocks within the global unicast block that are not.
const BLOCKED_V6: [Ipv6Net; 4] = [
    v6([0x2001, 0], 23),     // protocol assignments, Teredo among them
    v6([0x2001, 0xdb8], 32), // documentation
    v6([0x2002, 0], 16),     // 6to4
    v6([0x3fff, 0], 20),     // documentation
];

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6([a, b]: [u16; 2], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(address: &str) -> bool {
        AddressPolicy::PublicOnly.allows(address.parse().unwrap())
    }

    #[test]
    fn special_addresses_are_refused_at_both_ends_of_their_ranges() {
        for address in [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.255",
            "161.26.0.0",
            "161.26.255.255",
            "166.8.0.0",
            "166.11.255.255",
            "168.63.129.16",
            "169.254.0.0",
            "169.254.169.254",
            "169.254.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.0",
            "192.0.0.255",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.0",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.0",
            "239.255.255.255",
            "240.0.0.0",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::8.8.8.8",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::7f00:1",
            "64:ff9b::10.255.255.255",
            "64:ff9b::169.254.169.254",
            "64:ff9b:0:0:0:1:808:808",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:0:1::1",
            "2001:1ff:ffff::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:808:808::",
            "2606:4700::5efe:10.0.0.1",
            "2606:4700::5efe:8.8.8.8",
            "2606:4700::200:5efe:10.0.0.1",
            "3fff::1",
            "3fff:fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fdff::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "ffff::1",
        ] {
            assert!(!allows(address), "{address}");
        }
    }

    #[test]
    fn public_addresses_beside_those_ranges_are_allowed() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "161.25.255.255",
            "161.27.0.0",
            "166.7.255.255",
            "166.12.0.0",
            "168.63.129.15",
            "168.63.129.17",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2003::1",
            "2606:4700::1111",
            "2606:4700::100:5efe:1:1",
            "2606:4700::5eff:1:1",
            "3fff:1000::1",
            "64:ff9b::8.8.8.8",
            "64:ff9b::11.0.0.0",
        ] {
            assert!(allows(address), "{address}");
        }
    }

    #[test]
    fn every_spelling_of_an_address_in_a_url_is_checked() {
        for host in [
            "127.0.0.1",
            "0x7f.1",
            "2130706433",
            "0177.0.0.1",
            "127.1",
            "[::1]",
            "[::ffff:7f00:1]",
            "[::ffff:169.254.169.254]",
            "[64:ff9b::a9fe:a9fe]",
            "[2002:7f00:1::]",
            "0",
            "１２７.0.0.1",
            "localhost",
            "LOCALHOST.",
            "a.localhost",
        ] {
            let url = Url::parse(&format!("http://{host}/")).unwrap();
            assert!(AddressPolicy::PublicOnly.check_url(&url).is_err(), "{host}");
            assert!(AddressPolicy::Any.check_url(&url).is_ok());
        }
        for host in [
            "8.8.8.8",
            "[2606:4700::1111]",
            "[64:ff9b::808:808]",
            "example.com",
            "localhost.example.com",
            "notlocalhost",
        ] {
            let url = Url::parse(&format!("http://{host}/")).unwrap();
            assert!(AddressPolicy::PublicOnly.check_url(&url).is_ok(), "{host}");
        }
    }
}
