//! Which web pages may call, and the names that a `--dev` server replies to.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use url::Url;

use super::client;
use super::error::ApiError;
use super::extract::header_once;
use crate::config::Config;
use crate::wire::code::Code;

/// The pages that are trusted.
#[derive(Debug)]
pub(crate) struct Origins {
    listed: Vec<String>,
    dev: bool,
    /// Whether the server needs no credential.
    is_open: bool,
    /// Whether pages of trusted origins may send cookies.
    has_cookie: bool,
}

impl Origins {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            listed: config.allow_origins.clone(),
            dev: config.dev,
            is_open: config.api_keys.is_empty(),
            has_cookie: config.jwt.cookie.is_some(),
        }
    }

    /// Whether a page of this origin may call: the server's own pages, those that were listed, and
    /// with `--dev` every page from a loopback address.
    fn trusts(&self, origin: &str, host: Option<&str>) -> bool {
        if self.listed.iter().any(|listed| listed == origin) {
            return true;
        }
        let Ok(url) = Url::parse(origin) else {
            return false;
        };
        let own = origin.split_once("://").map(|(_, authority)| authority);
        own.is_some_and(|own| Some(own) == host) || (self.dev && is_loopback(&url))
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Whether a browser reports that a page of another site caused the request, without an `Origin`: by
/// an image, a link or a frame. Such a request must not open a stream, because that has effects.
pub(super) fn is_cross_site(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    site == Some(b"cross-site") && !headers.contains_key(header::ORIGIN)
}

/// A page of a trusted origin that has caused a request.
#[derive(Debug)]
pub(super) struct Page {
    origin: HeaderValue,
    may_send_cookies: bool,
}

/// Refuses requests from pages of untrusted origins. `None` if no page has caused the request.
///
/// Browsers attach `Origin` to WebSocket upgrades and to every request that changes something, also
/// where they ask for no permission first. With `--dev` the server needs no key, so the name it is
/// called by is checked too: a page whose own name was pointed at this machine has a foreign `Host`.
pub(super) fn check_origin(origins: &Origins, request: &Request) -> Result<Option<Page>, ApiError> {
    let host = host_of(request.headers(), request.uri());
    if origins.dev && origins.is_open && !host.is_some_and(is_loopback_host) {
        tracing::info!(
            host,
            url.path = request.uri().path(),
            "refused a request by its Host header; a server with --dev accepts loopback names only, \
             use --api-key instead"
        );
        return Err(ApiError::new(
            Code::HostNotAllowed,
            "a server with --dev accepts loopback host names only",
        ));
    }
    // The client is public. A page that may load it and not call is told by the client what is wrong.
    if request.uri().path() == client::PATH {
        return Ok(None);
    }
    let Some(origin) = header_once(request.headers(), "Origin")? else {
        return Ok(None);
    };
    let trusted = origin
        .to_str()
        .is_ok_and(|origin| origins.trusts(origin, host));
    if !trusted {
        tracing::info!(
            ?origin,
            url.path = request.uri().path(),
            "refused a request from a page of another origin; --allow-origin allows it"
        );
        return Err(ApiError::new(
            Code::OriginNotAllowed,
            "requests from pages of this origin are not allowed; see --allow-origin",
        ));
    }
    Ok(Some(Page {
        origin: origin.clone(),
        may_send_cookies: origins.has_cookie,
    }))
}

impl Page {
    /// Lets the page read the response.
    pub(super) fn let_read(self, headers: &mut HeaderMap) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, self.origin);
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(
                "retry-after, ratelimit, ratelimit-policy, x-request-id, date",
            ),
        );
        if self.may_send_cookies {
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
}

/// The name that the server was called by: `Host`, or `:authority` in HTTP/2.
pub(super) fn host_of<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<&'a str> {
    match headers.get(header::HOST) {
        Some(host) => host.to_str().ok(),
        None => uri.authority().map(Authority::as_str),
    }
}

fn is_loopback_host(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host();
    let in_brackets = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let address = in_brackets.unwrap_or(name).parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// The response to a browser that asks what a page may send.
pub(super) fn preflight_response(request: &Request) -> Option<Response> {
    let asks_for = header::ACCESS_CONTROL_REQUEST_METHOD;
    if request.method() != Method::OPTIONS || !request.headers().contains_key(asks_for) {
        return None;
    }
    let allowed = (
        StatusCode::NO_CONTENT,
        [
            (
                header::ACCESS_CONTROL_ALLOW_METHODS,
                "GET, POST, PATCH, DELETE",
            ),
            (
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                "authorization, baggage, content-type, idempotency-key, last-event-id, traceparent, \
                 tracestate, x-request-id, x-requested-with",
            ),
            (header::ACCESS_CONTROL_MAX_AGE, "600"),
        ],
    );
    Some(allowed.into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(dev: bool) -> Origins {
        Origins {
            listed: vec!["https://app.example.com".to_owned()],
            dev,
            is_open: false,
            has_cookie: false,
        }
    }

    #[test]
    fn own_listed_and_in_dev_loopback_origins_are_trusted() {
        let host = Some("tidings.example.com:8080");
        for (origin, normally, in_dev) in [
            ("http://tidings.example.com:8080", true, true),
            ("https://app.example.com", true, true),
            ("http://localhost:3000", false, true),
            ("http://[::1]:3000", false, true),
            ("https://evil.example.com", false, false),
            ("http://localhost.evil.example.com", false, false),
            ("null", false, false),
            ("", false, false),
        ] {
            assert_eq!(origins(false).trusts(origin, host), normally, "{origin}");
            assert_eq!(origins(true).trusts(origin, host), in_dev, "{origin}");
        }
    }

    #[test]
    fn loopback_hosts_are_distinguished_from_names_that_point_there() {
        for host in [
            "localhost",
            "LocalHost:8080",
            "127.0.0.1:1",
            "127.8.8.8",
            "[::1]:8080",
            "[::1]",
        ] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in [
            "rebind.example.com",
            "localhost.example.com",
            "10.0.0.1",
            "[::2]:8080",
            "::1",
            "",
            "local host",
        ] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }
}
