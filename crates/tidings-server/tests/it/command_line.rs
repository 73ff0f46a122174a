//! The commands: what a person does by hand.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;
use tokio::time::Instant;

use crate::lost_replies::message;
use crate::support::{Home, binary, http, run, said_by, signal_process, soon};

#[tokio::test]
async fn send_then_inbox_then_read() {
    let home = Home::new();
    let server = home.start().await;
    let (ok, sent, _) = run(
        &server,
        &["send", "anna,ben", "Hello", "--type", "greeting"],
    )
    .await;
    assert!(ok);
    let sent: Vec<Value> = sent
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0]["payload"], json!({ "message": "Hello" }));
    let (_, _, said) = run(&server, &["send", "anna", r#"{"n":1}"#]).await;
    assert_eq!(said, "");
    // The shell has taken the quotation marks away, or the end is missing.
    for broken in ["{n:1}", " [1,"] {
        let (ok, sent, said) = run(&server, &["send", "ben", broken]).await;
        let sent: Value = serde_json::from_str(&sent).unwrap();
        assert_eq!(
            (ok, &sent["payload"]),
            (true, &json!({ "message": broken }))
        );
        assert!(
            said.starts_with("sent as text: it looks like JSON, but is not valid: "),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }

    let (ok, inbox, _) = run(&server, &["inbox", "anna"]).await;
    assert!(ok);
    assert!(
        inbox.contains("greeting") && inbox.contains(r#"{"n":1}"#),
        "{inbox}"
    );
    assert!(inbox.ends_with("2 unread\n"), "{inbox}");
    let id = sent[0]["id"].as_str().unwrap();
    let (_, read, _) = run(&server, &["inbox", "anna", "--read", id]).await;
    assert_eq!(read, "1 unread\n");
    let (_, all, _) = run(&server, &["inbox", "anna", "--read-all"]).await;
    assert_eq!(all, "0 unread\n");
    let (_, json, _) = run(&server, &["inbox", "anna", "--json", "--limit", "1"]).await;
    assert_eq!(
        serde_json::from_str::<Value>(&json).unwrap()["payload"],
        json!({ "n": 1 })
    );
}

#[tokio::test]
async fn a_change_of_the_inbox_prints_its_counts() {
    let home = Home::new();
    let server = home.start().await;
    server.notify("anna", json!(1)).await;
    let newest = server.notify("anna", json!(2)).await;
    let id = newest["id"].as_str().unwrap();
    let (ok, read, _) = run(&server, &["inbox", "anna", "--read", id]).await;
    assert!(ok && read == "1 unread\n", "{read}");
    let (ok, counts, _) = run(&server, &["inbox", "anna", "--read-all", "--json"]).await;
    let counts: Value = serde_json::from_str(&counts).unwrap();
    assert!(ok);
    assert_eq!(
        (&counts["unread"], &counts["cursor"]),
        (&json!(0), &newest["id"])
    );
}

#[tokio::test]
async fn listen_verifies_and_prints() {
    let home = Home::new();
    let server = home.start().await;
    let mut listen = binary()
        .args(["listen", "--port", "0", "--count", "2"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(listen.stdout.take().unwrap()).lines();
    let mut line = async || soon("a line", lines.next_line()).await.unwrap().unwrap();
    let secret = line().await;
    let secret = secret.split(' ').next_back().unwrap().to_owned();
    let url = line().await;
    let url = url.split(' ').next_back().unwrap().to_owned();
    let endpoint = json!({ "url": url, "secret": secret });
    assert_eq!(server.post("/v1/endpoints", &endpoint).await.status(), 201);
    let event = server.notify("anna", json!("signed")).await;
    let printed = line().await;
    assert!(printed.starts_with('✓'), "{printed}");
    assert!(printed.contains(event["id"].as_str().unwrap()), "{printed}");
    assert!(printed.contains(r#""data":"signed""#), "{printed}");

    let forged = http().post(&url).body("{}").send().await.unwrap();
    assert_eq!(forged.status(), 401);
    let printed = line().await;
    assert!(printed.starts_with('✗'), "{printed}");
    assert!(soon("the end", listen.wait()).await.unwrap().success());
}

/// As in `tidings inbox anna | head -1`.
#[tokio::test]
async fn a_reader_of_the_output_that_ends_early_is_no_failure() {
    let home = Home::new();
    let server = home.start().await;
    server.notify("anna", json!(1)).await;
    let mut inbox = binary()
        .args(["inbox", "anna", "--url", &server.url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(inbox.stdout.take());
    let output = soon("the end", inbox.wait_with_output()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

/// A page of the inbox has at most 4 MiB of payloads.
#[tokio::test]
async fn the_inbox_shows_as_many_as_were_asked_for_however_large_they_are() {
    let home = Home::new();
    let server = home.start().await;
    server.notify_many("anna", 20, 300 << 10).await;
    let page = server.get("/v1/users/anna/notifications?limit=18").await;
    assert!(page["next"].is_string() && page["data"].as_array().unwrap().len() < 18);
    for (limit, first) in [("18", 2), ("20", 0), ("1000", 0)] {
        let arguments = ["inbox", "anna", "--json", "--unread", "--limit", limit];
        let (ok, shown, said) = run(&server, &arguments).await;
        assert!(ok, "{said}");
        let shown = shown.lines().map(|line| {
            let notification: Value = serde_json::from_str(line).unwrap();
            notification["payload"][0].as_u64().unwrap()
        });
        let wanted: Vec<_> = (first..20).rev().collect();
        assert_eq!(shown.collect::<Vec<_>>(), wanted, "{limit}");
    }
    let (_, shown, _) = run(&server, &["inbox", "anna", "--limit", "18"]).await;
    assert_eq!(shown.lines().count(), 19);
    assert!(shown.ends_with("\n20 unread\n"));
}

/// Replies to each request with a redirect to the same place of a server, if there is one.
async fn redirecting(to: Option<&str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let to = to.map(ToOwned::to_owned);
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let request = String::from_utf8(message(&mut client).await).unwrap();
            let path = request.split(' ').nth(1).unwrap();
            let location = to.as_ref().map(|to| format!("Location: {to}{path}\r\n"));
            let reply = format!(
                "HTTP/1.1 301 Moved Permanently\r\n{}Content-Length: 0\r\nConnection: close\r\n\r\n",
                location.unwrap_or_default()
            );
            client.write_all(reply.as_bytes()).await.unwrap();
        }
    });
    url
}

/// A client that follows one loses the key, or makes a POST a GET.
#[tokio::test]
async fn a_redirect_is_an_error_that_says_where_it_leads() {
    let home = Home::new();
    let server = home.start().await;
    let url = redirecting(Some(&server.url)).await;
    for (arguments, path) in [
        (
            &["endpoint", "create", "http://127.0.0.1:9/"][..],
            "/v1/endpoints;",
        ),
        (&["send", "anna", "1"], "/v1/notifications;"),
        (&["inbox", "anna"], "/v1/users/anna/notifications?limit=20;"),
        (
            &["inbox", "anna", "--read-all"],
            "/v1/users/anna/notifications/read-all;",
        ),
        (&["tail", "anna"], "/v1/users/anna/events?since=now;"),
        (&["bench", "--duration", "1s"], "/v1/"),
    ] {
        let (ok, shown, said) = said_by(binary().args(arguments).args(["--url", &url])).await;
        assert!(!ok && shown.is_empty(), "{arguments:?}: {shown}");
        let says = format!(
            "301 Moved Permanently: it redirects to {}{path}",
            server.url
        );
        assert!(said.contains(&says), "{arguments:?}: {said}");
        assert!(said.contains("use the address that it leads to (`--url`)"));
    }
    let (ok, shown, _) = said_by(binary().args(["doctor", "--url", &url])).await;
    let says = format!("it redirects to {}/health/live;", server.url);
    assert!(!ok && shown.contains(&says), "{shown}");
    assert_eq!(server.get("/v1/endpoints").await["data"], json!([]));
    let inbox = server.get("/v1/users/anna/notifications").await;
    assert_eq!(inbox["data"], json!([]));

    let url = redirecting(None).await;
    let (ok, _, said) = said_by(binary().args(["key", "list", "--url", &url])).await;
    assert!(!ok && said.contains("it redirects without saying where; use"));
}

/// Listens with these arguments; gives the process, and its address.
async fn listening(arguments: &[&str]) -> (Child, String) {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let mut listen = binary()
        .args(["listen", "--port", "0", "--secret", secret])
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(listen.stdout.take().unwrap()).lines();
    let line = soon("the address", lines.next_line()).await;
    let line = line.unwrap().unwrap();
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    let address = line.split_once("http://").unwrap().1.to_owned();
    (listen, address)
}

/// Sends the head of a request whose body never comes, and waits until the body is waited for.
async fn unfinished(address: &str) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let mut reply = [0; 12];
    soon("the reply", client.read_exact(&mut reply))
        .await
        .unwrap();
    assert_eq!(&reply, b"HTTP/1.1 100");
    client
}

#[tokio::test]
async fn regression_listen_takes_the_webhook_of_the_largest_notification() {
    let (mut listen, address) = listening(&["--count", "1"]).await;
    // All that one request may store, and what is around it.
    let body = "x".repeat((16 << 20) + 1000);
    let forged = http().post(format!("http://{address}")).body(body).send();
    assert_eq!(
        forged.await.unwrap().status(),
        401,
        "it is read and verified"
    );
    let ended = soon("the end", listen.wait()).await.unwrap();
    assert!(ended.success());
}

#[tokio::test]
async fn the_end_of_listen_waits_for_a_request_only_so_long() {
    // As many as were wanted have come.
    let (mut counting, address) = listening(&["--count", "1"]).await;
    let _client = unfinished(&address).await;
    let forged = http().post(format!("http://{address}")).body("{}").send();
    assert_eq!(forged.await.unwrap().status(), 401);
    let ended = soon("the end", counting.wait()).await.unwrap();
    assert!(ended.success());

    let (mut listen, address) = listening(&[]).await;
    let mut client = unfinished(&address).await;
    assert!(signal_process("-INT", listen.id().unwrap()).await);
    soon("no more connections", async {
        while TcpStream::connect(&address).await.is_ok() {}
    })
    .await;
    // The request that is under way is taken still.
    client.write_all(b"0123456789").await.unwrap();
    let mut reply = String::new();
    soon("the reply", client.read_to_string(&mut reply))
        .await
        .unwrap();
    assert!(reply.contains("HTTP/1.1 401"), "{reply}");
    assert!(soon("the end", listen.wait()).await.unwrap().success());

    let (mut listen, address) = listening(&[]).await;
    let _client = unfinished(&address).await;
    let begin = Instant::now();
    for _ in 0..2 {
        assert!(signal_process("-INT", listen.id().unwrap()).await);
        soon("no more connections", async {
            while TcpStream::connect(&address).await.is_ok() {}
        })
        .await;
    }
    assert!(soon("the end", listen.wait()).await.unwrap().success());
    let took = begin.elapsed();
    assert!(took.as_secs() < 5, "the second ends it at once: {took:?}");
}
