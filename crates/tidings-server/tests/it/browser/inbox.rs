//! The page of one user.

use fantoccini::Locator;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Browser, IS_LIVE, intercept};
use crate::support::{Home, Server, http};
use crate::tokens::{KEY, SECRET, token};

#[tokio::test]
async fn a_person_watches_a_user_sends_one_reads_it_and_archives_it() {
    let home = Home::new();
    let server = home.start().await;
    server
        .notify("anna", json!({ "message": "from before" }))
        .await;
    let browser = Browser::start().await;
    browser.open(&server, "/#/users").await;
    browser
        .until("the form", "document.querySelector('#choose')")
        .await;
    browser.type_into("#choose input", "anna").await;
    browser.click("#choose button").await;
    browser.until("the stream opens", IS_LIVE).await;
    browser.until_shown("from before").await;

    browser
        .type_into("#send textarea", "Hello <b>you</b>")
        .await;
    browser.click("#send button").await;
    let first = "document.querySelector('#feed li .main')?.textContent";
    browser
        .until(
            "the new one is shown as text",
            &format!("{first} === 'Hello <b>you</b>'"),
        )
        .await;
    browser.until_shown("2 unread").await;
    let inbox = server.get("/v1/users/anna/notifications").await;
    assert_eq!(inbox["data"][0]["payload"]["message"], "Hello <b>you</b>");

    browser.click("#feed li button").await;
    browser.until_shown("1 unread").await;
    // What another screen does shows here as well.
    server
        .post("/v1/users/anna/notifications/read-all", &Value::Null)
        .await;
    browser
        .until("none is unread", "document.querySelector('#unread').hidden")
        .await;

    let of_first = |text: &str| {
        let path = format!("//*[@id='feed']/li[1]//button[text()='{text}']");
        browser.client.clone().click_at(path)
    };
    let focused = |text: &str, row: u32| {
        format!(
            "document.activeElement.textContent === '{text}' \
             && document.activeElement.closest('li') === document.querySelector('#feed li:nth-child({row})')"
        )
    };
    // Who uses the keyboard stays where they were: at the same button, or that of the next row.
    of_first("Mark unread").await;
    let stays = focused("Mark read", 1);
    browser.until("the focus stays", &stays).await;
    of_first("Mark read").await;
    let stays = focused("Mark unread", 1);
    browser.until("the focus stays", &stays).await;
    of_first("Archive").await;
    let moves = focused("Archive", 1);
    browser.until("the focus is on the next row", &moves).await;
    let count = |number: u32| format!("document.querySelectorAll('#feed li').length === {number}");
    browser.until("one is left", &count(1)).await;
    browser.open(&server, "/#/users/anna?show=archived").await;
    browser
        .until("it is archived", &format!("{first} === 'Hello <b>you</b>'"))
        .await;
    of_first("Move to inbox").await;
    browser.until_shown("Nothing is archived.").await;
    browser.open(&server, "/#/users/anna?show=unread").await;
    browser.until_shown("Nothing is unread.").await;
    // A list that the inbox does not have follows what happens, too.
    server.notify("anna", json!("fresh")).await;
    browser.until("it is unread", &count(1)).await;
    of_first("Mark read").await;
    browser.until_shown("Nothing is unread.").await;
    browser
        .open(&server, "/#/users/anna?show=inbox&type=none")
        .await;
    browser
        .until_shown("Nothing of the type none is in the inbox.")
        .await;

    browser.open(&server, "/#/users/anna?show=live").await;
    browser.until_shown("connected").await;
    server.notify("anna", json!("as it happens")).await;
    browser.until_shown("as it happens").await;
    browser.close().await;
}

trait ClickAt {
    /// Clicks on what an `XPath` finds.
    async fn click_at(self, path: String);
}

impl ClickAt for fantoccini::Client {
    async fn click_at(self, path: String) {
        let found = self.wait().for_element(Locator::XPath(&path)).await;
        found.expect(&path).click().await.unwrap();
    }
}

#[tokio::test]
async fn regression_the_page_shows_a_payload_byte_for_byte() {
    // A parsed value has its keys in another order, rounded numbers and other escapes.
    const PAYLOAD: &str =
        r#"{"z":12345678901234567890123,"2":1.10,"1":1E400,"s":"\u00e9,]}\"\\","n":[{}]}"#;
    let home = Home::new();
    let server = home.start().await;
    let send = async |key: &str| {
        let body = format!(r#"{{"user_id":"anna","type":"{key}","payload":{PAYLOAD}}}"#);
        let request = http().post(server.at("/v1/notifications")).body(body);
        assert_eq!(request.send().await.unwrap().status(), 201);
    };
    send("listed").await;
    let browser = Browser::start().await;
    browser.open(&server, "/#/users/anna").await;
    browser.until("the stream opens", IS_LIVE).await;
    send("live").await;
    let entries = "#feed li pre";
    browser
        .until(
            "both are shown",
            &format!("document.querySelectorAll('{entries}').length === 2"),
        )
        .await;
    // What is typed is sent as it was typed.
    browser.type_into("#send textarea", PAYLOAD).await;
    browser.click("#send button").await;
    browser
        .until(
            "all are shown",
            &format!("document.querySelectorAll('{entries}').length === 3"),
        )
        .await;
    let shown = browser
        .client
        .find_all(Locator::Css(entries))
        .await
        .unwrap();
    for entry in shown {
        let shown = entry.prop("textContent").await.unwrap();
        assert_eq!(shown.as_deref(), Some(PAYLOAD));
    }
    browser.close().await;
}

#[tokio::test]
async fn a_notification_reads_as_in_the_inbox_of_an_application_with_its_payload_below() {
    const PAYLOAD: &str = concat!(
        r#"{"title":"Order <b>17</b>","body":"It ships\ntomorrow.","url":"https://shop.example/17","icon":"/a.png","#,
        r#""actions":[{"label":"Bad","url":"javascript:alert(1)"},{"label":"Of the application","url":"/here"},"#,
        r#"{"label":"Track","url":"https://post.example/"}],"n":12345678901234567890123}"#,
    );
    let home = Home::new();
    let server = home.start().await;
    let body = format!(r#"{{"user_id":"anna","type":"order","payload":{PAYLOAD}}}"#);
    let request = http().post(server.at("/v1/notifications")).body(body);
    assert_eq!(request.send().await.unwrap().status(), 201);
    let browser = Browser::start().await;
    browser.open(&server, "/#/users/anna").await;
    let row = "const row = document.querySelector('#feed li');";
    let read = format!(
        "{row} return [row.querySelector('.main').innerText, row.querySelector('.words').innerText,
            [...row.querySelectorAll('a')].map((link) => [link.innerText, link.href, link.target].join(' ')),
            row.querySelector('details').open, row.querySelector('details pre').textContent]"
    );
    browser
        .until("the row", "document.querySelector('#feed li details')")
        .await;
    let read = browser.client.execute(&read, vec![]).await.unwrap();
    let links = [
        "Order <b>17</b> https://shop.example/17 _blank",
        "Track https://post.example/ _blank",
    ];
    let expected = json!([
        "Order <b>17</b>",
        "It ships\ntomorrow.",
        links,
        false,
        PAYLOAD
    ]);
    assert_eq!(read, expected);
    browser.close().await;
}

/// Times are compared with those of the server.
#[tokio::test]
async fn a_clock_of_the_browser_that_is_wrong_changes_no_time_that_is_shown() {
    let home = Home::new();
    let server = home.start().await;
    server.notify("anna", json!("now")).await;
    let browser = Browser::start().await;
    browser.open(&server, "/#/users/ben").await;
    browser.until("the stream opens", IS_LIVE).await;
    let late = "const now = Date.now; Date.now = () => now() - 172_800_000; location.hash = '#/users/anna'";
    browser.client.execute(late, vec![]).await.unwrap();
    let ago = "document.querySelector('#feed li time')?.textContent";
    let is_right = format!("/^(now|\\d+ sec\\.? ago)$/.test({ago})");
    browser.until("how long ago it was", &is_right).await;
    browser.close().await;
}

#[tokio::test]
async fn the_page_says_in_plain_words_what_is_wrong() {
    let home = Home::new();
    let server = home.start().await;
    let browser = Browser::start().await;
    browser.open(&server, "/#/users/..").await;
    browser
        .until_shown("Expected a name other than `.` and `..`")
        .await;
    browser.open(&server, "/#/users/%20anna").await;
    browser.until_shown("space").await;
    browser.open(&server, "/#/nowhere").await;
    browser.until_shown("There is no such page").await;
    browser.open(&server, "/#/users/%ff").await;
    browser.until_shown("There is no such page").await;
    browser.open(&server, "/#/endpoints/none").await;
    browser.until_shown("This owner has no such endpoint").await;
    browser.open(&server, "/#/users").await;
    browser.type_into("#choose [name=user]", "  ").await;
    browser.click("#choose button").await;
    browser.until_shown("Type the name of a user").await;
    browser.open(&server, "/#/users/anna").await;
    let long = "\u{e4}".repeat(128);
    browser.type_into("#send [name=type]", &long).await;
    browser.type_into("#send textarea", "hello").await;
    browser.click("#send button").await;
    browser.until_shown("Type: expected 1 to 255 bytes").await;
    browser.close().await;
}

/// One tab of a browser has at most six connections to a server.
#[tokio::test]
async fn eight_tabs_have_one_stream_and_what_was_opened_before_has_ended() {
    let home = Home::new();
    let server = home.start().await;
    let browser = Browser::start().await;
    browser.open(&server, "/#/users/ben").await;
    browser.until("the stream opens", IS_LIVE).await;
    // Faster than a stream opens.
    let script = "for (let n = 0; n < 5; n += 1) location.hash = `#/users/anna?show=${n % 2 ? 'live' : 'unread'}`";
    browser.client.execute(script, vec![]).await.unwrap();
    browser.until_shown("anna").await;
    for _ in 0..7 {
        let tab = browser.client.new_window(true).await.unwrap();
        browser.client.switch_to_window(tab.handle).await.unwrap();
        browser.open(&server, "/#/users/anna").await;
        browser.until("the stream opens", IS_LIVE).await;
    }
    server.notify("anna", json!("to all")).await;
    for tab in browser.client.windows().await.unwrap() {
        browser.client.switch_to_window(tab).await.unwrap();
        browser.until_shown("to all").await;
    }
    let metrics = http().get(server.at("/metrics")).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(
        metrics.contains("\ntidings_subscription_active 1\n"),
        "{metrics}"
    );
    browser.close().await;
}

/// What a proxy says while the server restarts. A browser opens connections that it does not use, too.
async fn reply_502(listener: TcpListener) {
    const REFUSAL: &[u8] =
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let mut replies = JoinSet::new();
    loop {
        let (mut connection, _) = listener.accept().await.unwrap();
        replies.spawn(async move {
            if connection.read(&mut [0; 4096]).await.unwrap_or(0) > 0 {
                connection.write_all(REFUSAL).await.unwrap();
            }
        });
    }
}

#[tokio::test]
async fn the_page_goes_on_after_a_restart_behind_a_proxy_that_replies_502() {
    let home = Home::new();
    let server = Server::of(home.command_at("127.0.0.4:0")).await;
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let browser = Browser::start().await;
    browser.open(&server, "/#/users/anna").await;
    browser.until("the stream opens", IS_LIVE).await;
    server.kill().await;
    browser
        .until("the loss is noticed", &format!("!({IS_LIVE})"))
        .await;
    let listener = TcpListener::bind(&address).await.unwrap();
    let proxy = tokio::spawn(reply_502(listener));
    browser
        .until_shown("the reply has the status 502 and is not from Tidings")
        .await;
    // From the next failure on it waits for so long that only a person ends it.
    let long = "Math.random = () => 1e6";
    browser.client.execute(long, vec![]).await.unwrap();
    proxy.abort();
    assert!(proxy.await.unwrap_err().is_cancelled());
    let server = Server::of(home.command_at(&address)).await;
    let tried = format!("(document.querySelector('#retry').click(), {IS_LIVE})");
    browser.until("the stream opens again", &tried).await;
    let hidden = "document.querySelector('#retry').hidden";
    browser.until("there is nothing to try", hidden).await;
    server.notify("anna", json!("back")).await;
    browser.until_shown("back").await;
    browser.close().await;
}

#[tokio::test]
async fn more_rows_that_are_loaded_during_a_change_are_neither_lost_nor_repeated() {
    let home = Home::new();
    let server = home.start().await;
    for number in 1..=60 {
        server.notify("anna", json!(number)).await;
    }
    let browser = Browser::start().await;
    browser.open(&server, "/#/users/anna?show=unread").await;
    browser.until("the stream opens", IS_LIVE).await;
    let rows = "document.querySelectorAll('#feed li')";
    browser
        .until("a page", &format!("{rows}.length === 50"))
        .await;
    // The list is requested because of the change, and the reply comes after the click.
    let held = "async (send) => {
        const reply = await send();
        await new Promise((resolve) => (window.release = resolve));
        return reply;
    }";
    intercept(&browser, "/unread=true(?!.*cursor)/", held).await;
    server.notify("anna", json!("new")).await;
    browser
        .until("the request", "window.release !== undefined")
        .await;
    browser.click("#more").await;
    let release = "window.release(); window.timer = setInterval(() => window.release(), 10)";
    browser.client.execute(release, vec![]).await.unwrap();
    let words = format!("[...{rows}].map((row) => row.querySelector('pre').textContent).join()");
    let wanted = (1..=60).rev().fold("\"new\"".to_owned(), |all, number| {
        format!("{all},{number}")
    });
    browser
        .until("each row once", &format!("{words} === '{wanted}'"))
        .await;
    browser.close().await;
}

#[tokio::test]
async fn a_list_is_loaded_once_for_much_that_happens_and_when_somebody_looks() {
    let home = Home::new();
    let server = home.start().await;
    let browser = Browser::start().await;
    browser.open(&server, "/#/users/anna?show=unread").await;
    browser.until("the stream opens", IS_LIVE).await;
    browser.until_shown("Nothing is unread.").await;
    let hide = async |hidden: bool| {
        let script = format!(
            "window.loads ??= 0;
             Object.defineProperty(document, 'hidden', {{ configurable: true, get: () => {hidden} }});
             document.dispatchEvent(new Event('visibilitychange'));"
        );
        browser.client.execute(&script, vec![]).await.unwrap();
    };
    let counted = "(send) => { window.loads += 1; return send(); }";
    hide(true).await;
    intercept(&browser, "/unread=true/", counted).await;
    for number in 1..=20 {
        server.notify("anna", json!(number)).await;
    }
    browser.until_shown("20 unread").await;
    hide(false).await;
    let all = "document.querySelectorAll('#feed li').length === 20 && window.loads === 1";
    browser.until("one load for all", all).await;
    let began = Instant::now();
    for number in 21..=40 {
        server.notify("anna", json!(number)).await;
    }
    let all = "document.querySelectorAll('#feed li').length === 40";
    browser.until("all", all).await;
    let loads = browser.client.execute("return window.loads", vec![]).await;
    let most = 3 + began.elapsed().as_secs();
    assert!(loads.unwrap().as_u64().unwrap() <= most);
    browser.close().await;
}

#[tokio::test]
async fn a_list_that_cannot_be_loaded_again_says_so_and_is_loaded_later() {
    let home = Home::new();
    let server = home.start().await;
    server.notify("anna", json!("before")).await;
    let browser = Browser::start().await;
    browser.open(&server, "/#/users/anna?show=unread").await;
    browser.until("the stream opens", IS_LIVE).await;
    browser.until_shown("before").await;
    let broken = "async (send) => window.isWell ? send() : new Response('', { status: 503 })";
    intercept(&browser, "/unread=true/", broken).await;
    server.notify("anna", json!("afterwards")).await;
    browser.until_shown("Trying again.").await;
    let well = "window.isWell = true";
    browser.client.execute(well, vec![]).await.unwrap();
    browser.until_shown("afterwards").await;
    browser
        .until("all is well", "document.querySelector('.problem').hidden")
        .await;
    browser.close().await;
}

#[tokio::test]
async fn the_inbox_does_not_wait_for_who_else_is_online_and_offers_nothing_before_it_is_there() {
    let home = Home::new();
    let server = home.start().await;
    server.notify("anna", json!("in the inbox")).await;
    let browser = Browser::start().await;
    browser.open(&server, "/#/users").await;
    browser
        .until("the form", "document.querySelector('#choose')")
        .await;
    intercept(&browser, "/presence/", "() => new Promise(() => {})").await;
    let offered = "[...document.querySelectorAll('#seen, #read-all')].map(({ hidden }) => hidden)";
    // The page notes what it shows at first: that is over after a moment.
    let note = format!(
        "new MutationObserver(() => {{ window.first ||= {offered}.join(); }})
             .observe(document, {{ childList: true, subtree: true }});"
    );
    browser.client.execute(&note, vec![]).await.unwrap();
    browser.open(&server, "/#/users/anna").await;
    browser
        .until("the view without an inbox", "window.first === 'true,true'")
        .await;
    browser.until_shown("in the inbox").await;
    browser
        .until(
            "what can be done",
            &format!("{offered}.join() === 'false,false'"),
        )
        .await;
    browser
        .until(
            "nothing is said of others",
            "!document.querySelector('#presence')",
        )
        .await;
    browser.close().await;
}

#[tokio::test]
async fn a_screen_reader_says_what_arrives_and_not_the_times_of_the_rows() {
    let home = Home::new();
    let server = home.start().await;
    server.notify("anna", json!("from before")).await;
    let browser = Browser::start().await;
    browser.open(&server, "/#/users/anna").await;
    browser.until("the stream opens", IS_LIVE).await;
    browser.until_shown("from before").await;
    let said = "document.querySelector('#arrived').textContent";
    let nothing = format!("{said} === ''");
    browser.until("the list is not new", &nothing).await;
    server
        .notify("anna", json!({ "message": "has arrived" }))
        .await;
    browser.until_shown("has arrived").await;
    let new = format!("{said}.trim() === 'test: has arrived'");
    browser.until("the new one is said", &new).await;
    // The times change every minute.
    let silent = "(() => {
        const times = [...document.querySelectorAll('#feed time')];
        const regions = '[aria-live]:not([aria-live=off]), [role=status], [role=alert], [role=log]';
        return times.length === 2 && times.every((time) => time.closest(regions) === null);
    })()";
    browser.until("no time is said", silent).await;
    browser.close().await;
}

/// A page of the inbox has at most 4 MiB of payloads.
#[tokio::test]
async fn large_rows_that_are_loaded_stay_when_the_list_is_loaded_again() {
    let home = Home::new();
    let server = home.start().await;
    server.notify_many("anna", 15, 300 << 10).await;
    let browser = Browser::start().await;
    browser.open(&server, "/#/users/anna?show=unread").await;
    browser.until("the stream opens", IS_LIVE).await;
    let rows = |wanted: &str| format!("document.querySelectorAll('#feed li').length {wanted}");
    browser.until("a page", &rows("> 10")).await;
    browser.until("not all", &rows("< 15")).await;
    browser.click("#more").await;
    browser.until("all", &rows("=== 15")).await;
    server.notify("anna", json!("new")).await;
    let first = "document.querySelector('#feed li pre').textContent === '\"new\"'";
    browser.until("it is loaded again", first).await;
    browser.until("all are there", &rows("=== 16")).await;
    browser.close().await;
}

#[tokio::test]
async fn what_a_person_sends_again_after_a_lost_reply_is_stored_once() {
    let home = Home::new();
    let server = home.start().await;
    let browser = Browser::start().await;
    browser.open(&server, "/#/users/anna").await;
    browser.until("the stream opens", IS_LIVE).await;
    let lost = "async (send) => {
        const reply = await send();
        if (window.isLost) return reply;
        window.isLost = true;
        throw new TypeError('the connection broke');
    }";
    intercept(&browser, "/notifications$/", lost).await;
    let sent = async || {
        browser.type_into("#send textarea", "once").await;
        browser.click("#send button").await;
    };
    sent().await;
    browser.until_shown("The server does not reply").await;
    browser.click("#send button").await;
    browser.until_shown("Stored as").await;
    let inbox = server.get("/v1/users/anna/notifications").await;
    assert_eq!(inbox["data"].as_array().unwrap().len(), 1);
    // The same words with a reply are another notification.
    sent().await;
    browser.until_shown("2 unread").await;
    browser.close().await;
}

/// Streams that are opened from now on do what `how` says.
async fn intercept_streams(browser: &Browser, how: &str) {
    // It waits for so long that only a person ends it.
    let script = "Math.random = () => 1e6";
    browser.client.execute(script, vec![]).await.unwrap();
    intercept(browser, r"/\/events\b/", how).await;
}

const STATUS: &str = "document.querySelector('#status').textContent";

#[tokio::test]
async fn before_the_first_connection_a_page_says_that_it_connects_and_not_that_it_does_so_again() {
    let home = Home::new();
    let server = home.start().await;
    let browser = Browser::start().await;
    browser.open(&server, "/#/users").await;
    browser
        .until("the form", "document.querySelector('#choose')")
        .await;
    let lost = "(send) => window.isWell ? send() : Promise.reject(new TypeError('no network'))";
    intercept_streams(&browser, lost).await;
    browser.open(&server, "/#/users/anna").await;
    let waits = "!document.querySelector('#retry')?.hidden";
    browser.until("it waits", waits).await;
    let connects = format!("{STATUS}.startsWith('connecting: ')");
    browser.until("it says so", &connects).await;
    let well = "window.isWell = true; document.querySelector('#retry').click()";
    browser.client.execute(well, vec![]).await.unwrap();
    browser.until("the stream opens", IS_LIVE).await;
    server.kill().await;
    let again = format!("{STATUS}.startsWith('reconnecting: ')");
    browser.until("it is lost", &again).await;
    browser.close().await;
}

#[tokio::test]
async fn who_tries_a_lost_connection_reads_that_it_is_tried_and_what_came_of_it() {
    let home = Home::new();
    let server = Server::of(home.command_at("127.0.0.6:0")).await;
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let browser = Browser::start().await;
    browser.open(&server, "/#/users/anna").await;
    browser.until("the stream opens", IS_LIVE).await;
    let held = "(send) => new Promise((resolve, reject) => {
        window.refuse = () => reject(new TypeError('no network'));
        window.pass = () => resolve(send());
    })";
    intercept_streams(&browser, held).await;
    server.kill().await;
    let is_offered = "document.querySelector('#retry').offsetParent";
    browser.until("it can be tried", is_offered).await;
    let tried_at = format!("{STATUS}.includes('tried at')");
    browser
        .until("nobody has tried", &format!("!{tried_at}"))
        .await;
    let is_trying = format!(
        "{STATUS} === 'Trying \u{2026}' && document.activeElement.matches('#retry[aria-busy=true]')"
    );
    browser.click("#retry").await;
    browser.until("it is tried", &is_trying).await;
    let refuse = "window.refuse()";
    browser.client.execute(refuse, vec![]).await.unwrap();
    browser.until("what came of it", &tried_at).await;
    let again = "document.activeElement.matches('#retry[aria-busy=false]')";
    browser.until("it can be tried again", again).await;

    let server = Server::of(home.command_at(&address)).await;
    browser.click("#retry").await;
    browser.until("it is tried", &is_trying).await;
    let pass = "window.pass()";
    browser.client.execute(pass, vec![]).await.unwrap();
    browser.until("it is live", IS_LIVE).await;
    let said = format!("{STATUS} === 'live'");
    browser.until("nothing is left of the try", &said).await;
    drop(server);
    browser.close().await;
}

#[tokio::test]
async fn no_try_is_offered_where_nothing_would_be_tried() {
    let home = Home::new();
    let server = home.start().await;
    let browser = Browser::start().await;
    browser.open(&server, "/#/users").await;
    browser
        .until("the form", "document.querySelector('#choose')")
        .await;
    let full = r#"(send) => {
        const bye = { code: 4100, reason: "too many streams", reconnect_after_ms: 600000 };
        const headers = { "content-type": "text/event-stream" };
        const reply = () => new Response(`event: bye\ndata: ${JSON.stringify(bye)}\n\n`, { headers });
        return window.isWell ? send() : Promise.resolve(reply());
    }"#;
    intercept_streams(&browser, full).await;
    let only_says = |why: &str| {
        let status = "document.querySelector('#status')?.textContent";
        format!("{status}.endsWith('{why}') && document.querySelector('#retry').hidden")
    };
    let run = |script: &'static str| browser.client.execute(script, vec![]);
    run("location.hash = '#/users/anna'").await.unwrap();
    let waits = only_says(": too many streams");
    browser.until("the server has asked to wait", &waits).await;
    run("window.isWell = true; location.hash = '#/users/ben'")
        .await
        .unwrap();
    browser.until("the stream opens", IS_LIVE).await;
    let offline = "Object.defineProperty(navigator, 'onLine', { value: false });
        dispatchEvent(new Event('offline'))";
    run(offline).await.unwrap();
    let waits = only_says(": the browser has no network");
    browser.until("there is no network", &waits).await;
    browser.close().await;
}

#[tokio::test]
async fn an_operator_who_follows_a_user_in_the_same_tab_reads_whether_they_are_online() {
    let home = Home::with(&["--api-key", KEY, "--jwt-secret", SECRET]);
    let server = home.start().await;
    let browser = Browser::start().await;
    browser
        .open(&server, &format!("/#token={}", token("anna", 600)))
        .await;
    browser.until("the stream opens", IS_LIVE).await;
    // At once, while the server may count the stream of the portal.
    let sign_in = "document.querySelector('#sign-out').click();
        document.querySelector('#ended button').click();
        location.hash = '#/users/anna';
        document.querySelector('#login input').value = arguments[0];
        document.querySelector('#login button').click();";
    browser
        .client
        .execute(sign_in, vec![json!(KEY)])
        .await
        .unwrap();
    let says = "document.querySelector('#presence')?.textContent.includes('online')";
    browser.until("whether anna is online", says).await;
    browser.close().await;
}

#[tokio::test]
async fn the_page_of_a_user_says_in_plain_words_whether_they_are_online() {
    let home = Home::new();
    let server = home.start().await;
    let browser = Browser::start().await;
    let presence = "document.querySelector('#presence')?.textContent";
    let is = |words: &str| format!("{presence} === '{words}'");
    browser.open(&server, "/#/users/anna").await;
    browser.until("nobody is there", &is("not online")).await;
    let events = server.at("/v1/users/ben/events");
    let stream = http().get(events).send().await.unwrap();
    browser.open(&server, "/#/users/ben").await;
    browser.until("ben is there", &is("online now")).await;
    // It was so when the page asked, and this page makes ben online from then on.
    let ages = format!("/^online \\d+ sec\\.? ago$/.test({presence})");
    browser.until("how old that is", &ages).await;
    drop(stream);
    browser.close().await;
}
