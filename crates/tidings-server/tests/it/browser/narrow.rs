//! Nothing is wider than the window.

use serde_json::json;

use super::Browser;
use crate::support::Home;
use crate::webhooks::{create, delivery_in};

#[tokio::test]
async fn regression_a_long_word_fits_a_narrow_window_in_every_view() {
    let home = Home::new();
    let server = home.start().await;
    let long = "x".repeat(100);
    let body = json!({ "url": format!("http://127.0.0.1:1/{long}"), "event_types": [long] });
    let endpoint = create(&server, "/v1/endpoints", body.clone()).await;
    create(&server, &format!("/v1/users/{long}/endpoints"), body).await;
    let key = json!({ "name": long, "scopes": ["read"] });
    create(&server, "/v1/keys", key).await;
    let bin = create(&server, "/v1/bins", json!({})).await;
    let payload = json!({ "title": long, "body": long });
    let sent = json!({ "user_id": "ben", "type": long, "key": long, "payload": payload });
    create(&server, "/v1/notifications", sent).await;
    let delivery = delivery_in(&server, "pending").await;
    let at =
        |view: &str, made: &serde_json::Value| format!("{view}/{}", made["id"].as_str().unwrap());

    let browser = Browser::start().await;
    browser.client.set_window_size(360, 800).await.unwrap();
    for (address, shown) in [
        (format!("users/{long}"), "Nothing is in the inbox."),
        (format!("users/anna?type={long}"), "Nothing of the type"),
        ("users/ben".to_owned(), "JSON"),
        ("users/ben?show=live".to_owned(), "connected"),
        (format!("endpoints?user={long}"), "enabled"),
        (format!("endpoints?user={long}{long}"), "has no endpoint."),
        (at("endpoints", &endpoint), "Last error"),
        (at("deliveries", &delivery), "Attempt 1"),
        ("deliveries".to_owned(), " attempt"),
        (at("bins", &bin), "Nothing has come yet"),
        ("bins".to_owned(), "/bins/"),
        ("keys".to_owned(), "never"),
    ] {
        browser.open(&server, &format!("/#/{address}")).await;
        browser.until_shown(shown).await;
        let fits = "const { scrollWidth, clientWidth } = document.documentElement;
            return [innerWidth, scrollWidth - clientWidth]";
        let fits = browser.client.execute(fits, vec![]).await.unwrap();
        assert_eq!(fits, json!([360, 0]), "{address}");
    }
    browser.close().await;
}
