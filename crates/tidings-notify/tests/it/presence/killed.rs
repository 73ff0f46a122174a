//! Instances that are killed, and such that stand still. Each is this test binary again, with the place
//! of presence in a variable.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tidings_notify::Presence;
use tidings_notify::presence::Watch;
use tidings_notify::presence::WatchItem::{Offline, Online};
use tokio::time::Instant;

use super::{postgres, quick, redis, soon};
use crate::database::Schema;
use crate::support::{ann, place};

const CHILD: &str = "TIDINGS_NOTIFY_PRESENCE_CHILD";

/// That of the children: a third of it is the time between two heartbeats.
const TTL: Duration = Duration::from_secs(3);

#[tokio::test]
async fn postgres_notices_killed_and_paused_instances() {
    let open = async |url: String| postgres::open(&url).await;
    hold_if_child(open).await;
    let schema = Schema::create().await;
    notice(
        "presence::killed::postgres_notices_killed_and_paused_instances",
        schema.url(),
        open,
    )
    .await;
}

#[tokio::test]
async fn redis_notices_killed_and_paused_instances() {
    let open = async |prefix: String| redis::open(&crate::redis::url(), &prefix).await;
    hold_if_child(open).await;
    notice(
        "presence::killed::redis_notices_killed_and_paused_instances",
        crate::redis::prefix(),
        open,
    )
    .await;
}

/// In a child, keeps a connection until it is killed. Otherwise does nothing.
#[expect(clippy::print_stdout, reason = "the parent waits for it")]
async fn hold_if_child(open: impl AsyncFn(String) -> Arc<dyn Presence>) {
    let Ok(place) = std::env::var(CHILD) else {
        return;
    };
    // Its input ends with the process that has started it.
    std::thread::spawn(|| {
        let _ended = std::io::stdin().read(&mut [0]);
        std::process::exit(1);
    });
    let tracker = quick(&open(place).await, "child");
    let connection = tracker.register(ann()).unwrap();
    connection.stored().await.unwrap();
    println!("\nonline");
    std::future::pending::<()>().await;
}

/// A child, which is killed when this is dropped.
struct Instance(Child);

impl Instance {
    fn start(test: &str, place: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(CHILD, place)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while lines.next().unwrap().unwrap() != "online" {}
        Self(child)
    }

    fn signal(&self, signal: &str) {
        let id = self.0.id().to_string();
        let status = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

async fn notice(test: &str, at: String, open: impl AsyncFn(String) -> Arc<dyn Presence>) {
    let presence = open(at.clone()).await;
    let tracker = quick(&presence, "watching");
    let mut watch = tracker.watch().await.unwrap();
    let next = async |watch: &mut Watch| soon(watch.next()).await.unwrap();

    let instance = Instance::start(test, &at);
    assert_eq!(next(&mut watch).await, Online(ann()));
    assert_eq!(presence.locate(&ann()).await.unwrap(), [place("child")]);
    let paused = Instant::now();
    instance.signal("-STOP");
    assert_eq!(next(&mut watch).await, Offline(ann()));
    not_before(paused);
    assert!(!presence.is_online(&ann()).await.unwrap());
    instance.signal("-CONT");
    assert_eq!(next(&mut watch).await, Online(ann()));
    assert_eq!(presence.locate(&ann()).await.unwrap(), [place("child")]);

    let killed = Instant::now();
    drop(instance);
    assert_eq!(next(&mut watch).await, Offline(ann()));
    not_before(killed);
    assert!(!presence.is_online(&ann()).await.unwrap());
}

/// The last heartbeat was up to a third of the time ago, and more on a busy machine.
#[track_caller]
fn not_before(silent: Instant) {
    let elapsed = silent.elapsed();
    assert!(elapsed >= TTL / 3, "offline after {elapsed:?}");
}
