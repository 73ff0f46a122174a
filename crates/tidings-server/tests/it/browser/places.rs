//! Where a person is: addresses, names of windows, the way back, and what stays where it was.

use super::Browser;
use crate::support::{Home, Server};
use crate::webhooks::Webhooks;
use fantoccini::key::Key;
use fantoccini::{Client, Locator};
use serde_json::{Value, json};

/// How many rows the table has.
fn rows(count: usize) -> String {
    format!("document.querySelectorAll('tbody tr').length === {count}")
}

async fn run(client: &Client, script: &str) -> Value {
    client.execute(script, vec![]).await.unwrap()
}

/// Creates an endpoint, and returns its id.
async fn endpoint(server: &Server, path: &str, body: Value) -> String {
    let created = server.post(path, &body).await;
    let created: Value = created.json().await.unwrap();
    created["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_way_back_leads_to_the_same_place_of_a_long_list() {
    let home = Home::new();
    let server = home.start().await;
    let mut receiver = Webhooks::start().await;
    endpoint(&server, "/v1/endpoints", json!({ "url": receiver.url() })).await;
    server.notify_many("anna", 120, 8).await;
    for _ in 0..120 {
        receiver.next().await;
    }
    let browser = Browser::start().await;
    let more = "#view section > button:not([hidden])";
    for (address, item) in [
        ("/#/deliveries", "tbody tr"),
        ("/#/users/anna", "#feed li"),
        ("/#/users/anna?show=unread", "#feed li"),
    ] {
        browser.open(&server, address).await;
        let items =
            |count: usize| format!("document.querySelectorAll('{item}').length === {count}");
        browser.until("the first page", &items(50)).await;
        browser.click(more).await;
        browser.until("the second page", &items(100)).await;
        // The last of the loaded, and where the browser has scrolled to by then.
        let far = format!("document.querySelectorAll('{item}')[99].scrollIntoView()");
        run(&browser.client, &far).await;
        let kept = "history.state?.top > 1000 && history.state.top === scrollY";
        browser.until("the place is kept", kept).await;
        let top = run(&browser.client, "return scrollY").await;
        run(&browser.client, "location.hash = '#/endpoints'").await;
        browser.until_shown("Last failure").await;
        run(&browser.client, "history.back()").await;
        browser.until("as much is loaded", &items(100)).await;
        browser
            .until("the same place", &format!("scrollY === {top}"))
            .await;
    }

    // What was loaded last is where the keyboard goes on.
    browser.open(&server, "/#/deliveries").await;
    browser.until("the first page", &rows(50)).await;
    for (count, is_last) in [(100, false), (120, true)] {
        let focus = format!("document.querySelector('{more}').focus()");
        run(&browser.client, &focus).await;
        let active = browser.client.active_element().await.unwrap();
        active.send_keys(&Key::Enter).await.unwrap();
        browser.until("more", &rows(count)).await;
        let at = if is_last {
            "document.querySelectorAll('tbody tr')[100].querySelector('a')".to_owned()
        } else {
            format!("document.querySelector('{more}')")
        };
        browser
            .until("the focus", &format!("document.activeElement === {at}"))
            .await;
    }
    browser.close().await;
}

#[tokio::test]
async fn who_chooses_among_deliveries_by_the_keyboard_keeps_the_focus() {
    let home = Home::new();
    let server = home.start().await;
    let mut receiver = Webhooks::start().await;
    let url = receiver.url();
    let hers = json!({ "url": url, "description": "a name ".repeat(100) });
    let id = endpoint(&server, "/v1/users/anna/endpoints", hers).await;
    server.notify("anna", json!("arrived")).await;
    receiver.next().await;
    let browser = Browser::start().await;
    // An endpoint of a user is in no list that the page has, and has its name all the same.
    browser
        .open(&server, &format!("/#/deliveries?endpoint={id}"))
        .await;
    let named = "document.querySelector('[name=endpoint]')?.selectedOptions[0].text";
    browser
        .until("its name", &format!("{named}?.startsWith('a name')"))
        .await;
    let narrow = "document.querySelector('[name=endpoint]').offsetWidth < 500";
    browser.until("a filter of a usual width", narrow).await;
    browser.until_shown(" of anna").await;
    let in_row = "document.querySelector('tbody .soft a').textContent.startsWith('a name')";
    browser.until("its name in the row", in_row).await;

    let state = Locator::Css("[name=state]");
    let state = browser.client.find(state).await.unwrap();
    run(
        &browser.client,
        "document.querySelector('[name=state]').focus()",
    )
    .await;
    for (chosen, text) in [
        ("pending", "There is no pending delivery."),
        ("delivered", " of anna"),
        ("failed", "There is no failed delivery."),
    ] {
        state.send_keys(&Key::Down).await.unwrap();
        browser.until_shown(text).await;
        let address = format!("location.hash.endsWith('state={chosen}')");
        browser.until("the address", &address).await;
        let focus = "document.activeElement.name === 'state'";
        browser.until("the focus stays", focus).await;
    }
    browser.close().await;
}

#[tokio::test]
async fn every_address_leads_somewhere_and_windows_are_named_after_their_view() {
    let home = Home::new();
    let server = home.start().await;
    let body = json!({ "url": "http://127.0.0.1:1/", "description": "Warehouse" });
    let id = endpoint(&server, "/v1/endpoints", body).await;
    let browser = Browser::start().await;
    for (address, shown, title) in [
        ("/#/users/", "A user is any name", "Users"),
        ("/#/endpoints/", "Warehouse", "Endpoints"),
        ("/#/endpoints/..", "other than", "Console"),
        ("/#/endpoints?user=..", "other than", "Console"),
        ("/#/bins/.", "other than", "Console"),
        (
            "/#/users/%",
            "There is no such page",
            "There is no such page",
        ),
        (&*format!("/#/endpoints/{id}"), "Health", "Warehouse"),
        ("/#/users/ben", "Nothing is in the inbox.", "ben"),
    ] {
        browser.open(&server, address).await;
        browser.until_shown(shown).await;
        browser
            .until(address, &format!("document.title === '{title} · Tidings'"))
            .await;
    }
    browser.close().await;
}

/// A proxy may keep the metrics for itself, as the handbook tells it to.
#[tokio::test]
async fn who_may_not_see_the_figures_sees_no_empty_charts() {
    let home = Home::new();
    let server = home.start().await;
    let browser = Browser::start().await;
    browser.open(&server, "/#/users").await;
    browser.until_shown("A user is any name").await;
    let kept = "const whole = window.fetch;
        window.fetch = (path, ...more) => path === '/metrics' ? Promise.resolve(new Response('', { status: 403 })) : whole(path, ...more);
        location.hash = '#/'";
    run(&browser.client, kept).await;
    browser.until_shown("This view is not for you").await;
    let charts = "[...document.querySelectorAll('.charts, .totals, #source')]";
    let hidden = format!("{charts}.length === 3 && !{charts}.some((it) => it.offsetParent)");
    browser.until("nothing below it", &hidden).await;
    browser.close().await;
}
