//! Whether this machine can send to an address at all.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::transport::built_in::{LocalAddresses, is_limit};

/// Whether the system knows a way to an address, and has an address of its own to send from.
///
/// Nothing is sent: to connect a UDP socket only asks the system for a route. If that cannot be
/// asked, there may be one.
pub(super) fn exists(to: IpAddr, from: LocalAddresses) -> bool {
    let local = match to {
        IpAddr::V4(_) => IpAddr::V4(from.v4.unwrap_or(Ipv4Addr::UNSPECIFIED)),
        IpAddr::V6(_) => IpAddr::V6(from.v6.unwrap_or(Ipv6Addr::UNSPECIFIED)),
    };
    match UdpSocket::bind((local, 0)) {
        // Any port but 0 will do.
        Ok(socket) => (socket.connect((to, 9))).map_or_else(|error| is_limit(&error), |()| true),
        Err(error) => !is_of_unknown_family(&error),
    }
}

/// Leaves out what has no route where an address of another family has one. An error of the former
/// would hide what the latter says about the host: the one of the family that was tried last counts.
pub(super) fn keep_reachable(addresses: &mut Vec<SocketAddr>, has_route: impl Fn(IpAddr) -> bool) {
    let is_v4 = |address: &SocketAddr| address.is_ipv4();
    if addresses.iter().all(is_v4) || !addresses.iter().any(is_v4) {
        return;
    }
    let reachable: Vec<_> = (addresses.iter().copied())
        .filter(|address| has_route(address.ip()))
        .collect();
    if !reachable.is_empty() {
        *addresses = reachable;
    }
}

/// Whether the system has no sockets for a family of addresses.
fn is_of_unknown_family(error: &io::Error) -> bool {
    #[cfg(unix)]
    const UNKNOWN_FAMILY: i32 = libc::EAFNOSUPPORT;
    // `WSAEAFNOSUPPORT`.
    #[cfg(not(unix))]
    const UNKNOWN_FAMILY: i32 = 10047;
    error.raw_os_error() == Some(UNKNOWN_FAMILY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: [SocketAddr; 2] = [v4(1), v4(2)];
    const V6: [SocketAddr; 2] = [v6(1), v6(2)];

    const fn v4(last: u8) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)), 0)
    }

    const fn v6(last: u16) -> SocketAddr {
        SocketAddr::new(
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)),
            0,
        )
    }

    #[test]
    fn only_another_family_with_a_route_has_an_address_without_one_left_out() {
        let both = [V4[0], V6[0], V4[1], V6[1]];
        for (found, reachable, kept) in [
            (&both[..], &V4[..], &V4[..]),
            (&both, &V6, &V6),
            (&both, &[V4[1], V6[0]], &[V6[0], V4[1]]),
            (&both, &both, &both),
            (&both, &[], &both),
            (&V4, &V4[..1], &V4),
            (&V6, &[], &V6),
            (&[], &[], &[]),
        ] {
            let mut addresses = found.to_vec();
            keep_reachable(&mut addresses, |address| {
                reachable.iter().any(|it| it.ip() == address)
            });
            assert_eq!(addresses, kept, "{found:?} {reachable:?}");
        }
    }

    #[test]
    fn the_system_says_whether_there_is_a_route() {
        let none = LocalAddresses::default();
        let address = |text: &str| text.parse().unwrap();
        assert!(exists(address("127.0.0.1"), none));
        // On no link in particular.
        assert!(!exists(address("fe80::1"), none));
        // An address that this machine does not have says nothing about routes.
        let elsewhere = LocalAddresses {
            v4: Some(Ipv4Addr::new(192, 0, 2, 77)),
            v6: None,
        };
        assert!(exists(address("127.0.0.1"), elsewhere));
    }
}
