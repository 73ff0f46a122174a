//! "Accepted" means on disk, not only in the kernel's memory: a kill cannot show the difference, the
//! order of the system calls can.

use std::process::Stdio;

use reqwest::Method;
use serde_json::{Value, json};
use tidings_test_support::{DiskTrace, TracedReply};

use crate::support::{Home, Server, http};

/// A commit writes one page at least.
const PAGE: u64 = 4096;

/// A server under a trace.
struct Traced {
    server: Server,
    trace: DiskTrace,
    /// What was changed, in the order of the replies.
    changes: Vec<String>,
}

impl Traced {
    async fn start(home: &Home) -> Self {
        let trace = DiskTrace::new(&home.path().join("trace"));
        let mut command = trace.command(env!("CARGO_BIN_EXE_tidings"));
        command.args(home.command().as_std().get_args());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self {
            server: Server::of(command.into()).await,
            trace,
            changes: Vec::new(),
        }
    }

    /// Makes a request that changes something, and returns what the reply says.
    async fn change(&mut self, method: Method, path: &str, body: Value) -> Value {
        self.changes.push(format!("{method} {path}"));
        let request = http().request(method, self.server.at(path));
        let request = if body.is_null() {
            request
        } else {
            request.json(&body)
        };
        let response = request.send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert!(status.is_success(), "{:?}: {text}", self.changes.last());
        serde_json::from_str(&text).unwrap_or_default()
    }

    async fn post(&mut self, path: &str, body: Value) -> Value {
        self.change(Method::POST, path, body).await
    }

    /// Ends the server, and returns what was on disk when it replied.
    async fn replies(self) -> Vec<(String, TracedReply)> {
        let (status, text) = self.server.stop_traced("-TERM").await;
        assert!(status.success(), "{text}");
        let files = ["tidings.db-wal", "tidings.db"];
        let replies = self.trace.replies("HTTP/1.1 2", &files).unwrap();
        assert_eq!(replies.len(), self.changes.len(), "{replies:?}");
        self.changes.into_iter().zip(replies).collect()
    }
}

/// A write that comes between the sync and the reply is one of the background, which waits for no sync.
#[tokio::test]
async fn what_is_acknowledged_is_on_disk() {
    let home = Home::new();
    let mut server = Traced::start(&home).await;
    let notification = json!({ "user_id": "anna", "payload": 1 });
    let first = server.post("/v1/notifications", notification.clone()).await;
    let batch = json!({ "notifications": [notification, notification] });
    server.post("/v1/notifications/batch", batch).await;
    server
        .post(
            "/notifications",
            json!({ "user_id": "anna", "message": "hello" }),
        )
        .await;

    let inbox = "/v1/users/anna/notifications";
    for change in ["read", "unread", "archive", "unarchive"] {
        let path = format!("{inbox}/{}/{change}", first["id"].as_str().unwrap());
        server.post(&path, Value::Null).await;
    }
    for change in ["seen", "read-all"] {
        server.post(&format!("{inbox}/{change}"), json!({})).await;
    }

    let key = json!({ "name": "till", "scopes": ["publish"] });
    let key = server.post("/v1/keys", key).await;
    let path = format!("/v1/keys/{}", key["id"].as_str().unwrap());
    server.change(Method::DELETE, &path, Value::Null).await;

    // Nothing listens there, and nothing is sent again soon.
    let endpoint = json!({ "url": "http://127.0.0.1:9/" });
    let endpoint = server.post("/v1/endpoints", endpoint).await;
    let path = format!("/v1/endpoints/{}", endpoint["id"].as_str().unwrap());
    let tested = server.post(&format!("{path}/test"), Value::Null).await;
    let retry = format!(
        "/v1/deliveries/{}/retry",
        tested["delivery_id"].as_str().unwrap()
    );
    server.post(&retry, Value::Null).await;
    server
        .post(&format!("{path}/secret/rotate"), json!({}))
        .await;
    let since = json!({ "since": "2026-01-01T00:00:00Z" });
    server.post(&format!("{path}/replay"), since).await;
    let change = json!({ "description": "till" });
    server.change(Method::PATCH, &path, change).await;
    server
        .change(Method::PATCH, &path, json!({ "enabled": false }))
        .await;
    server.change(Method::DELETE, &path, Value::Null).await;

    for (change, reply) in server.replies().await {
        assert!(reply.synced >= PAGE, "{change}: {reply:?}");
    }
}
