//! Which client a request comes from, if it comes through trusted proxies.
//!
//! Each proxy adds the address that it was called from at the end of `X-Forwarded-For` or `Forwarded`
//! ([RFC 7239](https://www.rfc-editor.org/rfc/rfc7239)). What is before the last entry that is not of a trusted
//! proxy comes from the client, which can write there what it wants.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, header};

use crate::settings::network::Network;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of the client, as the proxy that made the connection reports it: the last in its list that is not of
/// a trusted proxy. `None` if neither header is there: the request is the proxy's own. If each of both headers has
/// another address, it is that of the proxy: a proxy that writes one of them may pass the other on as the client has
/// sent it.
pub(super) fn client(proxy: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> Option<IpAddr> {
    let of = |entries: Vec<Option<IpAddr>>| {
        let has_some = !entries.is_empty();
        has_some.then(|| last_untrusted(proxy, &entries, trusted))
    };
    let reported = of(x_forwarded_for(headers));
    match (reported, of(forwarded(headers))) {
        (Some(client), Some(other)) if client != other => Some(proxy),
        (reported, same) => reported.or(same),
    }
}

/// The last address of no trusted proxy; the first one if all are of proxies. An entry that cannot be read ends the
/// list.
fn last_untrusted(proxy: IpAddr, entries: &[Option<IpAddr>], trusted: &[Network]) -> IpAddr {
    let mut last = proxy;
    for entry in entries.iter().rev() {
        let Some(address) = *entry else { break };
        last = address;
        if !trusted.iter().any(|network| network.contains(address)) {
            break;
        }
    }
    last
}

fn x_forwarded_for(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let values = headers.get_all(X_FORWARDED_FOR).iter();
    values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|entry| address(std::str::from_utf8(entry).ok()?.trim()))
        .collect()
}

fn forwarded(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let values = headers.get_all(header::FORWARDED).iter();
    values
        .flat_map(|value| {
            let text = String::from_utf8_lossy(value.as_bytes());
            let entries = outside_quotes(&text, ',').map(of_element);
            entries.collect::<Vec<_>>()
        })
        .collect()
}

/// The `for` of an element such as `for="[2001:db8::1]:4711";proto=https`.
fn of_element(element: &str) -> Option<IpAddr> {
    let mut pairs = outside_quotes(element, ';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    let value = value.trim();
    let unquoted = value.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    address(unquoted.unwrap_or(value))
}

/// The parts of a text between separators that are not in quotation marks. No address has an escaped one.
fn outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    text.split(move |c| {
        is_quoted ^= c == '"';
        c == separator && !is_quoted
    })
}

/// An address, with a port or without: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse::<IpAddr>();
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip());
    let address = address.or_else(|_| with_port()).ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// The client behind `10.0.0.1`, where all of `10.0.0.0/8` is trusted.
    fn reported(headers: &[(HeaderName, &str)]) -> String {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let headers = headers
            .iter()
            .map(|(name, value)| (name, HeaderValue::from_bytes(value.as_bytes()).unwrap()));
        let mut map = HeaderMap::new();
        headers.for_each(|(name, value)| {
            map.append(name.clone(), value);
        });
        let client = client("10.0.0.1".parse().unwrap(), &map, &trusted);
        client.map_or("the proxy's own".to_owned(), |it| it.to_string())
    }

    #[test]
    fn the_last_address_that_is_not_of_a_proxy_counts() {
        for (value, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("198.51.100.9, 192.0.2.1", "192.0.2.1"),
            ("198.51.100.9,192.0.2.1 , 10.0.0.2", "192.0.2.1"),
            ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("192.0.2.1:4711", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            // What cannot be read hides what is before it.
            ("192.0.2.1, unknown", "10.0.0.1"),
            ("192.0.2.1, unknown, 10.0.0.2", "10.0.0.2"),
            ("192.0.2.1,", "10.0.0.1"),
            ("", "10.0.0.1"),
        ] {
            let header = (X_FORWARDED_FOR, value);
            assert_eq!(reported(&[header]), expected, "{value}");
        }
        let lines = ["198.51.100.9", "192.0.2.1", "10.0.0.2"].map(|it| (X_FORWARDED_FOR, it));
        assert_eq!(reported(&lines), "192.0.2.1");
        assert_eq!(reported(&[]), "the proxy's own");
    }

    #[test]
    fn the_standard_header_says_the_same() {
        for (value, expected) in [
            ("for=192.0.2.1", "192.0.2.1"),
            ("For=192.0.2.1;proto=https;by=10.0.0.1", "192.0.2.1"),
            ("proto=https; for=\"192.0.2.1:4711\"", "192.0.2.1"),
            ("for=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("for=198.51.100.9, for=192.0.2.1, for=10.0.0.2", "192.0.2.1"),
            // A client that tries to end the list early.
            ("for=\"x, for=198.51.100.9\", for=192.0.2.1", "192.0.2.1"),
            ("for=\"x, for=192.0.2.1", "10.0.0.1"),
            ("for=_hidden", "10.0.0.1"),
            ("for=192.0.2.1, proto=https", "10.0.0.1"),
            // What a client has sent before it.
            ("for=Köln, for=192.0.2.1", "192.0.2.1"),
            ("for=192.0.2.1, for=Köln", "10.0.0.1"),
            ("by=10.0.0.1", "10.0.0.1"),
        ] {
            let header = (header::FORWARDED, value);
            assert_eq!(reported(&[header]), expected, "{value}");
        }
    }

    #[test]
    fn two_headers_that_disagree_name_no_client() {
        let client = (X_FORWARDED_FOR, "192.0.2.1");
        for (forwarded, expected) in [
            ("for=192.0.2.1", "192.0.2.1"),
            ("for=198.51.100.9", "10.0.0.1"),
            ("for=unknown", "10.0.0.1"),
        ] {
            let headers = [client.clone(), (header::FORWARDED, forwarded)];
            assert_eq!(reported(&headers), expected, "{forwarded}");
        }
    }
}
