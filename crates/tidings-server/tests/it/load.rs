//! Load on servers that come and go: careful callers, readers and a receiver of webhooks, and what they
//! must have seen at the end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::support::{Server, http, soon};
use crate::webhooks::Webhooks;

const CONNECTIONS: usize = 32;
const USERS: usize = 8;

/// The pause of a client that was refused.
const PAUSE: Duration = Duration::from_millis(50);

/// Load that runs.
pub(crate) struct Load {
    shared: Arc<Shared>,
    posting: Vec<JoinHandle<Vec<(usize, Value)>>>,
    reading: Vec<JoinHandle<Vec<Value>>>,
    webhooks: JoinHandle<HashMap<String, usize>>,
}

/// What callers take without complaint, besides connections that break.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tolerance {
    /// That the database is not available for a while.
    pub(crate) refusals: bool,
    /// That a log begins anew, with all its events.
    pub(crate) rewinds: bool,
}

/// Where the servers are at the moment, and how much they have accepted.
struct Shared {
    notifications: usize,
    tolerance: Tolerance,
    urls: watch::Sender<Vec<String>>,
    accepted: watch::Sender<usize>,
    next: AtomicUsize,
}

impl Load {
    /// Begins to post this many notifications, a multiple of eight.
    pub(crate) async fn start(
        servers: &[Server],
        notifications: usize,
        tolerance: Tolerance,
    ) -> Self {
        let receiver = Webhooks::start().await;
        let endpoint = json!({ "url": receiver.url() });
        let created = servers[0].post("/v1/endpoints", &endpoint).await;
        assert_eq!(created.status(), 201);
        let shared = Arc::new(Shared {
            notifications,
            tolerance,
            urls: watch::Sender::new(urls(servers)),
            accepted: watch::Sender::new(0),
            next: AtomicUsize::new(0),
        });
        let posting = (0..CONNECTIONS).map(|_| tokio::spawn(Arc::clone(&shared).post_all()));
        let reading = (0..USERS).map(|n| tokio::spawn(Arc::clone(&shared).read_all(user(n))));
        Self {
            posting: posting.collect(),
            reading: reading.collect(),
            webhooks: tokio::spawn(receive_all(receiver, notifications)),
            shared,
        }
    }

    /// Waits until so many notifications of a hundred were accepted.
    pub(crate) async fn has_reached(&self, percent: usize) {
        let due = self.shared.notifications * percent / 100;
        let mut accepted = self.shared.accepted.subscribe();
        let reached = accepted.wait_for(|accepted| *accepted >= due);
        soon("progress", reached).await.unwrap();
    }

    /// Says where the servers are now.
    pub(crate) fn move_to(&self, servers: &[Server]) {
        self.shared.urls.send_replace(urls(servers));
    }

    /// Waits until everything was posted, read and received, and checks it. Returns how many webhooks were
    /// repeated.
    pub(crate) async fn finish(self, server: &Server) -> usize {
        let (notifications, each) = (self.shared.notifications, self.shared.notifications / USERS);
        // Every 201 names an event, and no two name the same.
        let mut id_of = HashMap::new();
        for task in self.posting {
            for (n, reply) in soon("the end of a caller", task).await.unwrap() {
                assert_eq!(reply["payload"], n);
                id_of.insert(n, reply["id"].as_str().unwrap().to_owned());
            }
        }
        let mut ids: Vec<_> = id_of.values().cloned().collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), notifications);

        // Every reader had each event of its user once, in order, without a gap.
        for (n, task) in self.reading.into_iter().enumerate() {
            let seen = soon("the end of a stream", task).await.unwrap();
            let numbers: Vec<u64> = seen.iter().map(number).collect();
            let dense: Vec<u64> = (1..=each as u64).collect();
            assert_eq!(numbers, dense, "{}", user(n));
            // The log holds exactly what was acknowledged.
            for event in &seen {
                let n = usize::try_from(event["payload"].as_u64().unwrap()).unwrap();
                let id = &id_of[&n];
                assert!(
                    event["id"] == *id || self.shared.tolerance.rewinds,
                    "{event} {id}"
                );
                id_of.remove(&n);
            }
            let path = format!("/v1/users/{}/notifications/unread-count", user(n));
            assert_eq!(server.get(&path).await["unread"], each);
        }
        assert!(id_of.is_empty(), "accepted and not read: {id_of:?}");

        // Every event reached the webhook at least once, under its own id.
        let received = soon("the webhooks", self.webhooks).await.unwrap();
        let mut named: Vec<_> = received.keys().cloned().collect();
        named.sort_unstable();
        assert_eq!(named, ids);
        received.values().map(|times| times - 1).sum()
    }
}

fn urls(servers: &[Server]) -> Vec<String> {
    servers.iter().map(|server| server.url.clone()).collect()
}

fn user(n: usize) -> String {
    format!("user-{}", n % USERS)
}

/// The number of an event in its log.
fn number(event: &Value) -> u64 {
    let (_epoch, number) = event["id"].as_str().unwrap().rsplit_once('-').unwrap();
    number.parse().unwrap()
}

impl Shared {
    /// Another server than before, or the same one at another address. The only one is taken again.
    async fn another(&self, before: &str) -> String {
        let mut urls = self.urls.subscribe();
        let others = |urls: &Vec<String>| urls.iter().any(|url| url != before);
        let urls = urls.wait_for(others).await.unwrap();
        let others: Vec<_> = urls.iter().filter(|url| *url != before).collect();
        others[fastrand::usize(..others.len())].clone()
    }

    fn tolerates(&self, status: StatusCode) -> bool {
        self.tolerance.refusals && status == StatusCode::SERVICE_UNAVAILABLE
    }

    /// Posts notifications until all are accepted, each under a key of its own: what got 201
    /// and what was cut off before its reply are the same to it, as they are to a careful caller.
    async fn post_all(self: Arc<Self>) -> Vec<(usize, Value)> {
        let client = http();
        let mut replies = Vec::new();
        let mut at = self.another("").await;
        loop {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            if n >= self.notifications {
                return replies;
            }
            let reply = loop {
                let sent = client
                    .post(format!("{at}/v1/notifications"))
                    .header("Idempotency-Key", format!("notification-{n}"))
                    .json(&json!({ "user_id": user(n), "type": "count", "payload": n }))
                    .send()
                    .await;
                match sent {
                    Ok(response) if response.status() == StatusCode::CREATED => {
                        if let Ok(reply) = response.json().await {
                            break reply;
                        }
                    }
                    Ok(response) if self.tolerates(response.status()) => {
                        tokio::time::sleep(PAUSE).await;
                    }
                    Ok(response) => panic!(
                        "{n} got {}: {}",
                        response.status(),
                        response.text().await.unwrap()
                    ),
                    Err(_) => {}
                }
                at = self.another(&at).await;
            };
            replies.push((n, reply));
            self.accepted.send_modify(|accepted| *accepted += 1);
        }
    }

    /// Follows a user's stream over every break, with nothing but the last event's id.
    async fn read_all(self: Arc<Self>, user: String) -> Vec<Value> {
        let expected = self.notifications / USERS;
        let mut seen: Vec<Value> = Vec::new();
        let mut at = String::new();
        while seen.len() < expected {
            at = self.another(&at).await;
            let mut request = http().get(format!("{at}/v1/users/{user}/events?since=start"));
            if let Some(event) = seen.last() {
                request = request.header("Last-Event-ID", event["id"].as_str().unwrap());
            }
            let mut response = match request.send().await {
                Ok(response) if response.status() == StatusCode::OK => response,
                Ok(response) => {
                    assert!(self.tolerates(response.status()), "{}", response.status());
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(_) => continue,
            };
            let mut text = String::new();
            while let Ok(Some(chunk)) = response.chunk().await {
                text.push_str(std::str::from_utf8(&chunk).unwrap());
                while let Some((frame, rest)) = text.split_once("\n\n") {
                    if frame.contains("tidings.gap") {
                        assert!(self.tolerance.rewinds, "{user}: {frame}");
                        seen.clear();
                    }
                    if frame.starts_with("id: ") && !frame.contains("event: ") {
                        let (_, data) = frame.split_once("data: ").unwrap();
                        seen.push(serde_json::from_str(data).unwrap());
                    }
                    text = rest.to_owned();
                }
                if seen.len() >= expected {
                    break;
                }
            }
        }
        seen
    }
}

/// Receives webhooks until there is one for each notification, and returns how often each id came.
async fn receive_all(mut receiver: Webhooks, notifications: usize) -> HashMap<String, usize> {
    let mut ids = HashMap::new();
    while ids.len() < notifications {
        let webhook = receiver.next().await;
        assert_eq!(webhook.json()["id"], webhook.id());
        *ids.entry(webhook.id().to_owned()).or_insert(0) += 1;
    }
    ids
}
