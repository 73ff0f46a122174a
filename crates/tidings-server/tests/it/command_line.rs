//! The commands: what a person does by hand.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use crate::support::{Home, Server, binary, http, run, said_by, soon};

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
    run(&server, &["send", "anna", r#"{"n":1}"#]).await;

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

#[tokio::test]
async fn mistakes_are_explained_in_one_line() {
    let home = Home::new();
    let server = home.start().await;
    let (ok, _, complaint) = run(&server, &["inbox", "anna", "--read", "nonsense"]).await;
    assert!(!ok);
    assert!(
        complaint.starts_with("tidings: the server replied 404"),
        "{complaint}"
    );
    assert_eq!(complaint.lines().count(), 1);
    let refused = binary()
        .args(["send", "anna", "x", "--url", "http://127.0.0.1:1"])
        .output()
        .await
        .unwrap();
    let complaint = String::from_utf8(refused.stderr).unwrap();
    assert!(
        complaint.contains("no server at http://127.0.0.1:1"),
        "{complaint}"
    );
    let tls = server.url.replace("http:", "https:");
    for (url, says) in [
        (tls.as_str(), "no TLS at https://"),
        (
            "http://no.invalid",
            "cannot connect to http://no.invalid/: the host of the URL has no address that can be found\n",
        ),
    ] {
        let command = binary().args(["send", "anna", "x", "--url", url]).output();
        let complaint = String::from_utf8(command.await.unwrap().stderr).unwrap();
        assert!(complaint.contains(says), "{complaint}");
        assert!(!complaint.contains("start one with"), "{complaint}");
    }
    let (ok, _, complaint) = run(&server, &["send", "anna"]).await;
    assert!(
        !ok && complaint.contains("not provided:\n  <TEXT>"),
        "{complaint}"
    );
    for url in ["127.0.0.1:8080", "ftp://127.0.0.1/", "localhost"] {
        let command = binary().args(["send", "anna", "x", "--url", url]).output();
        let complaint = String::from_utf8(command.await.unwrap().stderr).unwrap();
        assert!(
            complaint.contains("such as http://127.0.0.1:8080"),
            "{complaint}"
        );
    }
    let bad = binary()
        .args(["serve", "--dev", "--database", "mysql://x"])
        .output()
        .await
        .unwrap();
    let complaint = String::from_utf8(bad.stderr).unwrap();
    assert!(complaint.contains("--database"), "{complaint}");
}

/// Arguments with a wrong value, and what the error says of it. No text of a library reaches a user.
const WRONG_ARGUMENTS: &[(&[&str], &str)] = &[
    (&["listen", "--port", "x"], "expected 0 to 65535"),
    (&["listen", "--port", "65536"], "expected 0 to 65535"),
    (&["listen", "--status", "99"], "expected 200 to 599"),
    (&["listen", "--count", "x"], "expected 1 to 1000000000"),
    (&["tail", "a", "--count", "0"], "expected 1 to 1000000000"),
    (&["inbox", "a", "--limit", "x"], "expected 1 to 1000"),
    (&["inbox", "a", "--limit", "1001"], "expected 1 to 1000"),
    (
        &["listen", "--port", "0", "--secret", "abc"],
        "--secret: expected 24 to 64 bytes, got 2, as if it were cut off; a secret is `whsec_` and 24 to 64 bytes in base64",
    ),
    (
        &["listen", "--port", "0", "--secret", "whsec_!"],
        "; a secret is `whsec_` and 24 to 64 bytes in base64",
    ),
    (&["serve", "--dev=maybe"], "expected true or false"),
    (&["serve", "--dev=yes"], "expected true or false"),
    (&["serve", "--max-streams", "-1"], "expected 1 to 1000000"),
    (&["serve", "--retention", "-5d"], "expected a duration"),
    (&["tail", "a", "--count", "-1"], "expected 1 to 1000000000"),
    (&["bench", "--rate", "0"], "expected 1 to 1000000"),
    (&["bench", "--size", "63"], "expected 64 to 65536"),
    (&["bench", "--duration", "2h"], "expected 1s to 1h"),
    (
        &["bench", "--webhooks", "0.0.0.0:9000"],
        "expected the IP address of this machine",
    ),
    (&["serve", "--log-format", "xml"], "expected text or json"),
    (&["serve", "--log", ""], "expected error, warn, info"),
    (&["serve", "--log", "5"], "expected error, warn, info"),
    (
        &["serve", "--log", "info,tidings_server=4"],
        "expected error, warn, info",
    ),
    (
        &["serve", "--webhook-private-addresses=2"],
        "expected true or false",
    ),
    (&["serve", "--log", "wran"], "expected error, warn, info"),
    // Filters of spans and their fields are not known.
    (
        &["serve", "--log", "tidings_server[request]=debug"],
        "expected error, warn, info",
    ),
    (
        &["serve", "--log", "info,tidings_server"],
        "expected error, warn, info",
    ),
    (
        &["serve", "--log", "tidings_server=debgu"],
        "expected error, warn, info",
    ),
    (&["serve", "--max-streams", "x"], "expected 1 to 1000000"),
    (
        &["serve", "--listen", "example.com:80"],
        "such as 127.0.0.1:8080 or localhost:8080; no other name is looked up",
    ),
    (
        &["serve", "--api-key", "short"],
        "'--api-key <KEY>': expected at least 16 visible ASCII characters",
    ),
    (
        &["send", "a", "x", "--api-key", ""],
        "'--api-key <KEY>': expected an API key, got an empty text",
    ),
    (
        &["send", "a", "x", "--api-key", ",second"],
        "'--api-key <KEY>': expected visible ASCII characters",
    ),
    (&["key", "revoke", ""], "expected the id of a key"),
    (
        &["endpoint", "show", "ep_1"],
        "expected `ep_` and sixteen hexadecimal digits",
    ),
    (
        &["endpoint", "create", "http://a", "--header", "x"],
        "expected a name, a colon and a value",
    ),
    (
        &[
            "endpoint",
            "create",
            "http://a",
            "--header=x:1",
            "--header=X:2",
        ],
        "--header: expected each header once, got X twice",
    ),
    (
        &["endpoint", "create", "http://a", "--format", "xml"],
        "expected envelope or raw",
    ),
    (
        &["endpoint", "create", "http://a", "--signature", "none"],
        "expected standard or timestamped",
    ),
    (
        &["endpoint", "create", "http://a", "--schedule", "1.5s"],
        "--schedule: expected whole seconds",
    ),
    (
        &["endpoint", "create", "http://a", "--timeout", "1us"],
        "--timeout: expected whole milliseconds",
    ),
    (
        &["endpoint", "create", "http://a", "--rate-limit", "0"],
        "expected 1 to 4294967295",
    ),
    (
        &["endpoint", "create", "http://a", "--secret-file", "/none"],
        "--secret-file: cannot read /none: no such file or folder",
    ),
    (
        &["endpoint", "create", "http://a", "--user", " a"],
        "--user <USER>",
    ),
    (
        &["endpoint", "update", "ep_0000000000000001"],
        "expected a setting to change",
    ),
    (
        &[
            "endpoint",
            "update",
            "ep_0000000000000001",
            "--type=a",
            "--reset=type",
        ],
        "--reset: not allowed for type beside --type",
    ),
    (
        &[
            "endpoint",
            "rotate",
            "ep_0000000000000001",
            "--overlap",
            "31d",
        ],
        "expected 0s to 30d",
    ),
    (
        &["endpoint", "replay", "ep_0000000000000001"],
        "--since <TIME>",
    ),
    (
        &[
            "endpoint",
            "replay",
            "ep_0000000000000001",
            "--stop",
            "--per-second=1",
        ],
        "the argument '--stop' cannot be used with '--per-second <COUNT>'",
    ),
    (
        &["delivery", "show", "ep_0000000000000001"],
        "expected `dlv_` and sixteen hexadecimal digits",
    ),
    (
        &["delivery", "list", "--state", "sent"],
        "expected pending, delivered, failed or cancelled",
    ),
    (&["delivery", "list", "--limit", "501"], "expected 1 to 500"),
    (
        &["inbox", "a", "--read-all", "--unread"],
        "the argument '--read-all' cannot be used with '--unread'",
    ),
    (
        &["inbox", "a", "--read", "x", "--limit", "5"],
        "cannot be used with '--limit <COUNT>'",
    ),
    (
        &[
            "serve",
            "--dev",
            "--database",
            "postgres://h/d",
            "--redis",
            "redis://h/?timeout=5",
        ],
        "--redis: ",
    ),
    (&["serve", "--retention", "5m"], "expected 1h to 36500d"),
    (&["serve", "--lease", "1d"], "expected 1s to 5m"),
    (&["serve", "--shutdown-timeout", "1d"], "expected 0s to 10m"),
];

#[tokio::test]
async fn every_wrong_argument_is_refused_in_words_of_ours() {
    for (arguments, says) in WRONG_ARGUMENTS {
        let command = binary().args(*arguments).output();
        let output = soon("the refusal", command).await.unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(complaint.contains(says), "{arguments:?}: {complaint}");
    }
}

#[tokio::test]
async fn a_url_that_is_refused_is_not_repeated_with_its_password() {
    for (setting, url) in [
        ("TIDINGS_DATABASE", "mysql://anna:hunter2@host/db"),
        ("TIDINGS_DATABASE", "POSTGRES://anna:hunter2@host/db"),
        ("TIDINGS_REDIS", "http://anna:hunter2@host/1"),
    ] {
        let command = binary().args(["serve", "--dev"]).env(setting, url).output();
        let output = soon("the refusal", command).await.unwrap();
        assert!(!output.status.success(), "{url}");
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(complaint.contains("expected `"), "{complaint}");
        assert!(!complaint.contains("hunter2"), "{complaint}");
    }
}

#[tokio::test]
async fn a_variable_with_a_wrong_value_is_named_and_a_key_is_not_shown() {
    for (arguments, name, value, says) in [
        (
            &["serve", "--dev"][..],
            "TIDINGS_MAX_STREAMS",
            "0",
            "invalid value '0' for '--max-streams <COUNT>': expected 1 to 1000000",
        ),
        (&["serve"], "TIDINGS_DEV", "yes", "expected true or false"),
        (&["serve"], "TIDINGS_DEV", "", "expected true or false"),
        (
            &["serve", "--dev"],
            "TIDINGS_API_KEY",
            "hidden",
            "expected at least 16 visible ASCII characters",
        ),
        (
            &["serve", "--dev"],
            "TIDINGS_JWT_SECRET",
            "hidden",
            "expected at least 32 bytes",
        ),
        (
            &["key", "list"],
            "TIDINGS_URL",
            "localhost",
            "expected an address such as http://127.0.0.1:8080",
        ),
    ] {
        let command = binary().args(arguments).env(name, value).output();
        let output = soon("the refusal", command).await.unwrap();
        assert!(!output.status.success(), "{name}");
        let complaint = String::from_utf8(output.stderr).unwrap();
        let variable = format!("the environment variable {name}: ");
        assert!(complaint.contains(&variable), "{complaint}");
        assert!(complaint.contains(says), "{complaint}");
        assert!(!complaint.contains("hidden"), "{complaint}");
    }
    // A right variable is not blamed for an argument, whatever else the command needs.
    for (arguments, says) in [
        (
            &["endpoint", "show", "nope"][..],
            "invalid value 'nope' for '<ID>'",
        ),
        (
            &["endpoint", "replay", "nope", "--stop"],
            "invalid value 'nope' for '<ID>'",
        ),
        (
            &["inbox", "anna", "--limit", "0"],
            "invalid value '0' for '--limit",
        ),
        (&["send", "", "x"], "invalid value '' for '<USER>'"),
        (
            &["token", "anna", "--for", "1000d"],
            "invalid value '1000d' for '--for",
        ),
        (
            &["key", "create", "x", "--scope", "y"],
            "invalid value 'y' for '--scope",
        ),
    ] {
        let command = binary()
            .args(arguments)
            .env("TIDINGS_URL", "http://127.0.0.1:18080")
            .env("TIDINGS_API_KEY", "a key of 16 bytes".replace(' ', "-"))
            .env("TIDINGS_JWT_SECRET", "s".repeat(32))
            .output();
        let output = soon("the refusal", command).await.unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(complaint.contains(says), "{complaint}");
        assert!(!complaint.contains("TIDINGS_"), "{complaint}");
    }
    // A flag overrides the variable, so it is the flag that is wrong.
    let command = binary()
        .args(["serve", "--max-streams", "x"])
        .env("TIDINGS_MAX_STREAMS", "0")
        .output();
    let output = soon("the refusal", command).await.unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(complaint.contains("'x' for '--max-streams"), "{complaint}");
    assert!(!complaint.contains("variable"), "{complaint}");
}

/// A command says which variable it cannot read.
#[tokio::test]
async fn a_variable_that_is_not_text_is_named() {
    use std::os::unix::ffi::OsStrExt;
    let wrong = std::ffi::OsStr::from_bytes(b"\xff0123456789abcdef");
    for (arguments, name) in [
        (&["serve", "--dev"][..], "TIDINGS_RETENTION"),
        (&["serve", "--dev"], "TIDINGS_LOG"),
        (&["inbox", "anna"], "TIDINGS_URL"),
    ] {
        let command = binary().args(arguments).env(name, wrong).output();
        let output = soon("the refusal", command).await.unwrap();
        assert!(!output.status.success(), "{name}");
        let complaint = String::from_utf8(output.stderr).unwrap();
        let says = format!("the environment variable {name}: expected text in UTF-8");
        assert!(complaint.contains(&says), "{complaint}");
    }
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

/// What one start of a server says of its database.
async fn refused_database(url: &str) -> String {
    let command = binary()
        .args([
            "serve",
            "--dev",
            "--listen",
            "127.0.0.1:0",
            "--database",
            url,
        ])
        .output();
    let output = soon("the refusal", command).await.unwrap();
    assert!(!output.status.success(), "{url}");
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn a_file_that_cannot_be_the_database_is_explained_in_words_of_ours() {
    let home = Home::new();
    let folder = std::fs::canonicalize(home.path()).unwrap();
    std::fs::write(folder.join("text.db"), "x".repeat(4096)).unwrap();
    std::fs::write(folder.join("byte.db"), "x").unwrap();
    std::fs::create_dir(folder.join("folder.db")).unwrap();
    std::fs::write(folder.join("zero.db"), [0; 1000]).unwrap();
    let shown = folder.display();
    for (file, says) in [
        (
            "text.db",
            format!("the file {shown}/text.db is not a SQLite database"),
        ),
        (
            "byte.db",
            format!("the file {shown}/byte.db is not a SQLite database"),
        ),
        (
            "zero.db",
            format!("the file {shown}/zero.db is not a SQLite database"),
        ),
        (
            "folder.db",
            format!("expected the path of a database file, got the folder `{shown}/folder.db`"),
        ),
        (
            "none/a.db",
            format!("cannot create the database {shown}/none/a.db: its folder does not exist"),
        ),
    ] {
        let url = format!("sqlite:{shown}/{file}");
        let said = refused_database(&url).await;
        let line = format!("tidings: cannot use the database {url}: {says}\n");
        assert_eq!(said, line);
    }
    // Its folder exists, but takes no files.
    let said = refused_database("sqlite:/proc/a.db").await;
    let says = "this user may not read and write it, or may not make files in its folder\n";
    assert!(said.ends_with(says), "{said}");
    let mut left: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["byte.db", "folder.db", "text.db", "zero.db"]);
}

#[tokio::test]
async fn a_database_that_was_cut_is_refused_and_left_as_it_is() {
    let home = Home::new();
    home.start().await.stop("-TERM").await;
    let whole = std::fs::read(home.database()).unwrap();
    let cut = home.path().join("cut.db");
    for length in [1, 100, 511, 512, 1000, 4095, 4096, whole.len() / 2] {
        std::fs::write(&cut, &whole[..length]).unwrap();
        let said = refused_database(&format!("sqlite:{}", cut.display())).await;
        assert_eq!(said.lines().count(), 1, "{length}: {said}");
        assert!(std::fs::read(&cut).unwrap() == whole[..length], "{length}");
    }
    // An empty file is a new database.
    std::fs::write(&cut, "").unwrap();
    let mut command = binary();
    command
        .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--database"])
        .arg(format!("sqlite:{}", cut.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Server::of(command).await;
}

/// Replies to the first message of each client as PostgreSQL refuses one.
async fn refuse_clients(listener: TcpListener) {
    const FIELDS: &[u8] =
        b"SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user \"anna\"\0\0";
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut startup = [0; 1024];
        let _read = client.read(&mut startup).await.unwrap();
        let length = u32::try_from(FIELDS.len() + 4).unwrap();
        let reply = [b"E", &length.to_be_bytes()[..], FIELDS].concat();
        client.write_all(&reply).await.unwrap();
    }
}

#[tokio::test]
async fn a_postgresql_that_cannot_be_used_is_explained_in_words_of_ours() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refusing = listener.local_addr().unwrap();
    let _refusing = tokio::spawn(refuse_clients(listener));
    for (url, says) in [
        (
            "postgres://anna:secret@127.0.0.1:1/x".to_owned(),
            "cannot connect to the database: no server listens at the host and port of the URL"
                .to_owned(),
        ),
        (
            format!("postgres://anna:secret@{refusing}/x?sslmode=disable"),
            "cannot connect to the database: PostgreSQL refused the user or the password: \
             password authentication failed for user \"anna\""
                .to_owned(),
        ),
        (
            "postgres://anna:secret@h:port/x".to_owned(),
            "`postgres://user@host:port/database`: invalid value for option `port`".to_owned(),
        ),
    ] {
        let said = refused_database(&url).await;
        assert!(said.ends_with(&format!(" {says}\n")), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(!said.contains("secret"), "{said}");
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_listened_on_is_explained_without_numbers() {
    let home = Home::new();
    let server = Server::of(home.command()).await;
    let used = server.url.strip_prefix("http://").unwrap();
    let port = used.rsplit(':').next().unwrap();
    for (address, reason) in [
        (used, "another program uses this address"),
        ("192.0.2.1:80", "this machine does not have this address"),
    ] {
        let mut command = binary();
        let file = format!("sqlite:{}/other.db", home.path().display());
        command.args(["serve", "--listen", address, "--database", &file]);
        command.args(["--api-key", "0123456789abcdef"]);
        let output = soon("the refusal", command.output()).await.unwrap();
        let says = format!("tidings: cannot listen on {address}: {reason}\n");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), says);
    }
    let mut listen = binary();
    let output = listen.args(["listen", "--port", port]).output();
    let stderr = String::from_utf8(soon("the refusal", output).await.unwrap().stderr).unwrap();
    let says =
        format!("tidings: cannot listen on port {port}: another program uses this address\n");
    assert_eq!(stderr, says);
}

#[tokio::test]
async fn a_misspelt_variable_is_named_at_the_start() {
    let home = Home::new();
    let mut command = home.command();
    command
        .env("TIDINGS_RETENTON", "1d")
        .env("TIDINGS_URL", "x");
    let server = Server::of(command).await;
    let (_, said) = server.stop("-TERM").await;
    assert!(said.contains("TIDINGS_RETENTON"), "{said}");
    assert!(!said.contains("TIDINGS_URL"), "{said}");
}

#[tokio::test]
async fn a_redis_server_that_cannot_be_used_is_named_and_nothing_else() {
    let redis = std::env::var("REDIS_URL").expect("REDIS_URL is set; scripts/services does so");
    let mut redis = url::Url::parse(&redis).unwrap();
    redis.set_username("anna").unwrap();
    redis.set_password(Some("secret")).unwrap();
    let command = binary()
        .args(["serve", "--dev", "--listen", "127.0.0.1:0"])
        .args(["--database", "postgres://127.0.0.1:1/x"])
        .args(["--redis", redis.as_str()])
        .output();
    let output = soon("the refusal", command).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let start = "tidings: cannot use the Redis server redis://";
    assert!(said.starts_with(start), "{said}");
    let reason = "the server refused the user or the password of the URL";
    assert!(said.contains(reason), "{said}");
    for internal in ["presence", "WRONGPASS", "secret"] {
        assert!(!said.contains(internal), "{said}");
    }
}

#[tokio::test]
async fn a_name_of_this_machine_is_an_address_too() {
    let home = Home::new();
    let server = Server::of(home.command_at("localhost:0")).await;
    assert!(
        server.url.starts_with("http://127.0.0.1:"),
        "{}",
        server.url
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

#[tokio::test]
async fn the_start_takes_three_lines() {
    let home = Home::new();
    let server = home.start().await;
    assert!(server.first_lines[0].contains(&server.url));
    assert!(server.first_lines[1].contains("tidings.db"));
    assert!(server.first_lines[2].starts_with("Try: "));
}

#[tokio::test]
async fn every_flag_has_a_variable_and_an_explanation() {
    let help = binary().args(["serve", "--help"]).output().await.unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for flag in help
        .lines()
        .filter(|line| line.trim_start().starts_with("--"))
    {
        let name = flag.trim().split(' ').next().unwrap();
        let variable = name
            .trim_start_matches("--")
            .replace('-', "_")
            .to_uppercase();
        let named = |end: char| help.contains(&format!("[env: TIDINGS_{variable}{end}"));
        // Where the value is hidden, the name is all there is.
        assert!(named('=') || named(']'), "{name} has no variable: {help}");
    }
    let mut by_variable = Home::new().command();
    by_variable.env("TIDINGS_MAX_STREAMS", "0");
    let (_, _, refused) = said_by(&mut by_variable).await;
    assert!(refused.contains("--max-streams"), "{refused}");
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

/// The lines of the log, each of which must be JSON with a time of the same form.
#[track_caller]
fn json_lines(log: &str) -> Vec<Value> {
    let lines = log.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{log}"));
        let time = line["timestamp"].as_str().unwrap();
        let digits = time.strip_suffix('Z').and_then(|time| time.split_once('.'));
        assert_eq!(digits.unwrap().1.len(), 6, "{time}");
        line
    });
    lines.collect()
}

#[tokio::test]
async fn every_line_of_a_json_log_is_json_with_times_of_one_form() {
    let home = Home::with(&["--log-format", "json", "--log", "debug"]);
    let server = home.start().await;
    server.notify("anna", json!(1)).await;
    let (_, log) = server.stop("-TERM").await;
    let lines = json_lines(&log);
    let has = |text: &str| {
        let message = |line: &&Value| {
            line["fields"]["message"]
                .as_str()
                .unwrap_or_default()
                .contains(text)
        };
        assert!(lines.iter().any(|line| message(&line)), "{text}: {log}");
    };
    has("request finished");
    has("stopped: ");
}

#[tokio::test]
async fn a_failed_start_is_reported_in_the_format_of_the_log() {
    let wrong: [&[&str]; 2] = [
        &["--dev", "--database", "sqlite:/no/such/folder/a.db"],
        &["--listen", "127.0.0.1:0"],
    ];
    for arguments in wrong {
        let mut command = binary();
        command
            .args(["serve", "--log-format", "json"])
            .args(arguments);
        let (ok, _, log) = said_by(&mut command).await;
        assert!(!ok, "{arguments:?}");
        let lines = json_lines(&log);
        let last = lines.last().unwrap();
        assert_eq!(last["level"], "ERROR", "{log}");
        assert!(!last["fields"]["message"].as_str().unwrap().is_empty());
    }
}
