//! Disks that are full or do not reply, and files that are changed under the server.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use reqwest::{Response, StatusCode};
use rusqlite::Connection;
use serde_json::{Value, json};
use tidings_test_support::SmallDisk;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{Home, Server, payloads, soon};

async fn unread(server: &Server) -> u64 {
    let count = server
        .get("/v1/users/anna/notifications/unread-count")
        .await;
    count["unread"].as_u64().unwrap()
}

/// Posts until the disk has no more room; returns how many were accepted. What is refused once may have found no
/// room in the log, which is written over then.
async fn post_until_full(server: &Server, bytes: usize) -> u64 {
    let (mut accepted, mut refused) = (0, 0);
    while refused < 2 {
        let body = json!({ "user_id": "anna", "payload": "x".repeat(bytes) });
        let response = server.post("/v1/notifications", &body).await;
        if response.status() == StatusCode::CREATED {
            (accepted, refused) = (accepted + 1, 0);
        } else {
            is_refused_as(response, "storage_full").await;
            refused += 1;
        }
        assert!(accepted < 10_000, "the disk has no end");
    }
    accepted
}

async fn is_refused_as(response: Response, code: &str) {
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
    let error: Value = response.json().await.unwrap();
    assert_eq!(error["error"]["code"], code);
}

#[tokio::test]
async fn a_disk_that_fills_is_reported_and_recovered_from() {
    let disk = SmallDisk::mount(16 << 20).unwrap();
    let home = Home::at(disk.path());
    let server = home.start().await;
    server.notify("anna", json!(1)).await;
    disk.fill().unwrap();
    let accepted = 1 + post_until_full(&server, 10).await;
    // Too many for a log with a line for each.
    for _ in 0..50 {
        let body = json!({ "user_id": "anna", "payload": 1 });
        is_refused_as(
            server.post("/v1/notifications", &body).await,
            "storage_full",
        )
        .await;
    }
    let not_ready = server.until_ready_is(503).await;
    is_refused_as(not_ready, "storage_full").await;
    // What is there can be read.
    assert_eq!(unread(&server).await, accepted);
    let mut events = server.events("anna", "?since=start").await;
    let (backlog, _) = events.until("tidings.caught_up").await;
    assert_eq!(backlog.len() as u64, accepted);

    disk.make_room().unwrap();
    server.notify("anna", json!("room")).await;
    assert_eq!(payloads(&[events.next().await.json()]), ["room"]);
    server.until_ready_is(200).await;
    drop(events);
    let (status, log) = server.stop("-TERM").await;
    assert!(status.success(), "{log}");
    // One from each part that writes, and two about the stop.
    assert!(log.lines().count() <= 10, "{log}");
}

async fn newest_ids(server: &Server) -> Vec<String> {
    let page = server.get("/v1/users/anna/notifications?limit=20").await;
    let notifications = page["data"].as_array().unwrap().iter();
    let id = |notification: &Value| notification["id"].as_str().unwrap().to_owned();
    notifications.map(id).collect()
}

async fn change(server: &Server, id: &str, action: &str) -> StatusCode {
    let path = format!("/v1/users/anna/notifications/{id}/{action}");
    server.post(&path, &json!({})).await.status()
}

/// Other programs may fill it, long before the log of the database is so long that SQLite empties it.
#[tokio::test]
async fn regression_on_a_full_disk_goes_on_what_fits_into_the_file() {
    let disk = SmallDisk::mount(16 << 20).unwrap();
    let home = Home::at(disk.path());
    let server = home.start().await;
    for _ in 0..20 {
        server.notify("anna", json!("x".repeat(10_000))).await;
    }
    let (status, log) = server.stop("-TERM").await;
    assert!(status.success(), "{log}");
    let server = home.start().await;
    let ids = newest_ids(&server).await;
    let act = async |place: usize, action: &str| change(&server, &ids[place], action).await;
    for place in 0..10 {
        assert_eq!(act(place, "read").await, StatusCode::OK);
    }
    disk.fill().unwrap();
    let mut refused = 0;
    for action in ["archive", "unarchive", "unread"] {
        for place in 0..10 {
            if act(place, action).await != StatusCode::OK {
                refused += 1;
                assert_eq!(act(place, action).await, StatusCode::OK, "{refused}");
            }
        }
    }
    assert!(refused > 0, "the disk was not full");
}

/// What the log has and the file has no room for would keep the log from ever being written over.
#[tokio::test]
async fn regression_on_a_disk_that_it_has_filled_itself_goes_on_what_fits_into_the_file() {
    let disk = SmallDisk::mount(28 << 20).unwrap();
    let home = Home::at(disk.path());
    let mut server = home.start().await;
    let mut accepted = post_until_full(&server, 60_000).await;
    assert!(accepted > 100, "the disk was nearly full at once");
    for _ in 0..2 {
        let ids = newest_ids(&server).await;
        for action in ["read", "archive", "unarchive", "unread"] {
            for id in &ids {
                // The first may find that the log cannot grow.
                if change(&server, id, action).await != StatusCode::OK {
                    assert_eq!(change(&server, id, action).await, StatusCode::OK);
                }
            }
            // Others ask for more than there is.
            accepted += post_until_full(&server, 60_000).await;
        }
        let (status, log) = server.stop("-TERM").await;
        assert!(status.success(), "{log}");
        server = home.start().await;
        assert_eq!(unread(&server).await, accepted);
    }

    // What is deleted makes room within the file.
    server.stop("-TERM").await;
    let connection = Connection::open(home.database()).unwrap();
    let older = "UPDATE notify_event SET stored_at = stored_at - 365 * 86400000000";
    connection.execute(older, []).unwrap();
    drop(connection);
    let server = home.start().await;
    soon("the cleaning", async {
        while unread(&server).await > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(post_until_full(&server, 60_000).await > accepted / 2);
}

/// Posts a notification that the server makes no end of making a delivery of. Returns a connection that keeps
/// the log of the database there.
async fn hang_in_the_fan_out(server: &Server, home: &Home) -> Connection {
    let endpoint = json!({ "url": "http://127.0.0.1:9/" });
    let created = server.post("/v1/endpoints", &endpoint).await;
    assert_eq!(created.status(), StatusCode::CREATED);
    let connection = Connection::open(home.database()).unwrap();
    let hang = "
        CREATE VIEW endless AS
            WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number) SELECT n FROM number;
        CREATE TRIGGER hang BEFORE INSERT ON webhook_delivery
            BEGIN SELECT count(*) FROM endless; END";
    connection.execute_batch(hang).unwrap();
    server.notify("anna", json!("on its way")).await;
    let claims = "SELECT count(*) FROM stream_lease";
    soon("the claim of the fan-out", async move {
        while connection.query_row(claims, [], |row| row.get(0)) != Ok(1) {
            tokio::task::yield_now().await;
        }
        connection
    })
    .await
}

#[tokio::test]
async fn a_server_starts_on_a_full_disk_and_recovers_when_there_is_room() {
    let disk = SmallDisk::mount(16 << 20).unwrap();
    let home = Home::at(disk.path());
    let server = home.start().await;
    for _ in 0..10 {
        server.notify("anna", json!("x".repeat(100_000))).await;
    }
    let connection = hang_in_the_fan_out(&server, &home).await;
    server.kill().await;
    connection
        .execute_batch("DROP TRIGGER hang; DROP VIEW endless")
        .unwrap();
    disk.fill().unwrap();

    let server = home.start().await;
    assert_eq!(unread(&server).await, 11);
    let page = server.get("/v1/users/anna/notifications?limit=1").await;
    assert_eq!(page["data"].as_array().unwrap().len(), 1);
    let accepted = post_until_full(&server, 100_000).await;
    assert!(accepted < 10, "the disk was not full");
    let not_ready = server.until_ready_is(503).await;
    is_refused_as(not_ready, "storage_full").await;

    disk.make_room().unwrap();
    server.notify("anna", json!("room")).await;
    server.until_ready_is(200).await;
}

/// The command, whose writes never reach the disk from the hundredth sync on.
fn hanging(command: &Command) -> Command {
    let command = command.as_std();
    let mut hanging = Command::new("strace");
    hanging
        .args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=fsync,fdatasync",
        ])
        .args([
            "-e",
            "inject=fsync,fdatasync:delay_enter=600s:when=100+",
            "--",
        ])
        .arg(command.get_program())
        .args(command.get_args())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    hanging
}

/// The command with a limit for the size of its files.
fn with_small_files(command: &Command, bytes: usize) -> Command {
    let command = command.as_std();
    let mut limited = Command::new("prlimit");
    limited
        .arg(format!("--fsize={bytes}"))
        .arg("--")
        .arg(command.get_program())
        .args(command.get_args())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    limited
}

#[tokio::test]
async fn a_file_that_reaches_its_limit_is_reported_and_ends_no_server() {
    let home = Home::new();
    let server = Server::of(with_small_files(&home.command(), 4 << 20)).await;
    let mut accepted = 0;
    let refused = loop {
        let body = json!({ "user_id": "anna", "payload": "x".repeat(20_000) });
        let response = server.post("/v1/notifications", &body).await;
        if response.status() != StatusCode::CREATED {
            break response;
        }
        accepted += 1;
        assert!(accepted < 1000, "the file has no end");
    };
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(unread(&server).await, accepted);
    server.kill().await;
    let server = home.start().await;
    assert_eq!(unread(&server).await, accepted);
    server.notify("anna", json!("room")).await;
}

#[tokio::test]
async fn a_disk_that_hangs_does_not_hang_the_stop() {
    let home = Home::with(&["--shutdown-timeout", "1s"]);
    let server = Server::of(hanging(&home.command())).await;
    let patience = Duration::from_secs(3);
    let body = json!({ "user_id": "anna", "payload": 1 });
    let mut posts = 0;
    while let Ok(accepted) = timeout(patience, server.post("/v1/notifications", &body)).await {
        assert_eq!(accepted.status(), StatusCode::CREATED);
        posts += 1;
        assert!(posts < 200, "the disk does not hang");
    }
    assert_eq!(
        server.ready().await.status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    // The tracer keeps the thread that hangs, and with it the process.
    let stopped = timeout(Duration::from_secs(20), server.farewell_traced("-TERM")).await;
    let farewell = stopped.expect("the server stops although its disk hangs");
    assert!(
        farewell.contains("pending deliveries: unknown"),
        "{farewell}"
    );
}

#[tokio::test]
async fn a_database_that_is_removed_or_truncated_is_noticed() {
    let log = |home: &Home| home.path().join("tidings.db-wal");
    let truncate = |path: &Path| {
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(0).unwrap();
    };
    for what in [
        "file removed",
        "log removed",
        "file truncated",
        "log truncated",
    ] {
        let home = Home::new();
        let server = home.start().await;
        server.notify("anna", json!(1)).await;
        match what {
            "file removed" => std::fs::remove_file(home.database()).unwrap(),
            "log removed" => std::fs::remove_file(log(&home)).unwrap(),
            "file truncated" => truncate(&home.database()),
            _ => truncate(&log(&home)),
        }
        let body = json!({ "user_id": "anna", "payload": 2 });
        let refused = server.post("/v1/notifications", &body).await;
        assert_eq!(refused.status(), 503, "{what}");
        assert_eq!(server.ready().await.status(), 503, "{what}");
        let (_, log) = server.stop("-TERM").await;
        assert!(
            log.contains("removed, replaced or truncated"),
            "{what}: {log}"
        );
    }
}
