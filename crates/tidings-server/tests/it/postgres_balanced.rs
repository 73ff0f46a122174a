//! Three instances behind the load balancer of `cluster/haproxy.cfg`: clients know only its address.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use serde_json::{Value, json};
use tidings_test_support::Schema;
use tokio::process::{Child, Command};

use crate::support::{Events, Home, Server, http, payloads, soon};

/// A load balancer, which ends when it is dropped.
struct Balancer {
    url: String,
    _process: Child,
}

impl Balancer {
    /// Starts one, and waits until it has an instance to pass requests to.
    async fn start(instances: &[Server]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let folder = env!("CARGO_MANIFEST_DIR");
        let mut command = Command::new("sh");
        // The listener is handed over, so that no other process takes the port.
        command
            .args(["-c", "exec haproxy -db -f \"$1\" 3<&0 0</dev/null", "sh"])
            .arg(format!("{folder}/../../cluster/haproxy.cfg"))
            .env("PATH", "/usr/sbin:/usr/bin:/bin")
            .env("BALANCER_LISTEN", "fd@3")
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        for (n, instance) in (1..).zip(instances) {
            let address = instance.url.strip_prefix("http://").unwrap();
            command.env(format!("INSTANCE_{n}"), address);
        }
        let mut process = command.spawn().unwrap();
        soon("the load balancer", async {
            let ready = format!("{url}/health/ready");
            while !http()
                .get(&ready)
                .send()
                .await
                .is_ok_and(|it| it.status() == 200)
            {
                assert_eq!(process.try_wait().unwrap(), None, "haproxy has ended");
            }
        })
        .await;
        Self {
            url,
            _process: process,
        }
    }

    /// Posts a notification, again if an instance has ended meanwhile.
    async fn notify(&self, n: usize) {
        let body = json!({ "user_id": "anna", "payload": n });
        let post = || {
            http()
                .post(format!("{}/v1/notifications", self.url))
                .header("Idempotency-Key", n.to_string())
                .json(&body)
                .send()
        };
        let accepted = async { while !post().await.is_ok_and(|it| it.status() == 201) {} };
        soon("an accepted notification", accepted).await;
    }

    /// Opens a stream at some instance, again if that one has just ended.
    async fn reconnect(&self, last_event_id: Option<&str>) -> Events {
        let url = format!("{}/v1/users/anna/events", self.url);
        loop {
            if let Ok(events) = Events::open(&url, last_event_id).await {
                return events;
            }
        }
    }
}

/// Reads this many notifications over as many streams as it takes; gives how many streams there were.
async fn read(balancer: &Balancer, mut events: Events, count: usize) -> (Vec<Value>, usize) {
    let mut read = Vec::new();
    let mut streams = 1;
    let mut cursor = None;
    while read.len() < count {
        let frame = soon("the next frame", events.try_next()).await;
        let Ok(Some(frame)) = frame else {
            events = soon("another stream", balancer.reconnect(cursor.as_deref())).await;
            streams += 1;
            continue;
        };
        assert_ne!(frame.name, "tidings.gap");
        if frame.id.is_some() {
            cursor.clone_from(&frame.id);
        }
        if frame.name.is_empty() {
            read.push(frame.json());
        }
    }
    (read, streams)
}

#[tokio::test]
async fn streams_go_on_at_other_instances_when_their_own_stops_or_is_killed() {
    const STEP: usize = 20;
    let schema = Schema::create().await;
    let home = Home::on(&schema.url(), &["--lease", "2s"]);
    let mut instances = Vec::new();
    for _ in 0..3 {
        instances.push(home.start().await);
    }
    let balancer = Balancer::start(&instances).await;
    // One at each instance: the next stream goes to the one with the fewest.
    let mut screens = Vec::new();
    for _ in 0..3 {
        let mut events = balancer.reconnect(None).await;
        events.until("tidings.caught_up").await;
        screens.push(events);
    }
    let reading = screens
        .into_iter()
        .map(|screen| read(&balancer, screen, 3 * STEP));
    let reading = futures_util::future::join_all(reading);
    let mut instances = instances.into_iter();
    let (first, second) = (instances.next().unwrap(), instances.next().unwrap());
    let sending = async {
        for n in 0..STEP {
            balancer.notify(n).await;
        }
        first.stop("-TERM").await;
        for n in STEP..2 * STEP {
            balancer.notify(n).await;
        }
        second.kill().await;
        for n in 2 * STEP..3 * STEP {
            balancer.notify(n).await;
        }
    };
    let (seen, ()) = tokio::join!(reading, sending);
    let expected: Vec<Value> = (0..3 * STEP).map(|n| json!(n)).collect();
    for (notifications, _) in &seen {
        assert_eq!(payloads(notifications), expected);
    }
    let streams: usize = seen.iter().map(|(_, streams)| streams).sum();
    assert!(
        streams >= 5,
        "two instances ended, and their streams: {streams}"
    );
}
