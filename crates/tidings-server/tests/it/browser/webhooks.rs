//! Endpoints and deliveries, from the first to the last button.

use super::{Browser, intercept};
use crate::support::{Home, http};
use crate::webhooks::{Webhooks, create, delivery_in};
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
    assert!(browser.text("dialog .error").await.starts_with("URL: "));
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
    browser.click("dialog summary").await;
    browser
        .type_into("dialog [name=headers]", "x-team: one\nX-Team: two")
        .await;
    browser.submit().await;
    browser.until_shown("expected each name once").await;
    browser
        .type_into("dialog [name=headers]", "x-team: one")
        .await;
    browser.submit().await;
    browser.until_shown("Depot").await;

    // Disabling cancels what waits, so it asks; enabling does not.
    browser.click("#toggle").await;
    browser.until_shown("is cancelled").await;
    browser.click("dialog .actions button:first-child").await;
    let of_server = server.get(&format!("/v1/endpoints/{id}")).await;
    assert_eq!(of_server["enabled"], json!(true));
    browser.click("#toggle").await;
    browser.submit().await;
    browser
        .until_shown("disabled by a request to the API")
        .await;
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
    browser.until_shown("The endpoint is deleted").await;
    browser.until_shown("The operator has no endpoint").await;
    assert_eq!(server.get("/v1/endpoints").await["data"], json!([]));
    browser.close().await;
}

#[tokio::test]
async fn the_page_of_an_endpoint_keeps_a_selection_and_ends_with_its_dialogs() {
    let home = Home::new();
    let server = home.start().await;
    let receiver = Webhooks::start().await;
    let browser = Browser::start().await;
    let endpoint = json!({ "url": receiver.url() });
    let created = server.post("/v1/endpoints", &endpoint).await;
    let created: serde_json::Value = created.json().await.unwrap();
    let id = created["id"].as_str().unwrap();
    browser.open(&server, &format!("/#/endpoints/{id}")).await;
    browser.until_shown(id).await;
    // What is selected to be copied stays so while the page is renewed.
    let select = "(getSelection().selectAllChildren(document.querySelector('.settings dd')), true)";
    browser.until("the URL is selected", select).await;
    let clear = "(performance.clearResourceTimings(), true)";
    browser.until("requests are counted from here", clear).await;
    let renewals = "performance.getEntriesByType('resource').length >= 4";
    browser.until("two renewals", renewals).await;
    let selected = format!("getSelection().toString() === '{}'", receiver.url());
    browser.until("it is still selected", &selected).await;
    browser.click("#delete").await;
    browser
        .until("a question", "document.querySelector('dialog[open]')")
        .await;
    // A dialog belongs to its view.
    let address = browser.client.current_url().await.unwrap();
    browser.client.goto(&server.at("/#/bins")).await.unwrap();
    browser
        .until("no question", "!document.querySelector('dialog')")
        .await;
    browser.client.goto(address.as_str()).await.unwrap();
    browser.until_shown(&receiver.url()).await;
    browser.click("#delete").await;
    browser.submit().await;
    browser.until_shown("The operator has no endpoint").await;

    // The page of what is gone offers nothing that can only fail.
    browser.open(&server, &format!("/#/endpoints/{id}")).await;
    browser.until_shown("has no such endpoint").await;
    let offers = "[...document.querySelectorAll('#view button')].some((it) => it.offsetParent)";
    browser
        .until("no action is left", &format!("!{offers}"))
        .await;
    browser.close().await;
}

/// In a form that is longer than the window, too.
#[tokio::test]
async fn what_is_wrong_with_a_field_is_in_view_beside_it() {
    let home = Home::new();
    let server = home.start().await;
    let browser = Browser::start().await;
    browser.client.set_window_size(900, 700).await.unwrap();
    browser.open(&server, "/#/endpoints").await;
    browser.click("#new-endpoint").await;
    browser.click("dialog summary").await;
    for (field, wrong) in [("url", "nonsense"), ("headers", "no colon")] {
        browser
            .type_into(&format!("dialog [name={field}]"), wrong)
            .await;
        browser.submit().await;
        let is_in_view = format!(
            "(() => {{
                const dialog = document.querySelector('dialog').getBoundingClientRect();
                const field = document.querySelector('dialog [name={field}]').getBoundingClientRect();
                const error = document.querySelector('dialog .error').getBoundingClientRect();
                return error.height > 0 && error.top >= field.bottom && error.bottom <= dialog.bottom && field.top >= dialog.top;
            }})()"
        );
        browser
            .until("field and reason are in view", &is_in_view)
            .await;
        browser
            .type_into(
                &format!("dialog [name={field}]"),
                match field {
                    "url" => "http://127.0.0.1:9/",
                    _ => "x-team: billing",
                },
            )
            .await;
    }
    browser.close().await;
}

#[tokio::test]
async fn a_delivery_to_an_endpoint_that_was_removed_is_not_offered_to_be_sent_again() {
    let home = Home::new();
    let server = home.start().await;
    let mut receiver = Webhooks::start().await;
    let created = server
        .post("/v1/endpoints", &json!({ "url": receiver.url() }))
        .await;
    let created: serde_json::Value = created.json().await.unwrap();
    let id = created["id"].as_str().unwrap();
    server.notify("anna", json!({ "n": 1 })).await;
    receiver.next().await;
    let browser = Browser::start().await;
    browser.open(&server, "/#/deliveries?state=delivered").await;
    browser
        .until("it is listed", "document.querySelector('tbody a.main')")
        .await;
    browser.click("tbody a.main").await;
    browser.until_shown("Attempt 1").await;
    let offered = "document.querySelector('#retry').offsetParent !== null";
    browser.until("it can be sent again", offered).await;
    let path = format!("/v1/endpoints/{id}");
    let removed = http().delete(server.at(&path)).send().await.unwrap();
    assert_eq!(removed.status(), 204);
    browser.client.refresh().await.unwrap();
    browser.until_shown(&format!("{id} (removed)")).await;
    browser
        .until("it cannot be sent again", &format!("!({offered})"))
        .await;
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
    let of_user = json!({ "url": receiver.url(), "description": "hers", "schedule": [0] });
    let of_user = server.post("/v1/users/anna/endpoints", &of_user).await;
    assert_eq!(of_user.status(), 201);
    browser.open(&server, "/#/deliveries?state=failed").await;
    let rows = |count: u32| format!("document.querySelectorAll('tbody tr').length === {count}");
    browser.until("all have failed", &rows(3)).await;
    browser.open(&server, "/#/deliveries?state=delivered").await;
    browser.until_shown("There is no delivered delivery.").await;

    browser.open(&server, &format!("/#/endpoints/{id}")).await;
    browser.until_shown("status 503").await;
    receiver.reply_with(204);
    // Neither an empty field nor a word is a number.
    browser.click("#rotate").await;
    for wrong in ["", "soon"] {
        browser.type_into("dialog [name=overlap_ms]", wrong).await;
        browser.submit().await;
        browser
            .until_shown("Overlap in hours: expected a number of hours")
            .await;
    }
    browser.type_into("dialog [name=overlap_ms]", "0,5").await;
    browser.submit().await;
    browser.until_shown("The new secret").await;
    browser.click("dialog[open] .actions .primary").await;
    browser.click("#replay-button").await;
    browser.type_into("dialog [name=per_second]", "many").await;
    browser.submit().await;
    browser
        .until_shown("Events per second, at most: expected")
        .await;
    browser.type_into("dialog [name=per_second]", "1").await;
    browser.submit().await;
    browser
        .until_shown("left to look at, at most 1 per second")
        .await;
    let ended = "document.querySelector('#replay').hidden";
    browser.click("#stop-replay").await;
    browser.until_shown("No replay is under way any more").await;
    browser.until("it is not under way", ended).await;
    let focus = "document.activeElement.id === 'replay-button'";
    browser.until("the focus is where it begins", focus).await;
    browser.click("#replay-button").await;
    browser.submit().await;
    browser.until("the replay ends", ended).await;
    browser.open(&server, "/#/deliveries?state=delivered").await;
    browser.until("all have arrived", &rows(3)).await;
    browser.close().await;
}

#[tokio::test]
async fn regression_the_last_error_is_that_of_the_last_failure_also_after_a_retry_that_succeeded() {
    let home = Home::new();
    let server = home.start().await;
    let mut receiver = Webhooks::start().await;
    let endpoint = json!({ "url": receiver.url(), "schedule": [0, 1] });
    let created = create(&server, "/v1/endpoints", endpoint).await;
    let id = created["id"].as_str().unwrap();
    let path = format!("/v1/endpoints/{id}");
    let browser = Browser::start().await;
    // An older delivery that has failed for good for another reason.
    receiver.reply_with(500);
    server.notify("anna", json!(1)).await;
    for _ in 0..2 {
        receiver.next().await;
    }
    delivery_in(&server, "failed").await;
    browser.open(&server, &format!("/#/endpoints/{id}")).await;
    let error = fact("Last error");
    let is_500 = format!("{error}?.startsWith('status 500')");
    browser.until("the first error", &is_500).await;

    receiver.reply_with(503);
    server.notify("anna", json!(2)).await;
    receiver.next().await;
    receiver.reply_with(204);
    receiver.next().await;
    delivery_in(&server, "delivered").await;
    let is_503 = format!("{error}?.startsWith('status 503')");
    browser
        .until("the error of the last failure", &is_503)
        .await;
    browser.client.refresh().await.unwrap();
    browser.until("it is found anew", &is_503).await;

    // A failure whose attempt cannot be found has none.
    let other = "async (send) => {
        const found = await (await send()).json();
        return Response.json({ ...found, health: { ...found.health, last_failure_at: '2020-01-01T00:00:00Z' } });
    }";
    intercept(&browser, &format!("/endpoints.{id}$/"), other).await;
    let none = format!("{error} === undefined");
    browser.until("no error", &none).await;
    assert!(server.get(&path).await["health"]["last_failure_at"].is_string());
    browser.close().await;
}

/// What a person selects or is about to click there is not taken away.
#[tokio::test]
async fn a_row_of_a_list_is_the_same_while_its_age_grows() {
    let home = Home::new();
    let server = home.start().await;
    assert_eq!(server.post("/v1/bins", &json!({})).await.status(), 201);
    let browser = Browser::start().await;
    browser.open(&server, "/#/bins").await;
    let mark =
        "[...document.querySelectorAll('tbody tr')].map((row) => row.firstText = row.innerText)[0]";
    browser.until("the bin is listed", mark).await;
    let has_aged = "(({ firstText, innerText }) => firstText !== undefined && firstText !== innerText)(document.querySelector('tbody tr'))";
    browser
        .until("the same row reads otherwise", has_aged)
        .await;
    browser.close().await;
}

#[tokio::test]
async fn a_late_reply_moves_no_person_out_of_the_view_they_have_gone_to() {
    let home = Home::new();
    let server = home.start().await;
    let browser = Browser::start().await;
    browser.open(&server, "/#/bins").await;
    browser.until_shown("There is no bin.").await;
    server.signal("-STOP").await;
    browser.click("#new-bin").await;
    browser.click("#nav a[href='#/endpoints']").await;
    server.signal("-CONT").await;
    browser.until_shown("The operator has no endpoint").await;
    let replies = "performance.getEntriesByType('resource').filter(({ name }) => name.endsWith('/v1/bins')).length > 1";
    browser.until("the bin is made", replies).await;
    browser.until_shown("The operator has no endpoint").await;
    let place = "location.hash === '#/endpoints'";
    browser.until("the person is where they went", place).await;
    let bins = server.get("/v1/bins").await;
    assert_eq!(bins["data"].as_array().unwrap().len(), 1);
    browser.close().await;
}

#[tokio::test]
async fn a_person_watches_webhooks_arrive_in_a_request_bin() {
    let home = Home::new();
    let server = home.start().await;
    let browser = Browser::start().await;
    browser.open(&server, "/#/bins").await;
    browser.until_shown("There is no bin.").await;
    browser.click("#new-bin").await;
    browser.until_shown("Nothing has come yet").await;
    let address = "document.querySelector('#bin-url').value.startsWith(location.origin)";
    browser.until("its address", address).await;
    let bins = server.get("/v1/bins").await;
    let bin = bins["data"][0].clone();
    let path = bin["path"].as_str().unwrap();

    // Whatever is sent is shown as text.
    let html = json!({ "html": "<img src=x onerror=document.title='run'>" });
    let taken = server.post(path, &html).await;
    assert_eq!(taken.status(), 200);
    assert_eq!(taken.text().await.unwrap(), "");
    browser.until_shown("<img src=x onerror=").await;
    browser.until_shown("not verified").await;
    let images = "document.querySelectorAll('#view img').length === 0";
    browser.until("no image", images).await;

    // One click makes an endpoint whose requests are verified.
    browser.click("#connect").await;
    let shown = "document.querySelector('#test')?.offsetParent";
    browser.until("the page of the endpoint", shown).await;
    browser
        .until_shown("its bin verifies with its secret")
        .await;
    browser.click("#test").await;
    browser.until_shown("Attempt 1").await;
    let id = bin["id"].as_str().unwrap();
    browser.open(&server, &format!("/#/bins/{id}")).await;
    browser.until_shown("signature valid").await;
    // The request before has no signature.
    browser
        .until_shown("The header `webhook-id` is missing")
        .await;

    // A reply that fails, for a look at what the sender does then.
    let choose = "[document.querySelector('#bin-status')].map((it) => { it.value = '503'; \
                  return it.dispatchEvent(new Event('change')); })[0]";
    browser.until("another reply", choose).await;
    browser.until_shown("From now on it replies with 503").await;
    assert_eq!(server.post(path, &json!({})).await.status(), 503);
    browser.until_shown("replied 503").await;

    browser.click("#set-secret").await;
    browser.type_into("dialog [name=secret]", "nonsense").await;
    browser.submit().await;
    let error = "document.querySelector('dialog .error')?.textContent.startsWith('Secret: ')";
    browser.until("what is wrong with it", error).await;
    browser
        .type_into(
            "dialog [name=secret]",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        )
        .await;
    browser.submit().await;
    browser
        .until_shown("The sender signs with another secret")
        .await;

    browser.click("#delete-bin").await;
    browser.submit().await;
    browser.until_shown("There is no bin.").await;
    assert_eq!(server.post(path, &json!({})).await.status(), 404);
    browser.close().await;
}

#[tokio::test]
async fn a_person_reads_a_request_of_a_bin_while_others_arrive() {
    let home = Home::new();
    let server = home.start().await;
    let browser = Browser::start().await;
    browser.open(&server, "/#/bins").await;
    browser.until_shown("There is no bin.").await;
    browser.click("#new-bin").await;
    browser.until_shown("Nothing has come yet").await;
    let bins = server.get("/v1/bins").await;
    let path = bins["data"][0]["path"].as_str().unwrap();
    server.post(path, &json!("first")).await;
    browser.until_shown("first").await;
    browser.click("#requests summary").await;
    let reading = "const row = document.querySelector('#requests li');
        getSelection().selectAllChildren(row.querySelector('pre'));
        return (window.row = row).querySelector('details').open";
    let is_open = browser.client.execute(reading, vec![]).await.unwrap();
    assert_eq!(is_open, true);
    server.post(path, &json!("second")).await;
    browser.until_shown("second").await;
    let is_kept = "window.row.isConnected && window.row.querySelector('details').open
        && getSelection().toString().includes('first')
        && window.row.contains(document.activeElement)";
    browser.until("the same row", is_kept).await;
    browser.close().await;
}

#[tokio::test]
async fn what_others_change_while_a_person_edits_an_endpoint_stays() {
    let home = Home::new();
    let server = home.start().await;
    let headers = json!({ "x-b": "1", "x-a": "2" });
    let endpoint = json!({ "url": "http://127.0.0.1:9/", "headers": headers, "schedule": [0, 2] });
    let created = server.post("/v1/endpoints", &endpoint).await;
    let created: serde_json::Value = created.json().await.unwrap();
    let path = format!("/v1/endpoints/{}", created["id"].as_str().unwrap());
    let browser = Browser::start().await;
    let page = format!("/#/endpoints/{}", created["id"].as_str().unwrap());
    browser.open(&server, &page).await;
    browser.until_shown("127.0.0.1:9").await;
    browser.click("#edit").await;
    browser
        .type_into("dialog [name=description]", "Depot")
        .await;
    server.patch(&path, &json!({ "rate_limit": 7 })).await;
    browser.submit().await;
    browser.until_shown("Saved").await;
    let after = server.get(&path).await;
    assert_eq!(
        (&after["description"], &after["rate_limit"]),
        (&json!("Depot"), &json!(7))
    );
    assert_eq!(
        (&after["headers"], &after["schedule"]),
        (&headers, &endpoint["schedule"])
    );

    // A form in which nothing was changed sends nothing.
    let note = "const real = window.fetch;
        window.sent = 0;
        window.fetch = (url, init) => {
            if (init?.method === 'PATCH') window.sent += 1;
            return real(url, init);
        };";
    browser.client.execute(note, vec![]).await.unwrap();
    browser.click("#edit").await;
    browser.submit().await;
    browser
        .until("it is closed", "!document.querySelector('dialog')")
        .await;
    browser.until("nothing was sent", "window.sent === 0").await;
    browser.close().await;
}

#[tokio::test]
async fn a_bin_offers_no_endpoint_that_the_server_would_refuse_and_says_which_setting_is_missing() {
    let home = Home::with(&["--webhook-private-addresses=false"]);
    let server = home.start().await;
    let browser = Browser::start().await;
    browser.open(&server, "/#/bins").await;
    browser.until_shown("There is no bin.").await;
    browser.click("#new-bin").await;
    browser.until_shown("Nothing has come yet").await;
    browser.until_shown("--webhook-private-addresses").await;
    let shown = |id: &str| format!("document.querySelector('#{id}').offsetParent !== null");
    browser
        .until("what can be done", &shown("set-secret"))
        .await;
    let refused = format!("!({})", shown("connect"));
    browser.until("what would be refused", &refused).await;

    // A proxy may call the server by another name than the one that people and endpoints use.
    let through_proxy = "const real = window.fetch;
        window.fetch = async (...all) => {
            const bin = await (await real(...all)).json();
            return Response.json({ ...bin, host: '127.0.0.1:1' });
        };";
    browser.client.execute(through_proxy, vec![]).await.unwrap();
    browser.until("what may succeed", &shown("connect")).await;
    browser.until_shown("if the address of").await;
    browser.close().await;
}

#[tokio::test]
async fn an_attempt_that_was_redirected_says_where_to() {
    let home = Home::new();
    let server = home.start().await;
    let receiver = Webhooks::start().await;
    receiver.redirect_to("https://me:pass@shop.example/hook/?key=hidden");
    let endpoint = json!({ "url": receiver.url(), "schedule": [0] });
    let created = server.post("/v1/endpoints", &endpoint).await;
    let created: serde_json::Value = created.json().await.unwrap();
    server.notify("anna", json!({ "n": 1 })).await;
    let browser = Browser::start().await;
    let page = format!("/#/endpoints/{}", created["id"].as_str().unwrap());
    browser.open(&server, &page).await;
    let words = "it redirects to https://shop.example/hook/?\u{2026}";
    browser.until_shown(words).await;
    browser.open(&server, "/#/deliveries?state=failed").await;
    browser
        .until("it is listed", "document.querySelector('tbody a.main')")
        .await;
    browser.click("tbody a.main").await;
    browser.until_shown("Attempt 1").await;
    browser.until_shown(words).await;
    let hidden = "!/pass|hidden/.test(document.body.textContent)";
    browser.until("no credential", hidden).await;
    browser.close().await;
}
