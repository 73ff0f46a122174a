//! Which web pages may call, and the names that a `--dev` server replies to.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use url::Url;

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

/// Refuses requests from pages of untrusted origins, and lets pages of trusted origins read
/// responses.
///
/// Browsers attach `Origin` to WebSocket upgrades and to every request that changes something, also
/// where they ask for no permission first. With `--dev` the server needs no key, so the name it is
/// called by is checked too: a page whose own name was pointed at this machine has a foreign `Host`.
pub(crate) async fn check_origin(
    State(origins): State<Arc<Origins>>,
    request: Request,
    next: Next,
) -> Response {
    let host = host_of(&request);
    if origins.dev && origins.is_open && !is_loopback_host(host.as_deref()) {
        tracing::info!(
            host,
            url.path = request.uri().path(),
            "refused a request by its Host header; a server with --dev accepts loopback names only, \
             use --api-key instead"
        );
        return ApiError::new(
            Code::HostNotAllowed,
            "a server with --dev accepts loopback host names only",
        )
        .into_response();
    }
    let origin = match header_once(request.headers(), "Origin") {
        Ok(Some(origin)) => origin.clone(),
        Ok(None) => return next.run(request).await,
        Err(twice) => return twice.into_response(),
    };
    let trusted = origin
        .to_str()
        .is_ok_and(|origin| origins.trusts(origin, host.as_deref()));
    if !trusted {
        tracing::info!(
            ?origin,
            url.path = request.uri().path(),
            "refused a request from a page of another origin; --allow-origin allows it"
        );
        return ApiError::new(
            Code::OriginNotAllowed,
            "requests from pages of this origin are not allowed; see --allow-origin",
        )
        .into_response();
    }
    let is_preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if is_preflight {
        preflight_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("retry-after, ratelimit, ratelimit-policy, x-request-id"),
    );
    if origins.has_cookie {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
            HeaderValue::from_static("true"),
        );
    }
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    response
}

/// The name that the server was called by: `Host`, or `:authority` in HTTP/2.
fn host_of(request: &Request) -> Option<String> {
    match request.headers().get(header::HOST) {
        Some(host) => host.to_str().ok().map(str::to_owned),
        None => request.uri().authority().map(ToString::to_string),
    }
}

fn is_loopback_host(host: Option<&str>) -> bool {
    host.and_then(|host| Url::parse(&format!("http://{host}")).ok())
        .is_some_and(|url| is_loopback(&url))
}

fn preflight_response() -> Response {
    (
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
    )
        .into_response()
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
        for host in ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080"] {
            assert!(is_loopback_host(Some(host)), "{host}");
        }
        for host in ["rebind.example.com", "10.0.0.1", ""] {
            assert!(!is_loopback_host(Some(host)), "{host}");
        }
        assert!(!is_loopback_host(None));
    }
}
