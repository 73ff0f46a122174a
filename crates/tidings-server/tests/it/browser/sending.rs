//! What a person types while a form is being sent.

use fantoccini::Locator;
use fantoccini::key::Key;
use serde_json::json;

use super::{Browser, IS_LIVE, intercept, press};
use crate::support::Home;
use crate::webhooks::create;

/// Holds a request back until `window.go` is called.
const HELD: &str = "(send) => new Promise((go) => { window.go = go; }).then(send)";

#[tokio::test]
async fn regression_what_is_typed_while_a_notification_is_sent_stays() {
    let home = Home::new();
    let server = home.start().await;
    let browser = Browser::start().await;
    browser.open(&server, "/#/users/anna").await;
    browser.until("the stream opens", IS_LIVE).await;
    intercept(&browser, "/notifications$/", HELD).await;
    let field = Locator::Css("#send textarea");
    let text = browser.client.find(field).await.unwrap();
    text.send_keys("{first").await.unwrap();
    browser.click("#send button").await;
    browser.until("it is being sent", "window.go").await;
    text.send_keys(" second").await.unwrap();
    let go = "window.go();";
    browser.client.execute(go, vec![]).await.unwrap();
    browser.until_shown("Stored as").await;
    browser.until_shown("it looks like JSON").await;
    assert_eq!(browser.text("#send textarea").await, "{first second");
    let inbox = server.get("/v1/users/anna/notifications").await;
    assert_eq!(inbox["data"][0]["payload"]["message"], "{first");

    // What was sent as it is does not stay.
    text.clear().await.unwrap();
    text.send_keys("[]").await.unwrap();
    browser.click("#send button").await;
    browser.until("it is being sent", "window.go").await;
    browser.client.execute(go, vec![]).await.unwrap();
    let empty = "document.querySelector('#send textarea').value === ''";
    browser.until("the field is empty", empty).await;
    browser.close().await;
}

#[tokio::test]
async fn regression_a_dialog_takes_no_words_that_would_be_lost_when_it_closes() {
    let home = Home::new();
    let server = home.start().await;
    let body = json!({ "url": "http://127.0.0.1:1/" });
    let endpoint = create(&server, "/v1/endpoints", body).await;
    let id = endpoint["id"].as_str().unwrap();
    let browser = Browser::start().await;
    browser.open(&server, &format!("/#/endpoints/{id}")).await;
    browser.until_shown("127.0.0.1:1").await;
    browser.click("#edit").await;
    let held = "const real = window.fetch;
        window.fetch = async (url, init) => {
            const isHeld = init?.method === 'PATCH';
            if (isHeld && (await new Promise((go) => { window.go = go; }))) throw new TypeError('broken');
            return real(url, init);
        };";
    browser.client.execute(held, vec![]).await.unwrap();
    browser
        .type_into("dialog [name=description]", "Depot")
        .await;
    let typed = "return document.querySelector('dialog [name=description]').value";
    for is_broken in [true, false] {
        press(&browser, Key::Enter).await;
        browser.until("it is being sent", "window.go").await;
        let waits = "document.activeElement.name !== 'description'";
        browser.until("the form waits", waits).await;
        press(&browser, 's').await;
        let is = browser.client.execute(typed, vec![]).await.unwrap();
        assert_eq!(is, "Depot");
        let go = format!("window.go({is_broken}); window.go = undefined;");
        browser.client.execute(&go, vec![]).await.unwrap();
        if is_broken {
            browser.until_shown("The server does not reply").await;
            let there = "document.activeElement.name === 'description'";
            browser
                .until("the person goes on where they were", there)
                .await;
        }
    }
    browser.until_shown("Saved").await;
    browser.close().await;
}
