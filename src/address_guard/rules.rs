use std::net::IpAddr;

use ipnet::IpNet;

use super::{embedded_v4, is_public};
use crate::ConfigError;

/// An [`AddressPolicy`](super::AddressPolicy) with exceptions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AddressRules {
    public_only: bool,
    allowed: Vec<IpNet>,
    denied: Vec<IpNet>,
    /// When there are any, other ports are denied.
    allowed_ports: Vec<u16>,
    denied_ports: Vec<u16>,
}

impl AddressRules {
    pub(super) fn new(public_only: bool) -> Self {
        Self {
            public_only,
            allowed: Vec::new(),
            denied: Vec::new(),
            allowed_ports: Vec::new(),
            denied_ports: Vec::new(),
        }
    }

    pub(super) fn allow(mut self, range: &str) -> Result<Self, ConfigError> {
        self.allowed.push(parse(range)?);
        Ok(self)
    }

    pub(super) fn deny(mut self, range: &str) -> Result<Self, ConfigError> {
        self.denied.push(parse(range)?);
        Ok(self)
    }

    pub(super) fn allow_ports(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.allowed_ports.extend(ports);
        self
    }

    pub(super) fn deny_ports(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.denied_ports.extend(ports);
        self
    }

    pub(super) fn allows(&self, address: IpAddr) -> bool {
        let is_in = |nets: &[IpNet], address| nets.iter().any(|net| net.contains(&address));
        // What an IPv6 address leads to is never more than what it says: an allowed range means only
        // the addresses that are written as it is.
        let is_denied = is_in(&self.denied, address)
            || embedded_v4(address).is_some_and(|inner| is_in(&self.denied, inner.into()));
        !is_denied && (!self.public_only || is_in(&self.allowed, address) || is_public(address))
    }

    pub(super) fn allows_port(&self, port: u16) -> bool {
        let is_allowed = self.allowed_ports.is_empty() || self.allowed_ports.contains(&port);
        is_allowed && !self.denied_ports.contains(&port)
    }
}

fn parse(range: &str) -> Result<IpNet, ConfigError> {
    let net = match range.parse::<IpAddr>() {
        Ok(address) => Ok(IpNet::from(address)),
        Err(_) => range.parse(),
    };
    net.map_err(|source: ipnet::AddrParseError| {
        ConfigError::new(
            "address_policy",
            "an address, or a range such as 10.0.0.0/8",
        )
        .with_source(source)
    })
}

#[cfg(test)]
mod tests {
    use crate::AddressPolicy;

    fn allows(policy: &AddressPolicy, address: &str) -> bool {
        policy.allows(address.parse().unwrap())
    }

    #[test]
    fn a_denied_range_takes_precedence_over_an_allowed_one_and_that_over_the_policy() {
        let policy = AddressPolicy::PublicOnly
            .deny("10.1.2.0/24")
            .and_then(|policy| policy.allow("10.1.0.0/16"))
            .and_then(|policy| policy.allow("fd00::1"))
            .and_then(|policy| policy.deny("8.8.8.8"))
            .unwrap();
        for address in ["10.1.0.0", "10.1.255.255", "fd00::1", "1.1.1.1"] {
            assert!(allows(&policy, address), "{address}");
        }
        for address in ["10.0.255.255", "10.2.0.0", "10.1.2.3", "fd00::2", "8.8.8.8"] {
            assert!(!allows(&policy, address), "{address}");
        }
        let policy = AddressPolicy::Any.deny("169.254.0.0/16").unwrap();
        assert!(allows(&policy, "127.0.0.1") && !allows(&policy, "169.254.169.254"));
    }

    #[test]
    fn a_denied_range_holds_for_every_address_that_carries_one_of_its_addresses() {
        let any = AddressPolicy::Any.deny("169.254.0.0/16").unwrap();
        let public = AddressPolicy::PublicOnly
            .deny("169.254.0.0/16")
            .and_then(|policy| policy.deny("8.8.0.0/16"))
            .and_then(|policy| policy.allow("::/0"))
            .unwrap();
        for (address, beside) in [
            ("169.254.169.254", "169.253.169.254"),
            ("::ffff:169.254.169.254", "::ffff:169.253.169.254"),
            ("::169.254.169.254", "::169.253.169.254"),
            ("64:ff9b::169.254.169.254", "64:ff9b::169.253.169.254"),
            ("64:ff9b:1::169.254.169.254", "64:ff9b:1::169.253.169.254"),
            ("2002:a9fe:a9fe::1", "2002:a9fd:a9fe::1"),
            ("2001:0:1:2:3:4:5601:5601", "2001:0:1:2:3:4:5602:5601"),
            (
                "2606:4700::5efe:169.254.169.254",
                "2606:4700::5efe:169.253.169.254",
            ),
        ] {
            assert!(!allows(&any, address), "{address}");
            assert!(!allows(&public, address), "{address}");
            assert!(allows(&any, beside), "{beside}");
            assert!(allows(&public, beside), "{beside}");
        }
        assert!(!allows(&public, "64:ff9b::8.8.4.4"));
        for host in [
            "[::ffff:169.254.169.254]",
            "[::ffff:a9fe:a9fe]",
            "[::a9fe:a9fe]",
            "[64:ff9b::a9fe:a9fe]",
            "[2002:a9fe:a9fe::]",
        ] {
            let url = format!("http://{host}/latest").parse().unwrap();
            let blocked = any.check_url(&url).unwrap_err();
            assert!(blocked.address().is_some(), "{host}");
        }
        // These carry none.
        let zero = AddressPolicy::Any.deny("0.0.0.0/8").unwrap();
        assert!(allows(&zero, "::1") && allows(&zero, "2001:db8::1"));
    }

    #[test]
    fn an_allowed_range_holds_only_for_addresses_that_are_written_as_it_is() {
        let policy = AddressPolicy::PublicOnly.allow("10.0.0.0/8").unwrap();
        assert!(allows(&policy, "10.1.2.3"));
        for address in ["::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "2002:a01:203::1"] {
            assert!(!allows(&policy, address), "{address}");
        }
    }

    #[test]
    fn ports_are_those_allowed_except_for_those_denied() {
        let denied = AddressPolicy::PublicOnly.deny_ports([25, 6379]);
        assert!(denied.allows_port(443) && denied.allows_port(8443));
        assert!(!denied.allows_port(25) && !denied.allows_port(6379));
        let allowed = AddressPolicy::Any.allow_ports([443, 8443]);
        assert!(allowed.allows_port(443) && !allowed.allows_port(80));
        let both = allowed.deny_ports([8443]);
        assert!(both.allows_port(443) && !both.allows_port(8443));
        for (url, port) in [
            ("http://example.com/", Some(80)),
            ("https://example.com:8443/", Some(8443)),
            ("https://example.com/", None),
        ] {
            let blocked = both.check_url(&url.parse().unwrap()).err();
            assert_eq!(blocked.and_then(|blocked| blocked.port()), port, "{url}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for range in ["", "10.0.0.0/33", "example.com", "10.0.0"] {
            let refused = AddressPolicy::Any.allow(range).unwrap_err();
            assert_eq!(refused.field(), "address_policy", "{range}");
        }
    }
}
