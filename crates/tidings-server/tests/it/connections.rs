//! Connections: their number, their heads, and what happens to them while the process stands still.

use std::time::Duration;

use serde_json::{Value, json};
use socket2::SockRef;
use tidings_server::{Config, Server as InProcess};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::metrics;
use crate::raw::{RawSocket, address, ask, connect};
use crate::support::{Home, Server, http, soon};

/// A server whose process may open this many files.
async fn with_descriptors(home: &Home, limit: u32) -> Server {
    under(home, &format!("ulimit -n {limit}")).await
}

/// A server under what a command of the shell sets.
async fn under(home: &Home, setting: &str) -> Server {
    let command = home.command();
    let command = command.as_std();
    let mut limited = tokio::process::Command::new("sh");
    limited
        .arg("-c")
        .arg(format!("{setting}; exec \"$0\" \"$@\""))
        .arg(command.get_program())
        .args(command.get_args())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true);
    Server::of(limited).await
}

async fn get(server: &Server, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address(server)).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", address(server));
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// The first line of the reply.
async fn status(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        match stream.read_u8().await {
            Ok(byte) => line.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(line).unwrap()
}

#[tokio::test]
async fn regression_websockets_count_as_connections() {
    let home = Home::new();
    // 128 descriptors are 64 connections, 48 of them streams.
    let server = with_descriptors(&home, 128).await;
    let mut sockets = Vec::new();
    for _ in 0..48 {
        sockets.push(RawSocket::open(&server, "/v1/users/anna/ws").await);
    }
    let mut idle = Vec::new();
    for _ in 0..16 {
        let mut stream = get(&server, "/health/live").await;
        assert_eq!(
            soon("a reply", status(&mut stream)).await,
            "HTTP/1.1 200 OK\r\n"
        );
        idle.push(stream);
    }
    let mut one_more = get(&server, "/health/live").await;
    let reply = timeout(Duration::from_millis(700), status(&mut one_more)).await;
    assert!(
        reply.is_err(),
        "a connection beyond the limit was served: {reply:?}"
    );
    sockets.pop();
    assert_eq!(
        soon("a reply", status(&mut one_more)).await,
        "HTTP/1.1 200 OK\r\n"
    );
}

#[tokio::test]
async fn the_limit_of_connections_follows_the_descriptors_with_one_warning() {
    let home = Home::new();
    let server = with_descriptors(&home, 256).await;
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(TcpStream::connect(address(&server)).await.unwrap());
    }
    server.notify("anna", json!(1)).await;
    let mut events = server.events("anna", "?since=start").await;
    events.until("tidings.caught_up").await;
    drop((idle, events));
    let (status, log) = server.stop("-TERM").await;
    assert!(status.success(), "{log}");
    assert_eq!(log.matches("WARN").count(), 1, "{log}");
    assert!(log.contains("max_connections=128"), "{log}");
}

#[tokio::test]
async fn a_head_without_end_is_refused_early() {
    let home = Home::new();
    let server = home.start().await;
    let mut stream = TcpStream::connect(address(&server)).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nX-Long: {}", "x".repeat(40_000));
    stream.write_all(head.as_bytes()).await.unwrap();
    let reply = timeout(Duration::from_secs(5), status(&mut stream)).await;
    let reply = reply.expect("the head is refused before its time is over");
    assert!(reply.starts_with("HTTP/1.1 431"), "{reply}");
    // An ordinary long one is fine.
    let long = http()
        .get(server.at("/health/live"))
        .header("X-Long", "x".repeat(8000));
    assert_eq!(long.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_body_that_is_announced_too_large_is_refused_at_once() {
    let home = Home::new();
    let server = home.start().await;
    for head in [
        "Content-Length: 10000000000",
        "Content-Length: 2000000\r\nExpect: 100-continue",
    ] {
        let mut stream = TcpStream::connect(address(&server)).await.unwrap();
        let head = format!(
            "POST /v1/notifications HTTP/1.1\r\nHost: {}\r\n{head}\r\n\r\n",
            address(&server)
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let reply = timeout(Duration::from_secs(5), status(&mut stream)).await;
        let reply = reply.expect("the body is refused without being waited for");
        assert!(reply.starts_with("HTTP/1.1 413"), "{head}: {reply}");
    }
}

/// What `nc -N` does: it sends a request, closes its half, and reads to the end.
async fn half_closed(server: &Server, head: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address(server)).await.unwrap();
    let host = address(server);
    let request = format!("{head} HTTP/1.1\r\nHost: {host}\r\n");
    let request = format!("{request}Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    stream
}

#[tokio::test]
async fn a_client_that_has_closed_its_half_gets_its_response() {
    let home = Home::new();
    let server = home.start().await;
    let body = json!({ "user_id": "anna", "payload": "x".repeat(100_000) }).to_string();
    for _ in 0..20 {
        let mut client = half_closed(&server, "POST /v1/notifications", &body).await;
        assert_eq!(
            soon("a response", status(&mut client)).await,
            "HTTP/1.1 201 Created\r\n"
        );
        let mut rest = Vec::new();
        soon("the end", client.read_to_end(&mut rest))
            .await
            .unwrap();
    }
    // More than the sockets between the two hold.
    let mut client = half_closed(&server, "GET /v1/users/anna/notifications", "").await;
    let mut response = Vec::new();
    soon("the end", client.read_to_end(&mut response))
        .await
        .unwrap();
    let response = String::from_utf8(response).unwrap();
    let (head, page) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    let page: Value = serde_json::from_str(page).unwrap();
    assert_eq!(page["data"].as_array().unwrap().len(), 20);
}

#[tokio::test]
async fn a_stream_goes_on_for_a_client_that_has_closed_its_half() {
    let home = Home::with(&["--max-streams-per-user", "1"]);
    let server = home.start().await;
    let mut client = half_closed(&server, "GET /v1/users/anna/events", "").await;
    let mut text = String::new();
    let mut read_until = async |what: &str| {
        let read = async {
            while !text.contains(what) {
                let mut bytes = [0; 1024];
                let count = client.read(&mut bytes).await.unwrap();
                assert!(count > 0, "the stream ended: {text}");
                text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
            }
        };
        soon(what, read).await;
    };
    read_until("tidings.caught_up").await;
    server.notify("anna", json!("still served")).await;
    read_until("still served").await;

    // Closed for good, it frees its permit before the next ordinary ping.
    drop(client);
    let freed =
        async { while server.events("anna", "").await.next().await.name != "tidings.hello" {} };
    timeout(Duration::from_secs(15), freed)
        .await
        .expect("the permit is free");
}

#[tokio::test]
async fn many_clients_can_connect_while_the_server_is_busy() {
    let home = Home::new();
    let server = home.start().await;
    server.signal("-STOP").await;
    let mut connecting = tokio::task::JoinSet::new();
    for _ in 0..1500 {
        connecting.spawn(TcpStream::connect(address(&server).to_owned()));
    }
    let connected = timeout(Duration::from_secs(10), connecting.join_all()).await;
    let connected = connected.expect("the listen queue has room for all");
    assert!(connected.iter().all(Result::is_ok));
    server.signal("-CONT").await;
    drop(connected);
    server.notify("anna", json!(1)).await;
}

#[tokio::test]
async fn requests_that_arrive_while_the_process_stands_still_get_their_reply() {
    let home = Home::new();
    let server = home.start().await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut stream = get(&server, "/health/live").await;
        let mut reply = [0; 4096];
        let read = soon("a reply", stream.read(&mut reply)).await.unwrap();
        assert!(reply[..read].starts_with(b"HTTP/1.1 200"));
        clients.push(stream);
    }
    server.signal("-STOP").await;
    for stream in &mut clients {
        let head = format!(
            "GET /health/live HTTP/1.1\r\nHost: {}\r\n\r\n",
            address(&server)
        );
        stream.write_all(head.as_bytes()).await.unwrap();
    }
    // Longer than a head may take.
    tokio::time::sleep(Duration::from_secs(11)).await;
    server.signal("-CONT").await;
    for stream in &mut clients {
        assert_eq!(soon("a reply", status(stream)).await, "HTTP/1.1 200 OK\r\n");
    }
}

#[tokio::test]
async fn regression_a_dropped_server_ends_its_streams_and_frees_its_database() {
    let folder = tempfile::tempdir().unwrap();
    let database = format!(
        "--database=sqlite:{}",
        folder.path().join("tidings.db").display()
    );
    let config = Config::from_flags(["--dev", "--listen=127.0.0.1:0", &database]).unwrap();
    let server = InProcess::start(config.clone()).await.unwrap();
    let url = format!("http://{}/v1/users/anna/events", server.address());
    let mut stream = http().get(url).send().await.unwrap();
    assert!(stream.chunk().await.unwrap().is_some());
    drop(server);
    soon("the end of the stream", async {
        while let Ok(Some(_)) = stream.chunk().await {}
    })
    .await;
    let again = soon("the database", async {
        loop {
            match Box::pin(InProcess::start(config.clone())).await {
                Ok(server) => return server,
                Err(_still_locked) => tokio::task::yield_now().await,
            }
        }
    });
    again.await.shutdown().await;
}

/// Proxies keep connections for a minute: one that is closed under a request makes a 502.
#[tokio::test]
async fn an_idle_connection_stays_open_for_longer_than_a_head_may_take() {
    let home = Home::new();
    let server = home.start().await;
    let mut stream = get(&server, "/health/live").await;
    let mut reply = [0; 4096];
    let read = soon("a reply", stream.read(&mut reply)).await.unwrap();
    let reply = String::from_utf8_lossy(&reply[..read]).to_lowercase();
    assert!(reply.contains("keep-alive: timeout=75"), "{reply}");
    tokio::time::sleep(Duration::from_secs(11)).await;
    let head = format!(
        "GET /health/live HTTP/1.1\r\nHost: {}\r\n\r\n",
        address(&server)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(
        soon("a reply", status(&mut stream)).await,
        "HTTP/1.1 200 OK\r\n"
    );
}

/// A request with so many bytes of body that are sent without a look at the response, and the response.
async fn send_all(server: &Server, head: &str, body: usize, chunked: bool) -> String {
    let mut stream = connect(server).await;
    let framing = if chunked {
        "Transfer-Encoding: chunked".to_owned()
    } else {
        format!("Content-Length: {body}")
    };
    let host = address(server);
    let head = format!("{head} HTTP/1.1\r\nHost: {host}\r\n{framing}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b'x'; 64 << 10];
    for _ in 0..body / piece.len() {
        if chunked {
            let length = format!("{:x}\r\n", piece.len());
            stream.write_all(length.as_bytes()).await.unwrap();
        }
        stream.write_all(&piece).await.unwrap();
        if chunked {
            stream.write_all(b"\r\n").await.unwrap();
        }
    }
    let mut reply = String::new();
    soon("the response", stream.read_to_string(&mut reply))
        .await
        .unwrap();
    reply
}

#[tokio::test]
async fn regression_a_client_that_sends_everything_first_reads_the_refusal() {
    const BODY: usize = 8 << 20;
    const ALLOWED: usize = 960 << 10;
    let open = Home::new();
    let keyed = Home::with(&["--api-key", "0123456789abcdef"]);
    let (open, keyed) = (open.start().await, keyed.start().await);
    for chunked in [false, true] {
        let reply = send_all(&open, "POST /v1/notifications", BODY, chunked).await;
        assert!(reply.starts_with("HTTP/1.1 413"), "{chunked} {reply}");
        assert!(reply.contains("body_too_large"), "{chunked} {reply}");
        assert!(
            reply.contains("expected at most 1048576 bytes"),
            "{chunked} {reply}"
        );
    }
    // Routes that do not read a body, and refusals that come before it.
    for (server, head, status) in [
        (&keyed, "POST /v1/notifications", 401),
        (&open, "POST /v1/nothing", 404),
        (&open, "DELETE /v1/notifications", 405),
        (&open, "GET /health/live", 200),
    ] {
        let reply = send_all(server, head, ALLOWED, true).await;
        assert!(
            reply.starts_with(&format!("HTTP/1.1 {status}")),
            "{head} {reply}"
        );
    }
}

/// A request with a body of which so many bytes are sent, and whether the connection then serves another request.
async fn is_kept(server: &Server, first: &str, length: usize, sent: usize) -> (String, bool) {
    let mut stream = connect(server).await;
    let host = address(server);
    let head = format!("{first} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n");
    let mut request = head.into_bytes();
    request.resize(request.len() + sent, b'x');
    stream.write_all(&request).await.unwrap();
    let mut reply = Vec::new();
    while !reply.ends_with(b"\r\n\r\n") {
        reply.push(soon("the response", stream.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(reply).unwrap();
    let next = format!("GET /v1/nowhere HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let is_sent = stream.write_all(next.as_bytes()).await.is_ok();
    let mut rest = Vec::new();
    let is_read = soon("the end", stream.read_to_end(&mut rest)).await.is_ok();
    let rest = String::from_utf8_lossy(&rest);
    let is_kept = is_sent && is_read && rest.contains("HTTP/1.1 404");
    (head, is_kept)
}

#[tokio::test]
async fn regression_a_response_says_whether_the_connection_is_closed() {
    let home = Home::new();
    let server = home.start().await;
    let close = "\r\nconnection: close\r\n";
    for (request, length, sent, status, kept) in [
        ("GET /health/live", 0, 0, 200, true),
        // What is short and has arrived is skipped.
        ("POST /nope", 2000, 2000, 404, true),
        ("GET /health/live", 2000, 2000, 200, true),
        ("POST /nope", 200_000, 200_000, 404, false),
        ("GET /health/live", 200_000, 200_000, 200, false),
        ("POST /nope", 2000, 1000, 404, false),
        ("POST /v1/notifications", 10_000_000, 0, 413, false),
    ] {
        let (head, is_kept) = is_kept(&server, request, length, sent).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
        assert_eq!(is_kept, kept, "{request} {length} {head}");
        assert_eq!(head.contains(close), !kept, "{request} {length} {head}");
        let hint = head.contains("\r\nkeep-alive: timeout=75\r\n");
        assert_eq!(hint, kept, "{request} {length} {head}");
    }
    let last = ask(
        &server,
        "GET /health/live HTTP/1.1\r\nConnection: close\r\n",
    )
    .await;
    assert!(
        last.contains(close) && !last.contains("keep-alive"),
        "{last}"
    );
    let old = ask(&server, "GET /health/live HTTP/1.0\r\n").await;
    assert!(old.contains(close) && !old.contains("keep-alive"), "{old}");
    // The client waits for leave to send its body, and the response is none.
    let waiting = "POST /nope HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n";
    let refused = ask(&server, waiting).await;
    assert!(
        refused.starts_with("HTTP/1.1 404") && refused.contains(close),
        "{refused}"
    );
}

/// The whole response of a stream that gets one event, and ends with the server.
async fn stream_until_the_stop(version: &str) -> String {
    let home = Home::new();
    let server = home.start().await;
    let mut stream = connect(&server).await;
    let head = format!(
        "GET /v1/users/anna/events {version}\r\nHost: {}\r\n\r\n",
        address(&server)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    for (name, event) in [("caught_up", true), ("data: {\"id\"", false)] {
        while !String::from_utf8_lossy(&response).contains(name) {
            let read = soon(name, stream.read_buf(&mut response)).await;
            assert!(read.unwrap() > 0, "the stream ended");
        }
        if event {
            server.notify("anna", json!("hello")).await;
        }
    }
    server.stop("-TERM").await;
    soon("the end", stream.read_to_end(&mut response))
        .await
        .unwrap();
    String::from_utf8(response).unwrap()
}

#[tokio::test]
async fn a_stream_is_framed_as_its_version_of_http_asks_and_closes_its_connection() {
    let new = stream_until_the_stop("HTTP/1.1").await;
    let (head, mut chunks) = new.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\ntransfer-encoding: chunked"), "{head}");
    assert!(head.contains("\r\nconnection: close"), "{head}");
    let mut body = String::new();
    loop {
        let (size, rest) = chunks.split_once("\r\n").unwrap();
        let (part, rest) = rest.split_at(usize::from_str_radix(size, 16).unwrap());
        body.push_str(part);
        chunks = rest.strip_prefix("\r\n").unwrap();
        if part.is_empty() {
            break;
        }
    }
    assert_eq!(chunks, "", "something follows the last chunk");

    let old = stream_until_the_stop("HTTP/1.0").await;
    let (head, old_body) = old.split_once("\r\n\r\n").unwrap();
    assert!(!head.contains("transfer-encoding"), "{head}");
    for body in [&*body, old_body] {
        let fields = body.lines().filter(|line| !line.is_empty());
        let names = fields.map(|line| line.split(':').next().unwrap());
        let known = ["retry", "event", "id", "data"];
        assert!(names.clone().all(|name| known.contains(&name)), "{body}");
        assert!(body.contains("event: tidings.bye\n"), "{body}");
    }
}

/// The first bytes of a stream cannot be written any more when it begins.
#[tokio::test]
async fn regression_a_client_that_breaks_off_while_its_stream_begins_leaves_no_place_taken() {
    let home = Home::with(&["--max-streams-per-user", "1000"]);
    let server = home.start().await;
    for path in ["events", "ws"] {
        for _ in 0..200 {
            let mut stream = connect(&server).await;
            let head = format!(
                "GET /v1/users/anna/{path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\n\
                 Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                address(&server)
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            // Closing it resets the connection.
            let socket = SockRef::from(&stream);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
    // That of the question.
    metrics::until(&server, "tidings_server_connections", 1.0).await;
    metrics::until(&server, "tidings_subscription_active", 0.0).await;
    let presence = server.get("/v1/users/anna/presence").await;
    assert_eq!(presence["online"], false, "{presence}");
}

#[tokio::test]
async fn the_last_response_of_a_server_that_stops_says_that_the_connection_is_closed() {
    let home = Home::new();
    let server = home.start().await;
    let host = address(&server);
    let mut stream = connect(&server).await;
    let body = json!({ "user_id": "anna", "payload": 1 }).to_string();
    let head = format!(
        "POST /v1/notifications HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\
         Expect: 100-continue\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server waits for the body.
    let leave = soon("the leave to send it", status(&mut stream)).await;
    assert!(leave.starts_with("HTTP/1.1 100"), "{leave}");
    server.signal("-TERM").await;
    soon("the end of accepting", async {
        while TcpStream::connect(host).await.is_ok() {}
    })
    .await;
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut reply = String::new();
    soon("the end", stream.read_to_string(&mut reply))
        .await
        .unwrap();
    assert!(reply.contains("HTTP/1.1 201"), "{reply}");
    assert!(reply.contains("\r\nconnection: close\r\n"), "{reply}");
    assert!(!reply.contains("keep-alive"), "{reply}");
}

/// Its next request waits, and does not say that it has gone.
#[tokio::test]
async fn a_client_that_sends_on_beside_its_stream_is_pinged_at_the_ordinary_pace() {
    let home = Home::with(&["--ping-interval", "5s"]);
    let server = home.start().await;
    let mut client = get(&server, "/v1/users/anna/events").await;
    let mut text = Vec::new();
    let mut read_until = async |client: &mut TcpStream, what: &str| {
        soon(what, async {
            while !String::from_utf8_lossy(&text).contains(what) {
                assert!(client.read_buf(&mut text).await.unwrap() > 0);
            }
        })
        .await;
    };
    read_until(&mut client, "tidings.caught_up").await;
    let early = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", address(&server));
    client.write_all(early.as_bytes()).await.unwrap();
    let sent = Instant::now();
    read_until(&mut client, ": ping").await;
    assert!(sent.elapsed() > Duration::from_secs(3));
}

#[tokio::test]
async fn the_limit_of_open_files_is_raised_to_what_is_needed() {
    let home = Home::new();
    // Which is not the hard limit.
    let server = under(&home, "ulimit -Sn 256").await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.process_id()));
    let limits = limits.unwrap();
    let line = limits.lines().find(|it| it.starts_with("Max open files"));
    let soft = line.unwrap().split_whitespace().nth(3).unwrap();
    assert!(soft.parse::<u64>().unwrap() > 256, "{limits}");
}

/// Makes the limit of open files of a running process another one.
#[cfg(target_os = "linux")]
async fn limit_descriptors(server: &Server, limit: u32) {
    let mut command = tokio::process::Command::new("prlimit");
    command.args(["--pid", &server.process_id().to_string()]);
    let status = command.arg(format!("--nofile={limit}:")).status();
    assert!(status.await.unwrap().success());
}

/// Other systems have no command that changes it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_shortage_of_descriptors_is_one_warning_and_clients_wait_until_it_ends() {
    let home = Home::with(&["--log=info"]);
    let server = home.start().await;
    limit_descriptors(&server, 5).await;
    let mut client = get(&server, "/health/live").await;
    // For many attempts.
    let reply = timeout(Duration::from_secs(1), status(&mut client)).await;
    assert!(reply.is_err(), "{reply:?}");
    limit_descriptors(&server, 1024).await;
    assert_eq!(
        soon("a reply", status(&mut client)).await,
        "HTTP/1.1 200 OK\r\n"
    );
    let (_, log) = server.stop("-TERM").await;
    for line in ["cannot accept connections", "accepting connections again"] {
        assert_eq!(log.matches(line).count(), 1, "{line} in {log}");
    }
}

/// Takes as long as a body may.
#[tokio::test]
async fn regression_the_refusal_of_a_slow_body_says_that_the_connection_is_closed() {
    let home = Home::new();
    let server = home.start().await;
    let mut stream = connect(&server).await;
    let host = address(&server);
    let head =
        format!("POST /v1/notifications HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9\r\n\r\n{{");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut reply = String::new();
    let end = timeout(Duration::from_secs(60), stream.read_to_string(&mut reply));
    end.await.expect("an end").unwrap();
    assert!(reply.starts_with("HTTP/1.1 408"), "{reply}");
    assert!(reply.contains("\r\nconnection: close\r\n"), "{reply}");
    assert!(!reply.contains("keep-alive"), "{reply}");
}

/// A refusal does not oblige the server to read for ever.
#[tokio::test]
async fn a_client_that_goes_on_sending_after_a_refusal_is_cut_off() {
    let home = Home::new();
    let server = home.start().await;
    let mut stream = connect(&server).await;
    let head = format!(
        "POST /v1/notifications HTTP/1.1\r\nHost: {}\r\nContent-Length: 10000000000\r\n\r\n",
        address(&server)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b'x'; 64 << 10];
    let mut sent = 0;
    soon("the end of the connection", async {
        while stream.write_all(&piece).await.is_ok() {
            sent += piece.len();
        }
    })
    .await;
    assert!(sent < 96 << 20, "{sent}");
}

/// Nor to wait for one that hardly sends.
#[tokio::test]
async fn a_client_that_sends_slowly_after_a_refusal_is_cut_off() {
    let home = Home::new();
    let server = home.start().await;
    let mut stream = connect(&server).await;
    let head = format!(
        "POST /v1/notifications HTTP/1.1\r\nHost: {}\r\nContent-Length: 10000000000\r\n\r\n",
        address(&server)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    soon("the end of the connection", async {
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}
