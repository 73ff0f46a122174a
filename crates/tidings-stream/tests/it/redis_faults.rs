//! What goes wrong between the engine and its server.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidings_stream::engine::{Outcome, Settlement};
use tidings_stream::{
    EndReason, Error, NewMessage, Retention, ServiceConfig, StartFrom, Streams, SubscribeOptions,
};
use tidings_test_support::{Fault, Log, RedisOutage, RedisServer};

use crate::database::{NEVER, from_start, key, name, next, numbered, recorder, soon, until};
use crate::faults::{
    a_killed_listener_comes_back, a_message_that_cannot_be_read_stops_no_other,
    assert_attempts_differ, fault_tests, impatient, nothing_acknowledged_is_lost,
    publishing_is_refused_for_a_while, redis as open, unchecked_redis,
};
use crate::outage_log::assert_one_warning_each;
use crate::redis::{Client, claim, consumer};

fault_tests! { RedisOutage, open;
    cut_connections_lose_nothing
    a_store_that_crashes_loses_nothing_that_it_has_accepted(false)
    a_store_that_stops_for_longer_than_a_claim_lasts_loses_nothing
    a_store_that_runs_full_loses_nothing
    an_acknowledgement_outlives_every_fault(&Fault::ALL)
    regression_a_first_connection_that_fails_is_not_the_last
    regression_claims_whose_reply_is_lost_keep_their_attempts
    a_listener_whose_connection_falls_silent_comes_back
    regression_closing_ends_in_time_while_the_store_is_frozen
    a_full_store_fails_publishing_by_name_and_loses_no_acknowledgement(true)
    regression_a_dead_letter_without_room_holds_up_no_acknowledgement(true)
}

fault_tests! { RedisOutage, unchecked_redis;
    a_store_that_falls_silent_is_an_error_within_the_limit
}

async fn open_streams(url: &str) -> Streams {
    Streams::new(open(url).await.unwrap(), ServiceConfig::default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_connections_lose_nothing() {
    let server = RedisServer::start().await.unwrap();
    let streams = open_streams(&server.url()).await;
    let client = Client::connect(&server.url()).await;
    let handled = nothing_acknowledged_is_lost(&streams, async {
        for _ in 0..20 {
            client
                .run::<u64>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
                .await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_attempts_differ(&handled);
}

/// Faults of the reference: a waiting consumer is not woken any more once the connection broke.
#[tokio::test]
async fn regression_a_killed_listener_comes_back() {
    let server = RedisServer::start().await.unwrap();
    let here = open_streams(&server.url()).await;
    let there = open_streams(&server.url()).await;
    let client = Client::connect(&server.url()).await;
    a_killed_listener_comes_back(&here, &there, async || {
        until(async || {
            let kill = ["CLIENT", "KILL", "TYPE", "pubsub"];
            client.run::<u64>(&kill).await > 0
        })
        .await;
    })
    .await;
}

/// Faults of the reference: a consumer of a store that was emptied asks for ever, and its group is never
/// made again. Here it ends and says so, and the next subscription has all that is new.
#[tokio::test]
async fn regression_a_server_that_lost_everything_ends_its_consumers() {
    let server = RedisServer::start().await.unwrap();
    let engine = open(&server.url()).await.unwrap();
    let streams = Streams::new(engine, ServiceConfig::default());
    let client = Client::connect(&server.url()).await;
    let (recorder, mut seen) = recorder();
    let options = || SubscribeOptions::default().with_start(StartFrom::Earliest);
    let subscribe = || streams.subscribe("s", "g", options(), recorder.clone());
    let consumer = subscribe().await.unwrap();
    streams.publish("s", NewMessage::new("")).await.unwrap();
    next(&mut seen).await.unwrap();
    client.run::<()>(&["FLUSHALL"]).await;
    let ended = soon(consumer.ended()).await;
    let is_gone = matches!(ended.reason, EndReason::Failed(Error::UnknownGroup));
    assert!(is_gone, "{:?}", ended.reason);
    let id = streams.publish("s", NewMessage::new("")).await.unwrap();
    assert_eq!(id.as_u64(), 1);
    let consumer = subscribe().await.unwrap();
    assert_eq!(next(&mut seen).await.unwrap().id, id);
    consumer.close().await;
}

/// A user that may not use channels polls, in place of not being let in, and one log line says so.
#[tokio::test]
async fn regression_a_user_without_channels_polls() {
    let log = Log::default();
    let _listening = log.listen();
    let server = RedisServer::start().await.unwrap();
    let client = Client::connect(&server.url()).await;
    let user = [
        "ACL",
        "SETUSER",
        "quiet",
        "on",
        ">secret",
        "~*",
        "+@all",
        "resetchannels",
    ];
    client.run::<()>(&user).await;
    let url = format!("{}?user=quiet&pass=secret", server.url());
    let here = open_streams(&url).await;
    let there = open_streams(&url).await;
    let (recorder, mut seen) = recorder();
    let options = from_start().with_poll_interval(Duration::from_millis(20));
    let consumer = here.subscribe("s", "g", options, recorder).await.unwrap();
    for streams in [&there, &here] {
        let id = streams.publish("s", NewMessage::new("")).await.unwrap();
        assert_eq!(next(&mut seen).await.unwrap().id, id);
    }
    until(async || consumer.stats().acknowledged == 2).await;
    // Both listeners try several times more.
    let connections = async || -> u64 {
        let statistics: String = client.run(&["INFO", "stats"]).await;
        let received = statistics.split("total_connections_received:").nth(1);
        received.unwrap().lines().next().unwrap().parse().unwrap()
    };
    let before = connections().await;
    until(async || connections().await >= before + 4).await;
    consumer.close().await;
    let lines =
        log.lines("lost the notification connection to Redis (streams), polling until it is back");
    assert_eq!(lines.len(), 2, "one of each engine: {lines:#?}");
}

#[tokio::test]
async fn a_server_that_forgot_the_scripts_learns_them_again() {
    let server = RedisServer::start().await.unwrap();
    let engine = open(&server.url()).await.unwrap();
    let client = Client::connect(&server.url()).await;
    let key = key("s", "g");
    engine.open_group(&key, StartFrom::Earliest).await.unwrap();
    for number in 1..=3 {
        client.run::<()>(&["SCRIPT", "FLUSH"]).await;
        let ids = engine.append(&key.stream, numbered(1), None);
        assert_eq!(ids.await.unwrap()[0].as_u64(), number);
        client.run::<()>(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(claim(&*engine, &key, 10).await, [number]);
    }
}

/// At the limit of its memory the server refuses what would take more, by name, and nothing else: what
/// is claimed is handled, and trimming makes room.
#[tokio::test]
async fn a_full_server_fails_publishing_by_name_and_goes_on_with_the_rest() {
    let server = RedisServer::start().await.unwrap();
    let engine = open(&server.url()).await.unwrap();
    let client = Client::connect(&server.url()).await;
    let key = key("s", "g");
    engine.open_group(&key, StartFrom::Earliest).await.unwrap();
    let large = || vec![NewMessage::new(vec![1; 1 << 20]); 4];
    let append = || engine.append(&key.stream, large(), None);
    append().await.unwrap();
    client
        .run::<()>(&["CONFIG", "SET", "maxmemory", "2mb"])
        .await;
    for _ in 0..3 {
        let refused = append().await.unwrap_err();
        assert!(matches!(refused, Error::Full(_)), "{refused:?}");
    }
    assert_eq!(engine.stats(&key.stream).await.unwrap().messages, 4);
    // A process that starts now finds its group, and makes no other one.
    let started = open(&server.url()).await.unwrap();
    started.open_group(&key, StartFrom::Latest).await.unwrap();
    for new in [self::key("s", "new"), self::key("new", "g")] {
        let refused = started.open_group(&new, StartFrom::Earliest).await;
        assert!(matches!(refused, Err(Error::Full(_))), "{refused:?}");
    }
    let claimed = engine
        .claim(&consumer(&key), 2, NEVER.into())
        .await
        .unwrap();
    let receipts: Arc<[_]> = claimed.messages.iter().map(|d| d.receipt).collect();
    let extended = engine.extend(&key, Arc::clone(&receipts), NEVER).await;
    assert_eq!(extended.unwrap(), [true, true]);
    let ends = [Outcome::Acknowledged, Outcome::Released];
    let settlements = receipts
        .iter()
        .zip(ends)
        .map(|(receipt, outcome)| Settlement {
            receipt: *receipt,
            outcome,
        });
    let settled = engine.settle(&key, settlements.collect()).await;
    assert_eq!(settled.unwrap(), [true, true]);
    assert_eq!(claim(&*engine, &key, 10).await, [2, 3, 4]);
    // Bounds take no room to speak of, and make some.
    let bounded = Retention::default().with_max_len(1).with_pending_trimmed();
    engine.set_retention(&key.stream, bounded).await.unwrap();
    assert_eq!(engine.stats(&key.stream).await.unwrap().messages, 1);
    client.run::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let ids = engine.append(&key.stream, large(), None).await.unwrap();
    assert_eq!(ids[0].as_u64(), 5, "a failed publish takes no number");
}

/// A script that another client runs for long makes calls fail, or wait; afterwards everything is as
/// before.
#[tokio::test]
async fn a_busy_server_is_an_error_and_not_the_end() {
    let server = RedisServer::start().await.unwrap();
    let engine = open(&server.url()).await.unwrap();
    let client = Client::connect(&server.url()).await;
    let other = Client::connect(&server.url()).await;
    client
        .run::<()>(&["CONFIG", "SET", "busy-reply-threshold", "10"])
        .await;
    let stream = name("s");
    let append = || engine.append(&stream, numbered(1), None);
    append().await.unwrap();
    let spin = tokio::spawn(async move {
        let endless = "while true do end";
        // It ends when it is killed.
        let mut eval = tidings_redis::redis::cmd("EVAL");
        eval.arg(endless).arg(0);
        other.try_run(&eval).await
    });
    soon(async {
        loop {
            if let Err(error) = append().await {
                let is_outage = matches!(error, Error::Backend(_) | Error::OutcomeUnknown(_));
                assert!(is_outage, "{error:?}");
                break;
            }
        }
    })
    .await;
    until(async || {
        let mut kill = tidings_redis::redis::cmd("SCRIPT");
        kill.arg("KILL");
        client.try_run(&kill).await.is_ok()
    })
    .await;
    assert!(spin.await.unwrap().is_err());
    until(async || append().await.is_ok()).await;
}

/// A stream that cannot be trimmed does not keep the others from it.
#[tokio::test]
async fn regression_one_broken_stream_does_not_end_the_trimming() {
    let server = RedisServer::start().await.unwrap();
    let client = Client::connect(&server.url()).await;
    let streams = open_streams(&server.url()).await;
    let thousand = Retention::default().with_max_len(1000);
    for stream in ["a", "b", "c"] {
        // A publish leaves some more than are to be kept, and the janitor does not.
        streams.set_retention(stream, thousand).await.unwrap();
        streams.publish_batch(stream, numbered(1005)).await.unwrap();
    }
    let log = "{tidings:stream}:log:app.default.b";
    client.run::<()>(&["RENAME", log, "aside"]).await;
    client.run::<()>(&["SET", log, "no stream"]).await;
    streams.trim().await.unwrap_err();
    let messages = async |stream| streams.stats(stream).await.unwrap().messages;
    assert_eq!((messages("a").await, messages("c").await), (1000, 1000));
    client.run::<()>(&["RENAME", "aside", log]).await;
    assert_eq!(messages("b").await, 1005);
    assert_eq!(streams.trim().await.unwrap(), 5);
}

/// A message whose content cannot be read stops no other, and none loses an attempt by it.
#[tokio::test]
async fn regression_a_message_that_cannot_be_read_stops_no_other() {
    // Writes the log again, with other headers of the seventh message.
    const REWRITE: &str = "
        local entries = redis.call('XRANGE', KEYS[1], '-', '+')
        redis.call('DEL', KEYS[1])
        for _, entry in ipairs(entries) do
            if string.find(entry[1], '^7%-') then
                entry[2][1] = ARGV[1] == 'break' and 'broken' or entries[1][2][1]
            end
            redis.call('XADD', KEYS[1], entry[1], unpack(entry[2]))
        end
        return #entries";
    let server = RedisServer::start().await.unwrap();
    let client = Client::connect(&server.url()).await;
    let engine = open(&server.url()).await.unwrap();
    let streams = Streams::new(engine, ServiceConfig::default());
    for _ in 0..40 {
        streams.publish("s", NewMessage::new("")).await.unwrap();
    }
    let mut log = None;
    for key in client.run::<Vec<String>>(&["KEYS", "*"]).await {
        if client.run::<String>(&["TYPE", &key]).await == "stream" {
            log = Some(key);
        }
    }
    let log = log.unwrap();
    let rewrite = async |how| {
        let entries: u64 = client.run(&["EVAL", REWRITE, "1", &log, how]).await;
        assert_eq!(entries, 40);
    };
    rewrite("break").await;
    let restore = async || rewrite("restore").await;
    a_message_that_cannot_be_read_stops_no_other(&streams, restore).await;
}

/// A failover has made the server a replica, and a later one makes it the master again. The log has a line
/// for that, and one for its end, from each loop that meets it.
#[tokio::test]
async fn consumers_go_on_at_a_master_that_was_demoted() {
    let log = Log::default();
    let _listening = log.listen();
    let server = RedisServer::start().await.unwrap();
    let streams = open_streams(&server.url()).await;
    let (recorder, mut seen) = recorder();
    let consumer = streams
        .subscribe("s", "g", impatient(), recorder)
        .await
        .unwrap();
    streams.publish("s", NewMessage::new("")).await.unwrap();
    assert_eq!(next(&mut seen).await.unwrap().id.as_u64(), 1);
    consumer.pause();
    streams.publish_batch("s", numbered(20)).await.unwrap();
    server.demote().unwrap();
    consumer.resume();
    publishing_is_refused_for_a_while(&streams).await;
    server.promote().unwrap();
    let mut missing: BTreeSet<u64> = (2..=21).collect();
    while !missing.is_empty() {
        missing.remove(&next(&mut seen).await.unwrap().id.as_u64());
    }
    until(async || streams.publish("s", NewMessage::new("")).await.is_ok()).await;
    assert_eq!(next(&mut seen).await.unwrap().id.as_u64(), 22);
    until(async || log.lines("restored the notification connection").len() == 1).await;
    assert_one_warning_each(&log).await;
    consumer.close().await;
}

/// A replica that lagged behind has become the master, which a snapshot stands for: what it had not got is
/// lost, and numbers are given again. What is published afterwards arrives.
#[tokio::test]
async fn consumers_go_on_at_a_replica_that_lagged_behind() {
    let mut server = RedisServer::start().await.unwrap();
    let client = Client::connect(&server.url()).await;
    let streams = open_streams(&server.url()).await;
    let (recorder, mut seen) = recorder();
    let consumer = streams
        .subscribe("s", "g", impatient(), recorder)
        .await
        .unwrap();
    let publish_and_see = async |count: u64, seen: &mut _| {
        let ids = streams.publish_batch("s", numbered(count)).await.unwrap();
        let mut missing: BTreeSet<_> = ids.into_iter().collect();
        while !missing.is_empty() {
            missing.remove(&next(seen).await.unwrap().id);
        }
    };
    publish_and_see(10, &mut seen).await;
    until(async || streams.stats("s").await.unwrap().groups[0].pending == 0).await;
    client.run::<()>(&["SAVE"]).await;
    publish_and_see(5, &mut seen).await;
    server.stop().unwrap();
    server.start_again().await.unwrap();
    let mut published = None;
    until(async || {
        let message = NewMessage::new("afterwards");
        published = streams.publish("s", message).await.ok();
        published.is_some()
    })
    .await;
    let message = next(&mut seen).await.unwrap();
    assert_eq!((Some(message.id), message.attempt), (published, 1));
    assert_eq!(message.payload, "afterwards");
    assert_eq!(message.id.as_u64(), 11);
    until(async || {
        let group = streams.stats("s").await.unwrap().groups.remove(0);
        (group.lag, group.pending) == (0, 0)
    })
    .await;
    consumer.close().await;
}
