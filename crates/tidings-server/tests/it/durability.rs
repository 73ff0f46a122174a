//! "Accepted" means on disk, not only in the kernel's memory: a kill cannot show the difference, the
//! order of the system calls can.

use std::process::Stdio;

use serde_json::json;
use tidings_test_support::DiskTrace;

use crate::support::{Home, Server};

/// A commit writes one page at least.
const PAGE: u64 = 4096;

#[tokio::test]
async fn a_notification_is_on_disk_when_it_is_acknowledged_with_201() {
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
    // A write that comes between the sync and the reply is one of the background, which waits for no sync.
    for reply in replies {
        assert!(reply.synced >= PAGE, "{reply:?}");
    }
}
