//! How a server starts, and what it says if it cannot.

use std::process::Stdio;

use serde_json::{Value, json};
use tidings_test_support::PostgresServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{HeldFile, Home, Server, binary, said_by, signal_process, soon};

#[tokio::test]
async fn the_start_takes_three_lines() {
    let home = Home::new();
    let server = home.start().await;
    assert!(server.first_lines[0].contains(&server.url));
    assert!(server.first_lines[1].contains("tidings.db"));
    assert!(server.first_lines[2].starts_with("Try: "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_a_signal_ends_a_server_that_waits_for_a_migration() {
    let database = PostgresServer::start().unwrap();
    let other = tidings_test_support::connect(&database.url()).await;
    let migrate = "SELECT pg_advisory_lock(6074931807742212)";
    other.batch_execute(migrate).await.unwrap();
    let mut command = Home::on(&database.url(), &[]).command();
    let starting = command.spawn().unwrap();
    let waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'advisory'";
    let waiting = async { while other.query(waits, &[]).await.unwrap().is_empty() {} };
    soon("a server that waits", waiting).await;
    assert!(signal_process("-TERM", starting.id().unwrap()).await);
    let ended = soon("the end of the server", starting.wait_with_output()).await;
    let ended = ended.unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success(), "{said}");
    assert!(
        said.contains("stopped before the server had started"),
        "{said}"
    );
}

/// Its second reading would wait for another writer.
#[tokio::test]
async fn regression_the_configuration_can_be_a_pipe() {
    let home = Home::new();
    let pipe = home.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().await;
    assert!(made.unwrap().success());
    let mut command = home.command();
    command.arg("--config").arg(&pipe);
    let writing = tokio::task::spawn_blocking(move || std::fs::write(pipe, "max-endpoints = 1"));
    let server = soon("a server", Server::of(command)).await;
    writing.await.unwrap().unwrap();
    let endpoint = json!({ "url": "http://127.0.0.1:1/" });
    for status in [201, 409] {
        let response = server.post("/v1/endpoints", &endpoint).await;
        assert_eq!(response.status(), status);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn regression_a_signal_ends_a_server_that_waits_for_a_file() {
    let home = Home::new();
    let keys = home.path().join("keys.pem");
    std::fs::write(&keys, "").unwrap();
    let mut held = HeldFile::new(&keys).await;
    let mut command = home.command();
    command.arg("--jwt-public-key").arg(&keys);
    let mut starting = command.spawn().unwrap();
    held.is_asked_for().await;
    assert!(signal_process("-TERM", starting.id().unwrap()).await);
    let ended = timeout(HeldFile::TIME, starting.wait());
    let ended = ended.await.expect("the end of the server");
    assert!(ended.unwrap().success());
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
