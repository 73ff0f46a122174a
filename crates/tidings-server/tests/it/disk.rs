//! Disks that are full, and files that are changed under the server.

use std::path::Path;
use std::process::Stdio;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::{Home, Server, soon};

/// A disk of this many bytes at a folder, which only processes that enter it see.
struct SmallDisk(Child);

impl SmallDisk {
    async fn at(folder: &Path, bytes: usize) -> Self {
        let script =
            format!("mount -t tmpfs -o size={bytes} tmpfs \"$0\" && echo ready && exec cat");
        let mut holder = Command::new("unshare")
            .args(["-rm", "sh", "-c", &script])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
        assert_eq!(
            soon("the disk", lines.next_line()).await.unwrap().unwrap(),
            "ready"
        );
        Self(holder)
    }

    /// The command, on this disk.
    fn on(&self, command: &Command) -> Command {
        let command = command.as_std();
        let mut entered = Command::new("nsenter");
        entered
            .args(["--user", "--mount", "--preserve-credentials", "--target"])
            .arg(self.0.id().unwrap().to_string())
            .arg("--")
            .arg(command.get_program())
            .args(command.get_args())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        entered
    }
}

async fn is_ready(server: &Server) -> StatusCode {
    reqwest::get(server.at("/health/ready"))
        .await
        .unwrap()
        .status()
}

async fn unread(server: &Server) -> u64 {
    let count = server
        .get("/v1/users/anna/notifications/unread-count")
        .await;
    count["unread"].as_u64().unwrap()
}

#[tokio::test]
async fn a_full_disk_refuses_what_is_new_serves_what_is_there_and_lets_the_server_start() {
    let home = Home::new();
    let disk = SmallDisk::at(home.path(), 8 << 20).await;
    let server = Server::of(disk.on(&home.command())).await;
    let mut accepted = 0;
    let refused = loop {
        let body = json!({ "user_id": "anna", "payload": "x".repeat(200_000) });
        let response = server.post("/v1/notifications", &body).await;
        if response.status() != StatusCode::CREATED {
            break response;
        }
        accepted += 1;
        assert!(accepted < 100, "the disk has no end");
    };
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    let error: Value = refused.json().await.unwrap();
    assert_eq!(error["error"]["code"], "storage_full");
    assert_eq!(unread(&server).await, accepted);
    server.kill().await;
    let server = Server::of(disk.on(&home.command())).await;
    assert_eq!(unread(&server).await, accepted);
    let page = server.get("/v1/users/anna/notifications?limit=1").await;
    assert_eq!(page["data"].as_array().unwrap().len(), 1);
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
        assert_eq!(is_ready(&server).await, 503, "{what}");
        let (_, log) = server.stop("-TERM").await;
        assert!(
            log.contains("removed, replaced or truncated"),
            "{what}: {log}"
        );
    }
}
