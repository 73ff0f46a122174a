//! Refuses parameters of the query that a route does not know: a misspelt one would be passed over.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use crate::access::credential;

/// The parameters that a route knows.
pub(super) type Known = Arc<[&'static str]>;

/// Lets a request through if the route knows its parameters. A token may be among them.
pub(super) async fn check(State(known): State<Known>, request: Request, next: Next) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let is_known = |name: &str| name == credential::PARAMETER || known.contains(&name);
    let mut names = url::form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name);
    match names.find(|name| !is_known(name)) {
        None => next.run(request).await,
        Some(name) => ApiError::invalid(name, "unknown parameter").into_response(),
    }
}
