//! The console and a native `EventSource`, in a real browser.

mod access;
mod files;
mod inbox;
mod keyboard;
mod loading;
mod narrow;
mod overview;
mod places;
mod sending;
mod typed;
mod webhooks;

use std::process::Stdio;

use fantoccini::actions::{InputSource, KeyAction, KeyActions};
use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::{Home, PATIENCE, Server, soon};

/// The driver and its browser, which end when standard input is closed: also if the test is killed.
const GUARDED: &str = "chromedriver --port=0 & exec >/dev/null; cat; kill -KILL 0";

/// How often a driver is started: the port that it gets for IPv4 may be in use for IPv6, and then it ends.
const STARTS: usize = 5;

/// A driver and its port.
async fn start_driver() -> (Child, String) {
    let mut said = String::new();
    for _ in 0..STARTS {
        let mut driver = Command::new("sh")
            .args(["-c", GUARDED])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        while let Some(line) = soon("the driver's port", lines.next_line()).await.unwrap() {
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                let port = port.trim_end_matches('.').to_owned();
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return (driver, port);
            }
            said = line;
        }
    }
    panic!("chromedriver starts (./scripts/test installs it); it said: {said}");
}

/// A browser of its own, with an empty profile.
struct Browser {
    client: Client,
    _driver: Child,
    _profile: TempDir,
}

impl Browser {
    async fn start() -> Self {
        let (driver, port) = start_driver().await;
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
        let patience = u64::try_from(PATIENCE.as_millis()).unwrap();
        capabilities.insert("timeouts".to_owned(), json!({ "script": patience }));
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

    /// Opens an address of a server.
    async fn open(&self, server: &Server, address: &str) {
        self.client.goto(&server.at(address)).await.unwrap();
    }

    /// Clicks on the submit button of the open dialog.
    async fn submit(&self) {
        self.click("dialog[open] form .actions button:last-child")
            .await;
    }

    /// Waits for an element, and returns its text, or its value if it is a field.
    async fn text(&self, selector: &str) -> String {
        let element = format!("document.querySelector({selector:?})");
        self.until(selector, &format!("{element} !== null")).await;
        let text = format!("return {element}.value ?? {element}.textContent");
        let text = self.client.execute(&text, vec![]).await.unwrap();
        text.as_str().unwrap().to_owned()
    }

    /// Waits until the text that is shown in the page includes this.
    async fn until_shown(&self, text: &str) {
        let shown = format!("document.body.innerText.includes({text:?})");
        self.until(text, &shown).await;
    }

    async fn close(self) {
        self.client.clone().close().await.unwrap();
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

/// Presses a key in the window, wherever the focus is.
async fn press(browser: &Browser, key: impl Into<char>) {
    let value = key.into();
    let keys = KeyActions::new("keyboard".to_owned())
        .then(KeyAction::Down { value })
        .then(KeyAction::Up { value });
    browser.client.perform_actions(keys).await.unwrap();
}

/// Lets a function of the page reply to requests whose address matches. It gets a function that sends the request.
async fn intercept(browser: &Browser, pattern: &str, reply: &str) {
    let script = format!(
        "const real = window.fetch;
         window.fetch = (url, init) => {pattern}.test(url) ? ({reply})(() => real(url, init)) : real(url, init);"
    );
    browser.client.execute(&script, vec![]).await.unwrap();
}

/// Whether the stream of the user that is shown is live.
const IS_LIVE: &str = "document.querySelector('#status')?.dataset.state === 'live'";

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
    browser.close().await;
}
