//! What goes wrong between the engine and its server.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidings_stream::engine::{Engine, Outcome, Settlement};
use tidings_stream::redis::{Config, RedisEngine, RedisOptions};
use tidings_stream::{
    EndReason, Error, Message, NewMessage, Retention, ServiceConfig, StartFrom, Streams,
    SubscribeOptions,
};
use tidings_test_support::{Proxy, RedisServer};
use tokio::sync::mpsc;

use crate::database::{NEVER, from_start, key, name, next, numbered, recorder, soon, until};
use crate::postgres_faults::nothing_acknowledged_is_lost;
use crate::redis::{Client, claim, consumer, prefix, url};

/// How long the engines of these tests wait for an answer, where they may get none.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

fn config(url: &str) -> Config {
    Config::new(url)
        .unwrap()
        .with_answer_limit(ANSWER_LIMIT)
        .with_health_interval(Duration::from_millis(50))
}

async fn open(url: &str, prefix: &str) -> RedisEngine {
    let options = RedisOptions::default().with_prefix(prefix);
    RedisEngine::open(config(url), options).await.unwrap()
}

async fn open_streams(url: &str, prefix: &str) -> Streams {
    Streams::new(Arc::new(open(url, prefix).await), ServiceConfig::default())
}

/// No claim is handed out twice: a message that comes again is another attempt.
fn assert_attempts_differ(handled: &[Message]) {
    let attempts: BTreeSet<_> = handled
        .iter()
        .map(|message| (message.id, message.attempt))
        .collect();
    assert_eq!(attempts.len(), handled.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_connections_lose_nothing() {
    let server = RedisServer::start().await.unwrap();
    let streams = open_streams(&server.url(), "killed").await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_lose_nothing() {
    let proxy = Proxy::start(&url()).await.unwrap();
    let streams = open_streams(proxy.url(), &prefix()).await;
    let handled = nothing_acknowledged_is_lost(&streams, async {
        for _ in 0..10 {
            let accepted = proxy.accepted();
            proxy.block();
            proxy.deserted().await;
            proxy.restore();
            until(async || proxy.accepted() > accepted + 2).await;
        }
    })
    .await;
    assert_attempts_differ(&handled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_loses_nothing_that_it_answered_for() {
    let mut server = RedisServer::start_durable().await.unwrap();
    let streams = open_streams(&server.url(), "crashing").await;
    let handled = nothing_acknowledged_is_lost(&streams, async {
        for _ in 0..3 {
            let messages = async || streams.stats("s").await.map_or(0, |stats| stats.messages);
            let before = messages().await;
            until(async || messages().await > before + 50).await;
            server.stop().unwrap();
            server.start_again().await.unwrap();
        }
    })
    .await;
    assert_attempts_differ(&handled);
}

/// Everything that is claimed comes again by its timeout, and what handlers have finished in the
/// meantime is recorded once the server goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_for_longer_than_a_claim_lasts_loses_nothing() {
    let server = RedisServer::start().await.unwrap();
    let streams = open_streams(&server.url(), "frozen").await;
    let handled = nothing_acknowledged_is_lost(&streams, async {
        for _ in 0..2 {
            let messages = async || streams.stats("s").await.map_or(0, |stats| stats.messages);
            let before = messages().await;
            until(async || messages().await > before + 50).await;
            server.freeze().unwrap();
            // Longer than its claims last, and than anybody waits for an answer.
            tokio::time::sleep(ANSWER_LIMIT + Duration::from_millis(500)).await;
            server.thaw().unwrap();
        }
    })
    .await;
    assert_attempts_differ(&handled);
}

/// Faults of the reference: a waiting consumer is not woken any more once the connection broke.
#[tokio::test]
async fn regression_a_killed_listener_comes_back() {
    let server = RedisServer::start().await.unwrap();
    let here = open_streams(&server.url(), "listening").await;
    let there = open_streams(&server.url(), "listening").await;
    let client = Client::connect(&server.url()).await;
    let (recorder, mut seen) = recorder();
    let consumer = here
        .subscribe("s", "g", from_start(), recorder)
        .await
        .unwrap();
    for _ in 0..5 {
        until(async || {
            client
                .run::<u64>(&["CLIENT", "KILL", "TYPE", "pubsub"])
                .await
                > 0
        })
        .await;
        // Without a listener, or with the one that is back: it is found either way, without polling.
        for _ in 0..3 {
            let id = there.publish("s", NewMessage::new("")).await.unwrap();
            assert_eq!(next(&mut seen).await.unwrap().id, id);
        }
    }
    consumer.close().await;
}

/// A connection that is silent for ever is found out by its listener.
#[tokio::test]
async fn a_listener_whose_connection_falls_silent_comes_back() {
    let prefix = prefix();
    let proxy = Proxy::start(&url()).await.unwrap();
    let here = open_streams(proxy.url(), &prefix).await;
    let there = open_streams(&url(), &prefix).await;
    let (recorder, mut seen) = recorder();
    let consumer = here
        .subscribe("s", "g", from_start(), recorder)
        .await
        .unwrap();
    proxy.freeze();
    let id = there.publish("s", NewMessage::new("")).await.unwrap();
    assert_eq!(next(&mut seen).await.unwrap().id, id);
    consumer.close().await;
}

#[tokio::test]
async fn regression_a_first_connection_that_fails_is_not_the_last() {
    let prefix = prefix();
    let proxy = Proxy::start(&url()).await.unwrap();
    proxy.block();
    let refused = RedisEngine::open(config(proxy.url()), RedisOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::Backend(_)), "{refused:?}");
    proxy.restore();
    let streams = open_streams(proxy.url(), &prefix).await;
    proxy.block();
    proxy.deserted().await;
    let refused = streams
        .subscribe("s", "g", from_start(), |_| async { Ok(()) })
        .await;
    // Whether the connection broke before the call was sent is not known.
    let refused = refused.unwrap_err();
    let is_outage = matches!(refused, Error::Backend(_) | Error::OutcomeUnknown(_));
    assert!(is_outage, "{refused:?}");
    proxy.restore();
    let (recorder, mut seen) = recorder();
    let consumer = streams
        .subscribe("s", "g", from_start(), recorder)
        .await
        .unwrap();
    let other = open_streams(&url(), &prefix).await;
    other.publish("s", NewMessage::new("")).await.unwrap();
    next(&mut seen).await.unwrap();
    consumer.close().await;
}

#[tokio::test]
async fn a_server_that_falls_silent_is_an_error_within_the_limit() {
    let proxy = Proxy::start(&url()).await.unwrap();
    let engine = open(proxy.url(), &prefix()).await;
    let stream = name("s");
    let append = || engine.append(&stream, numbered(1), None);
    append().await.unwrap();
    proxy.freeze();
    let groups = Arc::from([key("s", "g")]);
    let (published, looked) = tokio::join!(append(), engine.ready(groups));
    assert!(matches!(published.unwrap_err(), Error::OutcomeUnknown(_)));
    assert!(matches!(looked.unwrap_err(), Error::OutcomeUnknown(_)));
    // On another connection, since that one is of no use any more.
    append().await.unwrap();
}

/// What is acknowledged while the connection is down is recorded when it is back.
#[tokio::test]
async fn an_acknowledgement_outlives_an_outage() {
    let prefix = prefix();
    let proxy = Proxy::start(&url()).await.unwrap();
    let streams = open_streams(proxy.url(), &prefix).await;
    let (started, mut running) = mpsc::channel(1);
    let (gate, gate_open) = tokio::sync::watch::channel(false);
    let handler = move |_: Message| {
        let (started, mut gate_open) = (started.clone(), gate_open.clone());
        async move {
            started.send(()).await?;
            gate_open.wait_for(|open| *open).await?;
            Ok(())
        }
    };
    let options = from_start().with_visibility_timeout(Duration::from_secs(600));
    let consumer = streams.subscribe("s", "g", options, handler).await.unwrap();
    streams.publish("s", NewMessage::new("")).await.unwrap();
    soon(running.recv()).await.unwrap();
    proxy.block();
    proxy.deserted().await;
    gate.send_replace(true);
    let other = open_streams(&url(), &prefix).await;
    let pending = async || other.stats("s").await.unwrap().groups[0].pending;
    assert_eq!(pending().await, 1);
    proxy.restore();
    until(async || pending().await == 0).await;
    assert_eq!(soon(consumer.close()).await.abandoned, 0);
    assert_eq!(consumer.stats().acknowledged, 1);
}

/// Faults of the reference: a consumer of a store that was emptied asks for ever, and its group is never
/// made again. Here it ends and says so, and the next subscription has all that is new.
#[tokio::test]
async fn regression_a_server_that_lost_everything_ends_its_consumers() {
    let server = RedisServer::start().await.unwrap();
    let engine = open(&server.url(), "emptied").await;
    let streams = Streams::new(Arc::new(engine), ServiceConfig::default());
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

/// A user that may not use channels polls, in place of not being let in.
#[tokio::test]
async fn regression_a_user_without_channels_polls() {
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
    let url = server.url().replace("redis://", "redis://quiet:secret@");
    let here = open_streams(&url, "quiet").await;
    let there = open_streams(&url, "quiet").await;
    let (recorder, mut seen) = recorder();
    let options = from_start().with_poll_interval(Duration::from_millis(20));
    let consumer = here.subscribe("s", "g", options, recorder).await.unwrap();
    for streams in [&there, &here] {
        let id = streams.publish("s", NewMessage::new("")).await.unwrap();
        assert_eq!(next(&mut seen).await.unwrap().id, id);
    }
    until(async || consumer.stats().acknowledged == 2).await;
    consumer.close().await;
}

/// A claim whose reply was lost was given to no handler: its attempts do not count.
#[tokio::test]
async fn regression_claims_whose_reply_is_lost_keep_their_attempts() {
    let prefix = prefix();
    let proxy = Proxy::start(&url()).await.unwrap();
    let near = open(&url(), &prefix).await;
    let far = open(proxy.url(), &prefix).await;
    let key = key("s", "g");
    near.open_group(&key, StartFrom::Earliest).await.unwrap();
    near.append(&key.stream, numbered(3), None).await.unwrap();
    for _ in 0..5 {
        // The first call is made again on a connection that works.
        far.ready(Arc::from([key.clone()])).await.unwrap();
        let member = consumer(&key);
        let claiming = far.claim(&member, 3, NEVER);
        let cutting = async {
            until(async || {
                let pending = near.pending(&key, None, 10).await.unwrap();
                pending.iter().any(|message| message.consumer.is_some())
            })
            .await;
            proxy.block();
        };
        let (claimed, ()) = tokio::join!(claiming, cutting);
        proxy.restore();
        if let Ok(claimed) = claimed {
            // The reply was faster than the cut.
            let settlements = claimed.deliveries.iter().map(|delivery| Settlement {
                receipt: delivery.receipt,
                outcome: Outcome::Released,
            });
            near.settle(&key, settlements.collect()).await.unwrap();
        }
        let again = far.claim(&member, 3, NEVER).await;
        let Ok(again) = again else { continue };
        // After a read that failed a claim takes fewer messages, and one may be held back.
        assert!(again.deliveries.iter().all(|it| it.message.attempt == 1));
        let settlements = again.deliveries.iter().map(|delivery| Settlement {
            receipt: delivery.receipt,
            outcome: Outcome::Released,
        });
        near.settle(&key, settlements.collect()).await.unwrap();
    }
    let member = consumer(&key);
    let mut attempts = Vec::new();
    until(async || {
        if let Ok(claimed) = far.claim(&member, 3, NEVER).await {
            attempts.extend(claimed.deliveries.iter().map(|it| it.message.attempt));
        }
        attempts.len() >= 3
    })
    .await;
    assert_eq!(attempts, [1, 1, 1]);
}

#[tokio::test]
async fn a_server_that_forgot_the_scripts_learns_them_again() {
    let server = RedisServer::start().await.unwrap();
    let engine = open(&server.url(), "forgetful").await;
    let client = Client::connect(&server.url()).await;
    let key = key("s", "g");
    engine.open_group(&key, StartFrom::Earliest).await.unwrap();
    for number in 1..=3 {
        client.run::<()>(&["SCRIPT", "FLUSH"]).await;
        let ids = engine.append(&key.stream, numbered(1), None);
        assert_eq!(ids.await.unwrap()[0].as_u64(), number);
        client.run::<()>(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(claim(&engine, &key, 10).await, [number]);
    }
}

/// At the limit of its memory the server refuses what would take more, by name, and nothing else: what
/// is claimed is handled, and trimming makes room.
#[tokio::test]
async fn a_full_server_fails_publishing_by_name_and_goes_on_with_the_rest() {
    let server = RedisServer::start().await.unwrap();
    let engine = open(&server.url(), "full").await;
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
    let claimed = engine.claim(&consumer(&key), 2, NEVER).await.unwrap();
    let receipts: Arc<[_]> = claimed.deliveries.iter().map(|d| d.receipt).collect();
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
    assert_eq!(claim(&engine, &key, 10).await, [2, 3, 4]);
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
    let engine = open(&server.url(), "busy").await;
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
    let engine = open(&server.url(), "unread").await;
    let streams = Streams::new(Arc::new(engine), ServiceConfig::default());
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
    crate::postgres_faults::a_message_that_cannot_be_read_stops_no_other(&streams, restore).await;
}
