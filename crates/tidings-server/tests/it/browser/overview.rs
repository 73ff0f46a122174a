//! What the server does, over time.

use fantoccini::key::Key;
use serde_json::json;

use super::Browser;
use crate::support::Home;

#[tokio::test]
async fn the_overview_draws_what_is_accepted_and_shows_the_first_steps_until_then() {
    let home = Home::new();
    let server = home.start().await;
    let browser = Browser::start().await;
    browser.open(&server, "/").await;
    browser
        .until_shown("Nothing was accepted since the start")
        .await;
    let charts = "document.querySelectorAll('.chart svg[role=img]')";
    browser
        .until("the charts", &format!("{charts}.length === 8"))
        .await;
    server.notify("anna", json!(1)).await;
    let first = "document.querySelector('.totals dd').textContent === '1'";
    browser.until("it is counted", first).await;
    browser
        .until(
            "the first steps are gone",
            "document.querySelector('.first').hidden",
        )
        .await;
    // Two readings make a rate.
    let line = format!("{charts}[0].querySelector('path.line').getAttribute('d').startsWith('M')");
    browser.until("a line is drawn", &line).await;
    let named = format!("{charts}[0].getAttribute('aria-label').includes('accepted')");
    browser.until("the picture has words", &named).await;

    // The keyboard reaches the content without the menu.
    // Nothing is shown as focused in a window that is not.
    browser.click("h1").await;
    browser
        .until(
            "the link",
            "(document.querySelector('.skip').focus(), document.hasFocus())",
        )
        .await;
    let active = browser.client.active_element().await.unwrap();
    active.send_keys(&Key::Enter).await.unwrap();
    browser
        .until("the content", "document.activeElement.id === 'main'")
        .await;
    browser.close().await;
}
