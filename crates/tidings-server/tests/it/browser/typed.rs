//! What a person had typed when their key or token ended.

use serde_json::{Value, json};

use super::Browser;
use super::access::{new_key, revoke, sign_in};
use crate::api_keys::create;
use crate::support::{Home, http};
use crate::tokens::{KEY, SECRET, signed};

/// What has these names in the dialog is this.
pub(super) async fn has_fields(browser: &Browser, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        let is = format!("document.querySelector('[name={name}]')?.value === '{value}'");
        browser.until(name, &is).await;
    }
}

#[tokio::test]
async fn what_was_typed_when_a_key_ended_is_there_again_for_who_may_do_the_same() {
    let home = Home::with(&["--api-key", KEY, "--jwt-secret", SECRET]);
    let server = home.start().await;
    let (id, key) = new_key(&server, "endpoints").await;
    let (reader_id, reader) = new_key(&server, "read").await;
    let browser = Browser::start().await;
    browser.open(&server, "/#/endpoints").await;
    sign_in(&browser, &key).await;
    browser.until_shown("The operator has no endpoint").await;
    browser.click("#new-endpoint").await;
    let typed = [
        ("url", "http://127.0.0.1:1/"),
        ("description", "Depot"),
        ("secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ];
    for (name, value) in typed {
        browser
            .type_into(&format!("dialog [name={name}]"), value)
            .await;
    }
    browser.click("dialog summary").await;
    browser.click("dialog [value=timestamped]").await;
    revoke(&server, &id).await;
    browser
        .until_shown("is not known: it is mistyped or revoked")
        .await;
    let kept = "return Object.values({ ...sessionStorage, ...localStorage }).join()";
    let kept = browser.client.execute(kept, vec![]).await.unwrap();
    assert_eq!(kept, json!(""));

    // Who may not make endpoints does not get it.
    sign_in(&browser, &reader).await;
    browser.until_shown("the scope endpoints").await;
    let offered = "document.body.innerText.includes('What you typed')";
    browser.until("nothing", &format!("!{offered}")).await;
    revoke(&server, &reader_id).await;
    browser.open(&server, "/#/users/anna").await;
    browser
        .until_shown("is not known: it is mistyped or revoked")
        .await;
    browser.open(&server, "/#/endpoints").await;
    sign_in(&browser, KEY).await;
    browser
        .until_shown("What you typed into \u{201c}New endpoint\u{201d} is kept")
        .await;
    browser.click("#new-endpoint").await;
    has_fields(&browser, &typed).await;
    let ticked = "document.querySelector('dialog [value=timestamped]').checked";
    browser.until("the box", ticked).await;
    browser.submit().await;
    browser.text("dialog .secret").await;
    browser.click("dialog .primary").await;
    browser.until_shown("Depot").await;
    // It is offered once.
    browser.open(&server, "/#/endpoints").await;
    browser.until_shown("Depot").await;
    browser.click("#new-endpoint").await;
    has_fields(&browser, &[("url", "")]).await;
    browser.close().await;
}

#[tokio::test]
async fn what_was_typed_stays_in_every_form_but_not_after_signing_out_and_not_for_another_user() {
    let home = Home::with(&["--api-key", KEY, "--jwt-secret", SECRET]);
    let server = home.start().await;
    let browser = Browser::start().await;
    let ended = "is not known: it is mistyped or revoked";
    for (scopes, address, opener, field) in [
        (&["admin"] as &[_], "/#/keys", "#new-key", "name"),
        (&["publish", "read"], "/#/users/anna", "", "text"),
    ] {
        let made = create(&server, scopes).await;
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        browser.open(&server, address).await;
        sign_in(&browser, &text("key")).await;
        let opened = if opener.is_empty() { "#send" } else { opener };
        let there = format!("document.querySelector('{opened}')");
        browser.until("the view", &there).await;
        if !opener.is_empty() {
            browser.click(opener).await;
        }
        browser
            .type_into(&format!("[name={field}]"), "half a word")
            .await;
        revoke(&server, &text("id")).await;
        browser.until_shown(ended).await;
        sign_in(&browser, KEY).await;
        browser.until_shown("What you typed").await;
        if !opener.is_empty() {
            browser.click(opener).await;
        }
        has_fields(&browser, &[(field, "half a word")]).await;
        browser.client.refresh().await.unwrap();
        browser.until("the view", &there).await;
        browser.click("#sign-out").await;
    }

    // The endpoints of a user are others than those of the operator.
    let (id, key) = new_key(&server, "endpoints").await;
    let type_url = async || {
        browser.until_shown("no endpoint").await;
        browser.click("#new-endpoint").await;
        browser
            .type_into("dialog [name=url]", "http://127.0.0.1:1/")
            .await;
    };
    let offers_nothing = async || {
        browser.until_shown("no endpoint").await;
        browser.click("#new-endpoint").await;
        has_fields(&browser, &[("url", "")]).await;
    };
    browser.open(&server, "/#/endpoints").await;
    sign_in(&browser, &key).await;
    type_url().await;
    revoke(&server, &id).await;
    browser.until_shown(ended).await;
    let expires = jiff::Timestamp::now().as_second() + 600;
    let owner = signed(&json!({ "sub": "anna", "exp": expires, "endpoints": true }));
    sign_in(&browser, &owner).await;
    offers_nothing().await;
    browser.client.refresh().await.unwrap();

    // Who has signed out leaves nothing.
    type_url().await;
    let out = "document.querySelector('#sign-out').click()";
    browser.client.execute(out, vec![]).await.unwrap();
    browser.click("#ended button").await;
    sign_in(&browser, &owner).await;
    offers_nothing().await;
    browser.close().await;
}

#[tokio::test]
async fn what_others_change_while_a_person_signs_in_again_stays() {
    let home = Home::with(&["--api-key", KEY]);
    let server = home.start().await;
    let (id, key) = new_key(&server, "endpoints").await;
    let send = async |method: reqwest::Method, path: &str, body: Value| -> Value {
        let request = http().request(method, server.at(path)).json(&body);
        let response = request.bearer_auth(KEY).send().await.unwrap();
        response.json().await.unwrap()
    };
    let before = json!({ "url": "http://127.0.0.1:1/before" });
    let made = send(reqwest::Method::POST, "/v1/endpoints", before).await;
    let path = format!("endpoints/{}", made["id"].as_str().unwrap());
    let browser = Browser::start().await;
    browser.open(&server, &format!("/#/{path}")).await;
    sign_in(&browser, &key).await;
    browser.until_shown("/before").await;
    browser.click("#edit").await;
    browser
        .type_into("dialog [name=description]", "Depot")
        .await;
    browser.click("dialog summary").await;
    browser.click("dialog [value=timestamped]").await;
    revoke(&server, &id).await;
    browser
        .until_shown("is not known: it is mistyped or revoked")
        .await;
    let theirs = json!({ "url": "http://127.0.0.1:1/after", "headers": { "x-a": "1" } });
    let path = format!("/v1/{path}");
    send(reqwest::Method::PATCH, &path, theirs.clone()).await;

    sign_in(&browser, KEY).await;
    browser
        .until_shown("What you typed into \u{201c}Edit the endpoint\u{201d} is kept")
        .await;
    browser.until_shown("/after").await;
    browser.click("#edit").await;
    has_fields(&browser, &[("description", "Depot")]).await;
    browser.submit().await;
    browser.until_shown("Saved").await;
    let after = send(reqwest::Method::PATCH, &path, json!({})).await;
    for name in ["url", "headers"] {
        assert_eq!(after[name], theirs[name]);
    }
    assert_eq!(after["description"], "Depot");
    assert_eq!(after["signatures"], json!(["standard", "timestamped"]));
    browser.close().await;
}
