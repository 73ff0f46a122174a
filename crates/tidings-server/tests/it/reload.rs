//! `kill -HUP`: the settings are read again.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::support::{HeldFile, Home, Server, http, soon};

/// A server with a configuration file that changes, and a log that can be read while it runs.
struct Reloading {
    folder: TempDir,
    server: Server,
}

impl Reloading {
    async fn start(text: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tidings.toml"), text).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Home::at(folder.path()).command();
        command.current_dir(folder.path());
        command.args(["--config", "tidings.toml"]).args(flags);
        command.stderr(log);
        let server = Server::of(command).await;
        Self { folder, server }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("tidings.toml")
    }

    /// The whole lines of the log.
    fn log(&self) -> String {
        let mut log = std::fs::read_to_string(self.folder.path().join("log")).unwrap();
        log.truncate(log.rfind('\n').map_or(0, |end| end + 1));
        log
    }

    /// Waits until the log has so many lines that say this.
    async fn until_log(&self, says: &str, times: usize) {
        soon(says, async {
            while self.log().matches(says).count() < times {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// Sends the signal, and waits for so many lines that say what became of it.
    async fn hang_up(&self, says: &str, times: usize) {
        self.server.signal("-HUP").await;
        self.until_log(says, times).await;
    }

    async fn reload(&self, text: &str, times: usize) {
        std::fs::write(self.file(), text).unwrap();
        self.hang_up("reloaded: ", times).await;
    }

    async fn create_endpoint(&self) -> u16 {
        let endpoint = json!({ "url": "http://127.0.0.1:1/" });
        let response = self.server.post("/v1/endpoints", &endpoint).await;
        response.status().as_u16()
    }

    /// Posts a notification of about so many bytes for a user.
    async fn post(&self, user: &str, bytes: usize) -> u16 {
        let body = json!({ "user_id": user, "payload": "x".repeat(bytes) });
        let response = self.server.post("/v1/notifications", &body).await;
        response.status().as_u16()
    }

    /// Whether another stream of a user is let in.
    async fn has_room(&self, user: &str) -> bool {
        self.server.events(user, "").await.next().await.name == "tidings.hello"
    }
}

#[tokio::test]
async fn the_limits_and_the_log_change_and_everything_else_waits() {
    let before = "max-body-bytes = 2048\nmax-endpoints = 1\nlog = \"error\"\n\
                  max-streams-per-user = 1\nmax-streams = 5\n";
    let tidings = Reloading::start(before, &["--max-streams=4"]).await;
    let mut stream = tidings.server.events("anna", "").await;
    stream.until("tidings.caught_up").await;
    assert_eq!(tidings.post("ben", 3000).await, 413);
    assert_eq!(tidings.create_endpoint().await, 201);
    assert_eq!(tidings.create_endpoint().await, 409);
    assert!(!tidings.has_room("anna").await);
    let refused = || {
        let request = http().get(tidings.server.at("/health/live"));
        request.header("Host", "rebound.example").send()
    };
    assert_eq!(refused().await.unwrap().status(), 403);

    let after = "max-body-bytes = 4096\nmax-endpoints = 2\nlog = \"info\"\n\
                 max-streams-per-user = 2\nmax-streams = 6\nmax-user-notifications = 2\n\
                 max-key-requests = 1000\nretention = \"30d\"\nwebhook-timeout = \"5s\"\n";
    tidings.reload(after, 1).await;
    tidings.until_log("at the next start", 1).await;
    let log = tidings.log();
    let reloaded = "reloaded: log, max-body-bytes, max-endpoints, max-key-requests, \
                    max-streams-per-user, max-user-notifications\n";
    assert!(log.contains(reloaded), "{log}");
    let waiting = log.lines().find(|line| line.contains("at the next start"));
    let waiting = waiting.unwrap_or_else(|| panic!("{log}"));
    assert!(
        waiting.contains("settings=\"retention, webhook-timeout\""),
        "{waiting}"
    );
    assert!(!log.contains("rebound.example"), "{log}");

    assert_eq!(tidings.post("ben", 3000).await, 201);
    assert_eq!(tidings.post("ben", 5000).await, 413);
    assert_eq!(tidings.create_endpoint().await, 201);
    assert_eq!(tidings.create_endpoint().await, 409);
    assert!(tidings.has_room("anna").await);
    let many = json!({ "notifications": vec![json!({ "user_id": "cleo", "payload": 1 }); 3] });
    let response = tidings.server.post("/v1/notifications/batch", &many).await;
    assert_eq!(response.status(), 400);
    assert_eq!(
        response.headers()["ratelimit-policy"],
        "\"requests\";q=1000;w=1"
    );
    assert_eq!(refused().await.unwrap().status(), 403);
    tidings.until_log("rebound.example", 1).await;
    // What is open goes on, also beyond a limit that was lowered.
    tidings.reload("max-streams-per-user = 1\n", 2).await;
    assert!(!tidings.has_room("anna").await);
    tidings.server.notify("anna", json!("still here")).await;
    assert_eq!(stream.next().await.json()["payload"], "still here");
    // The rate is gone with its setting.
    let ready = tidings.server.ready().await;
    assert!(ready.headers().get("ratelimit-policy").is_none());
    assert!(tidings.server.stop_unread("-TERM").await.success());
}

#[tokio::test]
async fn a_file_that_is_not_valid_changes_nothing_and_is_named_with_its_line() {
    let good = "max-endpoints = 1\n\n";
    let tidings = Reloading::start(good, &[]).await;
    assert_eq!(tidings.create_endpoint().await, 201);
    let says = "cannot reload the settings, all stay as they were";
    let wrong = [
        (
            "max-endpoints = 2\nmax-streams = 0\n",
            "line 2: invalid value '0' for '--max-streams <COUNT>'",
        ),
        (
            "max-endpoints = 2\n\nlog = \"loud\"\n",
            "line 3: invalid value 'loud' for '--log <FILTER>'",
        ),
        (
            "max-endpoints = 2\nmax-streems = 1\n",
            "line 2: unknown setting `max-streems`",
        ),
        (
            "max-endpoints = 2\nmax-streams = \n",
            "line 2: expected TOML",
        ),
        (
            "max-endpoints = 2\nwebhook-schedule = []\n",
            "--webhook-schedule: expected 1 to 100",
        ),
    ];
    for (times, (text, reason)) in wrong.iter().enumerate() {
        std::fs::write(tidings.file(), text).unwrap();
        tidings.hang_up(says, times + 1).await;
        let log = tidings.log();
        let line = log.lines().rfind(|line| line.contains(says)).unwrap();
        assert!(line.contains("ERROR") && line.contains(reason), "{line}");
        assert_eq!(log.lines().count(), times + 1, "{log}");
        assert_eq!(tidings.create_endpoint().await, 409, "{text}");
    }
    std::fs::remove_file(tidings.file()).unwrap();
    tidings.hang_up(says, wrong.len() + 1).await;
    let log = tidings.log();
    let missing = "cannot read the configuration file tidings.toml: no such file or folder";
    assert!(log.contains(missing), "{log}");
    tidings.reload("max-endpoints = 2\n", 1).await;
    assert_eq!(tidings.create_endpoint().await, 201);
    assert!(tidings.server.stop_unread("-TERM").await.success());
}

#[tokio::test]
async fn without_a_file_or_a_change_the_server_goes_on() {
    let tidings = Reloading::start("max-streams = 10\n", &[]).await;
    let nothing = "reloaded: no setting that a running server takes over has changed";
    for times in 1..4 {
        tidings.hang_up(nothing, times).await;
    }
    tidings.server.notify("anna", json!(1)).await;
    let log = tidings.log();
    assert!(!log.contains("at the next start"), "{log}");
    assert!(tidings.server.stop_unread("-TERM").await.success());

    let home = Home::new();
    let server = home.start().await;
    server.signal("-HUP").await;
    server.notify("anna", json!(1)).await;
    let (status, log) = server.stop("-TERM").await;
    assert!(status.success(), "{log}");
}

/// Other systems have no command that changes the limit of a running process.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn limits_that_are_read_again_fit_into_the_descriptors_too() {
    let tidings = Reloading::start("max-streams = 10\n", &[]).await;
    let process = tidings.server.process_id().to_string();
    let mut limit = tokio::process::Command::new("prlimit");
    limit.args(["--nofile=256:256", "--pid", &process]);
    assert!(limit.status().await.unwrap().success());
    tidings.reload("max-streams = 5000\n", 1).await;
    let warning = "the limit of open files is 256 instead of";
    tidings.until_log(warning, 1).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn regression_a_stop_does_not_wait_for_a_file_that_cannot_be_read() {
    let mut tidings = Reloading::start("max-streams = 10\n", &[]).await;
    let mut held = HeldFile::new(&tidings.file()).await;
    tidings.server.signal("-HUP").await;
    held.is_asked_for().await;
    tidings.server.signal("-TERM").await;
    let ended = timeout(HeldFile::TIME, tidings.server.process.wait());
    let ended = ended.await.expect("the end of the server");
    assert!(ended.unwrap().success());
    let log = tidings.log();
    assert!(log.contains("stopped: "), "{log}");
    assert!(!log.contains("reloaded"), "{log}");
}
