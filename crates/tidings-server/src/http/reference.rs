//! `GET /docs`: a page that shows the OpenAPI document, served from the binary.

use axum::http::HeaderMap;
use axum::response::Response;

use super::asset::{Asset, OF_A_PAGE};

static PAGE: Asset = Asset::html(include_str!("../reference/index.html"));
static STYLE: Asset = Asset::css(include_str!("../reference/docs.css"));
static SCRIPT: Asset = Asset::script(include_str!("../reference/docs.js"));

pub(super) async fn page(headers: HeaderMap) -> Response {
    PAGE.respond(&headers, OF_A_PAGE)
}

pub(super) async fn style(headers: HeaderMap) -> Response {
    STYLE.respond(&headers, OF_A_PAGE)
}

pub(super) async fn script(headers: HeaderMap) -> Response {
    SCRIPT.respond(&headers, OF_A_PAGE)
}
