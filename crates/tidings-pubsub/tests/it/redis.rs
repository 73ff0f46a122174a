//! What is particular to Redis.

use std::time::Duration;

use tidings_pubsub::redis::{Config, RedisBroker, RedisOptions};
use tidings_pubsub::{
    Error, Lagged, Pattern, Publisher, Received, SubscribeOptions, Subscriber, Topic,
};
use tidings_test_support::{Fault, Log, Proxy, RedisOutage, RedisServer, soon};

use crate::faults::{HEALTH_INTERVAL, REPLY_LIMIT, message, publish, recv, subscribe, topics};

/// The server that the tests run against.
pub(crate) fn url() -> String {
    std::env::var("REDIS_URL").expect("REDIS_URL is set; scripts/services does so")
}

pub(crate) fn broker() -> RedisBroker {
    RedisBroker::open(Config::new(&url()).unwrap(), RedisOptions::default())
}

fn impatient(url: &str) -> RedisBroker {
    checked(url, HEALTH_INTERVAL)
}

/// One that looks for its server so rarely that no test lives to see it.
fn unchecked(url: &str) -> RedisBroker {
    checked(url, Duration::from_secs(3600))
}

fn checked(url: &str, interval: Duration) -> RedisBroker {
    let config = Config::new(url)
        .unwrap()
        .with_reply_limit(REPLY_LIMIT)
        .with_health_interval(interval);
    RedisBroker::open(config, RedisOptions::default())
}

mod faults {
    crate::faults::fault_tests! { crate::redis::url(), super::unchecked;
        closing_in_an_outage_does_not_wait
    }

    crate::faults::fault_tests!(crate::redis::url(), super::impatient, connections: 1);
}

/// The pattern of all topics in the namespace of this one.
fn all_beside(topic: &Topic) -> Pattern {
    let (namespace, _) = topic.as_str().rsplit_once('.').unwrap();
    format!("{namespace}.*").parse().unwrap()
}

/// Sends a command on a connection of its own.
async fn command<T: redis::FromRedisValue>(url: &str, command: &str) -> T {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let (name, arguments) = command.split_once(' ').unwrap();
    let arguments: Vec<_> = arguments.split(' ').collect();
    let mut command = redis::cmd(name);
    command
        .arg(arguments)
        .query_async(&mut connection)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_connection_is_restored_and_the_gap_reported() {
    let server = RedisServer::start().await.unwrap();
    let broker = impatient(&server.url());
    let [topic] = topics(["killed"]);
    let mut subscription = subscribe(&broker, [&topic]).await;
    let killed: u32 = command(&server.url(), "CLIENT KILL TYPE pubsub").await;
    assert_eq!(killed, 1);
    let lagged = Received::Lagged(Lagged::unknown());
    assert_eq!(recv(&mut subscription).await, lagged);
    publish(&broker, &topic, "after").await;
    assert_eq!(recv(&mut subscription).await, message(&topic, "after"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_is_found_again() {
    let mut server = RedisServer::start().await.unwrap();
    let broker = impatient(&server.url());
    let [topic] = topics(["restarted"]);
    let mut subscription = subscribe(&broker, [&topic]).await;
    publish(&broker, &topic, "before").await;
    assert_eq!(recv(&mut subscription).await, message(&topic, "before"));
    for _ in 0..2 {
        server.stop().unwrap();
        server.start_again().await.unwrap();
        let lagged = Received::Lagged(Lagged::unknown());
        assert_eq!(recv(&mut subscription).await, lagged);
        publish(&broker, &topic, "after").await;
        assert_eq!(recv(&mut subscription).await, message(&topic, "after"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patterns_are_restored_after_a_restart_and_the_gap_reported() {
    let mut server = RedisServer::start().await.unwrap();
    let broker = impatient(&server.url());
    let [topic, other] = topics(["topic", "other"]);
    let all = all_beside(&topic);
    let mut by_both = subscribe(&broker, [&topic]).await;
    let mut by_pattern = subscribe(&broker, []).await;
    for subscription in [&by_both, &by_pattern] {
        subscription.topics().add_pattern(&all).await.unwrap();
    }
    for _ in 0..2 {
        server.stop().unwrap();
        server.start_again().await.unwrap();
        for subscription in [&mut by_both, &mut by_pattern] {
            let lagged = Received::Lagged(Lagged::unknown());
            assert_eq!(recv(subscription).await, lagged);
        }
        for topic in [&topic, &other] {
            publish(&broker, topic, "after").await;
            for subscription in [&mut by_both, &mut by_pattern] {
                assert_eq!(recv(subscription).await, message(topic, "after"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_last_pattern_to_leave_is_left_in_the_server() {
    let server = RedisServer::start().await.unwrap();
    let broker = impatient(&server.url());
    let [topic] = topics(["topic"]);
    let all = all_beside(&topic);
    let numpat = async || command::<u32>(&server.url(), "PUBSUB NUMPAT").await;
    let [one, other] = [subscribe(&broker, []).await, subscribe(&broker, []).await];
    for subscription in [&one, &other] {
        subscription.topics().add_pattern(&all).await.unwrap();
    }
    assert_eq!(numpat().await, 1);
    one.topics().remove_pattern(&all).await.unwrap();
    // Both commands travel on one connection, so this one gets its reply after the other.
    one.topics().add(&topic).await.unwrap();
    assert_eq!(numpat().await, 1);
    drop(other);
    soon("the pattern to be left", async {
        while numpat().await != 0 {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_last_subscription_to_leave_a_topic_unsubscribes() {
    let broker = broker();
    let [topic, end] = topics(["left", "end"]);
    let numsub = format!("PUBSUB NUMSUB tidings:{topic}");
    let subscribers = async || command::<(String, u32)>(&url(), &numsub).await.1;
    let mut first = subscribe(&broker, [&topic]).await;
    let second = subscribe(&broker, [&topic, &end]).await;
    assert_eq!(subscribers().await, 1);
    drop(second);
    // Both commands travel on one connection, so this one gets its reply after the other.
    first.topics().add(&end).await.unwrap();
    assert_eq!(subscribers().await, 1);
    publish(&broker, &topic, "still here").await;
    assert_eq!(recv(&mut first).await, message(&topic, "still here"));
    drop(first);
    soon("the channel to be left", async {
        while subscribers().await != 0 {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_not_allowed_harms_no_other() {
    let server = RedisServer::start().await.unwrap();
    let [allowed, forbidden, also] = topics(["allowed", "forbidden", "also"]);
    let user = format!(
        "ACL SETUSER shop on >secret +@all resetchannels &tidings:{allowed} &tidings:{also}"
    );
    let done: String = command(&server.url(), &user).await;
    assert_eq!(done, "OK");
    let config = Config::new(&format!("{}?user=shop&pass=secret", server.url())).unwrap();
    let broker = RedisBroker::open(config, RedisOptions::default());
    let (refused, mut granted) = tokio::join!(
        broker.subscribe(vec![forbidden.clone()], SubscribeOptions::default()),
        subscribe(&broker, [&allowed, &also]),
    );
    assert!(refused.is_err(), "{refused:?}");
    let refused = granted.topics().add_pattern(&all_beside(&allowed)).await;
    assert!(matches!(refused, Err(Error::Backend(_))), "{refused:?}");
    let failed = broker.publish(&forbidden, "no".into()).await;
    assert!(!failed.unwrap_err().may_have_been_done());
    for topic in [&allowed, &also] {
        publish(&broker, topic, "yes").await;
        assert_eq!(recv(&mut granted).await, message(topic, "yes"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prefixes_keep_systems_apart() {
    let [topic] = topics(["shared"]);
    let options = RedisOptions::default().with_prefix("other");
    let other = RedisBroker::open(Config::new(&url()).unwrap(), options);
    let ours = broker();
    let mut theirs = subscribe(&other, [&topic]).await;
    publish(&ours, &topic, "ours").await;
    publish(&other, &topic, "theirs").await;
    assert_eq!(recv(&mut theirs).await, message(&topic, "theirs"));
}

#[tokio::test]
async fn regression_a_server_that_became_a_replica_is_left_with_one_log_line() {
    let log = Log::default();
    let _listening = log.listen();
    let [old, new] = [RedisServer::start(), RedisServer::start()];
    let (old, new) = (old.await.unwrap(), new.await.unwrap());
    let proxy = Proxy::start(&old.url()).await.unwrap();
    let (near, far) = (impatient(proxy.url()), impatient(&new.url()));
    let topics: Vec<Topic> = (0..100).map(topic_number).collect();
    let options = SubscribeOptions::default().with_capacity(1000);
    let mut subscription = near.subscribe(topics.clone(), options).await.unwrap();
    publish(&near, &topics[0], "before").await;
    assert_eq!(recv(&mut subscription).await, message(&topics[0], "before"));

    old.demote().unwrap();
    // As long as there is no primary, nothing is said to have been sent.
    soon("publishing to fail", async {
        while near.publish(&topics[0], "nowhere".into()).await.is_ok() {}
    })
    .await;
    for _ in 0..20 {
        let failed = near
            .publish(&topics[0], "nowhere".into())
            .await
            .unwrap_err();
        assert!(!failed.may_have_been_done(), "{failed:?}");
    }
    proxy.lead_to(&new.url()).unwrap();
    // Those that were published before the change was noticed may come first.
    let lagged = Received::Lagged(Lagged::unknown());
    soon("the report of the gap", async {
        while recv(&mut subscription).await != lagged {}
    })
    .await;
    publish(&far, &topics[99], "after").await;
    soon("a message", async {
        while recv(&mut subscription).await != message(&topics[99], "after") {}
    })
    .await;
    publish(&near, &topics[1], "here").await;
    soon("a message", async {
        while recv(&mut subscription).await != message(&topics[1], "here") {}
    })
    .await;
    soon("the log", log.has(1, "INFO")).await;
    let warnings = log.lines("WARN");
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(warnings[0].contains("replica"), "{warnings:?}");
}

fn topic_number(number: usize) -> Topic {
    let [topic] = topics(["many"]);
    format!("{topic}-{number}").parse().unwrap()
}

/// A broker that only publishes has no session that would notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_a_publisher_alone_notices_a_replica_too() {
    let [old, new] = [RedisServer::start(), RedisServer::start()];
    let (old, new) = (old.await.unwrap(), new.await.unwrap());
    let proxy = Proxy::start(&old.url()).await.unwrap();
    let (publisher, reader) = (impatient(proxy.url()), impatient(&new.url()));
    let [topic] = topics(["failover"]);
    let mut subscription = subscribe(&reader, [&topic]).await;
    publish(&publisher, &topic, "to the old one").await;
    old.demote().unwrap();
    proxy.lead_to(&new.url()).unwrap();
    soon("a message", async {
        loop {
            let _sent = publisher.publish(&topic, "found".into()).await;
            let arrived = tokio::time::timeout(HEALTH_INTERVAL, subscription.recv()).await;
            if arrived.is_ok() {
                break;
            }
        }
    })
    .await;
}

/// What the server does not allow any more after a break is reported, once, and again when it is back.
#[tokio::test]
async fn regression_topics_that_are_refused_after_a_break_are_reported_and_logged_once() {
    let log = Log::default();
    let _listening = log.listen();
    let server = RedisServer::start().await.unwrap();
    let topics: [Topic; 50] = std::array::from_fn(topic_number);
    let user = |channels: &str| {
        let rules = [
            "ACL",
            "SETUSER",
            "shop",
            "on",
            ">secret",
            "+@all",
            "resetchannels",
            channels,
        ];
        server.command(&rules).unwrap();
    };
    user("allchannels");
    let broker = impatient(&format!("{}?user=shop&pass=secret", server.url()));
    let options = SubscribeOptions::default().with_capacity(1000);
    let mut subscription = broker.subscribe(topics.to_vec(), options).await.unwrap();
    // It also closes the connections of users who listen to what they may not any more.
    user("&tidings:nothing");
    let lagged = Received::Lagged(Lagged::unknown());
    assert_eq!(recv(&mut subscription).await, lagged);
    soon("the log", log.has(1, "refused=50")).await;
    // Asked for again many times meanwhile.
    tokio::time::sleep(HEALTH_INTERVAL * 10).await;
    user("allchannels");
    publish(&broker, &topics[0], "again").await;
    soon("a message", async {
        loop {
            publish(&broker, &topics[0], "again").await;
            if recv(&mut subscription).await == message(&topics[0], "again") {
                break;
            }
        }
    })
    .await;
    let warnings = log.lines("WARN");
    let refusals = warnings.iter().filter(|line| line.contains("refused=50"));
    assert_eq!(refusals.count(), 1, "{warnings:#?}");
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_is_survived() {
    let mut outage = RedisOutage::start().await.unwrap();
    crate::faults::every_fault_is_survived(&mut outage, impatient, &[Fault::Fill]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_while_reconnecting_does_not_wait() {
    let mut outage = RedisOutage::start().await.unwrap();
    crate::faults::closing_while_reconnecting_does_not_wait(&mut outage, impatient).await;
}
