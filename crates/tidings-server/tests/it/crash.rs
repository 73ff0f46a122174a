//! The guarantees under `kill -9`, through real sockets.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tidings_test_support::Schema;
use tokio::sync::watch;

use crate::support::{Home, Server, http, soon};
use crate::webhooks::Webhooks;

const CONNECTIONS: usize = 32;
const KILLS: usize = 10;
const USERS: usize = 8;

/// Where the servers are at the moment, and how much they have accepted.
struct Shared {
    notifications: usize,
    urls: watch::Sender<Vec<String>>,
    accepted: watch::Sender<usize>,
    next: AtomicUsize,
}

impl Shared {
    /// Another server than before, or the same one at another address.
    async fn another(&self, before: &str) -> String {
        let mut urls = self.urls.subscribe();
        let others = |urls: &Vec<String>| urls.iter().any(|url| url != before);
        let urls = urls.wait_for(others).await.unwrap();
        let others: Vec<_> = urls.iter().filter(|url| *url != before).collect();
        others[fastrand::usize(..others.len())].clone()
    }
}

fn user(n: usize) -> String {
    format!("user-{}", n % USERS)
}

/// Posts notifications until all are accepted, each under a key of its own: what got 201
/// and what was cut off before its reply are the same to it, as they are to a careful caller.
async fn post_all(shared: Arc<Shared>) -> Vec<(usize, Value)> {
    let client = http();
    let mut replies = Vec::new();
    let mut at = shared.another("").await;
    loop {
        let n = shared.next.fetch_add(1, Ordering::Relaxed);
        if n >= shared.notifications {
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
                Ok(response) if response.status() == 201 => {
                    if let Ok(reply) = response.json().await {
                        break reply;
                    }
                }
                Ok(response) => panic!(
                    "{n} got {}: {}",
                    response.status(),
                    response.text().await.unwrap()
                ),
                Err(_) => {}
            }
            at = shared.another(&at).await;
        };
        replies.push((n, reply));
        shared.accepted.send_modify(|accepted| *accepted += 1);
    }
}

/// Follows a user's stream over every kill, with nothing but the last event's id.
async fn read_all(shared: Arc<Shared>, user: String, expected: usize) -> Vec<Value> {
    let mut seen: Vec<Value> = Vec::new();
    let mut at = String::new();
    while seen.len() < expected {
        at = shared.another(&at).await;
        let cursor = seen
            .last()
            .map(|event| event["id"].as_str().unwrap().to_owned());
        let mut request = http().get(format!("{at}/v1/users/{user}/events?since=start"));
        if let Some(cursor) = &cursor {
            request = request.header("Last-Event-ID", cursor);
        }
        let Ok(mut response) = request.send().await else {
            continue;
        };
        let mut text = String::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            text.push_str(std::str::from_utf8(&chunk).unwrap());
            while let Some((frame, rest)) = text.split_once("\n\n") {
                assert!(
                    !frame.contains("tidings.gap"),
                    "{user} after {cursor:?}: {frame}"
                );
                if frame.starts_with("id: ") {
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

/// Receives webhooks until there is one for each notification, and returns their ids.
async fn receive_all(mut receiver: Webhooks, notifications: usize) -> HashSet<String> {
    let mut ids = HashSet::new();
    while ids.len() < notifications {
        let webhook = receiver.next().await;
        assert_eq!(webhook.json()["id"], webhook.id());
        ids.insert(webhook.id().to_owned());
    }
    ids
}

/// Kills one server after another, each at a time of its own, and starts it again.
async fn kill_and_restart(home: &Home, shared: &Shared, mut servers: Vec<Server>) -> Vec<Server> {
    let mut accepted = shared.accepted.subscribe();
    for kill in 1..=KILLS {
        let due = kill * shared.notifications / (KILLS + 1);
        accepted
            .wait_for(|accepted| *accepted >= due)
            .await
            .unwrap();
        servers.remove(0).kill().await;
        servers.push(home.start().await);
        let urls = servers.iter().map(|server| server.url.clone()).collect();
        shared.urls.send_replace(urls);
    }
    servers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_lose_nothing_repeat_nothing_and_keep_the_order() {
    let home = Home::with(&["--webhook-schedule", "0s,100ms,100ms,1s,1s,1s,1s,1s,1s,1s"]);
    kills_lose_nothing_repeat_nothing_and_keep_the_order(&home, 1, 10_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_of_three_instances_lose_nothing_repeat_nothing_and_keep_the_order() {
    let schema = Schema::create().await;
    let schedule = "0s,100ms,100ms,1s,1s,1s,1s,1s,1s,1s";
    let arguments = ["--webhook-schedule", schedule, "--lease", "2s"];
    let home = Home::on(&schema.url(), &arguments);
    kills_lose_nothing_repeat_nothing_and_keep_the_order(&home, 3, 5_000).await;
}

async fn kills_lose_nothing_repeat_nothing_and_keep_the_order(
    home: &Home,
    instances: usize,
    notifications: usize,
) {
    let starting = (0..instances).map(|_| home.start());
    let servers = futures_util::future::join_all(starting).await;
    let receiver = Webhooks::start().await;
    let endpoint = json!({ "url": receiver.url() });
    let created = servers[0].post("/v1/endpoints", &endpoint).await;
    assert_eq!(created.status(), 201);
    let webhooks = tokio::spawn(receive_all(receiver, notifications));
    let shared = Arc::new(Shared {
        notifications,
        urls: watch::Sender::new(servers.iter().map(|server| server.url.clone()).collect()),
        accepted: watch::Sender::new(0),
        next: AtomicUsize::new(0),
    });

    let posting: Vec<_> = (0..CONNECTIONS)
        .map(|_| tokio::spawn(post_all(Arc::clone(&shared))))
        .collect();
    let reading: Vec<_> = (0..USERS)
        .map(|n| {
            tokio::spawn(read_all(
                Arc::clone(&shared),
                user(n),
                notifications / USERS,
            ))
        })
        .collect();
    let servers = kill_and_restart(home, &shared, servers).await;
    let server = &servers[0];

    // Every 201 names an event, and no two name the same.
    let mut id_of = HashMap::new();
    for task in posting {
        for (n, reply) in task.await.unwrap() {
            assert_eq!(reply["payload"], n);
            id_of.insert(n, reply["id"].as_str().unwrap().to_owned());
        }
    }
    let ids: HashSet<_> = id_of.values().cloned().collect();
    assert_eq!(ids.len(), notifications);

    // Every reader had each event of its user once, in order, without a gap.
    for (n, task) in reading.into_iter().enumerate() {
        let seen = soon("the end of a stream", task).await.unwrap();
        let seqs: Vec<u64> = seen
            .iter()
            .map(|event| {
                event["id"]
                    .as_str()
                    .unwrap()
                    .rsplit_once('-')
                    .unwrap()
                    .1
                    .parse()
                    .unwrap()
            })
            .collect();
        let dense: Vec<u64> = (1..=(notifications / USERS) as u64).collect();
        assert_eq!(seqs, dense, "{}", user(n));
        // The log holds exactly what was acknowledged.
        for event in &seen {
            let n = usize::try_from(event["payload"].as_u64().unwrap()).unwrap();
            assert_eq!(event["id"], id_of[&n]);
        }
        let count = server
            .get(&format!("/v1/users/{}/notifications/unread-count", user(n)))
            .await;
        assert_eq!(count["unread"], notifications / USERS);
    }

    // Every event reached the webhook at least once, under its own id.
    assert_eq!(soon("the webhooks", webhooks).await.unwrap(), ids);
}
