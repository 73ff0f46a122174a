//! Wake-ups over Redis, for instances that share a store on PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use tidings_notify::postgres::{PostgresOptions, PostgresStore};
use tidings_notify::redis::{Config, RedisWakes};
use tidings_notify::{Item, Notifier, Since, Subscription, Wake, WakeChannel, Wakes};
use tidings_test_support::{Fault, Outage, RedisOutage, RedisServer};

use crate::database::Schema;
use crate::redis::{prefix, url};
use crate::support::{ann, draft, numbers, user, without_sweep};

/// On the single thread of a test it does not connect before the test waits.
fn open(url: &str, channel: &str) -> RedisWakes {
    let config = Config::new(url).unwrap();
    let soon = Duration::from_millis(20);
    RedisWakes::new(config.with_health_interval(soon), channel)
}

fn changed(name: &str) -> Wake {
    Wake::Changed(user(name))
}

/// Sends as soon as there is a connection.
async fn send(wakes: &RedisWakes, wake: Wake) {
    while wakes.send(std::slice::from_ref(&wake)).await.is_err() {
        tokio::task::yield_now().await;
    }
}

/// Waits until there is a connection.
async fn connected(heard: &mut Wakes) {
    assert_eq!(heard.next().await, Some(Wake::Lost));
}

#[tokio::test]
async fn a_message_reaches_every_other_process_on_the_channel() {
    let channel = prefix();
    let (first, second, other) = (
        open(&url(), &channel),
        open(&url(), &channel),
        open(&url(), &prefix()),
    );
    let mut heard = [&first, &second, &other].map(WakeChannel::wakes);
    for heard in &mut heard {
        connected(heard).await;
    }
    let many: Vec<Wake> = (0..1000).map(|n| changed(&format!("user-{n}"))).collect();
    first.send(&many).await.unwrap();
    send(&second, changed("ann")).await;
    send(&other, changed("eve")).await;
    let [of_first, of_second, of_other] = &mut heard;
    for wake in many {
        assert_eq!(of_second.next().await, Some(wake));
    }
    // What it has sent itself, and what goes over another channel, would have come before.
    assert_eq!(of_first.next().await, Some(changed("ann")));
    send(&first, changed("bob")).await;
    assert_eq!(of_second.next().await, Some(changed("bob")));
    drop(other);
    assert_eq!(of_other.next().await, None);
}

#[tokio::test]
async fn a_broken_connection_is_made_again_and_what_was_missed_is_said() {
    let mut outage = RedisOutage::start().await.unwrap();
    let (first, second) = (open(outage.url(), "a"), open(&outage.direct_url(), "a"));
    let (mut of_first, mut of_second) = (first.wakes(), second.wakes());
    connected(&mut of_first).await;
    connected(&mut of_second).await;
    outage.begin(Fault::Cut).await.unwrap();
    while first.send(&[changed("lost")]).await.is_ok() {
        tokio::task::yield_now().await;
    }
    send(&second, changed("missed")).await;
    outage.restore().await.unwrap();
    connected(&mut of_first).await;
    send(&second, changed("ann")).await;
    assert_eq!(of_first.next().await, Some(changed("ann")));
}

#[tokio::test]
async fn a_server_that_is_no_longer_the_primary_is_left() {
    let server = RedisServer::start().await.unwrap();
    let wakes = open(&server.url(), "a");
    let mut heard = wakes.wakes();
    connected(&mut heard).await;
    server.demote().unwrap();
    while wakes.send(&[changed("ann")]).await.is_ok() {
        tokio::task::yield_now().await;
    }
    server.promote().unwrap();
    connected(&mut heard).await;
    wakes.send(&[changed("ann")]).await.unwrap();
}

/// A store with a channel, a notifier that looks for nothing on its own, and a screen of ann's.
async fn instance(schema: &Schema, wakes: RedisWakes) -> (Notifier, Subscription) {
    let options = PostgresOptions::default().with_wake_channel(Arc::new(wakes));
    let store = PostgresStore::open(schema.config(), options).await.unwrap();
    let notifier = without_sweep(store).build().unwrap();
    let mut screen = notifier.subscribe(ann(), Since::Now).await.unwrap();
    let first = screen.next().await.unwrap();
    assert!(matches!(first, Item::CaughtUp { .. }));
    (notifier, screen)
}

#[tokio::test]
async fn screens_on_other_instances_are_woken_over_redis_and_by_the_database_without_it() {
    let schema = Schema::create().await;
    let mut outage = RedisOutage::start().await.unwrap();
    let wakes = [open(outage.url(), "a"), open(outage.url(), "a")];
    for wakes in &wakes {
        send(wakes, changed("nobody")).await;
    }
    let observer = open(&outage.direct_url(), "a");
    let mut overheard = observer.wakes();
    connected(&mut overheard).await;
    let [first, second] = wakes.map(|wakes| instance(&schema, wakes));
    let ((first, mut of_first), (second, mut of_second)) = tokio::join!(first, second);
    first.push(draft(1)).await.unwrap();
    assert_eq!(numbers(&mut of_second, 1).await, [1]);
    assert_eq!(numbers(&mut of_first, 1).await, [1]);
    while overheard.next().await.unwrap() != Wake::Changed(ann()) {}
    outage.begin(Fault::Cut).await.unwrap();
    for number in 2..10 {
        let from = if number % 2 == 0 { &first } else { &second };
        from.push(draft(number)).await.unwrap();
        assert_eq!(numbers(&mut of_second, 1).await, [number]);
        assert_eq!(numbers(&mut of_first, 1).await, [number]);
    }
    outage.restore().await.unwrap();
    first.push(draft(10)).await.unwrap();
    assert_eq!(numbers(&mut of_second, 1).await, [10]);
}
