//! A running server, and what is between.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{assert_finds, at, examine, of};
use crate::lost_replies::message;
use crate::support::{Home, Server, binary, http, said_by, soon};

const KEY: &str = "a-key-for-this-test-0123456789";

#[tokio::test]
async fn a_running_server_is_asked_over_every_kind_of_connection() {
    let home = Home::with(&["--api-key", KEY, "--ping-interval", "1s"]);
    let server = home.start().await;
    let (ok, findings) = examine(at(&server.url).env("TIDINGS_API_KEY", KEY)).await;
    assert!(ok, "{findings:?}");
    let statuses: Vec<_> = findings
        .iter()
        .map(|it| {
            (
                it["check"].as_str().unwrap(),
                it["status"].as_str().unwrap(),
            )
        })
        .collect();
    let checks = [
        "settings",
        "health",
        "health",
        "clock",
        "sse",
        "websocket",
        "keep-alive",
    ];
    assert_eq!(statuses, checks.map(|check| (check, "ok")));
    assert_finds(&findings, "sse", "ok", "not held back: hello after");

    // Without a key nothing is known of the streams.
    let (ok, findings) = examine(&mut at(&server.url)).await;
    assert!(ok, "{findings:?}");
    assert_finds(&findings, "settings", "ok", "are not checked");
    for check in ["sse", "websocket"] {
        assert_finds(
            &findings,
            check,
            "warning",
            "not checked: the server replied 401",
        );
    }
    // Settings of this machine are checked beside it if one of them is given.
    let (ok, findings) = examine(at(&server.url).args(["--max-streams", "7"])).await;
    assert!(!ok);
    assert_finds(&findings, "settings", "error", "--api-key");
    assert_finds(&findings, "health", "ok", "ready");
}

#[tokio::test]
async fn regression_a_wrong_address_is_the_only_finding_where_a_right_one_has_no_settings_checked()
{
    for wrong in ["127.0.0.1:8080", "ftp://x", "http://h/?a=b"] {
        let mut by_variable = binary();
        by_variable.arg("doctor").env("TIDINGS_URL", wrong);
        let mut with_key = at(wrong);
        with_key.args(["--api-key", KEY]);
        for mut command in [at(wrong), by_variable, with_key] {
            let (_, findings) = examine(&mut command).await;
            assert_eq!(findings.len(), 1, "{findings:?}");
            assert_finds(&findings, "settings", "error", "expected an address");
        }
    }
    // A setting of this machine is given, so they are checked.
    let (_, findings) = examine(at("ftp://x").args(["--max-streams", "7"])).await;
    assert_finds(&findings, "settings", "error", "expected an address");
    assert_finds(&findings, "settings", "error", "--api-key: expected at");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_one_error() {
    let (ok, findings) = examine(&mut at("http://127.0.0.1:1")).await;
    assert!(!ok && findings.len() == 2);
    assert_finds(
        &findings,
        "health",
        "error",
        "no server at http://127.0.0.1:1",
    );
}

#[tokio::test]
async fn a_server_without_room_for_streams_is_a_warning_with_the_reason() {
    let home = Home::with(&["--max-streams", "1"]);
    let server = home.start().await;
    let _open = server.events("anna", "").await;
    let (ok, findings) = examine(&mut at(&server.url)).await;
    assert!(ok, "{findings:?}");
    for check in ["sse", "websocket"] {
        let says = "not checked: the server ends streams: the server has reached its limit of open streams";
        assert_finds(&findings, check, "warning", says);
    }
}

#[tokio::test]
async fn a_server_that_is_killed_meanwhile_is_not_taken_for_a_proxy() {
    let home = Home::with(&["--ping-interval", "10s"]);
    let server = home.start().await;
    let mut doctor = at(&server.url);
    let killing = async {
        soon("the stream", async {
            let metrics = server.at("/metrics");
            loop {
                let text = http().get(&metrics).send().await.unwrap().text().await;
                if text
                    .unwrap()
                    .contains("http_route=\"/v1/users/{user}/events\"")
                {
                    break;
                }
            }
        })
        .await;
        server.kill().await;
    };
    let ((ok, findings), ()) = tokio::join!(examine(&mut doctor), killing);
    assert!(!ok);
    let stream = of(&findings, "sse");
    assert_eq!(stream[0].0, "error", "{stream:?}");
    assert!(!stream[0].1.contains("proxy"), "{stream:?}");
}

/// Replies to everything with this, and goes on with `more` for ever if there is some.
async fn replies(head: &'static str, more: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                message(&mut client).await;
                let _gone = client.write_all(head.as_bytes()).await;
                while !more.is_empty() && client.write_all(more).await.is_ok() {}
            });
        }
    });
    url
}

#[tokio::test]
async fn a_server_of_another_kind_is_one_error() {
    let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 9\r\n\r\n<p>hi</p>";
    let other = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"status\":\"up\"}";
    for (reply, kind) in [(page, "text/html"), (other, "application/json")] {
        let url = replies(reply, b"").await;
        let (ok, findings) = examine(&mut at(&url)).await;
        assert!(!ok && findings.len() == 2, "{findings:?}");
        let says = format!("replies with {kind} that does not say live: this does not look like");
        assert_finds(&findings, "health", "error", &says);
    }
}

/// More than what a command keeps is not read.
#[tokio::test]
async fn a_reply_without_an_end_is_an_error_of_every_command() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[0";
    let url = replies(head, vec![b' '; 1 << 20].leak()).await;
    let (ok, findings) = examine(&mut at(&url)).await;
    assert!(!ok && findings.len() == 2, "{findings:?}");
    for command in [
        &["key", "list"][..],
        &["inbox", "anna"],
        &["endpoint", "list"],
        &["delivery", "list"],
        &["endpoint", "disable", "ep_0000000000000001"],
        &["send", "anna", "1"],
    ] {
        let (ok, _, said) = said_by(binary().args(command).args(["--url", &url])).await;
        let is_change = matches!(command[0], "send") || command[1] == "disable";
        let end = if is_change {
            "; the change was made"
        } else {
            ""
        };
        assert!(!ok, "{command:?}");
        assert_eq!(
            said,
            format!("tidings: the reply is larger than 256 MiB{end}\n")
        );
    }
}

/// Passes each request on without what only a connection has, and the reply back when it is whole, as a proxy does
/// whose configuration knows nothing of streams. It closes each connection after a reply.
async fn ordinary_proxy(server: &Server) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let to = server.url.strip_prefix("http://").unwrap().to_owned();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = TcpStream::connect(&to).await.unwrap();
            tokio::spawn(async move {
                let request = String::from_utf8(message(&mut client).await).unwrap();
                let is_of_connection = |line: &&str| {
                    let line = line.to_ascii_lowercase();
                    line.starts_with("connection:") || line.starts_with("upgrade:")
                };
                let lines = request
                    .lines()
                    .filter(|line| !is_of_connection(line) && !line.is_empty());
                let lines: Vec<_> = lines.chain(["connection: close", "", ""]).collect();
                server
                    .write_all(lines.join("\r\n").as_bytes())
                    .await
                    .unwrap();
                let mut reply = Vec::new();
                // The doctor does not wait for a stream that never ends.
                tokio::select! {
                    read = server.read_to_end(&mut reply) => {
                        read.unwrap();
                        let _gone = client.write_all(&reply).await;
                    }
                    _ = client.read_u8() => {}
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn a_proxy_that_knows_nothing_of_streams_is_found_out() {
    let home = Home::with(&["--ping-interval", "1s"]);
    let server = home.start().await;
    let url = ordinary_proxy(&server).await;
    let (ok, findings) = examine(&mut at(&url)).await;
    assert!(!ok);
    assert_finds(&findings, "health", "ok", "ready");
    assert_finds(
        &findings,
        "sse",
        "error",
        "buffers the stream; docs/proxies.md",
    );
    let upgrade = of(&findings, "websocket");
    assert_eq!(upgrade[0].0, "error", "{upgrade:?}");
    assert_finds(&findings, "keep-alive", "warning", "is closed within 5s");
}

#[tokio::test]
async fn a_key_that_the_server_does_not_know_is_one_error() {
    let home = Home::with(&["--api-key", KEY, "--ping-interval", "1s"]);
    let server = home.start().await;
    let mut wrong = at(&server.url);
    wrong.args(["--api-key", "not-a-key-of-the-server"]);
    let (ok, findings) = examine(&mut wrong).await;
    assert!(!ok, "{findings:?}");
    assert_finds(&findings, "api-key", "error", "the server replied 401");
    for check in ["sse", "websocket"] {
        assert_eq!(of(&findings, check), []);
    }
    assert_finds(&findings, "keep-alive", "ok", "stays open");
}
