//! `GET /`: the console, and its style and scripts, served from the binary.

use std::sync::LazyLock;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};

use super::asset::{Asset, OF_A_PAGE, policy_with_frames};
use super::error::ApiError;
use super::extract::InPath;
use crate::app::SharedApp;

static PAGE: Asset = Asset::html(include_str!("../console/index.html"));

static STYLE: Asset = Asset::css(include_str!("../console/console.css"));

macro_rules! scripts {
    ($($name:literal)*) => {
        /// The scripts by their names.
        static SCRIPTS: LazyLock<Vec<(&str, Asset)>> = LazyLock::new(|| {
            vec![$(($name, Asset::script(include_str!(concat!("../console/", $name))))),*]
        });
    };
}

scripts! {
    "api.js"
    "bin.js"
    "bins.js"
    "chart.js"
    "deliveries.js"
    "delivery.js"
    "dialog.js"
    "dom.js"
    "endpoint-form.js"
    "endpoint.js"
    "endpoints.js"
    "format.js"
    "keys.js"
    "login.js"
    "main.js"
    "metrics.js"
    "overview.js"
    "place.js"
    "poll.js"
    "sampler.js"
    "server-clock.js"
    "session.js"
    "typed.js"
    "user.js"
}

/// An application may show the page in a frame, as the portal of its user.
pub(super) async fn page(State(app): State<SharedApp>, headers: HeaderMap) -> Response {
    let mut response = PAGE.respond(&headers, OF_A_PAGE);
    if let Some(policy) = policy_with_frames(&app.config.allow_origins) {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

pub(super) async fn style(headers: HeaderMap) -> Response {
    STYLE.respond(&headers, OF_A_PAGE)
}

pub(super) async fn script(InPath(name): InPath<String>, headers: HeaderMap) -> Response {
    match SCRIPTS.iter().find(|(known, _)| *known == name) {
        Some((_, script)) => script.respond(&headers, OF_A_PAGE),
        None => ApiError::not_found("id", "the console has no such script").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A script that is missing would be a page that does nothing.
    #[test]
    fn every_script_that_another_imports_is_served_and_no_other() {
        let mut served: Vec<_> = SCRIPTS.iter().map(|(name, _)| *name).collect();
        let texts = SCRIPTS.iter().map(|(_, script)| script.text());
        let imported = texts.flat_map(|text| text.split("from \"./").skip(1));
        let begun = PAGE.text().split("src=\"/console/").skip(1);
        let mut named: Vec<_> = imported
            .chain(begun)
            .map(|rest| rest.split_once('"').unwrap().0)
            .collect();
        served.sort_unstable();
        named.sort_unstable();
        named.dedup();
        assert_eq!(named, served);
    }
}
