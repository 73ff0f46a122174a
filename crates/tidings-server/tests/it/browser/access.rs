//! Who uses the console: with an API key, or with a user's token.

use serde_json::{Value, json};

use super::{Browser, IS_LIVE};
use crate::support::{Home, Server, http};
use crate::tokens::{KEY, SECRET, signed, token};

async fn notify(server: &Server, user: &str, payload: &str) {
    let body = json!({ "user_id": user, "payload": payload });
    let request = http().post(server.at("/v1/notifications")).json(&body);
    let response = request.bearer_auth(KEY).send().await.unwrap();
    assert_eq!(response.status(), 201);
}

/// Everything that the page has requested and where it is, and what the browser keeps longer than the tab.
const LEFT: &str = "return performance.getEntriesByType('resource').map(({ name }) => name)
    .concat(location.href, document.cookie, Object.values(localStorage)).join()";

async fn left_behind(browser: &Browser) -> String {
    let left = browser.client.execute(LEFT, vec![]).await.unwrap();
    left.as_str().unwrap().to_owned()
}

async fn sign_in(browser: &Browser, credential: &str) {
    browser
        .until("the form", "document.querySelector('#login')")
        .await;
    browser.type_into("#login input", credential).await;
    browser.click("#login button").await;
}

#[tokio::test]
async fn a_person_signs_in_with_a_key_that_is_in_no_url_and_makes_another() {
    let home = Home::with(&["--api-key", KEY]);
    let server = home.start().await;
    let browser = Browser::start().await;
    browser.open(&server, "/#/users/anna").await;
    browser
        .until_shown("This server requires an API key or a token.")
        .await;
    sign_in(&browser, "a-wrong-key").await;
    browser.until_shown("with a valid API key").await;
    sign_in(&browser, KEY).await;
    browser.until("the stream opens", IS_LIVE).await;
    for payload in ["one", "zwei \u{fc}ber"] {
        notify(&server, "anna", payload).await;
        let shows = "document.querySelector('#feed li pre')?.textContent";
        browser
            .until("it is shown", &format!("{shows} === '\"{payload}\"'"))
            .await;
    }
    let left = left_behind(&browser).await;
    assert!(left.contains("/v1/users/anna/") && !left.contains(KEY));
    browser.client.refresh().await.unwrap();
    browser.until("the tab is signed in", IS_LIVE).await;

    browser.open(&server, "/#/keys").await;
    browser.until_shown("There is no key yet.").await;
    browser.click("#new-key").await;
    browser.submit().await;
    browser.until_shown("name: expected a text").await;
    browser.type_into("dialog [name=name]", "shop").await;
    browser.click("dialog [value=read]").await;
    browser.submit().await;
    let key = browser.text("dialog .secret").await;
    browser.click("dialog .primary").await;
    browser.until_shown("shop").await;
    let inbox = || http().get(server.at("/v1/users/anna/notifications"));
    let status = async || inbox().bearer_auth(&key).send().await.unwrap().status();
    assert_eq!(status().await, 200);
    browser.click("tbody button").await;
    browser.submit().await;
    browser.until_shown("is revoked").await;
    assert_eq!(status().await, 401);

    browser.click("#sign-out").await;
    browser
        .until("the key is gone", "sessionStorage.length === 0")
        .await;
    browser.client.refresh().await.unwrap();
    browser
        .until_shown("This server requires an API key or a token.")
        .await;
    browser.close().await;
}

#[tokio::test]
async fn a_user_with_a_token_sees_what_is_theirs_and_nothing_else() {
    let home = Home::with(&["--api-key", KEY, "--jwt-secret", SECRET]);
    let server = home.start().await;
    notify(&server, "anna", "for anna").await;
    let create = async |path: &str| {
        let body = json!({ "url": "http://127.0.0.1:1/", "description": path });
        let request = http().post(server.at(path)).bearer_auth(KEY).json(&body);
        let created: Value = request.send().await.unwrap().json().await.unwrap();
        let id = created["id"].as_str().unwrap().to_owned();
        let test = server.at(&format!("{path}/{id}/test"));
        let test = http().post(test).bearer_auth(KEY).send().await.unwrap();
        let test: Value = test.json().await.unwrap();
        test["delivery_id"].as_str().unwrap().to_owned()
    };
    create("/v1/users/anna/endpoints").await;
    let not_hers = create("/v1/endpoints").await;

    let browser = Browser::start().await;
    let expires = jiff::Timestamp::now().as_second() + 600;
    let owner = signed(&json!({ "sub": "anna", "exp": expires, "endpoints": true }));
    browser.open(&server, &format!("/#token={owner}")).await;
    browser.until_shown("for anna").await;
    browser.until("the stream opens", IS_LIVE).await;
    assert!(!left_behind(&browser).await.contains(&owner));
    let menu = "document.querySelector('#nav').innerText.split('\\n').join()";
    let has = |words: &str| format!("{menu} === '{words}'");
    browser
        .until("the views", &has("Inbox,Endpoints,Deliveries"))
        .await;
    assert_eq!(
        browser
            .client
            .execute("return document.querySelector('#send')", vec![])
            .await
            .unwrap(),
        Value::Null
    );
    browser.open(&server, "/#/endpoints").await;
    browser.until_shown("/v1/users/anna/endpoints").await;
    browser.open(&server, "/#/deliveries").await;
    browser.until_shown("tidings.test").await;
    browser.click("tbody a").await;
    browser.until_shown("Attempt 1").await;
    browser.until_shown("\"type\":\"tidings.test\"").await;
    browser
        .open(&server, &format!("/#/deliveries/{not_hers}"))
        .await;
    browser.until_shown("there is no such delivery").await;
    for elsewhere in ["keys", "users", "users/ben"] {
        browser.open(&server, &format!("/#/{elsewhere}")).await;
        browser.until_shown("There is no such page").await;
    }

    // A token without the claim is for the inbox alone.
    browser
        .open(&server, &format!("/#token={}", token("anna", 600)))
        .await;
    browser.until("the views", &has("Inbox")).await;
    browser.until_shown("for anna").await;
    browser.close().await;
}
