//! Server-Sent Events: the backlog asked for, then live, resuming exactly.

use serde_json::{Value, json};

use crate::support::{Events, Home, Server, http, payloads, soon};
use crate::websocket::Socket;

async fn with_five() -> (Home, Server, Vec<String>) {
    let home = Home::new();
    let server = home.start().await;
    let mut ids = Vec::new();
    for n in 1..=5 {
        let stored = server.notify("anna", json!(n)).await;
        ids.push(stored["id"].as_str().unwrap().to_owned());
    }
    (home, server, ids)
}

#[tokio::test]
async fn a_reader_without_a_cursor_gets_new_events_only() {
    let (_home, server, ids) = with_five().await;
    let mut events = server.events("anna", "").await;
    let hello = events.next().await;
    assert_eq!(hello.name, "tidings.hello");
    assert_eq!(hello.id.as_ref(), ids.last());
    assert_eq!(hello.json()["unread"], 5);
    let (backlog, _) = events.until("tidings.caught_up").await;
    assert!(backlog.is_empty());
    server.notify("anna", json!("live")).await;
    assert_eq!(events.next().await.json()["payload"], "live");
}

#[tokio::test]
async fn since_start_gives_everything_then_live_without_a_seam() {
    let (_home, server, _ids) = with_five().await;
    let mut events = server.events("anna", "?since=start").await;
    let (backlog, caught_up) = events.until("tidings.caught_up").await;
    assert_eq!(payloads(&backlog), [1, 2, 3, 4, 5]);
    let last = &backlog[4]["id"];
    assert_eq!(&caught_up.json()["cursor"], last);
    for n in 6..=8 {
        server.notify("anna", json!(n)).await;
    }
    for n in 6..=8 {
        assert_eq!(events.next().await.json()["payload"], n);
    }
}

#[tokio::test]
async fn a_reader_resumes_after_its_cursor_by_header_or_query() {
    let (_home, server, ids) = with_five().await;
    let by_query = format!("?last_event_id={}", ids[1]);
    let stale_query = format!("?since=start&last_event_id={}", ids[0]);
    for (query, header) in [
        ("", Some(ids[1].as_str())),
        ("?since=start", Some(ids[1].as_str())),
        (by_query.as_str(), None),
        (stale_query.as_str(), Some(ids[1].as_str())),
    ] {
        let mut events = server.events_after("anna", query, header).await;
        let (backlog, _) = events.until("tidings.caught_up").await;
        assert_eq!(payloads(&backlog), [3, 4, 5], "{query} {header:?}");
    }
}

/// Libraries that stand in for `EventSource` cannot set the header, and repeat the URL of the page.
#[tokio::test]
async fn regression_a_reader_resumes_by_the_parameters_of_polyfills_which_the_header_overrides() {
    let (_home, server, ids) = with_five().await;
    for name in ["lastEventId", "last-event-id", "lastEventID"] {
        let (stale, newest) = (&ids[0], &ids[3]);
        for (query, header, expected) in [
            (format!("?{name}={stale}"), None, &[2, 3, 4, 5][..]),
            (format!("?since=now&{name}={newest}"), None, &[5]),
            (
                format!("?last_event_id={stale}&{name}={newest}"),
                None,
                &[5],
            ),
            (
                format!("?{name}={newest}"),
                Some(stale.as_str()),
                &[2, 3, 4, 5],
            ),
            (format!("?since=start&{name}="), None, &[1, 2, 3, 4, 5]),
        ] {
            let mut events = server.events_after("anna", &query, header).await;
            let (backlog, _) = events.until("tidings.caught_up").await;
            assert_eq!(payloads(&backlog), expected, "{query} {header:?}");
        }
    }
    let twice = format!("?lastEventId={}&last-event-id={}", ids[0], ids[1]);
    let twice = server.at(&format!("/v1/users/anna/events{twice}"));
    let refused = http().get(twice).send().await.unwrap();
    assert_eq!(refused.status(), 400);
}

#[tokio::test]
async fn a_user_who_never_had_an_event_resumes_from_the_origin() {
    let home = Home::new();
    let server = home.start().await;
    let hello = server.events("ben", "").await.next().await;
    let cursor = hello.id.unwrap();
    // Between the two connections the log comes into being.
    server.notify("ben", json!("first")).await;
    let mut events = server.events_after("ben", "", Some(&cursor)).await;
    let (backlog, _) = events.until("tidings.caught_up").await;
    assert_eq!(payloads(&backlog), ["first"]);
}

#[tokio::test]
async fn a_stale_foreign_or_garbage_cursor_gets_a_gap_and_then_the_oldest_kept() {
    let (_home, server, ids) = with_five().await;
    let (epoch, _) = ids[0].split_once('-').unwrap();
    let ahead = format!("{epoch}-99");
    let foreign = "00000000000000ff-2";
    for cursor in [ahead.as_str(), foreign, "garbage", "-", "%00", "1' OR 1=1"] {
        let mut events = server.events_after("anna", "", Some(cursor)).await;
        let (before, gap) = events.until("tidings.gap").await;
        assert!(before.is_empty(), "{cursor}");
        assert!(gap.json()["reason"].is_string(), "{cursor}");
        assert!(gap.json()["to"].is_string(), "{cursor}");
        let (backlog, _) = events.until("tidings.caught_up").await;
        assert_eq!(payloads(&backlog), [1, 2, 3, 4, 5], "{cursor}");
    }
}

#[tokio::test]
async fn since_takes_a_time_and_what_was_never_sent() {
    let home = Home::new();
    let server = home.start().await;
    for (n, day) in [(1, "01"), (2, "02"), (3, "03")] {
        let body = json!({
            "user_id": "anna", "payload": n, "timestamp": format!("2026-01-{day}T00:00:00Z"),
        });
        assert_eq!(server.post("/v1/notifications", &body).await.status(), 201);
    }
    let mut events = server.events("anna", "?since=2026-01-02T00:00:00Z").await;
    let (backlog, _) = events.until("tidings.caught_up").await;
    assert_eq!(payloads(&backlog), [2, 3]);
}

#[tokio::test]
async fn events_can_be_named_by_their_type() {
    let (_home, server, _ids) = with_five().await;
    let mut events = server.events("anna", "?since=start&event=type").await;
    events.next().await;
    assert_eq!(events.next().await.name, "test");
}

#[tokio::test]
async fn a_payload_with_line_breaks_stays_one_event() {
    let home = Home::new();
    let server = home.start().await;
    let mut events = server.events("anna", "").await;
    events.until("tidings.caught_up").await;
    let text = "{\"user_id\":\"anna\",\"payload\":{\r\n\"text\": \"one\\ntwo\\u2028\",\n\n\"event\": \"x\"}}";
    let sent = http().post(server.at("/v1/notifications")).body(text);
    assert_eq!(sent.send().await.unwrap().status(), 201);
    let frame = events.next().await;
    assert_eq!(frame.json()["payload"]["text"], "one\ntwo\u{2028}");
    assert!(!frame.data.contains('\n'));
}

#[tokio::test]
async fn one_post_reaches_every_device_of_every_named_user() {
    let home = Home::new();
    let server = home.start().await;
    let mut screens = Vec::new();
    for user in ["anna", "anna", "ben"] {
        let mut events = server.events(user, "").await;
        events.until("tidings.caught_up").await;
        screens.push(events);
    }
    let body = json!({ "user_ids": ["anna", "ben"], "type": "news", "payload": {"n": 1} });
    let reply: Value = server
        .post("/v1/notifications", &body)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(reply["data"].as_array().unwrap().len(), 2);
    for screen in &mut screens {
        assert_eq!(screen.next().await.json()["type"], "news");
    }
}

/// Screens of a user that are woken for the same event share its text, if they have the same form.
#[tokio::test]
async fn every_stream_of_a_user_gets_an_event_in_the_form_that_it_asked_for() {
    let home = Home::new();
    let server = home.start().await;
    let (mut streams, mut sockets, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        for (query, name) in [("", ""), ("?event=type", "test")] {
            let mut events = server.events("anna", query).await;
            events.until("tidings.caught_up").await;
            streams.push((events, name));
        }
        let mut socket = Socket::open(&server, "/v1/users/anna/ws").await;
        socket.until("caught_up").await;
        sockets.push(socket);
        bare.push(Socket::open(&server, "/ws/anna").await);
    }
    for n in 0..20 {
        let sent = server.notify("anna", json!(n)).await;
        for (events, name) in &mut streams {
            let frame = events.next().await;
            assert_eq!(
                (&*frame.name, frame.id.as_deref()),
                (*name, sent["id"].as_str())
            );
            assert_eq!(frame.json(), sent);
        }
        for socket in &mut sockets {
            assert_eq!(
                socket.next().await,
                json!({ "event": "notification", "data": sent })
            );
        }
        for socket in &mut bare {
            let frame = socket.next().await;
            assert_eq!((&frame["id"], &frame["event"]), (&sent["id"], &Value::Null));
        }
    }
}

#[tokio::test]
async fn the_reply_asks_proxies_not_to_buffer() {
    let home = Home::new();
    let server = home.start().await;
    let response = http()
        .get(server.at("/v1/users/anna/events"))
        .send()
        .await
        .unwrap();
    assert_eq!(
        response.headers()["cache-control"],
        "no-cache, no-transform"
    );
    assert_eq!(response.headers()["x-accel-buffering"], "no");
}

#[tokio::test]
async fn silence_is_broken_by_comments() {
    let home = Home::with(&["--ping-interval", "1s"]);
    let server = home.start().await;
    let mut response = http()
        .get(server.at("/v1/users/anna/events"))
        .send()
        .await
        .unwrap();
    let mut text = String::new();
    crate::support::soon("a ping", async {
        while !text.contains("\n: ") {
            text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
        }
    })
    .await;
}

/// Some clients hand out a block without data as an empty message.
#[tokio::test]
async fn every_block_of_a_stream_has_data() {
    let home = Home::with(&["--ping-interval", "1s", "--max-streams-per-user", "1"]);
    let server = home.start().await;
    server.notify("anna", json!(1)).await;
    let path = "/v1/users/anna/events?since=start";
    let mut response = http().get(server.at(path)).send().await.unwrap();
    let mut text = String::new();
    crate::support::soon("pings between notifications", async {
        while text.matches("\n: ").count() + usize::from(text.starts_with(": ")) < 2 {
            text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
        }
    })
    .await;
    server.notify("anna", json!(2)).await;
    crate::support::soon("the second notification", async {
        while !text.ends_with("\n\n") || text.matches("\nid: ").count() < 4 {
            text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
        }
    })
    .await;
    // Beyond the limit, a stream ends at once.
    let refused = http().get(server.at(path)).send().await.unwrap();
    text.push_str(&refused.text().await.unwrap());
    let blocks: Vec<_> = text.split_terminator("\n\n").collect();
    assert!(blocks.len() >= 5, "{text}");
    for block in blocks {
        assert!(
            block.lines().any(|line| line.starts_with("data: ")),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_reader_that_stops_reading_for_a_while_misses_nothing_and_delays_no_other() {
    let home = Home::new();
    let server = home.start().await;
    let mut slow = server.events("anna", "").await;
    let mut fast = server.events("anna", "").await;
    fast.until("tidings.caught_up").await;
    // More than the sockets between the two hold. The limit for a client that does not read is a minute,
    // also on a slow machine.
    let filling = "x".repeat(40_000);
    let mut of_fast = 0;
    for batch in 0..10 {
        let notifications: Vec<_> = (0..20)
            .map(|n| json!({ "user_id": "anna", "payload": [batch * 20 + n, filling] }))
            .collect();
        let body = json!({ "notifications": notifications });
        assert_eq!(
            server.post("/v1/notifications/batch", &body).await.status(),
            201
        );
        read_numbers(&mut fast, &mut of_fast, (batch + 1) * 20).await;
    }
    read_numbers(&mut slow, &mut 0, 200).await;
}

/// Reads the notifications with the numbers from `next` up to `end`, and no gap.
async fn read_numbers(reader: &mut Events, next: &mut u64, end: u64) {
    while *next < end {
        let frame = reader.next().await;
        if frame.name.is_empty() {
            assert_eq!(frame.json()["payload"][0], *next);
            *next += 1;
        } else {
            assert_ne!(frame.name, "tidings.gap");
        }
    }
}

#[tokio::test]
async fn regression_an_event_source_comes_back_after_an_error_of_the_server() {
    // The keys for tokens are never loaded.
    let home = Home::with(&["--jwt-jwks", "http://127.0.0.1:1/keys"]);
    let server = home.start().await;
    let ask = async |accept: &str| {
        let request = http().get(server.at("/v1/users/anna/events"));
        let request = request.bearer_auth("eyJhbGciOiJFZERTQSJ9.e30.AAAA");
        let request = request.header("accept", accept).header("x-request-id", "a");
        request.send().await.unwrap()
    };
    let refused = ask("text/event-stream").await;
    assert_eq!(refused.status(), 200);
    assert_eq!(refused.headers()["content-type"], "text/event-stream");
    assert_eq!(refused.headers()["x-request-id"], "a");
    assert!(!refused.headers().contains_key("retry-after"));
    let bye = soon("the end of the stream", refused.text()).await.unwrap();
    for part in [
        "retry: ",
        "event: tidings.bye",
        "\"code\":4101",
        "the key set for tokens",
    ] {
        assert!(bye.contains(part), "{part} in {bye}");
    }
    // Others can tell the status.
    for accept in ["*/*", "text/event-stream, application/json"] {
        assert_eq!(ask(accept).await.status(), 503, "{accept}");
    }
    let metrics = http().get(server.at("/metrics")).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let of_stream = "{http_request_method=\"GET\",http_route=\"/v1/users/{user}/events\",http_response_status_code=\"503\"} 3\n";
    assert!(metrics.contains(of_stream), "{metrics}");
}
