//! `GET /tidings.js`: the client for browsers, for pages of every origin. It is made from `clients/js` of the
//! repository.

use axum::http::HeaderMap;
use axum::http::header::{self, HeaderName};
use axum::response::Response;

use super::asset::Asset;

/// Where the client is. A script of an untrusted page may load it, because it is public.
pub(super) const PATH: &str = "/tidings.js";

static SCRIPT: Asset = Asset::script(include_str!("../client/tidings.js"));

/// A browser uses its copy for five minutes without a request. After it, an unchanged file is not sent again.
const HEADERS: [(HeaderName, &str); 3] = [
    (header::CACHE_CONTROL, "public, max-age=300"),
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "cross-origin",
    ),
];

pub(super) async fn script(headers: HeaderMap) -> Response {
    SCRIPT.respond(&headers, HEADERS)
}
