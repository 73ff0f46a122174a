//! Callers, users and addresses that get no more than their share.

use std::net::Ipv4Addr;
use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::raw::{Frame, RawSocket, address, masked};
use crate::support::{Events, Home, Server, http, soon};
use crate::tokens::{KEY, SECRET, token};

const INBOX: &str = "/v1/users/anna/notifications";

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers()[name].to_str().unwrap()
}

/// Asks for the inbox until that is refused because it was too often.
async fn until_too_many(server: &Server, caller: &str) -> Response {
    let client = http();
    soon("a refusal", async {
        loop {
            let request = client.get(server.at(INBOX)).bearer_auth(caller);
            let response = request.send().await.unwrap();
            if response.status() == 429 {
                return response;
            }
            assert!(response.status().is_success(), "{response:?}");
            assert_eq!(
                header(&response, "ratelimit-policy"),
                "\"requests\";q=1;w=1"
            );
            assert_eq!(header(&response, "ratelimit"), "\"requests\";r=0;t=1");
        }
    })
    .await
}

async fn assert_code(response: Response, code: &str) -> Value {
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], code, "{body}");
    body
}

#[tokio::test]
async fn requests_beyond_the_rate_of_a_caller_wait_as_long_as_the_response_says() {
    let arguments = [
        &["--api-key", KEY, "--jwt-secret", SECRET][..],
        &["--max-key-requests", "1", "--max-user-requests", "1"],
    ];
    let home = Home::with(&arguments.concat());
    let server = home.start().await;
    let client = http();
    let get = |path: &str, caller: &str| {
        let request = client.request(Method::GET, server.at(path));
        request.bearer_auth(caller)
    };
    let anna = token("anna", 600);
    let mut others = (0..).map(|n| format!("user-{n}"));
    for caller in [KEY, &anna] {
        let refused = until_too_many(&server, caller).await;
        // Each user has a rate of their own.
        let other = others.next().unwrap();
        let path = format!("/v1/users/{other}/notifications");
        let response = get(&path, &token(&other, 600)).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(header(&refused, "ratelimit-policy"), "\"requests\";q=1;w=1");
        assert_eq!(header(&refused, "ratelimit"), "\"requests\";r=0;t=1");
        assert_eq!(header(&refused, "retry-after"), "1");
        assert_code(refused, "too_many_requests").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let response = get(INBOX, caller).send().await.unwrap();
        assert_eq!(response.status(), 200);
    }
    // Routes that are open to everyone have no caller.
    let health = client.get(server.at("/health/live")).send().await.unwrap();
    assert!(!health.headers().contains_key("ratelimit"));

    // A client that takes JSON too is no event source.
    let both = "application/json, text/event-stream";
    let refused = soon("a refusal", async {
        loop {
            let list = get(INBOX, &anna).header("accept", both);
            let response = list.send().await.unwrap();
            if response.status() != 200 {
                return response;
            }
        }
    })
    .await;
    assert_eq!(refused.status(), 429);

    // An `EventSource` gives up after any status but 200.
    let bye = soon("a bye", async {
        loop {
            let events = get("/v1/users/anna/events", &anna).header("accept", "text/event-stream");
            let response = events.send().await.unwrap();
            let is_refused = header(&response, "ratelimit") == "\"requests\";r=0;t=1"
                && response.headers().contains_key("x-accel-buffering");
            let frame = Events::of(response).next().await;
            if frame.name == "tidings.bye" {
                assert!(is_refused);
                return frame;
            }
        }
    })
    .await;
    assert_eq!(bye.json()["code"], 4100);
    assert!(bye.retry.is_some_and(|wait| wait > 0));
    assert_eq!(bye.retry, bye.json()["reconnect_after_ms"].as_u64());
}

#[tokio::test]
async fn regression_what_a_websocket_asks_for_counts_as_requests() {
    let arguments = [
        "--jwt-secret",
        SECRET,
        "--api-key",
        KEY,
        "--max-user-requests",
        "1",
    ];
    let home = Home::with(&arguments);
    let server = home.start().await;
    let path = format!("/v1/users/anna/ws?token={}", token("anna", 600));
    let request = masked(0x81, br#"{"read":"6f1c0a52d3e84b97-17"}"#);
    let mut socket = RawSocket::open(&server, &path).await;
    socket.until("caught_up").await;
    soon("the refusal of the second request", async {
        loop {
            // The first may come before there is room again for a request.
            socket.0.write_all(&request.repeat(2)).await.unwrap();
            let [first, second] = [socket.next().await, socket.next().await].map(|frame| {
                let Some(Frame::Text(error)) = frame else {
                    panic!("expected an error, got {frame:?}");
                };
                assert_eq!(error["event"], "error");
                error
            });
            if first["code"] == "not_found" && second["code"] == "too_many_requests" {
                let message = second["message"].as_str().unwrap();
                assert!(message.ends_with("try again in 1 s"), "{message}");
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn regression_requests_that_a_caller_may_not_send_count_too() {
    let home = Home::with(&[
        "--api-key",
        KEY,
        "--jwt-secret",
        SECRET,
        "--max-key-requests=5",
        "--max-user-requests=5",
    ]);
    let server = home.start().await;
    let client = http();
    let keys = client.post(server.at("/v1/keys")).bearer_auth(KEY);
    let body = json!({ "name": "metrics", "scopes": ["metrics"] });
    let key: Value = keys.json(&body).send().await.unwrap().json().await.unwrap();
    let key = key["key"].as_str().unwrap();
    for caller in [&token("ben", 600), key] {
        let get = || client.get(server.at(INBOX)).bearer_auth(caller).send();
        let refused = soon("too many requests", async {
            loop {
                let response = get().await.unwrap();
                let left = header(&response, "ratelimit");
                assert!(left.starts_with("\"requests\";r="), "{left}");
                let policy = header(&response, "ratelimit-policy");
                assert_eq!(policy, "\"requests\";q=5;w=1");
                if response.status() != 403 {
                    return response;
                }
                assert_code(response, "forbidden").await;
            }
        })
        .await;
        assert_eq!(refused.status(), 429);
        assert_eq!(header(&refused, "retry-after"), "1");
    }
}

#[tokio::test]
async fn regression_frames_of_a_websocket_that_cannot_be_read_count_too() {
    let home = Home::with(&[
        "--api-key",
        KEY,
        "--jwt-secret",
        SECRET,
        "--max-user-requests=1",
    ]);
    let server = home.start().await;
    let path = format!("/v1/users/anna/ws?token={}", token("anna", 600));
    let mut socket = RawSocket::open(&server, &path).await;
    socket.until("caught_up").await;
    soon("the refusal of a frame", async {
        loop {
            socket.send(0x81, b"nonsense").await;
            let Some(Frame::Text(error)) = socket.next().await else {
                panic!("expected an error");
            };
            if error["code"] == "too_many_requests" {
                return;
            }
            assert_eq!(error["code"], "invalid_frame");
        }
    })
    .await;
}

#[tokio::test]
async fn a_user_gets_so_many_notifications_a_second_and_a_refused_request_stores_nothing() {
    let home = Home::with(&["--max-user-notifications", "2"]);
    let server = home.start().await;
    let batch = |users: &[&str]| {
        let one = |user| json!({ "user_id": user, "payload": 1 });
        let notifications: Vec<_> = users.iter().map(one).collect();
        json!({ "notifications": notifications })
    };
    let post = async |body: Value| server.post("/v1/notifications/batch", &body).await;

    let never = post(batch(&["anna", "ben", "anna", "anna"])).await;
    assert_eq!(never.status(), 400);
    let body = assert_code(never, "invalid_field").await;
    assert_eq!(body["error"]["field"], "notifications");

    let mut stored = 0;
    let refused = soon("a refusal", async {
        loop {
            let response = post(batch(&["anna", "ben", "anna"])).await;
            if response.status() == 429 {
                return response;
            }
            assert_eq!(response.status(), 201);
            stored += 1;
        }
    })
    .await;
    let policy = header(&refused, "ratelimit-policy");
    assert_eq!(policy, "\"notifications\";q=2;w=1");
    let left = header(&refused, "ratelimit");
    assert_eq!(left, "\"notifications\";r=0;t=1");
    assert_eq!(header(&refused, "retry-after"), "1");
    let body = assert_code(refused, "too_many_notifications").await;
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains("`anna`"), "{message}");
    for (user, times) in [("anna", 2), ("ben", 1)] {
        let path = format!("/v1/users/{user}/notifications/unread-count");
        assert_eq!(server.get(&path).await["unread"], stored * times);
    }

    // The other routes that store notifications count as well.
    for (path, body) in [
        (
            "/v1/notifications",
            json!({ "user_ids": ["carl"], "payload": 1 }),
        ),
        (
            "/notifications",
            json!({ "user_id": "carl", "message": "x" }),
        ),
    ] {
        soon("a refusal", async {
            while server.post(path, &body).await.status() != 429 {}
        })
        .await;
    }
}

#[tokio::test]
async fn regression_a_repeat_does_not_count_as_a_notification() {
    let home = Home::with(&["--max-user-notifications", "2"]);
    let server = home.start().await;
    let client = http();
    let post = async |path: &str, key: &str, body: &Value| {
        let request = client.post(server.at(path)).header("Idempotency-Key", key);
        let response = request.json(body).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    for (path, user) in [
        ("/v1/notifications", "anna"),
        ("/v1/notifications/batch", "ben"),
        ("/notifications", "carl"),
    ] {
        let message = json!({ "user_id": user, "message": "once" });
        let body = match path {
            "/v1/notifications/batch" => json!({ "notifications": [message] }),
            _ => message,
        };
        let once = format!("once-{user}");
        let first = post(path, &once, &body).await;
        assert_eq!(first.0, 201, "{}", first.1);
        // More often than a user may get some in a second, and then while the rate is used up.
        for _ in 0..10 {
            assert_eq!(post(path, &once, &body).await, first);
        }
        let (status, refused) = soon("a refusal", async {
            let mut key = 0;
            loop {
                key += 1;
                let response = post(path, &format!("{user}-{key}"), &body).await;
                if response.0 != 201 {
                    return response;
                }
                assert_eq!(post(path, &once, &body).await, first);
            }
        })
        .await;
        assert_eq!(status, 429, "{refused}");
        assert_eq!(post(path, &once, &body).await, first);
        let other = json!({ "user_id": user, "message": "another" });
        let other = match path {
            "/v1/notifications/batch" => json!({ "notifications": [other] }),
            _ => other,
        };
        assert_eq!(post(path, &once, &other).await.0, 422);
    }
}

#[tokio::test]
async fn an_owner_has_as_many_endpoints_as_allowed() {
    let home = Home::with(&["--max-endpoints", "1"]);
    let server = home.start().await;
    let endpoint = json!({ "url": "https://example.com/" });
    for path in ["/v1/endpoints", "/v1/users/anna/endpoints"] {
        assert_eq!(server.post(path, &endpoint).await.status(), 201);
        let refused = server.post(path, &endpoint).await;
        assert_eq!(refused.status(), 409);
        let body = assert_code(refused, "too_many_endpoints").await;
        let message = body["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("at most 1 endpoint (--max-endpoints)"),
            "{message}"
        );
        let field = path.contains("users").then_some("user");
        assert_eq!(body["error"]["field"].as_str(), field);
    }
}

/// A connection from another address of this machine.
async fn from(server: &Server, client: Ipv4Addr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((client, 0).into()).unwrap();
    let server = address(server).parse().unwrap();
    socket.connect(server).await.unwrap()
}

/// A client of a proxy, which has called it from this address; gives the stream that it opens.
async fn stream_from(server: &Server, header: (&str, &str)) -> Response {
    let request = http().get(server.at("/v1/users/anna/events"));
    let request = request.header(header.0, header.1);
    request.send().await.unwrap()
}

#[tokio::test]
async fn the_clients_of_a_trusted_proxy_are_counted_by_the_addresses_that_it_names() {
    let home = Home::with(&[
        "--max-address-connections",
        "2",
        "--trusted-proxies",
        "192.0.2.128/25, 127.0.0.1",
    ]);
    let server = home.start().await;
    // The first address in the list is the client's word.
    let anna = [
        "203.0.113.1, 198.51.100.1",
        "203.0.113.2, 198.51.100.1, 192.0.2.129",
    ];
    let mut streams = Vec::new();
    for header in anna {
        let stream = stream_from(&server, ("X-Forwarded-For", header)).await;
        assert_eq!(stream.status(), 200, "{header}");
        streams.push(stream);
    }
    let third = stream_from(&server, ("Forwarded", "for=203.0.113.1, for=198.51.100.1")).await;
    assert_eq!(third.status(), 429);
    assert!(third.headers().contains_key("retry-after"));
    // The connection of the proxy serves other clients too.
    assert!(!third.headers().contains_key("connection"));
    let short = http().get(server.at("/health/live"));
    let short = short
        .header("X-Forwarded-For", anna[0])
        .send()
        .await
        .unwrap();
    assert_eq!(short.status(), 429);
    let source = http().get(server.at("/v1/users/anna/events"));
    let source = source.header("Accept", "text/event-stream");
    let source = source
        .header("X-Forwarded-For", anna[0])
        .send()
        .await
        .unwrap();
    assert_eq!(Events::of(source).next().await.name, "tidings.bye");

    // Other clients have their own places, short requests free theirs, and so do streams that end.
    for n in 0..20 {
        let other = http().get(server.at("/health/live"));
        let address = format!("198.51.100.{}", 2 + n % 2);
        let other = other
            .header("X-Forwarded-For", address)
            .send()
            .await
            .unwrap();
        assert_eq!(other.status(), 200);
    }
    streams.pop();
    soon("room", async {
        loop {
            let stream = stream_from(&server, ("X-Forwarded-For", anna[0])).await;
            if stream.status() == 200 {
                return stream;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn regression_a_request_through_a_proxy_counts_while_its_body_is_on_its_way() {
    let home = Home::with(&[
        "--max-address-connections",
        "2",
        "--trusted-proxies",
        "127.0.0.1",
    ]);
    let server = home.start().await;
    let client = "X-Forwarded-For: 198.51.100.1";
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address(&server)).await.unwrap();
        let head = "POST /v1/notifications HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100";
        let begin = format!("{head}\r\n{client}\r\nExpect: 100-continue\r\n\r\n");
        stream.write_all(begin.as_bytes()).await.unwrap();
        // From here on it is counted, and its body is waited for.
        let mut response = [0; 12];
        let read = stream.read_exact(&mut response);
        soon("its body is waited for", read).await.unwrap();
        assert_eq!(&response, b"HTTP/1.1 100");
        open.push(stream);
    }
    for status in ["HTTP/1.1 429", "HTTP/1.1 200"] {
        soon(status, async {
            loop {
                let mut stream = TcpStream::connect(address(&server)).await.unwrap();
                let response = ask(&mut stream, &format!("*/*\r\n{client}")).await;
                if response.starts_with(status) {
                    return;
                }
            }
        })
        .await;
        open.pop();
    }
}

/// Other systems have no second loopback address.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_word_of_others_than_trusted_proxies_does_not_count() {
    let home = Home::with(&[
        "--max-address-connections",
        "2",
        "--trusted-proxies",
        "127.0.0.1",
    ]);
    let server = home.start().await;
    let mut open = Vec::new();
    for n in 0..3 {
        let mut stream = from(&server, Ipv4Addr::new(127, 0, 0, 2)).await;
        let forwarded = format!("*/*\r\nX-Forwarded-For: 198.51.100.{n}");
        let response = ask(&mut stream, &forwarded).await;
        let expected = if n < 2 {
            "HTTP/1.1 200"
        } else {
            "HTTP/1.1 429"
        };
        assert!(response.starts_with(expected), "{n}: {response}");
        open.push(stream);
    }
}

/// Sends a request, and gives what comes until the response is whole or the connection ends.
async fn ask(stream: &mut TcpStream, accept: &str) -> String {
    let path = if accept.contains("event-stream") {
        "/v1/users/anna/events"
    } else {
        "/health/live"
    };
    ask_for(path, stream, accept).await
}

async fn ask_for(path: &str, stream: &mut TcpStream, accept: &str) -> String {
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n");
    let mut response = Vec::new();
    soon("a response", async {
        if stream.write_all(head.as_bytes()).await.is_err() {
            return;
        }
        while !response.ends_with(b"}")
            && let Ok(1..) = stream.read_buf(&mut response).await
        {}
    })
    .await;
    String::from_utf8(response).unwrap()
}

#[tokio::test]
async fn a_trusted_proxy_that_asks_for_itself_is_not_refused() {
    let home = Home::with(&[
        "--max-address-connections",
        "1",
        "--trusted-proxies",
        "127.0.0.1",
    ]);
    let server = home.start().await;
    let client = http();
    let mut streams = Vec::new();
    for _ in 0..3 {
        let stream = client.get(server.at("/v1/users/anna/events"));
        let stream = stream.send().await.unwrap();
        assert_eq!(stream.status(), 200);
        streams.push(stream);
    }
    // A header without an address does not make a request the proxy's own.
    let hidden = ("X-Forwarded-For", "unknown");
    let first = stream_from(&server, hidden).await;
    assert_eq!(first.status(), 200);
    assert_eq!(stream_from(&server, hidden).await.status(), 429);
    assert_eq!(server.get("/health/live").await["status"], "live");
}

/// Other systems have no second loopback address.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn refusals_of_an_address_have_the_headers_of_other_responses() {
    let home = Home::with(&[
        "--max-address-connections=4",
        "--allow-origin=https://app.example.com",
        "--log=info",
        "--log-format=json",
    ]);
    let server = home.start().await;
    let client = Ipv4Addr::new(127, 0, 0, 2);
    // As many places for refusals as the test needs at once: a refused connection has its place until it has ended.
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut stream = from(&server, client).await;
        let response = ask(&mut stream, "*/*").await;
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        open.push(stream);
    }
    let page = "Origin: https://app.example.com\r\nX-Request-Id: order-";
    for (n, accept, status) in [
        (1, "text/event-stream, */*", 200),
        (2, "*/*\r\nAccept: text/event-stream", 200),
        (3, "*/*", 429),
    ] {
        let mut beyond = from(&server, client).await;
        let refused = ask(&mut beyond, &format!("{accept}\r\n{page}{n}")).await;
        for expected in [
            format!("HTTP/1.1 {status} "),
            "\r\naccess-control-allow-origin: https://app.example.com\r\n".to_owned(),
            "\r\naccess-control-expose-headers: retry-after, ".to_owned(),
            format!("\r\nx-request-id: order-{n}\r\n"),
            "\r\nconnection: close\r\n".to_owned(),
        ] {
            assert!(refused.contains(&expected), "{expected} in {refused}");
        }
        assert!(!refused.contains("\r\nkeep-alive: "), "{refused}");
        assert_eq!(refused.contains("event: tidings.bye"), status == 200);
    }
    let mut beyond = from(&server, client).await;
    let foreign = "*/*\r\nOrigin: https://elsewhere.example";
    let foreign = ask(&mut beyond, foreign).await;
    assert!(foreign.starts_with("HTTP/1.1 403"), "{foreign}");
    assert!(foreign.contains("\r\nconnection: close\r\n"), "{foreign}");

    let text = http().get(server.at("/metrics")).send().await.unwrap();
    let text = text.text().await.unwrap();
    for expected in [
        "\ntidings_server_connections_refused_total 4\n",
        "{http_request_method=\"GET\",http_route=\"/health/live\",http_response_status_code=\"429\"} 1\n",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    let (_, log) = server.stop("-TERM").await;
    let lines = log.lines().map(|line| serde_json::from_str(line).unwrap());
    let of_limit = lines.filter(|line: &Value| {
        let message = line["fields"]["message"].as_str();
        message.is_some_and(|it| it.contains("(--max-address-connections)"))
    });
    let [line] = &of_limit.collect::<Vec<_>>()[..] else {
        panic!("expected one line for the address: {log}");
    };
    assert_eq!(line["fields"]["client.address"], "127.0.0.2");
    assert_eq!(line["span"]["request_id"], "order-1");
}

/// Other systems have no second loopback address.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_address_has_as_many_connections_as_allowed() {
    let home = Home::with(&["--max-address-connections", "2"]);
    let server = home.start().await;
    let client = Ipv4Addr::new(127, 0, 0, 2);
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = from(&server, client).await;
        let response = ask(&mut stream, "*/*").await;
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        open.push(stream);
    }
    let mut beyond = from(&server, client).await;
    let refused = ask(&mut beyond, "*/*").await;
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    assert!(refused.contains("\r\nretry-after: 5\r\n"), "{refused}");
    assert!(refused.contains("\r\nconnection: close\r\n"), "{refused}");
    assert!(refused.contains("\"too_many_connections\""), "{refused}");
    assert_eq!(beyond.read(&mut [0]).await.unwrap(), 0);

    // No other route has event sources; a 200 would also say that the database works.
    let mut beyond = from(&server, client).await;
    let refused = ask_for("/health/ready", &mut beyond, "text/event-stream").await;
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");

    let mut beyond = from(&server, client).await;
    let bye = ask(&mut beyond, "text/event-stream").await;
    assert!(bye.starts_with("HTTP/1.1 200"), "{bye}");
    assert!(
        bye.contains("event: tidings.bye") && bye.contains("retry: "),
        "{bye}"
    );

    // Those that only wait to be refused are counted too: beyond twice the limit none is kept.
    let mut silent = Vec::new();
    for _ in 0..6 {
        silent.push(from(&server, client).await);
    }
    let mut kept = 0;
    for stream in &mut silent {
        let end = tokio::time::timeout(Duration::from_secs(2), stream.read_u8());
        kept += usize::from(end.await.is_err());
    }
    assert!(kept <= 2, "{kept}");
    // Another address is served, and so is this one once there is room.
    let mut other = from(&server, Ipv4Addr::new(127, 0, 0, 3)).await;
    assert!(ask(&mut other, "*/*").await.starts_with("HTTP/1.1 200"));
    drop((open, silent));
    soon("room", async {
        loop {
            let mut stream = from(&server, client).await;
            if ask(&mut stream, "*/*").await.starts_with("HTTP/1.1 200") {
                break;
            }
        }
    })
    .await;
}
