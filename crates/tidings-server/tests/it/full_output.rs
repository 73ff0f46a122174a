//! Commands that have changed something, and cannot write that they have.

use std::fs::File;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{Home, Server, binary, run, soon};

/// As on a full disk.
fn full() -> Stdio {
    let full = File::options().write(true).open("/dev/full");
    full.unwrap().into()
}

fn command(server: &Server, arguments: &[&str]) -> Command {
    let mut command = binary();
    command.args(arguments).args(["--url", &server.url]);
    command
}

/// Runs a command whose standard output cannot be written; gives what it says on standard error.
async fn without_output(server: &Server, arguments: &[&str]) -> String {
    let mut command = command(server, arguments);
    let process = command.stdout(full()).stderr(Stdio::piped()).spawn();
    let ended = soon("the command", process.unwrap().wait_with_output()).await;
    let ended = ended.unwrap();
    assert!(!ended.status.success(), "{arguments:?}");
    String::from_utf8(ended.stderr).unwrap()
}

/// Runs a command whose standard error cannot be written, and which must succeed; gives its standard output.
async fn without_notes(server: &Server, arguments: &[&str]) -> String {
    let mut command = command(server, arguments);
    let process = command.stdout(Stdio::piped()).stderr(full()).spawn();
    let ended = soon("the command", process.unwrap().wait_with_output()).await;
    let ended = ended.unwrap();
    assert!(ended.status.success(), "{arguments:?}");
    String::from_utf8(ended.stdout).unwrap()
}

/// What a test of a new endpoint has made: the ids of the endpoint and of its delivery.
async fn tested(server: &Server) -> (String, String) {
    let body = json!({ "url": "http://127.0.0.1:9/" });
    let created: Value = server
        .post("/v1/endpoints", &body)
        .await
        .json()
        .await
        .unwrap();
    let id = created["id"].as_str().unwrap().to_owned();
    let (_, delivery, _) = run(server, &["endpoint", "test", &id]).await;
    (id, delivery.trim_end().to_owned())
}

/// A script that takes a change for failed would make it again.
#[tokio::test]
async fn regression_a_change_whose_output_cannot_be_written_says_that_it_was_made() {
    let home = Home::new();
    let server = home.start().await;
    let (endpoint, delivery) = tested(&server).await;
    for (arguments, done) in [
        (
            &["send", "anna", "Hello"] as &[&str],
            "the notification was sent",
        ),
        (
            &["send", "anna,ben", "Hello"],
            "the notifications were sent",
        ),
        (&["inbox", "anna", "--read-all"], "the change was made"),
        (
            &["inbox", "ben", "--read-all", "--json"],
            "the change was made",
        ),
        (
            &["endpoint", "update", &endpoint, "--description", "new"],
            "the change was made",
        ),
        (&["endpoint", "disable", &endpoint], "the change was made"),
        (
            &["endpoint", "enable", &endpoint, "--json"],
            "the change was made",
        ),
        (
            &["endpoint", "test", &endpoint],
            "the test event is being sent",
        ),
        (
            &["delivery", "retry", &delivery],
            "the delivery is sent again",
        ),
    ] {
        let said = without_output(&server, arguments).await;
        let says = format!("tidings: cannot write the output: the disk is full; {done}\n");
        assert_eq!(said, says, "{arguments:?}");
    }
    for (user, count) in [("anna", 2), ("ben", 1)] {
        let path = format!("/v1/users/{user}/notifications");
        let list = server.get(&path).await;
        assert_eq!(list["data"].as_array().unwrap().len(), count);
        assert_eq!(list["unread"], 0);
    }
}

#[tokio::test]
async fn regression_a_command_does_not_fail_because_it_cannot_write_a_note() {
    let home = Home::new();
    let server = home.start().await;
    let sent = without_notes(&server, &["send", "anna", "{no JSON"]).await;
    let sent: Value = serde_json::from_str(&sent).unwrap();
    assert_eq!(sent["payload"]["message"], "{no JSON");
    let create = ["endpoint", "create", "http://127.0.0.1:9/"];
    let secret = without_notes(&server, &create).await;
    assert!(secret.starts_with("whsec_"), "{secret}");
    let list = server.get("/v1/endpoints").await;
    let id = list["data"][0]["id"].as_str().unwrap();
    let secret = without_notes(&server, &["endpoint", "rotate", id]).await;
    assert!(secret.starts_with("whsec_"), "{secret}");
    let since = ["--since", "2026-11-21T10:00:00Z"];
    for arguments in [
        &[&["endpoint", "replay", id], &since as &[_]].concat() as &[&str],
        &["endpoint", "replay", id, "--stop"],
        &["endpoint", "delete", id],
    ] {
        assert_eq!(without_notes(&server, arguments).await, "");
    }
    assert_eq!(server.get("/v1/endpoints").await["data"], json!([]));
    let key = without_notes(&server, &["key", "create", "shop", "--scope", "read"]).await;
    assert!(!key.is_empty());
    let list = server.get("/v1/keys").await;
    let id = list["data"][0]["id"].as_str().unwrap();
    assert_eq!(without_notes(&server, &["key", "revoke", id]).await, "");
}
