//! "Accepted" means on disk, not only in the kernel's memory: a kill cannot show the difference, the
//! order of the system calls can.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::json;
use tidings_test_support::DiskTrace;

use crate::support::{Home, Server};

#[tokio::test]
async fn nothing_is_unsynced_when_a_notification_is_acknowledged_with_201() {
    let home = Home::new();
    let trace = DiskTrace::new(&home.path().join("trace"));
    let mut command = trace.command(env!("CARGO_BIN_EXE_tidings"));
    command.args(home.command().as_std().get_args());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let server = Server::of(command.into()).await;
    for n in 0..5 {
        server.notify("anna", json!(n)).await;
    }
    let (status, text) = server.stop_traced("-TERM").await;
    assert!(status.success(), "{text}");
    let replies = trace
        .replies("HTTP/1.1 201", &["tidings.db-wal", "tidings.db"])
        .unwrap();
    assert_eq!(replies.len(), 5, "{replies:?}");
    for reply in replies {
        assert!(reply.written > 0, "{reply:?}");
        assert_eq!(reply.unsynced, Vec::<PathBuf>::new());
    }
}
