//! The files of the console, and who may show it.

use reqwest::StatusCode;
use serde_json::json;
use tidings_test_support::{Receiver, Reply};

use super::{Browser, IS_LIVE};
use crate::support::{Home, http};
use crate::tokens::{KEY, SECRET, token};

#[tokio::test]
async fn every_file_has_a_policy_and_is_not_sent_again_unless_it_has_changed() {
    let home = Home::new();
    let server = home.start().await;
    let mut tags = Vec::new();
    for path in [
        "/",
        "/console/console.css",
        "/console/main.js",
        "/console/user.js",
        "/docs",
        "/docs/docs.js",
    ] {
        let get = |tag: &str| {
            let request = http().get(server.at(path)).header("If-None-Match", tag);
            async { request.send().await.unwrap() }
        };
        let first = get("\"other\"").await;
        assert_eq!(first.status(), StatusCode::OK, "{path}");
        let text = |name: &str| first.headers()[name].to_str().unwrap().to_owned();
        let policy = text("content-security-policy");
        for rule in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(rule), "{path}: {policy}");
        }
        assert_eq!(text("cache-control"), "no-cache", "{path}");
        assert_eq!(text("x-content-type-options"), "nosniff", "{path}");
        let tag = text("etag");
        let again = get(&format!("W/{tag}")).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{path}");
        assert_eq!(again.headers()["etag"], tag.as_str(), "{path}");
        assert_eq!(again.text().await.unwrap(), "", "{path}");
        tags.push(tag);
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 6, "{tags:?}");
}

#[tokio::test]
async fn a_page_of_a_trusted_origin_shows_the_portal_of_its_user_in_a_frame() {
    let application = Receiver::start(Reply::ok()).await.unwrap();
    let page = application.url("/");
    let origin = page.trim_end_matches('/').to_owned();
    let arguments = ["--api-key", KEY, "--jwt-secret", SECRET, "--allow-origin"];
    let home = Home::with(&[&arguments[..], &[&origin]].concat());
    let server = home.start().await;
    let body = json!({ "user_id": "anna", "payload": "for anna" });
    let request = http().post(server.at("/v1/notifications")).json(&body);
    let response = request.bearer_auth(KEY).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let address = server.at(&format!("/#token={}", token("anna", 600)));
    let html = format!("<!doctype html><iframe src=\"{address}\" title=\"Portal\"></iframe>");
    let shown = Reply::ok().with_header("content-type", "text/html");
    application.switch_to(shown.with_body(html));

    let browser = Browser::start().await;
    browser.client.goto(&page).await.unwrap();
    browser
        .until("the frame", "document.querySelector('iframe')")
        .await;
    browser.client.enter_frame(0).await.unwrap();
    browser.until("the stream opens", IS_LIVE).await;
    browser.until_shown("for anna").await;
    browser.close().await;
}
