//! The guarantees under `kill -9`, through real sockets.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::{Home, Server, http, soon};
use crate::webhooks::Webhooks;

const NOTIFICATIONS: usize = 10_000;
const CONNECTIONS: usize = 32;
const KILLS: usize = 10;
const USERS: usize = 8;

/// Where the server is at the moment, and how much it has accepted.
struct Shared {
    url: watch::Sender<String>,
    accepted: watch::Sender<usize>,
    next: AtomicUsize,
}

fn user(n: usize) -> String {
    format!("user-{}", n % USERS)
}

/// Posts notifications until all are accepted, each under a key of its own: what got 201
/// and what was cut off before its reply are the same to it, as they are to a careful caller.
async fn post_all(shared: Arc<Shared>) -> Vec<(usize, Value)> {
    let client = http();
    let mut replies = Vec::new();
    loop {
        let n = shared.next.fetch_add(1, Ordering::Relaxed);
        if n >= NOTIFICATIONS {
            return replies;
        }
        let reply = loop {
            let mut url = shared.url.subscribe();
            let at = url.borrow_and_update().clone();
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
                Ok(response) => panic!("{n} got {}", response.status()),
                // The server is down: the next one will have another address.
                Err(_) if *url.borrow() == at => url.changed().await.unwrap(),
                Err(_) => {}
            }
        };
        replies.push((n, reply));
        shared.accepted.send_modify(|accepted| *accepted += 1);
    }
}

/// Follows a user's stream over every kill, with nothing but the last event's id.
async fn read_all(shared: Arc<Shared>, user: String, expected: usize) -> Vec<Value> {
    let mut seen: Vec<Value> = Vec::new();
    while seen.len() < expected {
        let mut url = shared.url.subscribe();
        let at = url.borrow_and_update().clone();
        let cursor = seen
            .last()
            .map(|event| event["id"].as_str().unwrap().to_owned());
        let mut request = http().get(format!("{at}/v1/users/{user}/events?since=start"));
        if let Some(cursor) = &cursor {
            request = request.header("Last-Event-ID", cursor);
        }
        let Ok(mut response) = request.send().await else {
            // The server is down: the next one will have another address.
            url.changed().await.unwrap();
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
async fn receive_all(mut receiver: Webhooks) -> HashSet<String> {
    let mut ids = HashSet::new();
    while ids.len() < NOTIFICATIONS {
        let webhook = receiver.next().await;
        assert_eq!(webhook.json()["id"], webhook.id());
        ids.insert(webhook.id().to_owned());
    }
    ids
}

async fn kill_and_restart(home: &Home, shared: &Shared, mut server: Server) -> Server {
    let mut accepted = shared.accepted.subscribe();
    for kill in 1..=KILLS {
        let due = kill * NOTIFICATIONS / (KILLS + 1);
        accepted
            .wait_for(|accepted| *accepted >= due)
            .await
            .unwrap();
        server.kill().await;
        server = home.start().await;
        shared.url.send_replace(server.url.clone());
    }
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_lose_nothing_repeat_nothing_and_keep_the_order() {
    let home = Home::with(&["--webhook-schedule", "0s,100ms,100ms,1s,1s,1s,1s,1s,1s,1s"]);
    let server = home.start().await;
    let receiver = Webhooks::start().await;
    let endpoint = json!({ "url": receiver.url() });
    assert_eq!(server.post("/v1/endpoints", &endpoint).await.status(), 201);
    let webhooks = tokio::spawn(receive_all(receiver));
    let shared = Arc::new(Shared {
        url: watch::Sender::new(server.url.clone()),
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
                NOTIFICATIONS / USERS,
            ))
        })
        .collect();
    let server = kill_and_restart(&home, &shared, server).await;

    // Every 201 names an event, and no two name the same.
    let mut id_of = HashMap::new();
    for task in posting {
        for (n, reply) in task.await.unwrap() {
            assert_eq!(reply["payload"], n);
            id_of.insert(n, reply["id"].as_str().unwrap().to_owned());
        }
    }
    let ids: HashSet<_> = id_of.values().cloned().collect();
    assert_eq!(ids.len(), NOTIFICATIONS);

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
        let dense: Vec<u64> = (1..=(NOTIFICATIONS / USERS) as u64).collect();
        assert_eq!(seqs, dense, "{}", user(n));
        // The log holds exactly what was acknowledged.
        for event in &seen {
            let n = usize::try_from(event["payload"].as_u64().unwrap()).unwrap();
            assert_eq!(event["id"], id_of[&n]);
        }
        let count = server
            .get(&format!("/v1/users/{}/notifications/unread-count", user(n)))
            .await;
        assert_eq!(count["unread"], NOTIFICATIONS / USERS);
    }

    // Every event reached the webhook at least once, under its own id.
    assert_eq!(webhooks.await.unwrap(), ids);
}
