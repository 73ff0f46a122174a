//! The commands: what a person does by hand.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::{Home, binary, http, run, soon};

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
