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
    browser.until_shown("the API key is not known").await;
    // As a terminal or a chat shortens it.
    sign_in(&browser, "a-key-of-which\u{2026}").await;
    browser.until_shown("Was it copied whole?").await;
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
    browser.until_shown("Name: expected a text").await;
    browser.type_into("dialog [name=name]", "shop").await;
    browser.click("dialog [value=read]").await;
    browser.submit().await;
    let key = browser.text("dialog .secret").await;
    browser.click("dialog .primary").await;
    browser.until_shown("shop").await;
    let inbox = || http().get(server.at("/v1/users/anna/notifications"));
    let status = async || inbox().bearer_auth(&key).send().await.unwrap().status();
    assert_eq!(status().await, 200);

    // A key without the scope of a view sees that, and not a view that loads for ever.
    browser.click("#sign-out").await;
    sign_in(&browser, &key).await;
    browser.open(&server, "/#/endpoints").await;
    browser.until_shown("scope").await;
    let is_gone = |text: &str| format!("!document.body.innerText.includes('{text}')");
    browser.until("nothing loads", &is_gone("Loading")).await;
    browser
        .until("no action that is refused", &is_gone("New endpoint"))
        .await;
    browser.click("#sign-out").await;
    sign_in(&browser, KEY).await;
    browser.open(&server, "/#/keys").await;
    browser.until_shown("shop").await;
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
    browser.until_shown("There is no such delivery").await;
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

/// The tabs share one connection, and each has its own credential.
#[tokio::test]
async fn a_tab_whose_key_is_revoked_asks_for_another_and_signs_no_other_tab_out() {
    let home = Home::with(&["--api-key", KEY]);
    let server = home.start().await;
    let new_key = json!({ "name": "first tab", "scopes": ["read"] });
    let made = http().post(server.at("/v1/keys")).bearer_auth(KEY);
    let made = made.json(&new_key).send().await.unwrap();
    let made: Value = made.json().await.unwrap();
    let browser = Browser::start().await;
    let sign_in_here = async |key: &str| {
        browser.open(&server, "/#/users/anna").await;
        sign_in(&browser, key).await;
        browser.until("the stream opens", IS_LIVE).await;
        browser.client.window().await.unwrap()
    };
    let first = sign_in_here(made["key"].as_str().unwrap()).await;
    let second = browser.client.new_window(true).await.unwrap().handle;
    browser.client.switch_to_window(second).await.unwrap();
    let second = sign_in_here(KEY).await;

    let id = made["id"].as_str().unwrap();
    let revoke = http().delete(server.at(&format!("/v1/keys/{id}")));
    let revoked = revoke.bearer_auth(KEY).send().await.unwrap();
    assert_eq!(revoked.status(), 204);
    browser.client.switch_to_window(first).await.unwrap();
    let asks = "document.querySelector('#login')";
    browser.until("the person is asked to sign in", asks).await;
    browser.client.switch_to_window(second).await.unwrap();
    notify(&server, "anna", "for the other tab").await;
    browser.until_shown("for the other tab").await;
    browser.until("it is live", IS_LIVE).await;
    browser.close().await;
}
