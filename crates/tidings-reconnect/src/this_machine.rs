use std::net::IpAddr;

/// Whether a host of a URL is this machine for sure: an address of loopback, with or without brackets, or `localhost`.
pub fn is_this_machine(host: &str) -> bool {
    let name = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    match name.unwrap_or(host).parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_this_machine_for_sure() {
        for host in [
            "localhost",
            "LocalHost",
            "127.0.0.1",
            "127.8.9.1",
            "::1",
            "[::1]",
        ] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in [
            "",
            "0.0.0.0",
            "10.0.0.1",
            "::",
            "[fd00::1]",
            "localhost.example",
            "db",
        ] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
