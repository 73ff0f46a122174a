//! `tidings tail`: follows a user.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use crate::support::{Home, Server, binary, run, soon};

#[tokio::test]
async fn tail_follows_over_a_restart_and_repeats_nothing() {
    let home = Home::new();
    // An address of its own, so that no other test takes the port while the server is down.
    let server = Server::of(home.command_at("127.0.0.2:0")).await;
    server.notify("anna", json!(1)).await;
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let mut tail = binary()
        .args([
            "tail",
            "anna",
            "--since",
            "start",
            "--json",
            "--count",
            "3",
            "--url",
            &server.url,
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let mut payload = async || {
        let line = soon("a line", lines.next_line()).await.unwrap().unwrap();
        serde_json::from_str::<Value>(&line).unwrap()["payload"].clone()
    };
    assert_eq!(payload().await, 1);
    server.kill().await;
    let server = Server::of(home.command_at(&address)).await;
    server.notify("anna", json!(2)).await;
    assert_eq!(payload().await, 2);
    server.notify("anna", json!(3)).await;
    assert_eq!(payload().await, 3);
    assert!(soon("the end", tail.wait()).await.unwrap().success());
}

#[tokio::test]
async fn tail_says_in_one_line_that_its_server_is_gone() {
    let home = Home::new();
    let server = home.start().await;
    server.notify("anna", json!(1)).await;
    let mut tail = binary()
        .args(["tail", "anna", "--since", "start", "--url", &server.url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut shown = BufReader::new(tail.stdout.take().unwrap()).lines();
    let mut said = BufReader::new(tail.stderr.take().unwrap()).lines();
    soon("a notification", shown.next_line()).await.unwrap();
    let url = server.url.clone();
    server.kill().await;
    let lost = soon("a line", said.next_line()).await.unwrap().unwrap();
    // The operating system may have reported the end of the connection, and its text then stands behind.
    let (what, then) = lost.split_once("; ").unwrap();
    let reported = what
        .strip_prefix("lost the connection to the server")
        .unwrap();
    assert!(matches!(reported, "" | ": connection reset"), "{lost}");
    assert!(then.starts_with("reconnecting in "), "{lost}");
    let gone = soon("a line", said.next_line()).await.unwrap().unwrap();
    assert!(gone.starts_with(&format!("no server at {url}")), "{gone}");
}

#[tokio::test]
async fn regression_tail_ends_if_another_program_replies() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let replies = async {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut rest = vec![0; 4096];
            assert_ne!(socket.read(&mut rest).await.unwrap(), 0);
            let page =
                b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n<html>";
            socket.write_all(page).await.unwrap();
            while !matches!(socket.read(&mut rest).await, Ok(0) | Err(_)) {}
        }
    };
    let mut tail = binary();
    let tail = tail.args(["tail", "anna", "--url", &url]).output();
    let ended = soon("the end of tail", async {
        tokio::select! {
            ended = tail => ended.unwrap(),
            () = replies => unreachable!(),
        }
    });
    let ended = ended.await;
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(!ended.status.success());
    assert!(
        said.contains("does not look like the reply of a Tidings server"),
        "{said}"
    );
}

#[tokio::test]
async fn tail_says_in_words_why_a_stream_has_a_gap_or_ends() {
    let home = Home::new();
    let server = home.start().await;
    server.notify("anna", json!(1)).await;
    let mut tail = binary()
        .args(["tail", "anna", "--since", "00000000000000ff-7"])
        .args(["--url", &server.url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut shown = BufReader::new(tail.stdout.take().unwrap()).lines();
    let mut said = BufReader::new(tail.stderr.take().unwrap()).lines();
    let mut line = async || soon("a line", said.next_line()).await.unwrap().unwrap();
    assert_eq!(
        line().await,
        "some notifications are missing here: the id to start after is of another database, or of this one before an older \
         copy was put back"
    );
    soon("a notification", shown.next_line()).await.unwrap();
    server.stop("-TERM").await;
    assert_eq!(
        line().await,
        "the server ended the stream: the server is stopping"
    );
}

/// A proxy that resets good connections after a while: each time, the server's own wait applies.
#[tokio::test]
async fn regression_tail_waits_as_long_as_the_server_says_after_each_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let _tail = binary()
        .args(["tail", "anna", "--url", &url])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let reset = async |chunk: &str| {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        assert!(connection.read(&mut request).await.unwrap() > 0);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";
        let start = format!("{head}{chunk}\r\n");
        connection.write_all(start.as_bytes()).await.unwrap();
    };
    let resets = async {
        for _ in 0..6 {
            reset("c\r\nretry: 100\n\n").await;
        }
        // Longer than `tail` waits by itself.
        reset("d\r\nretry: 3000\n\n").await;
        let before = tokio::time::Instant::now();
        listener.accept().await.unwrap();
        before.elapsed()
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), resets).await;
    let waited = waited.expect("tail reconnects at the pace that the server gave");
    assert!(waited > Duration::from_millis(2500), "{waited:?}");
}

#[tokio::test]
async fn regression_odd_payloads_are_shown_as_they_were_stored_and_hide_no_others() {
    let home = Home::new();
    let server = home.start().await;
    let odd = [
        "1",
        r#"{"z":12345678901234567890123,"a":1.10,"e":1E2,"s":"\u00e9"}"#,
        r#"{"v":1e400}"#,
        &format!("{}{}", "[".repeat(120), "]".repeat(120)),
        "4",
    ];
    for payload in odd {
        let (ok, sent, complaint) = run(&server, &["send", "anna", payload]).await;
        assert!(ok, "{payload}: {complaint}");
        assert!(sent.contains(&format!(r#""payload":{payload},"#)), "{sent}");
    }
    let (ok, inbox, complaint) = run(&server, &["inbox", "anna"]).await;
    assert!(ok, "{complaint}");
    let (_, json, _) = run(&server, &["inbox", "anna", "--json"]).await;
    let (ok, tail, complaint) = run(
        &server,
        &["tail", "anna", "--since", "start", "--count", "5"],
    )
    .await;
    assert!(ok, "{complaint}");
    for (n, payload) in odd.iter().enumerate() {
        let line = inbox.lines().nth(4 - n).unwrap();
        assert!(line.ends_with(payload), "{line}");
        assert!(json.lines().nth(4 - n).unwrap().contains(payload));
        assert!(tail.lines().nth(n).unwrap().ends_with(payload));
    }
    // Deeper ones could not be read by every parser in the documents that carry them.
    let deep = format!("{}{}", "[".repeat(121), "]".repeat(121));
    let (ok, _, complaint) = run(&server, &["send", "anna", &deep]).await;
    assert!(!ok && complaint.contains("120 levels"), "{complaint}");
}

#[tokio::test]
async fn regression_tail_shows_the_largest_notification_and_what_follows() {
    let home = Home::with(&["--max-body-bytes", "20000000"]);
    let server = home.start().await;
    // With its quotation marks, all that one request may store.
    let largest = "x".repeat((16 << 20) - 2);
    let body = json!({ "user_id": "anna", "payload": largest });
    let response = server.post("/v1/notifications", &body).await;
    assert_eq!(response.status(), 201);
    server.notify("anna", json!(2)).await;
    let arguments = [
        "tail", "anna", "--since", "start", "--json", "--count", "2", "--url",
    ];
    let mut tail = binary();
    let tail = tail.args(arguments).arg(&server.url).output();
    let ended = soon("the end of tail", tail).await.unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success() && said.is_empty(), "{said}");
    let shown = String::from_utf8(ended.stdout).unwrap();
    let mut payloads = shown
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["payload"].clone());
    assert!(payloads.next().unwrap() == largest, "another payload");
    assert_eq!(payloads.next(), Some(json!(2)));
}
