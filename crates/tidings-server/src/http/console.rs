//! `GET /`: the page for people, served from the binary.

use axum::extract::Path;
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};

use super::error::ApiError;

/// The page loads nothing from elsewhere and runs no script but its own.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(crate) async fn page() -> Response {
    let mut response = Html(include_str!("../console/index.html")).into_response();
    harden(&mut response);
    response
}

pub(crate) async fn file(Path(name): Path<String>) -> Result<Response, ApiError> {
    let (content_type, text) = match name.as_str() {
        "console.css" => (
            "text/css; charset=utf-8",
            include_str!("../console/console.css"),
        ),
        "console.js" => (
            "text/javascript; charset=utf-8",
            include_str!("../console/console.js"),
        ),
        _ => return Err(ApiError::not_found("file", "the page has no such file")),
    };
    let content_type = HeaderValue::from_static(content_type);
    let mut response = ([(header::CONTENT_TYPE, content_type)], text).into_response();
    harden(&mut response);
    Ok(response)
}

fn harden(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(CONTENT_SECURITY_POLICY),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
}
