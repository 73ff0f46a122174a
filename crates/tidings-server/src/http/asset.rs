//! Files that are served from the binary.

use std::sync::OnceLock;

use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::header_list::elements;

/// A page loads nothing from other addresses, runs only its own scripts, and is in no frame.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The same for a page that pages of these origins may have in a frame. `None` if there is no origin.
pub(super) fn policy_with_frames(origins: &[String]) -> Option<HeaderValue> {
    let frames = format!("frame-ancestors {}", origins.join(" "));
    let policy = CONTENT_SECURITY_POLICY.replace("frame-ancestors 'none'", &frames);
    // An origin has no characters that a header cannot have.
    let policy = HeaderValue::try_from(policy).ok();
    policy.filter(|_| !origins.is_empty())
}

/// The headers of pages, their styles and their scripts. A browser asks each time whether its copy is the present one.
pub(super) const OF_A_PAGE: [(HeaderName, &str); 2] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::CACHE_CONTROL, "no-cache"),
];

/// A file, with a tag that changes with its content.
#[derive(Debug)]
pub(super) struct Asset {
    content_type: &'static str,
    text: &'static str,
    tag: OnceLock<String>,
}

impl Asset {
    pub(super) const fn html(text: &'static str) -> Self {
        Self::new("text/html; charset=utf-8", text)
    }

    pub(super) const fn css(text: &'static str) -> Self {
        Self::new("text/css; charset=utf-8", text)
    }

    pub(super) const fn script(text: &'static str) -> Self {
        Self::new("text/javascript; charset=utf-8", text)
    }

    const fn new(content_type: &'static str, text: &'static str) -> Self {
        Self {
            content_type,
            text,
            tag: OnceLock::new(),
        }
    }

    #[cfg(test)]
    pub(super) fn text(&self) -> &'static str {
        self.text
    }

    fn tag(&self) -> &str {
        self.tag.get_or_init(|| {
            let digest = Sha256::digest(self.text);
            format!("\"{}\"", BASE64_URL_SAFE_NO_PAD.encode(digest))
        })
    }

    /// Whether the sender of a request has the file already.
    fn is_known(&self, request: &HeaderMap) -> bool {
        elements(request, header::IF_NONE_MATCH, b',')
            .map(|tag| tag.strip_prefix(b"W/").unwrap_or(tag))
            .any(|tag| tag == self.tag().as_bytes() || tag == b"*")
    }

    /// The response to a request with these headers, with more headers of its own.
    pub(super) fn respond(
        &self,
        request: &HeaderMap,
        more: impl IntoIterator<Item = (HeaderName, &'static str)>,
    ) -> Response {
        let mut response = if self.is_known(request) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            self.text.into_response()
        };
        let headers = response.headers_mut();
        let own = [
            (header::CONTENT_TYPE, self.content_type),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        for (name, value) in own.into_iter().chain(more) {
            headers.insert(name, HeaderValue::from_static(value));
        }
        // Base64 between quotation marks.
        if let Ok(tag) = HeaderValue::try_from(self.tag()) {
            headers.insert(header::ETAG, tag);
        }
        response
    }
}
