//! `GET /tidings.js`: the client for browsers, for pages of every origin. It is made from `clients/js` of the
//! repository.

use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// Where the client is. A script of an untrusted page may load it, because it is public.
pub(super) const PATH: &str = "/tidings.js";

const SCRIPT: &str = include_str!("../client/tidings.js");

/// How long a browser uses its copy without a request. After it, an unchanged file is not sent again.
const CACHE_CONTROL: &str = "public, max-age=300";

static TAG: LazyLock<String> = LazyLock::new(|| {
    let digest = Sha256::digest(SCRIPT);
    format!("\"{}\"", BASE64_URL_SAFE_NO_PAD.encode(digest))
});

pub(super) async fn script(headers: HeaderMap) -> Response {
    let is_known = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == *TAG || tag == "*");
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        SCRIPT.into_response()
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/javascript; charset=utf-8"),
        (header::CACHE_CONTROL, CACHE_CONTROL),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (
            header::HeaderName::from_static("cross-origin-resource-policy"),
            "cross-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Base64 between quotation marks.
    if let Ok(tag) = HeaderValue::try_from(TAG.as_str()) {
        headers.insert(header::ETAG, tag);
    }
    response
}
