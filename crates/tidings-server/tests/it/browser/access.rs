//! Who uses the console: with an API key, or with a user's token.

use fantoccini::Locator;
use fantoccini::key::Key;
use serde_json::{Value, json};

use super::typed::has_fields;
use super::{Browser, IS_LIVE};
use crate::api_keys::create;
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

/// Makes a key with this scope; gives its id, and the key.
pub(super) async fn new_key(server: &Server, scope: &str) -> (String, String) {
    let made = create(server, &[scope]).await;
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    (text("id"), text("key"))
}

pub(super) async fn revoke(server: &Server, id: &str) {
    let revoke = http().delete(server.at(&format!("/v1/keys/{id}")));
    let revoked = revoke.bearer_auth(KEY).send().await.unwrap();
    assert_eq!(revoked.status(), 204);
}

/// Whether the menu has these views.
fn has_views(words: &str) -> String {
    let menu = "document.querySelector('#nav').innerText.split('\\n').join()";
    format!("{menu} === '{words}'")
}

pub(super) async fn sign_in(browser: &Browser, credential: &str) {
    browser
        .until("the form", "document.querySelector('#login')")
        .await;
    browser.type_into("#login input", credential).await;
    browser.click("#login button").await;
}

/// One that needs none refuses a wrong key, too.
#[tokio::test]
async fn an_open_server_is_open_again_without_a_credential_that_it_refuses() {
    let home = Home::new();
    let server = home.start().await;
    let browser = Browser::start().await;
    browser.open(&server, "/").await;
    browser.until_shown("open server").await;
    browser.click("#sign-out").await;
    sign_in(&browser, "a-wrong-key").await;
    browser.until_shown("The API key is not known").await;
    browser.click("#login button.quiet").await;
    browser.until_shown("open server").await;
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
    browser.until_shown("The API key is not known").await;
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
    browser.until_shown("There is no key.").await;
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

    // A key sees the views and the actions that are for its scopes, and of the others why they are not.
    browser.click("#sign-out").await;
    browser.open(&server, "/#/").await;
    sign_in(&browser, &key).await;
    browser.until_shown("A user is any name").await;
    let focus = "document.activeElement.name === 'user'";
    browser.until("the focus is in the view", focus).await;
    browser.until("the views", &has_views("Users")).await;
    browser.open(&server, "/#/users/anna").await;
    browser.until("the stream opens", IS_LIVE).await;
    let cannot_send = "document.querySelector('#send') === null";
    browser.until("no form to send", cannot_send).await;
    for (name, scope) in [
        ("", "A user is any name"),
        ("endpoints", "the scope endpoints"),
        ("keys", "the scope admin"),
    ] {
        browser.open(&server, &format!("/#/{name}")).await;
        browser.until_shown(scope).await;
    }
    let has_action = "document.querySelector('#view button')";
    browser
        .until(
            "no action that is refused",
            &format!("{has_action} === null"),
        )
        .await;
    browser.click("#sign-out").await;
    sign_in(&browser, KEY).await;
    browser.open(&server, "/#/keys").await;
    browser.until_shown("shop").await;
    browser.click("tbody button").await;
    browser.submit().await;
    browser.until_shown("is revoked").await;
    // The keyboard is not sent back to the start of the page.
    browser.until_shown("There is no key.").await;
    let focus = "document.activeElement.id === 'main'";
    browser.until("the focus is in the view", focus).await;
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
    browser
        .until("the views", &has_views("Inbox,Endpoints,Deliveries"))
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
    browser.until("the views", &has_views("Inbox")).await;
    browser.until_shown("for anna").await;
    browser.close().await;
}

#[tokio::test]
async fn a_token_in_a_cookie_opens_the_portal_of_its_user() {
    let cookie = ["--jwt-cookie", "session"];
    let keys = ["--api-key", KEY, "--jwt-secret", SECRET];
    let home = Home::with(&[keys.as_slice(), &cookie].concat());
    let server = home.start().await;
    notify(&server, "anna", "for anna").await;
    notify(&server, "ben", "for ben").await;
    let browser = Browser::start().await;
    let log_in = async |user: &str| {
        let log_in = "document.cookie = arguments[0]; dispatchEvent(new Event('focus'))";
        let session = json!(format!("session={}", token(user, 600)));
        browser.client.execute(log_in, vec![session]).await.unwrap();
    };
    let is_of = async |user: &str| {
        browser.until_shown(&format!("for {user}")).await;
        browser.until("the stream opens", IS_LIVE).await;
        browser.until("the views", &has_views("Inbox")).await;
        let name = format!("document.querySelector('#account span').textContent === '{user}'");
        browser.until("who it is", &name).await;
    };
    browser.open(&server, "/").await;
    browser
        .until_shown("This server requires an API key or a token.")
        .await;
    log_in("anna").await;
    browser.client.refresh().await.unwrap();
    is_of("anna").await;

    // A person who is asked for another credential can go back.
    browser.click("#sign-out").await;
    browser.click("#login .quiet").await;
    is_of("anna").await;

    // The application has signed in another user in another tab, and then signed that one out.
    browser.open(&server, "/#/users/anna?show=unread").await;
    is_of("anna").await;
    log_in("ben").await;
    is_of("ben").await;
    let log_out = "document.cookie = 'session=; max-age=0'; dispatchEvent(new Event('focus'))";
    browser.client.execute(log_out, vec![]).await.unwrap();
    browser.until_shown("Your session has ended").await;
    browser.close().await;
}

#[tokio::test]
async fn a_list_of_keys_with_long_names_fits_a_window_of_middle_width() {
    let home = Home::with(&["--api-key", KEY]);
    let server = home.start().await;
    let scopes = ["publish", "read", "endpoints", "metrics", "admin"];
    let long = "shop-of-the-company-in-the-north-and-another-one-in-the-south";
    let body = json!({ "name": long, "scopes": scopes, "expires_at": "2999-01-01T00:00:00Z" });
    let made = http().post(server.at("/v1/keys")).bearer_auth(KEY);
    assert_eq!(made.json(&body).send().await.unwrap().status(), 201);
    let browser = Browser::start().await;
    browser.client.set_window_size(1000, 800).await.unwrap();
    browser.open(&server, "/#/keys").await;
    sign_in(&browser, KEY).await;
    browser.until_shown(long).await;
    let fits =
        "(([it]) => it.scrollWidth <= it.clientWidth)(document.getElementsByClassName('scroll'))";
    browser.until("nothing is beside the window", fits).await;
    browser.close().await;
}

#[tokio::test]
async fn a_key_that_has_expired_is_marked_in_the_list() {
    let home = Home::with(&["--api-key", KEY]);
    let server = home.start().await;
    for (name, ends) in [("short", Some("2998-01-01T00:00:00Z")), ("long", None)] {
        let body = json!({ "name": name, "scopes": ["read"], "expires_at": ends });
        let made = http().post(server.at("/v1/keys")).bearer_auth(KEY);
        assert_eq!(made.json(&body).send().await.unwrap().status(), 201);
    }
    let browser = Browser::start().await;
    browser.open(&server, "/#/endpoints").await;
    sign_in(&browser, KEY).await;
    browser.until_shown("The operator has no endpoint").await;
    // What the server says, whatever the clock of the browser says.
    let later = "const { get } = Headers.prototype; Headers.prototype.get = function (name) {
        return name === 'date' ? 'Tue, 01 Jan 2999 00:00:00 GMT' : get.call(this, name);
    };";
    browser.client.execute(later, vec![]).await.unwrap();
    browser.open(&server, "/#/keys").await;
    browser.until_shown("long").await;
    let marked = "[...document.querySelectorAll('tbody tr')].filter((it) => it.textContent.includes('expired'))
        .map((it) => it.querySelector('.main').textContent).join()";
    browser
        .until("one of both", &format!("{marked} === 'short'"))
        .await;
    browser.close().await;
}

/// What is shown once is lost by no key that is pressed by mistake, and not because the person is signed out.
#[tokio::test]
async fn a_secret_stays_until_the_person_has_it() {
    let home = Home::with(&["--api-key", KEY]);
    let server = home.start().await;
    let (id, key) = new_key(&server, "endpoints").await;
    let browser = Browser::start().await;
    browser.open(&server, "/#/endpoints").await;
    sign_in(&browser, &key).await;
    browser.until_shown("The operator has no endpoint").await;
    browser.click("#new-endpoint").await;
    browser
        .type_into("dialog [name=url]", "http://127.0.0.1:1/")
        .await;
    browser.click("dialog summary").await;
    browser
        .type_into("dialog [name=headers]", "x-team one")
        .await;
    browser.submit().await;
    browser
        .until_shown("Headers: expected a name, a colon and a value in each line, got x-team one")
        .await;
    browser.type_into("dialog [name=headers]", "").await;
    // The request is under way when the person thinks better of it.
    server.signal("-STOP").await;
    browser.submit().await;
    let active = browser.client.active_element().await.unwrap();
    for _ in 0..2 {
        active.send_keys(&Key::Escape).await.unwrap();
    }
    server.signal("-CONT").await;
    let secret = browser.text("dialog .secret").await;
    let active = browser.client.active_element().await.unwrap();
    for _ in 0..2 {
        active.send_keys(&Key::Escape).await.unwrap();
    }
    assert_eq!(browser.text("dialog .secret").await, secret);

    revoke(&server, &id).await;
    browser
        .until("the form below", "document.querySelector('#login')")
        .await;
    assert_eq!(browser.text("dialog .secret").await, secret);
    browser.click("dialog .primary").await;
    sign_in(&browser, KEY).await;
    browser.until_shown("http://127.0.0.1:1/").await;
    browser.close().await;
}

#[tokio::test]
async fn who_signs_in_while_the_server_is_away_sees_their_views_when_it_is_back() {
    let home = Home::with(&["--api-key", KEY]);
    // An address of its own, so that no other test takes the port while the server is down.
    let server = Server::of(home.command_at("127.0.0.5:0")).await;
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let browser = Browser::start().await;
    browser.open(&server, "/#/users/anna").await;
    browser
        .until_shown("This server requires an API key or a token.")
        .await;
    server.kill().await;
    sign_in(&browser, KEY).await;
    browser
        .until_shown("The server does not reply. Trying again.")
        .await;
    let server = Server::of(home.command_at(&address)).await;
    browser.until("the stream opens", IS_LIVE).await;
    let all = "Overview,Users,Endpoints,Deliveries,Request bins,API keys";
    browser.until("the views", &has_views(all)).await;
    drop(server);
    browser.close().await;
}

/// The tabs share one connection, and each has its own credential.
#[tokio::test]
async fn a_tab_whose_key_is_revoked_asks_for_another_and_signs_no_other_tab_out() {
    let home = Home::with(&["--api-key", KEY]);
    let server = home.start().await;
    let (id, key) = new_key(&server, "read").await;
    let browser = Browser::start().await;
    let sign_in_here = async |key: &str| {
        browser.open(&server, "/#/users/anna").await;
        sign_in(&browser, key).await;
        browser.until("the stream opens", IS_LIVE).await;
        browser.client.window().await.unwrap()
    };
    let first = sign_in_here(&key).await;
    let named = "document.querySelector('#account span').textContent === 'shop'";
    browser.until("the name of the key", named).await;
    let second = browser.client.new_window(true).await.unwrap().handle;
    browser.client.switch_to_window(second).await.unwrap();
    let second = sign_in_here(KEY).await;

    revoke(&server, &id).await;
    browser.client.switch_to_window(first).await.unwrap();
    let asks = "document.querySelector('#login')";
    browser.until("the person is asked to sign in", asks).await;
    // The first refusal says why, and no later one hides it.
    browser.until_shown("The API key is not known").await;
    browser.client.switch_to_window(second).await.unwrap();
    notify(&server, "anna", "for the other tab").await;
    browser.until_shown("for the other tab").await;
    browser.until("it is live", IS_LIVE).await;
    browser.close().await;
}

/// Its value is that of an empty field, which stands for a key that never expires.
#[tokio::test]
async fn a_date_that_is_half_typed_is_not_taken_for_an_empty_field() {
    let home = Home::new();
    let server = home.start().await;
    let browser = Browser::start().await;
    browser.open(&server, "/#/keys").await;
    browser.until_shown("There is no key.").await;
    browser.click("#new-key").await;
    browser.type_into("dialog [name=name]", "shop").await;
    browser.click("dialog [value=read]").await;
    let field = Locator::Css("dialog [name=expires_at]");
    let field = browser.client.find(field).await.unwrap();
    field.send_keys("12").await.unwrap();
    let expires = "document.querySelector('dialog [name=expires_at]')";
    browser
        .until("a part", &format!("{expires}.validity.badInput"))
        .await;
    browser.submit().await;
    browser
        .until_shown("Expires: expected a date and a time")
        .await;
    let is_there = format!("{expires}.matches('[aria-invalid]:focus')");
    browser.until("the field is named", &is_there).await;
    assert_eq!(server.get("/v1/keys").await["data"], json!([]));
    browser.close().await;
}

/// The form for an API key is for people who operate a server.
#[tokio::test]
async fn a_user_whose_token_has_ended_reads_how_to_go_on_and_sees_no_form_of_the_operator() {
    let home = Home::with(&["--api-key", KEY, "--jwt-secret", SECRET]);
    let server = home.start().await;
    let browser = Browser::start().await;
    let no_form = "!document.querySelector('#login')";
    browser
        .open(&server, &format!("/#token={}", token("anna", -60)))
        .await;
    browser.until_shown("Your session has ended").await;
    browser.until_shown("Open this page again").await;
    browser.until("no form", no_form).await;
    assert!(!left_behind(&browser).await.contains("eyJ"));
    browser.client.refresh().await.unwrap();
    browser.until_shown("Your session has ended").await;
    browser.until("no form", no_form).await;

    // The application leads to it again.
    browser
        .open(&server, &format!("/#token={}", token("anna", 600)))
        .await;
    browser.until("the stream opens", IS_LIVE).await;
    browser.click("#sign-out").await;
    browser.until_shown("You are signed out").await;
    browser.until("no form", no_form).await;
    let kept = "return sessionStorage.length";
    let kept = browser.client.execute(kept, vec![]).await.unwrap();
    assert_eq!(kept, json!(0));

    // Who operates the server gets to the form, and stays there if what they paste is refused.
    browser.click("#ended button").await;
    sign_in(&browser, &token("anna", -60)).await;
    browser.until_shown("has expired").await;
    sign_in(&browser, KEY).await;
    let all = "Overview,Users,Endpoints,Deliveries,Request bins,API keys";
    browser.until("the views", &has_views(all)).await;
    browser.click("#sign-out").await;
    browser.client.refresh().await.unwrap();
    browser
        .until_shown("This server requires an API key or a token.")
        .await;
    browser.close().await;
}

#[tokio::test]
async fn a_portal_by_cookie_goes_on_when_its_user_has_signed_in_elsewhere() {
    let cookie = ["--jwt-cookie", "session"];
    let keys = ["--api-key", KEY, "--jwt-secret", SECRET];
    let home = Home::with(&[keys.as_slice(), &cookie].concat());
    let server = home.start().await;
    let browser = Browser::start().await;
    let come_back = async |cookie: &str| {
        let script = "document.cookie = arguments[0]; dispatchEvent(new Event('focus'))";
        let cookie = vec![json!(format!("session={cookie}"))];
        browser.client.execute(script, cookie).await.unwrap();
    };
    let log_in = async |user: &str, endpoints: bool| {
        let expires = jiff::Timestamp::now().as_second() + 600;
        let claims = json!({ "sub": user, "exp": expires, "endpoints": endpoints });
        come_back(&signed(&claims)).await;
    };
    let typed = [("url", "http://127.0.0.1:1/")];
    let is_kept = async || {
        browser
            .until_shown("What you typed into \u{201c}New endpoint\u{201d} is kept")
            .await;
        browser.click("#new-endpoint").await;
        has_fields(&browser, &typed).await;
    };
    browser.open(&server, "/").await;
    browser
        .until("the form", "document.querySelector('#login')")
        .await;
    log_in("anna", true).await;
    browser.open(&server, "/#/endpoints").await;
    browser.client.refresh().await.unwrap();
    browser.until_shown("You have no endpoint").await;
    browser.click("#new-endpoint").await;
    browser
        .type_into("dialog [name=url]", "http://127.0.0.1:1/")
        .await;

    // Other rights, and those of before.
    log_in("anna", false).await;
    browser.until_shown("the claim endpoints").await;
    log_in("anna", true).await;
    is_kept().await;

    come_back("; max-age=0").await;
    browser.until_shown("Your session has ended").await;
    // Who is still signed out is not asked for a key.
    let asks = "window.asked = 0;
        const real = window.fetch;
        window.fetch = (...all) => real(...all).finally(() => setTimeout(() => (window.asked += 1)));
        dispatchEvent(new Event('focus'));";
    browser.client.execute(asks, vec![]).await.unwrap();
    browser.until("it has asked", "window.asked > 0").await;
    browser.until_shown("Your session has ended").await;
    log_in("anna", true).await;
    is_kept().await;

    come_back("; max-age=0").await;
    browser.until_shown("Your session has ended").await;
    log_in("ben", true).await;
    browser.until("the stream opens", IS_LIVE).await;
    let anew = "location.hash === '' && !document.querySelector('dialog')";
    browser.until("nothing of anna", anew).await;
    browser.close().await;
}

#[tokio::test]
async fn a_key_that_was_just_used_is_not_listed_as_one_that_never_was() {
    let home = Home::with(&["--api-key", KEY]);
    let server = home.start().await;
    let (_, key) = new_key(&server, "read").await;
    let browser = Browser::start().await;
    browser.open(&server, "/#/keys").await;
    sign_in(&browser, KEY).await;
    browser.until_shown("never").await;
    let inbox = http().get(server.at("/v1/users/anna/notifications"));
    assert_eq!(inbox.bearer_auth(&key).send().await.unwrap().status(), 200);
    browser.client.refresh().await.unwrap();
    let last = browser.text("td[data-label='Last used']").await;
    assert_ne!(last, "never");
    browser.close().await;
}
