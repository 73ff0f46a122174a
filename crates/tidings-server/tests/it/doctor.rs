//! `tidings doctor`: what is wrong with settings, database, machine and a running server.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use serde_json::{Value, json};
use tidings_test_support::Schema;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::lost_replies::message;
use crate::support::{Home, Server, binary, http, said_by, soon};

/// Runs the doctor on settings of this machine; gives whether it found no error, and its findings.
async fn examine(command: &mut Command) -> (bool, Vec<Value>) {
    let (ok, shown, said) = said_by(command.arg("--json")).await;
    let findings: Vec<Value> = shown
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let has_error = findings.iter().any(|it| it["status"] == "error");
    assert_eq!(ok, !has_error, "{shown} {said}");
    assert_eq!(said.contains("found an error"), has_error, "{said}");
    (ok, findings)
}

fn on(database: &str) -> Command {
    let mut command = binary();
    command.args([
        "doctor",
        "--dev",
        "--listen",
        "127.0.0.1:0",
        "--database",
        database,
    ]);
    command
}

fn on_file(path: &Path) -> Command {
    on(&format!("sqlite:{}", path.display()))
}

/// Asks a server alone.
fn at(url: &str) -> Command {
    let mut command = binary();
    command.args(["doctor", "--url", url]);
    command
}

/// The findings of a check: the status of each, and its message.
fn of<'a>(findings: &'a [Value], check: &str) -> Vec<(&'a str, &'a str)> {
    let of_check = findings.iter().filter(|it| it["check"] == check);
    let text = |value: &'a Value| value.as_str().unwrap_or_default();
    of_check
        .map(|it| (text(&it["status"]), text(&it["message"])))
        .collect()
}

#[track_caller]
fn assert_finds(findings: &[Value], check: &str, status: &str, says: &str) {
    let found = of(findings, check);
    let is_there = found.iter().any(|it| it.0 == status && it.1.contains(says));
    assert!(is_there, "{check} {status} {says}: {found:?}");
}

#[tokio::test]
async fn each_check_is_one_line_and_nothing_is_made() {
    let home = Home::new();
    let (ok, shown, said) = said_by(&mut on_file(&home.database())).await;
    assert!(ok, "{shown} {said}");
    for check in ["settings", "listen", "descriptors", "store"] {
        let prefix = format!("ok       {check:<12} ");
        assert!(
            shown.lines().any(|line| line.starts_with(&prefix)),
            "{check}: {shown}"
        );
    }
    assert!(shown.contains("tidings.db does not exist yet"), "{shown}");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn settings_have_their_origin_and_hide_secrets() {
    let home = Home::new();
    let file = home.path().join("tidings.toml");
    std::fs::write(
        &file,
        "max-streams = 7\njwt-secret = \"hunter2-hunter2-hunter2-hunter2-hunter2\"\n",
    )
    .unwrap();
    let mut command = on("postgres://anna:hunter2@127.0.0.1:1/db");
    command
        .arg(format!("--config={}", file.display()))
        .env("TIDINGS_API_KEY", "hunter2-hunter2-hunter2")
        .env("TIDINGS_MAX_ENDPOINTS", "9")
        .env("TIDINGS_RETENTON", "1d");
    let (ok, findings) = examine(&mut command).await;
    assert!(!ok);
    let everything = format!("{findings:?}");
    assert!(!everything.contains("hunter2"), "{everything}");
    let setting = |name: &str| {
        let found = findings.iter().find(|it| it["name"] == name).unwrap();
        (found["value"].clone(), found["origin"].clone())
    };
    assert_eq!(setting("max-streams"), (json!("7"), json!("file")));
    assert_eq!(setting("max-endpoints"), (json!("9"), json!("environment")));
    assert_eq!(setting("retention"), (json!("90d"), json!("default")));
    let database = json!("postgres://127.0.0.1:1/db");
    assert_eq!(setting("database"), (database, json!("command_line")));
    assert_eq!(
        setting("api-key"),
        (json!("[hidden]"), json!("environment"))
    );
    assert_eq!(setting("jwt-secret"), (json!("[hidden]"), json!("file")));
    assert_finds(&findings, "settings", "warning", "TIDINGS_RETENTON");
    assert_finds(&findings, "keys", "ok", "secret of tokens");
    assert_finds(&findings, "store", "error", "no server listens");
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_findings() {
    let home = Home::new();
    let file = home.path().join("tidings.toml");
    let config = format!("--config={}", file.display());
    for (text, says) in [
        ("max-streams = 0", "line 1: invalid value"),
        ("url = \"http://a\"", "line 1: unknown setting `url`"),
        ("json = true", "line 1: unknown setting `json`"),
    ] {
        std::fs::write(&file, text).unwrap();
        let (ok, findings) = examine(binary().args(["doctor", "--dev", &config])).await;
        assert!(!ok && findings.len() == 1);
        assert_finds(&findings, "settings", "error", says);
    }
    let mut command = binary();
    command
        .args(["doctor", "--dev"])
        .env("TIDINGS_MAX_STREAMS", "0");
    let (ok, findings) = examine(&mut command).await;
    assert!(!ok && findings.len() == 1);
    assert_finds(&findings, "settings", "error", "--max-streams");
    // They do not fit together, and everything else is looked at.
    let database = format!("sqlite:{}", home.database().display());
    let mut command = binary();
    command.args(["doctor", "--database", &database]);
    let (ok, findings) = examine(&mut command).await;
    assert!(!ok);
    assert_finds(
        &findings,
        "settings",
        "error",
        "--api-key: expected at least one",
    );
    assert_finds(&findings, "store", "ok", "does not exist yet");
    let mut command = binary();
    command
        .args([
            "doctor",
            "--listen",
            "192.0.2.1:80",
            "--api-key",
            "0123456789abcdef",
        ])
        .args(["--database", &database, "--jwt-public-key"])
        .arg(&file);
    let (_, findings) = examine(&mut command).await;
    assert_finds(
        &findings,
        "listen",
        "error",
        "this machine does not have this address",
    );
    assert_finds(&findings, "keys", "error", "--jwt-public-key");
    assert_finds(&findings, "keys", "warning", "without encryption");
}

#[tokio::test]
async fn a_key_set_is_loaded() {
    let home = Home::new();
    let file = home.path().join("keys.json");
    let source = file.to_str().unwrap();
    let with = |source: &str| {
        let mut command = on_file(&home.database());
        command.args(["--jwt-jwks", source]);
        command
    };
    let (ok, findings) = examine(&mut with(source)).await;
    assert!(!ok);
    assert_finds(
        &findings,
        "keys",
        "error",
        "--jwt-jwks: cannot load the keys",
    );
    std::fs::write(&file, "{}").unwrap();
    let (ok, findings) = examine(&mut with(source)).await;
    assert!(!ok);
    assert_finds(&findings, "keys", "error", source);
    // The Ed25519 key of RFC 8037.
    let set = json!({ "keys": [{
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    }] });
    std::fs::write(&file, set.to_string()).unwrap();
    let (ok, findings) = examine(&mut with(source)).await;
    assert!(ok, "{findings:?}");
    assert_finds(&findings, "keys", "ok", ": 1 key of tokens");

    let (ok, findings) = examine(&mut with("http://127.0.0.1:1/keys")).await;
    assert!(ok, "{findings:?}");
    assert_finds(&findings, "keys", "warning", "loads them later");
}

#[tokio::test]
async fn a_limit_of_open_files_that_is_too_low_is_a_warning() {
    let home = Home::new();
    let mut limited = Command::new("bash");
    let doctor = env!("CARGO_BIN_EXE_tidings");
    let script =
        "ulimit -n 1024; exec \"$0\" doctor --dev --listen 127.0.0.1:0 --database \"$1\" --json";
    limited
        .args(["-c", script, doctor])
        .arg(format!("sqlite:{}", home.database().display()));
    let (ok, shown, _) = said_by(&mut limited).await;
    assert!(ok);
    let line = shown
        .lines()
        .find(|line| line.contains("descriptors"))
        .unwrap();
    let finding: Value = serde_json::from_str(line).unwrap();
    assert_eq!(finding["status"], "warning");
    let message = finding["message"].as_str().unwrap();
    assert!(
        message.contains("1024 are allowed (ulimit -Hn)"),
        "{message}"
    );
}

/// The bytes of each file in the folder.
fn files(folder: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name(), std::fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn a_file_is_looked_at_and_stays_as_it_is() {
    let home = Home::new();
    home.start().await.stop("-TERM").await;
    let folder = home.path().join("copy # 100%");
    std::fs::create_dir(&folder).unwrap();
    let copy = folder.join("tidings.db");
    rusqlite::Connection::open(home.database())
        .unwrap()
        .execute("VACUUM INTO ?1", [copy.to_str().unwrap()])
        .unwrap();
    let before = files(&folder);
    let mut command = binary();
    command
        .current_dir(&folder)
        .args(["doctor", "--dev", "--database", "sqlite:tidings.db"]);
    let (ok, findings) = examine(&mut command).await;
    assert!(ok, "{findings:?}");
    assert_finds(&findings, "store", "ok", "whole (quick_check)");
    assert_finds(&findings, "store", "warning", "run chmod 600");
    assert_finds(&findings, "clock", "ok", "this machine");
    assert!(files(&folder) == before);

    let set_version = |statement: &str| {
        rusqlite::Connection::open(&copy)
            .unwrap()
            .execute_batch(statement)
            .unwrap();
    };
    set_version("UPDATE tidings_schema SET version = version + 1 WHERE component = 'api_keys'");
    let (_, findings) = examine(&mut on_file(&copy)).await;
    assert_finds(&findings, "store", "error", "newer version");
    set_version(
        "UPDATE tidings_schema SET version = version - 1 WHERE component = 'api_keys';
         CREATE TABLE imported (\"to\" TEXT NOT NULL, at TEXT NOT NULL) STRICT;
         INSERT INTO imported VALUES ('postgres://host/db', 'x');",
    );
    let (ok, findings) = examine(&mut on_file(&copy)).await;
    assert!(ok);
    assert_finds(
        &findings,
        "store",
        "warning",
        "imported into postgres://host/db",
    );
    let future = std::time::SystemTime::now() + std::time::Duration::from_secs(3600);
    std::fs::File::options()
        .write(true)
        .open(&copy)
        .unwrap()
        .set_modified(future)
        .unwrap();
    let (_, findings) = examine(&mut on_file(&copy)).await;
    assert_finds(&findings, "clock", "warning", "was set back");
}

#[tokio::test]
async fn a_file_that_a_server_uses_is_read_beside_it() {
    let home = Home::new();
    let server = home.start().await;
    server.notify("anna", json!(1)).await;
    let (ok, findings) = examine(&mut on_file(&home.database())).await;
    assert!(ok, "{findings:?}");
    let says = format!("process {} uses", server.process_id());
    assert_finds(&findings, "store", "ok", &says);
    assert_finds(&findings, "store", "ok", "whole");
    server.notify("anna", json!(2)).await;
    let (_, said) = server.stop("-TERM").await;
    assert!(!said.contains("WARN"), "{said}");
}

#[tokio::test]
async fn secrets_that_cannot_be_decrypted_are_an_error() {
    const KEYS: [&str; 2] = [
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "EEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEE=",
    ];
    let home = Home::new();
    let file = home.database();
    let server = home.start().await;
    let body = json!({ "url": "http://127.0.0.1:9/" });
    assert_eq!(server.post("/v1/endpoints", &body).await.status(), 201);
    server.stop("-TERM").await.0.code().unwrap();
    let mut with_key = on_file(&file);
    let (ok, findings) = examine(with_key.env("TIDINGS_ENCRYPTION_KEY", KEYS[0])).await;
    assert!(ok, "{findings:?}");
    let says = "the secrets of 1 endpoint are stored without encryption: a server encrypts them";
    assert_finds(&findings, "keys", "ok", says);
    assert_eq!(of(&examine(&mut on_file(&file)).await.1, "keys"), []);

    let home = Home::new();
    let file = home.database();
    let mut command = home.command();
    command.env("TIDINGS_ENCRYPTION_KEY", KEYS[0]);
    let server = Server::of(command).await;
    for _ in 0..2 {
        assert_eq!(server.post("/v1/endpoints", &body).await.status(), 201);
    }
    // Beside the server, and without it.
    let mut server = Some(server);
    for _ in 0..2 {
        let mut right = on_file(&file);
        let both = format!("{},{}", KEYS[1], KEYS[0]);
        let (ok, findings) = examine(right.env("TIDINGS_ENCRYPTION_KEY", both)).await;
        assert!(ok, "{findings:?}");
        let says = "the secrets of 2 endpoints can be decrypted";
        assert_finds(&findings, "keys", "ok", says);
        for key in ["", KEYS[1]] {
            let mut lost = on_file(&file);
            if !key.is_empty() {
                lost.env("TIDINGS_ENCRYPTION_KEY", key);
            }
            let (ok, findings) = examine(&mut lost).await;
            assert!(!ok);
            let says = "the secrets of 2 endpoints cannot be decrypted, so all their webhooks fail: encrypted with \
                        the key ";
            assert_finds(&findings, "keys", "error", says);
            assert_finds(
                &findings,
                "keys",
                "error",
                "which is not configured (--encryption-key)",
            );
        }
        if let Some(server) = server.take() {
            server.stop("-TERM").await.0.code().unwrap();
        }
    }
}

/// As root, nothing is forbidden: the doctor runs as another user then.
#[tokio::test]
async fn a_file_or_folder_that_this_user_may_not_write_is_an_error() {
    let set = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let home = Home::new();
    let file = home.database();
    home.start().await.stop("-TERM").await.0.code().unwrap();
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let doctor = home.path().join("tidings");
    if is_root {
        std::fs::copy(env!("CARGO_BIN_EXE_tidings"), &doctor).unwrap();
        set(&doctor, 0o755);
    }
    let examine_as_user = async |file: &Path| {
        let mut command = on_file(file);
        if is_root {
            let arguments = command.as_std().get_args().map(ToOwned::to_owned);
            let arguments: Vec<_> = arguments.collect();
            command = Command::new(&doctor);
            command.args(arguments).uid(65534).gid(65534).env_clear();
        }
        examine(&mut command).await
    };
    let missing = home.path().join("missing.db");
    for (of_folder, of_file, what, may_make) in [
        (0o777, 0o444, "the file", true),
        (0o555, 0o666, "its folder", false),
    ] {
        set(&file, of_file);
        set(home.path(), of_folder);
        let (ok, findings) = examine_as_user(&file).await;
        assert!(!ok, "{what}");
        let says = format!("this user cannot write {what}: permission denied");
        assert_finds(&findings, "store", "error", &says);
        let (ok, findings) = examine_as_user(&missing).await;
        assert_eq!(ok, may_make, "{findings:?}");
        if !may_make {
            assert_finds(&findings, "store", "error", &says);
        }
    }
    // So that it can be removed.
    set(home.path(), 0o777);
}

#[tokio::test]
async fn files_that_are_no_database_of_ours_are_errors() {
    let home = Home::new();
    let text = home.path().join("text.db");
    std::fs::write(&text, "x".repeat(4096)).unwrap();
    let other = home.path().join("other.db");
    let connection = rusqlite::Connection::open(&other).unwrap();
    connection.execute_batch("CREATE TABLE t (n)").unwrap();
    for (path, says) in [
        (text.as_path(), "cannot read"),
        (&other, "is a database of another program"),
        (home.path(), "is not a file"),
        (&home.path().join("none/a.db"), "its folder does not exist"),
    ] {
        let (ok, findings) = examine(&mut on_file(path)).await;
        assert!(!ok, "{}", path.display());
        assert_finds(&findings, "store", "error", says);
    }
}

#[tokio::test]
async fn a_postgresql_is_looked_at_and_its_clock_is_compared() {
    let schema = Schema::create().await;
    let (ok, findings) = examine(&mut on(&schema.url())).await;
    assert!(ok, "{findings:?}");
    assert_finds(&findings, "store", "ok", "without tables");
    assert_finds(&findings, "clock", "ok", "the clock of the database agrees");
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()";
    let made: i64 = schema
        .client()
        .await
        .query_one(tables, &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(made, 0);

    let home = Home::on(&schema.url(), &[]);
    let server = home.start().await;
    let (ok, findings) = examine(&mut on(&schema.url())).await;
    assert!(ok, "{findings:?}");
    assert_finds(&findings, "store", "ok", ": PostgreSQL 1");
    server.stop("-TERM").await;
    schema
        .execute(
            "UPDATE tidings_schema SET version = version + 1 WHERE component = 'tidings_server'",
        )
        .await;
    let (_, findings) = examine(&mut on(&schema.url())).await;
    assert_finds(&findings, "store", "error", "newer version");
}

#[tokio::test]
async fn a_redis_server_is_asked() {
    let redis = std::env::var("REDIS_URL").expect("REDIS_URL is set; scripts/services does so");
    for (url, status, says) in [
        (redis.as_str(), "ok", "replies"),
        (
            "redis://127.0.0.1:1/",
            "warning",
            "a server starts without it",
        ),
    ] {
        let mut command = on("postgres://127.0.0.1:1/db");
        let (_, findings) = examine(command.args(["--redis", url])).await;
        assert_finds(&findings, "redis", status, says);
    }
}

#[tokio::test]
async fn a_running_server_is_asked_over_every_kind_of_connection() {
    const KEY: &str = "a-key-for-this-test-0123456789";
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
