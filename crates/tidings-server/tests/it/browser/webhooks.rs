//! Endpoints and deliveries, from the first to the last button.

use super::Browser;
use crate::support::Home;
use crate::webhooks::Webhooks;
use serde_json::json;

/// What stands beside a word in a list of facts.
fn fact(word: &str) -> String {
    format!(
        "[...document.querySelectorAll('dt')].find((it) => it.textContent === '{word}')?.nextElementSibling.textContent"
    )
}

#[tokio::test]
async fn a_person_manages_an_endpoint_from_its_making_to_its_end() {
    let home = Home::new();
    let server = home.start().await;
    let mut receiver = Webhooks::start().await;
    let browser = Browser::start().await;
    browser.open(&server, "/#/endpoints").await;
    browser.until_shown("The operator has no endpoint").await;
    browser.click("#new-endpoint").await;
    browser.type_into("dialog [name=url]", "nonsense").await;
    browser.submit().await;
    let at_url =
        "document.activeElement.name === 'url' && document.activeElement.matches('[aria-invalid]')";
    browser.until("the field is named", at_url).await;
    assert!(browser.text("dialog .error").await.starts_with("url: "));
    browser
        .type_into("dialog [name=url]", &receiver.url())
        .await;
    browser
        .type_into("dialog [name=description]", "Warehouse")
        .await;
    browser
        .type_into("dialog [name=event_types]", "order.*")
        .await;
    browser.submit().await;
    let secret = browser.text("dialog .secret").await;
    assert!(secret.starts_with("whsec_"), "{secret}");
    browser.click("dialog .primary").await;
    let listed = server.get("/v1/endpoints").await;
    let endpoint = &listed["data"][0];
    let id = endpoint["id"].as_str().unwrap();
    assert_eq!(endpoint["event_types"], json!(["order.*"]));
    assert_eq!(endpoint["schedule"], json!(null));

    browser
        .until("the page of it", &format!("{} === '{id}'", fact("Id")))
        .await;
    browser.click("#test").await;
    let sent = receiver.next().await;
    browser.until_shown("Attempt 1").await;
    let shown = "document.querySelector('#message').textContent.includes('tidings.test')";
    browser.until("what was sent", shown).await;
    assert_eq!(browser.text("#message").await, sent.text());
    browser.until_shown("204").await;
    browser.click("#retry").await;
    browser.until_shown("Attempt 2").await;

    browser.open(&server, &format!("/#/endpoints/{id}")).await;
    browser
        .until("its success", &format!("{} === '100 %'", fact("Success")))
        .await;
    browser.click("#rotate").await;
    browser.submit().await;
    assert_ne!(browser.text("dialog .secret").await, secret);
    browser.click("dialog .primary").await;
    browser.click("#edit").await;
    browser
        .type_into("dialog [name=description]", "Depot")
        .await;
    browser.submit().await;
    browser.until_shown("Depot").await;

    browser.click("#toggle").await;
    browser.until_shown("disabled by its owner").await;
    browser.click("#toggle").await;
    browser
        .until(
            "it is enabled",
            "document.querySelector('#test').hidden === false",
        )
        .await;
    browser.click("#delete").await;
    browser
        .until("a question", "document.querySelector('dialog[open]')")
        .await;
    // Escape, or Cancel, changes nothing.
    browser.click("dialog .actions button:first-child").await;
    assert_eq!(server.get("/v1/endpoints").await["data"][0]["id"], id);
    browser.click("#delete").await;
    browser.submit().await;
    browser.until_shown("The operator has no endpoint").await;
    assert_eq!(server.get("/v1/endpoints").await["data"], json!([]));
    browser.close().await;
}

#[tokio::test]
async fn a_person_sees_why_a_delivery_failed_and_follows_a_replay() {
    let home = Home::new();
    let server = home.start().await;
    let receiver = Webhooks::start().await;
    receiver.reply_with(503);
    let endpoint = json!({ "url": receiver.url(), "schedule": [0] });
    let created = server.post("/v1/endpoints", &endpoint).await;
    let created: serde_json::Value = created.json().await.unwrap();
    let id = created["id"].as_str().unwrap();
    // Fewer than the breaker counts.
    for n in 0..3 {
        server.notify("anna", json!({ "n": n })).await;
    }
    let browser = Browser::start().await;
    browser.open(&server, &format!("/#/endpoints/{id}")).await;
    browser.until_shown("status 503").await;
    browser.open(&server, "/#/deliveries?state=failed").await;
    let rows = |count: u32| format!("document.querySelectorAll('tbody tr').length === {count}");
    browser.until("all have failed", &rows(3)).await;
    browser.open(&server, "/#/deliveries?state=delivered").await;
    browser.until_shown("There is no delivered delivery.").await;

    browser.open(&server, &format!("/#/endpoints/{id}")).await;
    browser.until_shown("status 503").await;
    receiver.reply_with(204);
    browser.click("#replay-button").await;
    browser.type_into("dialog [name=per_second]", "1").await;
    browser.submit().await;
    browser
        .until_shown("left to look at, at most 1 a second")
        .await;
    let ended = "document.querySelector('#replay').hidden";
    browser.until("the replay ends", ended).await;
    browser.open(&server, "/#/deliveries?state=delivered").await;
    browser.until("all have arrived", &rows(3)).await;
    browser.close().await;
}
