//! The page and a native `EventSource`, in a real browser.

use std::process::Stdio;

use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::{Home, Server, http, soon};

/// The driver and its browser, which end when standard input is closed: also if the test is killed.
const GUARDED: &str = "chromedriver --port=0 & exec >/dev/null; cat; kill -KILL 0";

/// A browser of its own, with an empty profile.
struct Browser {
    client: Client,
    _driver: Child,
    _profile: TempDir,
}

impl Browser {
    async fn start() -> Self {
        let mut driver = Command::new("sh")
            .args(["-c", GUARDED])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = soon("the driver's port", async {
            loop {
                let line = lines.next_line().await.unwrap();
                let line = line.expect("chromedriver is installed (./scripts/test does it)");
                if let Some((_, port)) = line.split_once("started successfully on port ") {
                    return port.trim_end_matches('.').to_owned();
                }
            }
        })
        .await;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let profile = tempfile::tempdir().unwrap();
        let arguments = [
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-quic".to_owned(),
            "--no-first-run".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            format!("--user-data-dir={}", profile.path().display()),
        ];
        let options = json!({ "args": arguments });
        let mut capabilities = serde_json::Map::new();
        capabilities.insert("goog:chromeOptions".to_owned(), options);
        let client = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap();
        Self {
            client,
            _driver: driver,
            _profile: profile,
        }
    }

    async fn type_into(&self, selector: &str, text: &str) {
        let field = self.client.find(Locator::Css(selector)).await.unwrap();
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    async fn click(&self, selector: &str) {
        self.client
            .find(Locator::Css(selector))
            .await
            .unwrap()
            .click()
            .await
            .unwrap();
    }

    /// Waits until an expression holds in the page.
    async fn until(&self, what: &str, expression: &str) {
        let script = format!(
            "const done = arguments[0];
             const check = () => ({expression}) ? done(true) : setTimeout(check, 10);
             check();"
        );
        let held = soon(what, self.client.execute_async(&script, vec![])).await;
        assert_eq!(held.expect(what), Value::Bool(true), "{what}");
    }
}

#[tokio::test]
async fn a_person_watches_a_user_sends_one_and_reads_it() {
    let home = Home::new();
    let server = home.start().await;
    server
        .notify("anna", json!({ "message": "from before" }))
        .await;
    let browser = Browser::start().await;
    browser.client.goto(&server.at("/")).await.unwrap();

    browser.type_into("#watch input", "anna").await;
    browser.click("#watch button").await;
    browser
        .until(
            "the stream opens",
            "document.querySelector('#status').dataset.state === 'live'",
        )
        .await;
    browser
        .until(
            "the past is shown",
            "document.querySelector('#feed').innerText.includes('from before')",
        )
        .await;

    browser
        .type_into("#send textarea", "Hello <b>you</b>")
        .await;
    browser.click("#send button").await;
    browser
        .until(
            "the new one is shown as text",
            "document.querySelector('#feed li pre').textContent === 'Hello <b>you</b>'",
        )
        .await;
    browser
        .until(
            "both are unread",
            "document.querySelector('#unread').textContent === '2 unread'",
        )
        .await;
    let inbox = server.get("/v1/users/anna/notifications").await;
    assert_eq!(inbox["data"][0]["payload"]["message"], "Hello <b>you</b>");

    browser.click("#feed li button").await;
    browser
        .until(
            "one is read",
            "document.querySelector('#unread').textContent === '1 unread'",
        )
        .await;
    // What another screen does shows here as well.
    server
        .post("/v1/users/anna/notifications/read-all", &Value::Null)
        .await;
    browser
        .until("none is unread", "document.querySelector('#unread').hidden")
        .await;
    browser.client.clone().close().await.unwrap();
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
    browser.client.goto(&server.at("/#anna")).await.unwrap();
    browser
        .until(
            "the stream opens",
            "document.querySelector('#status').dataset.state === 'live'",
        )
        .await;
    send("live").await;
    browser
        .until(
            "both are shown",
            "document.querySelectorAll('#feed li pre').length === 2",
        )
        .await;
    for entry in browser
        .client
        .find_all(Locator::Css("#feed li pre"))
        .await
        .unwrap()
    {
        let shown = entry.prop("textContent").await.unwrap();
        assert_eq!(shown.as_deref(), Some(PAYLOAD));
    }
    browser.client.clone().close().await.unwrap();
}

#[tokio::test]
async fn the_page_says_in_plain_words_what_is_wrong() {
    let home = Home::new();
    let server = home.start().await;
    server.notify("anna", json!("hers")).await;
    let browser = Browser::start().await;
    browser.client.goto(&server.at("/#anna")).await.unwrap();
    let to = "document.querySelector('#send').elements.to.value";
    let shows = "document.querySelector('#feed').innerText.includes('hers')";
    browser.until("the past is shown", shows).await;
    browser
        .until("the form is for her", &format!("{to} === 'anna'"))
        .await;
    browser.type_into("#watch input", "ben").await;
    browser.click("#watch button").await;
    browser
        .until("the form follows", &format!("{to} === 'ben'"))
        .await;

    browser.type_into("#watch input", "anna").await;
    browser.click("#watch button").await;
    browser.until("the past is shown", shows).await;
    browser.type_into("#watch input", ".").await;
    browser.click("#watch button").await;
    let says = |text: &str| {
        let status = "document.querySelector('#status').textContent";
        format!("{status}.includes('{text}') && document.querySelector('#feed').innerText === ''")
    };
    let refused = says("expected a name other than `.` and `..`");
    browser
        .until("the name is refused, and hers are gone", &refused)
        .await;

    let keyed = Home::with(&["--api-key", "0123456789abcdef"]);
    let keyed = keyed.start().await;
    browser.client.goto(&keyed.at("/#anna")).await.unwrap();
    let needs_key = says("this server requires an API key");
    browser.until("the key is missing", &needs_key).await;
    browser.client.clone().close().await.unwrap();
}

#[tokio::test]
async fn the_page_streams_with_a_key_that_is_in_no_url_and_gone_after_a_reload() {
    let key = "a-key-for-this-test-0123456789";
    let home = Home::with(&["--api-key", key]);
    let server = home.start().await;
    let notify = async |payload: &str| {
        let body = json!({ "user_id": "anna", "payload": payload });
        let request = http().post(server.at("/v1/notifications")).json(&body);
        let response = request.bearer_auth(key).send().await.unwrap();
        assert_eq!(response.status(), 201);
    };
    let browser = Browser::start().await;
    browser.client.goto(&server.at("/#anna")).await.unwrap();
    browser.type_into("#access input", key).await;
    browser.click("#access button").await;
    let is_live = "document.querySelector('#status').dataset.state === 'live'";
    browser.until("the stream opens", is_live).await;
    for payload in ["one", "zwei \u{fc}ber"] {
        notify(payload).await;
        let shows = "document.querySelector('#feed li pre')?.textContent";
        browser
            .until("it is shown", &format!("{shows} === '\"{payload}\"'"))
            .await;
    }
    let requested = "return performance.getEntriesByType('resource').map(({ name }) => name)
        .concat(location.href, Object.values(localStorage), Object.values(sessionStorage)).join()";
    let requested = browser.client.execute(requested, vec![]).await.unwrap();
    let requested = requested.as_str().unwrap();
    assert!(requested.contains("/v1/users/anna/") && !requested.contains(key));
    browser.client.refresh().await.unwrap();
    let says = "document.querySelector('#status').textContent.includes('requires an API key')";
    browser.until("the key is gone", says).await;
    browser.client.clone().close().await.unwrap();
}

#[tokio::test]
async fn a_native_event_source_resumes_exactly_over_a_kill() {
    let home = Home::new();
    // An address of its own, so that no other test takes the port while the server is down.
    let server = Server::of(home.command_at("127.0.0.3:0")).await;
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    server.notify("anna", json!(1)).await;
    let browser = Browser::start().await;
    browser
        .client
        .goto(&server.at("/health/live"))
        .await
        .unwrap();
    let script = "
        window.seen = [];
        const source = new EventSource('/v1/users/anna/events?since=start');
        source.onmessage = (event) => window.seen.push(JSON.parse(event.data).payload);";
    browser.client.execute(script, vec![]).await.unwrap();
    browser
        .until("the backlog", "window.seen.length === 1")
        .await;
    server.notify("anna", json!(2)).await;
    browser
        .until("the live event", "window.seen.length === 2")
        .await;

    server.kill().await;
    let server = Server::of(home.command_at(&address)).await;
    server.notify("anna", json!(3)).await;
    browser
        .until("the event after the kill", "window.seen.length >= 3")
        .await;
    server.notify("anna", json!(4)).await;
    browser
        .until("the next live event", "window.seen.length >= 4")
        .await;
    let seen = browser
        .client
        .execute("return window.seen", vec![])
        .await
        .unwrap();
    assert_eq!(seen, json!([1, 2, 3, 4]));
    browser.client.clone().close().await.unwrap();
}

#[tokio::test]
async fn regression_watching_twice_at_once_opens_one_stream() {
    let home = Home::new();
    let server = home.start().await;
    let browser = Browser::start().await;
    browser.client.goto(&server.at("/")).await.unwrap();
    let script = "
        document.querySelector('#watch input').value = 'anna';
        const form = document.querySelector('#watch');
        location.hash = '#anna';
        for (let times = 0; times < 3; times += 1) form.requestSubmit();";
    browser.client.execute(script, vec![]).await.unwrap();
    browser
        .until(
            "the stream opens",
            "document.querySelector('#status').dataset.state === 'live'",
        )
        .await;
    for n in 1..=2 {
        server.notify("anna", json!(n)).await;
    }
    browser
        .until(
            "the last one is shown",
            "document.querySelector('#feed li pre')?.textContent === '2'",
        )
        .await;
    let shown = "return document.querySelectorAll('#feed li pre').length";
    let shown = browser.client.execute(shown, vec![]).await.unwrap();
    assert_eq!(shown, json!(2));
    browser.client.clone().close().await.unwrap();
    // Only one stream is asked to reconnect.
    let (_, log) = server.stop("-TERM").await;
    assert!(
        log.contains("streams asked to reconnect: 1") || log.contains("reconnect: 0"),
        "{log}"
    );
}

#[tokio::test]
async fn the_page_watches_again_after_a_refusal() {
    let home = Home::new();
    let server = Server::of(home.command_at("127.0.0.4:0")).await;
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let browser = Browser::start().await;
    browser.client.goto(&server.at("/#anna")).await.unwrap();
    let is_live = "document.querySelector('#status').dataset.state === 'live'";
    browser.until("the stream opens", is_live).await;
    server.kill().await;
    browser
        .until("the loss is noticed", &format!("!({is_live})"))
        .await;
    // What a proxy says while the server restarts.
    let listener = tokio::net::TcpListener::bind(&address).await.unwrap();
    let (mut connection, _) = soon("a new try", listener.accept()).await.unwrap();
    let refusal = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut connection, refusal)
        .await
        .unwrap();
    drop((connection, listener));
    let server = Server::of(home.command_at(&address)).await;
    browser.until("the stream opens again", is_live).await;
    server.notify("anna", json!("back")).await;
    browser
        .until(
            "the new one is shown",
            "document.querySelector('#feed').innerText.includes('back')",
        )
        .await;
    browser.client.clone().close().await.unwrap();
}
