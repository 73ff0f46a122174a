//! The inbox: list, page, read, read all, and the exact unread count.

use reqwest::Method;
use serde_json::{Value, json};

use crate::errors::refusal;
use crate::support::{Home, Server, http, payloads};

async fn with(count: u64) -> (Home, Server, Vec<String>) {
    let home = Home::new();
    let server = home.start().await;
    let mut ids = Vec::new();
    for n in 1..=count {
        let stored = server.notify("anna", json!(n)).await;
        ids.push(stored["id"].as_str().unwrap().to_owned());
    }
    (home, server, ids)
}

#[tokio::test]
async fn pages_are_newest_first_and_join_without_gap_or_overlap() {
    let (_home, server, _ids) = with(7).await;
    let mut seen = Vec::new();
    let mut query = "?limit=3".to_owned();
    loop {
        let page = server
            .get(&format!("/v1/users/anna/notifications{query}"))
            .await;
        assert_eq!(page["unread"], 7);
        seen.extend(payloads(page["data"].as_array().unwrap()));
        let Some(next) = page["next"].as_str() else {
            break;
        };
        query = format!("?limit=3&cursor={next}");
        // What arrives meanwhile is newer than the first page and shifts nothing.
        if seen.len() == 3 {
            server.notify("ben", json!("other")).await;
        }
    }
    assert_eq!(seen, [7, 6, 5, 4, 3, 2, 1]);
}

#[tokio::test]
async fn reading_is_counted_once_and_reaches_the_users_other_screens() {
    let (_home, server, ids) = with(3).await;
    let mut screen = server.events("anna", "").await;
    screen.until("tidings.caught_up").await;
    for _ in 0..2 {
        let path = format!("/v1/users/anna/notifications/{}/read", ids[1]);
        let reply: Value = server.post(&path, &Value::Null).await.json().await.unwrap();
        assert_eq!(reply["unread"], 2);
    }
    let (_, read) = screen.until("tidings.changed").await;
    assert_eq!(read.json()["ids"], json!([ids[1]]));
    assert_eq!(read.json()["unread"], 2);
    assert_eq!(read.id, None, "a read mark does not move the cursor");

    let page = server.get("/v1/users/anna/notifications?unread=true").await;
    assert_eq!(payloads(page["data"].as_array().unwrap()), [3, 1]);
    let page = server.get("/v1/users/anna/notifications").await;
    assert!(page["data"][1]["read_at"].is_string());
    assert!(page["data"][0]["read_at"].is_null());
}

#[tokio::test]
async fn read_all_empties_the_count_and_reaches_the_other_screens() {
    let (_home, server, _ids) = with(4).await;
    let mut screen = server.events("anna", "").await;
    screen.until("tidings.caught_up").await;
    let path = "/v1/users/anna/notifications/read-all";
    let reply: Value = server.post(path, &Value::Null).await.json().await.unwrap();
    assert_eq!(reply["unread"], 0);
    let (_, read) = screen.until("tidings.changed").await;
    assert_eq!(read.json()["unread"], 0);
    assert!(read.json()["up_to"].is_string());
    server.notify("anna", json!("new")).await;
    let count = server
        .get("/v1/users/anna/notifications/unread-count")
        .await;
    assert_eq!(count["unread"], 1);
}

#[tokio::test]
async fn what_came_after_the_last_shown_notification_stays_unread() {
    let (_home, server, ids) = with(3).await;
    let path = "/v1/users/anna/notifications/read-all";
    let reply = server.post(path, &json!({ "up_to": ids[1] })).await;
    let reply: Value = reply.json().await.unwrap();
    assert_eq!(reply["unread"], 1);
    let page = server.get("/v1/users/anna/notifications?unread=true").await;
    assert_eq!(payloads(page["data"].as_array().unwrap()), [3]);
    let (epoch, _) = ids[0].split_once('-').unwrap();
    for (body, field) in [
        (json!({ "up_to": "nonsense" }), "up_to"),
        (json!({ "up_to": format!("{epoch}-4") }), "up_to"),
        (json!({ "up_to": "00000000000000ff-1" }), "up_to"),
        (json!({ "upto": ids[2] }), "upto"),
    ] {
        let refused = server.post(path, &body).await;
        assert_eq!(refused.status(), 400, "{body}");
        let error: Value = refused.json().await.unwrap();
        assert_eq!(error["error"]["field"], field);
    }
    let reply = server.post(path, &json!({})).await;
    assert_eq!(reply.json::<Value>().await.unwrap()["unread"], 0);
}

#[tokio::test]
async fn a_cursor_that_is_not_of_this_log_is_refused() {
    let home = Home::new();
    let server = home.start().await;
    let of_anna = server.notify("anna", json!(1)).await;
    let of_ben = server.notify("ben", json!(1)).await;
    let epoch = of_anna["id"].as_str().unwrap().split_once('-').unwrap().0;
    let above = format!("{epoch}-2");
    let path = |cursor: &str| format!("/v1/users/anna/notifications?cursor={cursor}");
    for cursor in [&above, of_ben["id"].as_str().unwrap(), "0000000000000000-0"] {
        let (status, error) = refusal(&server, Method::GET, &path(cursor), "").await;
        assert_eq!(
            (status, &error["field"]),
            (400, &json!("cursor")),
            "{cursor}"
        );
    }
    let page = server.get(&path(of_anna["id"].as_str().unwrap())).await;
    assert_eq!(page["data"], json!([]));
}

#[tokio::test]
async fn regression_the_cursor_of_an_empty_inbox_is_good_when_it_is_no_longer_empty() {
    let home = Home::new();
    let server = home.start().await;
    let path = "/v1/users/anna/notifications";
    let cursor = server.get(path).await["cursor"].clone();
    for count in 0..2 {
        for what in ["seen", "read-all"] {
            let body = json!({ "up_to": cursor });
            assert_eq!(change(&server, what, &body).await, (count, count));
        }
        server.notify("anna", json!(1)).await;
    }
}

/// Does something with the inbox, and returns its counts.
async fn change(server: &Server, what: &str, body: &Value) -> (u64, u64) {
    let path = format!("/v1/users/anna/notifications/{what}");
    let response = server.post(&path, body).await;
    assert_eq!(response.status(), 200, "{what}");
    let counts: Value = response.json().await.unwrap();
    assert!(counts["cursor"].is_string());
    let count = |name: &str| counts[name].as_u64().unwrap();
    (count("unread"), count("unseen"))
}

async fn listed(server: &Server, query: &str) -> Vec<Value> {
    let path = format!("/v1/users/anna/notifications{query}");
    payloads(server.get(&path).await["data"].as_array().unwrap())
}

#[tokio::test]
async fn notifications_are_archived_and_come_back_on_every_screen() {
    let (_home, server, ids) = with(3).await;
    let mut screen = server.events("anna", "").await;
    screen.until("tidings.caught_up").await;
    let of = |id: &String, what: &str| format!("{id}/{what}");
    let nothing = &Value::Null;
    for (what, name, counts, left) in [
        ("archive", "archived", (2, 2), vec![3, 1]),
        ("unarchive", "unarchived", (3, 3), vec![3, 2, 1]),
        ("read", "read", (2, 2), vec![3, 2, 1]),
        ("unread", "unread", (3, 3), vec![3, 2, 1]),
    ] {
        // Repeating it changes nothing, and sends nothing.
        for _ in 0..2 {
            assert_eq!(change(&server, &of(&ids[1], what), nothing).await, counts);
        }
        let (_, frame) = screen.until("tidings.changed").await;
        let frame = frame.json();
        assert_eq!(
            (&frame["change"], &frame["ids"]),
            (&json!(name), &json!([ids[1]]))
        );
        assert_eq!(
            (&frame["unread"], &frame["unseen"]),
            (&json!(counts.0), &json!(counts.1))
        );
        assert_eq!(listed(&server, "").await, left);
    }
    change(&server, &of(&ids[0], "archive"), nothing).await;
    assert_eq!(listed(&server, "?archived=true").await, [1]);
    let unknown = server
        .post("/v1/users/anna/notifications/x/archive", nothing)
        .await;
    assert_eq!(unknown.status(), 404);
}

#[tokio::test]
async fn what_is_seen_counts_no_longer_as_unseen() {
    let (_home, server, ids) = with(3).await;
    assert_eq!(
        change(&server, "seen", &json!({ "up_to": ids[1] })).await,
        (3, 1)
    );
    assert_eq!(change(&server, "seen", &json!({})).await, (3, 0));
    server.notify("anna", json!(4)).await;
    let page = server.get("/v1/users/anna/notifications").await;
    assert_eq!((&page["unread"], &page["unseen"]), (&json!(4), &json!(1)));
    assert_eq!(page["cursor"], page["data"][0]["id"]);
    let refused = server
        .post(
            "/v1/users/anna/notifications/seen",
            &json!({ "up_to": "x" }),
        )
        .await;
    assert_eq!(refused.status(), 400);
}

#[tokio::test]
async fn a_notification_replaces_the_earlier_ones_with_its_key() {
    let (_home, server, _ids) = with(1).await;
    let mut screen = server.events("anna", "").await;
    screen.until("tidings.caught_up").await;
    for percent in [10, 50, 100] {
        let body = json!({ "user_id": "anna", "payload": percent, "key": "upload" });
        let stored: Value = server
            .post("/v1/notifications", &body)
            .await
            .json()
            .await
            .unwrap();
        assert_eq!(
            (&stored["key"], &stored["archived_at"]),
            (&json!("upload"), &Value::Null)
        );
        let (_, frame) = screen.until("tidings.changed").await;
        assert_eq!(frame.json()["change"], "replaced");
        assert_eq!(
            (&frame.json()["unread"], &frame.json()["unseen"]),
            (&json!(2), &json!(2))
        );
    }
    assert_eq!(listed(&server, "").await, [100, 1]);
    assert_eq!(listed(&server, "?archived=true").await, [50, 10]);
    let body = json!({ "user_id": "anna", "payload": 1, "key": "" });
    let refused = server.post("/v1/notifications", &body).await;
    assert_eq!(
        refused.json::<Value>().await.unwrap()["error"]["field"],
        "key"
    );
}

#[tokio::test]
async fn a_user_who_is_named_twice_gets_one() {
    let (_home, server, _ids) = with(0).await;
    let body = json!({ "user_ids": ["anna", "ben", "anna"], "payload": 1 });
    let reply: Value = server
        .post("/v1/notifications", &body)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(reply["data"].as_array().unwrap().len(), 2);
    let count = server
        .get("/v1/users/anna/notifications/unread-count")
        .await;
    assert_eq!(count["unread"], 1);
}

#[tokio::test]
async fn types_can_be_picked() {
    let (_home, server, _ids) = with(2).await;
    let body = json!({ "user_id": "anna", "type": "news", "payload": "n" });
    server.post("/v1/notifications", &body).await;
    let page = server.get("/v1/users/anna/notifications?type=news").await;
    assert_eq!(payloads(page["data"].as_array().unwrap()), ["n"]);
}

#[tokio::test]
async fn a_user_without_notifications_has_an_empty_inbox() {
    let (_home, server, _ids) = with(0).await;
    let page = server.get("/v1/users/nobody/notifications").await;
    let cursor = "0000000000000000-0";
    let empty = json!({ "data": [], "next": null, "unread": 0, "unseen": 0, "cursor": cursor });
    assert_eq!(page, empty);
}

#[tokio::test]
async fn a_repeat_under_the_same_key_is_harmless_and_another_body_conflicts() {
    let (home, server, _ids) = with(0).await;
    let send = |server: &Server, body: &'static str| {
        http()
            .post(server.at("/v1/notifications"))
            .header("Idempotency-Key", "order-17")
            .body(body)
            .send()
    };
    let body = r#"{"user_id":"anna","payload":1}"#;
    let first = send(&server, body).await.unwrap().text().await.unwrap();
    let repeat = send(&server, body).await.unwrap();
    assert_eq!(repeat.status(), 201);
    assert_eq!(repeat.text().await.unwrap(), first);
    let other = send(&server, r#"{"user_id":"anna","payload":2}"#)
        .await
        .unwrap();
    assert_eq!(other.status(), 422);
    // The key is remembered on disk with the notification.
    server.kill().await;
    let server = home.start().await;
    assert_eq!(
        send(&server, body).await.unwrap().text().await.unwrap(),
        first
    );
    let count = server
        .get("/v1/users/anna/notifications/unread-count")
        .await;
    assert_eq!(count["unread"], 1);
}

#[tokio::test]
async fn concurrent_repeats_under_one_key_store_one_notification() {
    let (_home, server, _ids) = with(0).await;
    let requests = (0..20).map(|_| {
        http()
            .post(server.at("/v1/notifications"))
            .header("Idempotency-Key", "once")
            .body(r#"{"user_id":"anna","payload":1}"#)
            .send()
    });
    for reply in futures_util::future::join_all(requests).await {
        assert_eq!(reply.unwrap().status(), 201);
    }
    let count = server
        .get("/v1/users/anna/notifications/unread-count")
        .await;
    assert_eq!(count["unread"], 1);
}

#[tokio::test]
async fn a_batch_is_accepted_whole_or_not_at_all() {
    let (_home, server, _ids) = with(0).await;
    let batch = json!({ "notifications": [
        { "user_id": "anna", "payload": 1 },
        { "user_ids": ["anna", "ben"], "type": "news", "message": "hi" },
    ]});
    let response = server.post("/v1/notifications/batch", &batch).await;
    assert_eq!(response.status(), 201);
    let reply: Value = response.json().await.unwrap();
    assert_eq!(reply["data"].as_array().unwrap().len(), 3);
    assert_eq!(reply["data"][2]["payload"], json!({ "message": "hi" }));
    let broken = json!({ "notifications": [{ "user_id": "anna", "payload": 1 }, {}] });
    assert_eq!(
        server
            .post("/v1/notifications/batch", &broken)
            .await
            .status(),
        400
    );
    let count = server
        .get("/v1/users/anna/notifications/unread-count")
        .await;
    assert_eq!(count["unread"], 2);
}
