//! Endpoints and deliveries on the command line.

use std::process::Stdio;

use http::StatusCode;
use serde_json::{Value, json};
use tidings::signing::{Secret, Verifier};
use tidings_test_support::{Receiver, Reply};

use crate::support::{Home, Server, binary, http, run, said_by, soon};
use crate::webhooks::Webhooks;

/// Runs a command that must succeed; gives its standard output.
async fn done(server: &Server, arguments: &[&str]) -> String {
    let (ok, shown, said) = run(server, arguments).await;
    assert!(ok, "{arguments:?}: {said}");
    shown
}

/// Runs a command that must fail with one line; gives the line.
async fn refused(server: &Server, arguments: &[&str]) -> String {
    let (ok, shown, said) = run(server, arguments).await;
    assert!(!ok && shown.is_empty(), "{arguments:?}: {shown}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

/// The text of a reply of the server.
async fn text(server: &Server, path: &str) -> String {
    let response = http().get(server.at(path)).send().await.unwrap();
    response.text().await.unwrap()
}

/// Makes an endpoint; gives its id and its secret.
async fn create(server: &Server, arguments: &[&str]) -> (String, String) {
    let arguments = [&["endpoint", "create", "--json"], arguments].concat();
    let created: Value = serde_json::from_str(&done(server, &arguments).await).unwrap();
    let text = |name: &str| created[name].as_str().unwrap().to_owned();
    (text("id"), text("secret"))
}

#[tokio::test]
async fn an_endpoint_lives_on_the_command_line() {
    let home = Home::new();
    let server = home.start().await;
    let mut webhooks = Webhooks::start().await;
    let (ok, secret, said) = run(&server, &["endpoint", "create", &webhooks.url()]).await;
    assert!(ok, "{said}");
    let id = said
        .strip_prefix("created ")
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    let verifier = |secret: &str| Verifier::new(Secret::parse(secret.trim_end()).unwrap());

    let delivery = done(&server, &["endpoint", "test", id]).await;
    let webhook = webhooks.next().await;
    webhook.verify(&verifier(&secret)).unwrap();
    assert_eq!(webhook.json()["type"], "tidings.test");
    assert!(delivery.starts_with("dlv_") && delivery.lines().count() == 1);

    let new = done(&server, &["endpoint", "rotate", id, "--overlap", "0s"]).await;
    assert_ne!(new, secret);
    done(&server, &["endpoint", "test", id]).await;
    let webhook = webhooks.next().await;
    webhook.verify(&verifier(&new)).unwrap();
    webhook.verify(&verifier(&secret)).unwrap_err();

    let disabled = done(&server, &["endpoint", "disable", id]).await;
    assert!(disabled.contains("  disabled  "), "{disabled}");
    let refusal = refused(&server, &["endpoint", "test", id]).await;
    assert!(refusal.contains("409"), "{refusal}");
    let missed = server.notify("anna", json!("missed")).await;
    let since = missed["timestamp"].as_str().unwrap();
    let enabled = done(&server, &["endpoint", "enable", id]).await;
    assert!(enabled.contains("  enabled  "), "{enabled}");
    done(&server, &["endpoint", "replay", id, "--since", since]).await;
    assert_eq!(webhooks.next().await.id(), missed["id"].as_str().unwrap());
    // A replay that looks at one event in a second.
    server.notify_many("anna", 100, 8).await;
    for _ in 0..100 {
        webhooks.next().await;
    }
    let slowly = ["--since", since, "--per-second", "1"];
    done(
        &server,
        &[&["endpoint", "replay", id][..], &slowly].concat(),
    )
    .await;
    let path = format!("/v1/endpoints/{id}");
    assert_eq!(server.get(&path).await["health"]["replay"]["per_second"], 1);
    done(&server, &["endpoint", "replay", id, "--stop"]).await;
    assert!(server.get(&path).await["health"]["replay"].is_null());

    let listed = done(&server, &["endpoint", "list"]).await;
    assert!(
        listed.starts_with(id) && listed.lines().count() == 1,
        "{listed}"
    );
    done(&server, &["endpoint", "delete", id]).await;
    assert_eq!(done(&server, &["endpoint", "list"]).await, "");
    let gone = refused(&server, &["endpoint", "delete", id]).await;
    assert!(gone.contains("404 Not Found, id: "), "{gone}");
}

#[tokio::test]
async fn every_setting_is_a_flag_and_can_be_reset() {
    let home = Home::new();
    let server = home.start().await;
    let given = [
        "http://127.0.0.1:9/hook",
        "--user=anna",
        "--description=of \"orders\"",
        "--type=order.*,refund",
        "--format=raw",
        "--header=x-team: billing: a",
        "--header=x-b:1",
        "--signature=standard,timestamped",
        "--rate-limit=5",
        "--timeout=1500ms",
        "--schedule=0s,10s",
        "--disabled",
    ];
    let (id, _) = create(&server, &given).await;
    let path = format!("/v1/users/anna/endpoints/{id}");
    let shown = server.get(&path).await;
    let expected = json!({
        "url": "http://127.0.0.1:9/hook",
        "user_id": "anna",
        "description": "of \"orders\"",
        "event_types": ["order.*", "refund"],
        "format": "raw",
        "headers": { "x-team": "billing: a", "x-b": "1" },
        "signatures": ["standard", "timestamped"],
        "rate_limit": 5,
        "timeout_ms": 1500,
        "schedule": [0, 10],
        "enabled": false,
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(shown[name], *value, "{name}");
    }
    let of_anna = ["--user", "anna"];
    let update = [
        &["endpoint", "update", &id, "--post-to=http://127.0.0.1:9/b"],
        &of_anna[..],
    ];
    done(&server, &update.concat()).await;
    assert_eq!(server.get(&path).await["url"], "http://127.0.0.1:9/b");
    let all = "--reset=description,type,format,header,signature,rate-limit,timeout,schedule";
    done(
        &server,
        &[&["endpoint", "update", &id, all], &of_anna[..]].concat(),
    )
    .await;
    let reset = server.get(&path).await;
    let (plain, _) = create(&server, &["http://127.0.0.1:9/", "--user=anna"]).await;
    let plain = server
        .get(&format!("/v1/users/anna/endpoints/{plain}"))
        .await;
    for name in expected.as_object().unwrap().keys() {
        if name != "url" && name != "enabled" {
            assert_eq!(reset[name], plain[name], "{name}");
        }
    }
    // The operator's endpoints are others.
    assert_eq!(done(&server, &["endpoint", "list"]).await, "");
    let listed = done(&server, &["endpoint", "list", "--user", "anna"]).await;
    assert_eq!(listed.lines().count(), 2);
    let other = refused(&server, &["endpoint", "show", &id]).await;
    assert!(other.contains("id: "), "{other}");
}

#[tokio::test]
async fn what_is_shown_are_the_bytes_of_the_server() {
    let home = Home::with(&["--webhook-schedule", "0s"]);
    let server = home.start().await;
    let odd = "{\"a\": 1.10, \"\u{7}\u{e9}\": \"\\u00e9\"}\n";
    let failing = Reply::new(StatusCode::INTERNAL_SERVER_ERROR).with_body(odd);
    let receiver = Receiver::start(failing).await.unwrap();
    let hook = receiver.url("/hook");
    let (id, _) = create(&server, &[&hook, "--description", "caf\u{e9} \"1.10\""]).await;
    let shown = done(&server, &["endpoint", "show", &id, "--json"]).await;
    assert_eq!(
        shown.trim_end(),
        text(&server, &format!("/v1/endpoints/{id}")).await
    );
    let listed = done(&server, &["endpoint", "list", "--json"]).await;
    let list = text(&server, "/v1/endpoints").await;
    assert_eq!(list, format!("{{\"data\":[{}]}}", listed.trim_end()));
    let fields = done(&server, &["endpoint", "show", &id]).await;
    assert!(
        fields.contains("\ndescription: \"caf\u{e9} \\\"1.10\\\"\"\n"),
        "{fields}"
    );

    done(&server, &["endpoint", "test", &id]).await;
    let failed = ["delivery", "list", "--state", "failed", "--endpoint", &id];
    let line = soon("the failure", async {
        loop {
            let line = done(&server, &failed).await;
            if !line.is_empty() {
                return line;
            }
        }
    })
    .await;
    assert!(
        line.contains("  failed  1 attempt  tidings.test  "),
        "{line}"
    );
    let delivery = line.split(' ').next().unwrap();
    let path = format!("/v1/deliveries/{delivery}");
    let shown = done(&server, &["delivery", "show", delivery, "--json"]).await;
    assert_eq!(shown.trim_end(), text(&server, &path).await);
    let attempts = done(&server, &["delivery", "attempts", delivery, "--json"]).await;
    let list = text(&server, &format!("{path}/attempts")).await;
    assert_eq!(list, format!("{{\"data\":[{}]}}", attempts.trim_end()));
    let attempt = done(&server, &["delivery", "attempts", delivery]).await;
    let (_, response) = attempt.trim_end().split_once("  500  ").unwrap();
    assert!(
        list.contains(&format!("\"response\":{response}")),
        "{list}: {response}"
    );

    receiver.switch_to(Reply::new(StatusCode::NO_CONTENT));
    let retried = done(&server, &["delivery", "retry", delivery]).await;
    assert!(
        retried.starts_with(delivery) && retried.contains("  pending  "),
        "{retried}"
    );
    receiver.request(2).await;
}

#[tokio::test]
async fn deliveries_are_listed_in_pages() {
    let home = Home::new();
    let server = home.start().await;
    let webhooks = Webhooks::start().await;
    let (id, _) = create(&server, &[&webhooks.url()]).await;
    let mut made = Vec::new();
    for _ in 0..3 {
        made.insert(0, done(&server, &["endpoint", "test", &id]).await);
    }
    let (_, first, said) = run(&server, &["delivery", "list", "--limit", "2"]).await;
    let cursor = said
        .trim_end()
        .strip_prefix("for older ones: --cursor ")
        .unwrap();
    let rest = ["delivery", "list", "--cursor", cursor];
    let (_, rest, said) = run(&server, &rest).await;
    assert_eq!(said, "");
    let listed: Vec<_> = first.lines().chain(rest.lines()).collect();
    for (line, delivery) in listed.iter().zip(&made) {
        assert!(line.starts_with(delivery.trim_end()), "{line}");
    }
    assert_eq!(listed.len(), 3);
    let none = run(&server, &["delivery", "list", "--state", "cancelled"]).await;
    assert_eq!(none, (true, String::new(), "no deliveries\n".to_owned()));
}

#[tokio::test]
async fn what_the_server_refuses_is_named_by_its_field() {
    let home = Home::new();
    let server = home.start().await;
    let (id, _) = create(&server, &["http://127.0.0.1:9/"]).await;
    let secret = home.path().join("secret");
    std::fs::write(&secret, "whsec_short\n").unwrap();
    let secret = secret.to_str().unwrap();
    let unknown = "dlv_0000000000000001";
    for (arguments, field) in [
        (&["endpoint", "create", "ftp://a/"][..], "url"),
        (
            &["endpoint", "create", "http://a/", "--type", "tidings."],
            "event_types",
        ),
        (
            &["endpoint", "create", "http://a/", "--header", "a b: c"],
            "headers.a b",
        ),
        (
            &["endpoint", "create", "http://a/", "--timeout", "2h"],
            "timeout_ms",
        ),
        (
            &["endpoint", "create", "http://a/", "--secret-file", secret],
            "secret",
        ),
        (
            &["endpoint", "update", &id, "--schedule", "40d"],
            "schedule",
        ),
        (
            &["endpoint", "rotate", &id, "--secret-file", secret],
            "secret",
        ),
        (
            &["endpoint", "replay", &id, "--since", "yesterday"],
            "since",
        ),
        (
            &[
                "endpoint",
                "replay",
                &id,
                "--since",
                "2026-01-01T00:00:00Z",
                "--until",
                "x",
            ],
            "until",
        ),
        (&["endpoint", "enable", "ep_0000000000000001"], "id"),
        (&["delivery", "show", unknown], "id"),
        (&["delivery", "attempts", unknown], "id"),
        (&["delivery", "retry", unknown], "id"),
    ] {
        let refusal = refused(&server, arguments).await;
        let named = refusal.split_once(", ").map_or("", |(_, it)| it);
        assert!(named.starts_with(field), "{arguments:?}: {refusal}");
    }
}

#[tokio::test]
async fn the_key_comes_from_the_environment() {
    const KEY: &str = "a-key-for-this-test-0123456789";
    let home = Home::with(&["--api-key", KEY]);
    let server = home.start().await;
    for list in [["endpoint", "list"], ["delivery", "list"]] {
        let refusal = refused(&server, &list).await;
        assert!(refusal.contains("401"), "{refusal}");
        let mut command = binary();
        command.args(list).args(["--url", &server.url]);
        let (ok, _, said) = said_by(command.env("TIDINGS_API_KEY", KEY)).await;
        assert!(ok, "{said}");
    }
}

#[tokio::test]
async fn a_secret_that_cannot_be_shown_is_not_left_behind_in_silence() {
    let home = Home::new();
    let server = home.start().await;
    let full = || {
        Stdio::from(
            std::fs::File::options()
                .write(true)
                .open("/dev/full")
                .unwrap(),
        )
    };
    let mut create_it = binary();
    create_it
        .args([
            "endpoint",
            "create",
            "http://127.0.0.1:9/",
            "--url",
            &server.url,
        ])
        .stdout(full())
        .stderr(Stdio::piped());
    let child = create_it.spawn().unwrap();
    let output = soon("the command", child.wait_with_output()).await.unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    let says =
        "tidings: cannot write the secret: the disk is full; the endpoint is removed again\n";
    assert_eq!(said, says);
    assert_eq!(server.get("/v1/endpoints").await["data"], json!([]));

    let (id, _) = create(&server, &["http://127.0.0.1:9/", "--user", "anna"]).await;
    let mut rotate = binary();
    rotate
        .args([
            "endpoint",
            "rotate",
            &id,
            "--user",
            "anna",
            "--url",
            &server.url,
        ])
        .stdout(full())
        .stderr(Stdio::piped());
    let child = rotate.spawn().unwrap();
    let output = soon("the command", child.wait_with_output()).await.unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    let says = format!("tidings endpoint rotate {id} --user anna\n");
    assert!(said.ends_with(&says), "{said}");
}

#[tokio::test]
async fn a_secret_is_read_from_a_file_or_from_standard_input() {
    use tokio::io::AsyncWriteExt;
    let home = Home::new();
    let server = home.start().await;
    let mut webhooks = Webhooks::start().await;
    let secret = Secret::generate().expose().to_string();
    let file = home.path().join("secret");
    std::fs::write(&file, format!("{secret}\r\n")).unwrap();
    let flag = format!("--secret-file={}", file.display());
    let shown = done(&server, &["endpoint", "create", &webhooks.url(), &flag]).await;
    assert_eq!(shown.trim_end(), secret);
    server.notify("anna", json!(1)).await;
    let verifier = Verifier::new(Secret::parse(&secret).unwrap());
    webhooks.next().await.verify(&verifier).unwrap();

    let mut by_input = binary()
        .args([
            "endpoint",
            "create",
            "http://127.0.0.1:9/",
            "--secret-file",
            "-",
        ])
        .args(["--url", &server.url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = by_input.stdin.take().unwrap();
    input.write_all(secret.as_bytes()).await.unwrap();
    drop(input);
    let output = soon("the command", by_input.wait_with_output())
        .await
        .unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim_end(), secret);
}
