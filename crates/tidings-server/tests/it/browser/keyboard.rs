//! Where the keyboard leads.

use fantoccini::key::Key;
use serde_json::json;

use super::{Browser, press};
use crate::support::Home;
use crate::webhooks::create;

#[tokio::test]
async fn regression_the_first_stop_of_tab_skips_the_menu_which_shows_where_the_person_is() {
    let home = Home::new();
    let server = home.start().await;
    let body = json!({ "url": "http://127.0.0.1:1/", "description": "Depot" });
    let endpoint = create(&server, "/v1/endpoints", body).await;
    let endpoint = format!("/#/endpoints/{}", endpoint["id"].as_str().unwrap());
    let browser = Browser::start().await;
    for width in [1200, 360] {
        browser.client.set_window_size(width, 800).await.unwrap();
        for (address, shown) in [
            ("/#/", "Since the start of the instance"),
            ("/#/users/anna", "Nothing is in the inbox."),
            ("/#/endpoints", "Depot"),
            (&*endpoint, "Health"),
            ("/#/deliveries", "There is no delivery."),
            ("/#/bins", "There is no bin."),
            ("/#/keys", "API keys"),
        ] {
            browser.open(&server, address).await;
            browser.client.refresh().await.unwrap();
            browser.until_shown(shown).await;
            let here = "(({ left, right }) => left >= 0 && right <= innerWidth)
                (document.querySelector('#nav [aria-current]').getBoundingClientRect())";
            browser.until("the link to this view", here).await;
            press(&browser, Key::Tab).await;
            let at = browser.client.active_element().await.unwrap();
            let at = at.text().await.unwrap();
            assert_eq!(at, "Skip to the content", "{address}");
        }
    }
    browser.close().await;
}
