//! What a view says before the first reply.

use serde_json::json;
use tokio::net::TcpListener;

use super::{Browser, intercept};
use crate::support::Home;
use crate::webhooks::{create, delivery_in};

#[tokio::test]
async fn regression_a_view_claims_and_offers_nothing_before_it_is_loaded() {
    let home = Home::new();
    let server = home.start().await;
    // Takes connections, and replies to none.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let busy = json!({ "url": url });
    create(&server, "/v1/endpoints", busy).await;
    let idle = json!({ "url": url, "event_types": ["never"] });
    let idle = create(&server, "/v1/endpoints", idle).await;
    let bin = create(&server, "/v1/bins", json!({})).await;
    server.notify("anna", json!(1)).await;
    let delivery = delivery_in(&server, "pending").await;
    let at =
        |view: &str, made: &serde_json::Value| format!("{view}/{}", made["id"].as_str().unwrap());

    let browser = Browser::start().await;
    browser.open(&server, "/#/").await;
    browser.until_shown("Since the start of the instance").await;
    let away = "(send) => window.isBack ? send() : Promise.reject(new TypeError('away'))";
    intercept(&browser, "/v1/", away).await;
    // What leads elsewhere, or makes something new, needs nothing that is loaded.
    let offered = "[...document.querySelectorAll('#view button')]
        .some((it) => it.offsetParent !== null && !it.matches('[id^=new-], .inline button'))";
    for (address, claim) in [
        (at("deliveries", &delivery), "No attempt was made."),
        (at("endpoints", &idle), "There is no delivery"),
        (at("bins", &bin), "Nothing has come yet."),
        ("keys".to_owned(), "There is no key."),
        ("endpoints?user=anna".to_owned(), "anna has no endpoint."),
        ("deliveries?state=failed".to_owned(), "There is no failed"),
    ] {
        let go = format!("window.isBack = false; location.hash = '#/{address}'");
        browser.client.execute(&go, vec![]).await.unwrap();
        browser
            .until_shown("The server does not reply. Trying again.")
            .await;
        browser.until_shown("Loading …").await;
        let claimed = format!("document.body.innerText.includes({claim:?})");
        browser
            .until(claim, &format!("!({claimed} || {offered})"))
            .await;
        let back = "window.isBack = true";
        browser.client.execute(back, vec![]).await.unwrap();
        browser.until_shown(claim).await;
        let loaded = "!document.querySelector('.empty').textContent.includes('Loading')";
        browser.until("it is loaded", loaded).await;
    }
    browser.close().await;
}
