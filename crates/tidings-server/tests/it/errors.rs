//! Wrong input: a JSON error that names the field, and never a 500.

mod addresses;
mod bodies;
mod framing;
mod headers;
mod surrogates;
mod values;

use reqwest::Method;
use serde_json::Value;

use crate::support::{Server, http};

/// Makes a request that must be refused; returns its status and the error.
pub(crate) async fn refusal(
    server: &Server,
    method: Method,
    path: &str,
    body: &str,
) -> (u16, Value) {
    let request = http()
        .request(method.clone(), server.at(path))
        .body(body.to_owned());
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    let Ok(json) = serde_json::from_str::<Value>(&text) else {
        panic!("{method} {path} {body}: {status} without JSON: {text}");
    };
    assert!(json["error"]["code"].is_string(), "{text}");
    assert!(json["error"]["message"].is_string(), "{text}");
    (status, json["error"].clone())
}

async fn assert_refused(server: &Server, path: &str, body: &str, field: &str) {
    let (status, error) = refusal(server, Method::POST, path, body).await;
    assert_eq!(status, 400, "{path} {body} {error}");
    let named = error["field"].as_str().unwrap_or_default();
    assert_eq!(named, field, "{path} {body} {error}");
}
