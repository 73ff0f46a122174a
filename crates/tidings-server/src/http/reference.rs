//! `GET /docs`: a page that shows the OpenAPI document, served from the binary.

use axum::response::Response;

use super::console::asset;

pub(super) async fn page() -> Response {
    asset(
        "text/html; charset=utf-8",
        include_str!("../reference/index.html"),
    )
}

pub(super) async fn style() -> Response {
    asset(
        "text/css; charset=utf-8",
        include_str!("../reference/docs.css"),
    )
}

pub(super) async fn script() -> Response {
    asset(
        "text/javascript; charset=utf-8",
        include_str!("../reference/docs.js"),
    )
}
