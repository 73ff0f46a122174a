//! Refuses parameters of the query that a route does not know: a misspelt one would be passed over.

use axum::http::Uri;

use super::error::ApiError;
use crate::access::credential;

/// The parameters that a route knows.
pub(super) type Known = Box<[&'static str]>;

/// Refuses a request with a parameter that the route does not know. A token may be among them.
pub(super) fn check(known: &[&'static str], uri: &Uri) -> Result<(), ApiError> {
    let query = uri.query().unwrap_or_default();
    let is_known = |name: &str| name == credential::PARAMETER || known.contains(&name);
    let mut names = url::form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name);
    match names.find(|name| !is_known(name)) {
        None => Ok(()),
        Some(name) => Err(ApiError::unknown("parameter", name, known)),
    }
}
