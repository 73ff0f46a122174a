//! What goes wrong between the engine and its server.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidings_stream::engine::{ConsumerKey, Engine};
use tidings_stream::postgres::{Config, PostgresEngine, PostgresOptions, tokio_postgres};
use tidings_stream::{NewMessage, ServiceConfig, StartFrom, Streams};
use tidings_test_support::{Fault, Log, PgBouncer, PostgresOutage, PostgresServer, Proxy};

use crate::database::{NEVER, Schema, from_start, key, next, numbered, recorder, until};
use crate::faults::{
    REPLY_LIMIT, a_killed_listener_comes_back, a_message_that_cannot_be_read_stops_no_other,
    fault_tests, impatient, nothing_acknowledged_is_lost, postgres as open,
    publishing_is_refused_for_a_while,
};
use crate::outage_log::assert_one_warning_each;

fault_tests! { PostgresOutage, open;
    cut_connections_lose_nothing
    a_store_that_crashes_loses_nothing_that_it_has_accepted(true)
    a_store_that_stops_for_longer_than_a_claim_lasts_loses_nothing
    a_store_that_runs_full_loses_nothing
    an_acknowledgement_outlives_every_fault(&Fault::ALL)
    regression_a_first_connection_that_fails_is_not_the_last
    a_store_that_falls_silent_is_an_error_within_the_limit
    regression_claims_whose_reply_is_lost_keep_their_attempts
    a_listener_whose_connection_falls_silent_comes_back
    regression_closing_ends_in_time_while_the_store_is_frozen
    a_full_store_fails_publishing_by_name_and_loses_no_acknowledgement(true)
    regression_a_dead_letter_without_room_holds_up_no_acknowledgement(false)
}

async fn open_streams(url: &str) -> Streams {
    Streams::new(open(url).await.unwrap(), ServiceConfig::default())
}

/// Kills the sessions of an engine that are at something.
async fn kill(client: &tokio_postgres::Client, what: &str) -> i64 {
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE pid <> pg_backend_pid() AND application_name = $1 AND query LIKE $2";
    let application: &str = &application(client).await;
    client
        .query_one(kill, &[&application, &what])
        .await
        .unwrap()
        .get(0)
}

async fn application(client: &tokio_postgres::Client) -> String {
    client
        .query_one("SHOW application_name", &[])
        .await
        .unwrap()
        .get(0)
}

/// A URL whose sessions have a name that those of other tests do not have.
fn marked(url: &str) -> String {
    format!("{url}&application_name=mark{:016x}", fastrand::u64(..))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_sessions_lose_nothing() {
    let schema = Schema::create().await;
    let url = marked(&schema.url());
    let streams = open_streams(&url).await;
    let client = crate::database::connect(&url).await;
    nothing_acknowledged_is_lost(&streams, async {
        let mut killed = 0;
        while killed < 20 {
            killed += kill(&client, "%tidings_stream_%").await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// The reference's listener dies with its connection, and its waiting consumers then poll for ever.
#[tokio::test]
async fn regression_a_killed_listener_comes_back() {
    let schema = Schema::create().await;
    let url = marked(&schema.url());
    // A session is known by its last statement, which a look after its health would replace.
    let config = Config::new(&url).unwrap().with_health_interval(NEVER);
    let here = PostgresEngine::open(config, PostgresOptions::default())
        .await
        .unwrap();
    let here = Streams::new(Arc::new(here), ServiceConfig::default());
    let there = schema.streams().await;
    let client = crate::database::connect(&url).await;
    a_killed_listener_comes_back(&here, &there, async || {
        until(async || kill(&client, "%LISTEN%").await > 0).await;
    })
    .await;
}

/// A member that stops in the middle of receiving what it has claimed holds no lock: the others of its
/// group continue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_member_stalls_no_other() {
    let schema = Schema::create().await;
    let proxy = Proxy::start(&schema.url()).await.unwrap();
    let frozen = open(proxy.url()).await.unwrap();
    let lively = schema.engine().await;
    let key = key("s", "g");
    lively.open_group(&key, StartFrom::Earliest).await.unwrap();
    let large = || vec![NewMessage::new(vec![1; 1 << 20]); 4];
    let consumer = ConsumerKey {
        group: key.clone(),
        consumer: "c".into(),
    };
    for round in 0..10 {
        lively.append(&key.stream, large(), None).await.unwrap();
        let claiming = frozen.claim(&consumer, 100, NEVER.into());
        let others = async {
            for _ in 0..round * 3 {
                tokio::task::yield_now().await;
            }
            proxy.freeze();
            let begun = tokio::time::Instant::now();
            for _ in 0..5 {
                lively.claim(&consumer, 1, NEVER.into()).await.unwrap();
            }
            begun.elapsed()
        };
        // The one may succeed or not; the others do, long before it gives up.
        let (_claimed, others) = tokio::join!(claiming, others);
        assert!(others < REPLY_LIMIT * 7 / 8, "{others:?}");
    }
}

/// Behind a pooler that shares sessions no notification arrives; polling finds everything.
#[tokio::test]
async fn without_listening_messages_are_found_by_polling() {
    let schema = Schema::create().await;
    let nowhere = tidings_test_support::Unreachable::refusing().unwrap();
    let config = schema.config();
    let config = config.with_listen_url(&format!("postgres://postgres@{}/none", nowhere.address()));
    let engine = PostgresEngine::open(config.unwrap(), PostgresOptions::default())
        .await
        .unwrap();
    let streams = Streams::new(Arc::new(engine), ServiceConfig::default());
    let (recorder, mut seen) = recorder();
    let options = from_start().with_poll_interval(Duration::from_millis(50));
    let consumer = streams
        .subscribe("s", "g", options, recorder)
        .await
        .unwrap();
    let other = schema.streams().await;
    other.publish("s", NewMessage::new("")).await.unwrap();
    next(&mut seen).await.unwrap();
    consumer.close().await;
}

/// Messages that were claimed and could not be read were given to no handler: their attempts do not
/// count, and none of them dies.
#[tokio::test]
async fn regression_what_cannot_be_read_keeps_its_attempts() {
    let schema = Schema::create().await;
    let streams = schema.streams().await;
    let client = schema.client().await;
    // Too large to come with the claim.
    let large = vec![NewMessage::new(vec![1; 64 << 10]); 3];
    streams.publish_batch("s", large).await.unwrap();
    let rename = async |from: &str, to: &str| {
        let rename = format!("ALTER FUNCTION {from}_claimed RENAME TO {to}_claimed");
        client.batch_execute(&rename).await.unwrap();
    };
    rename("tidings_stream", "hidden").await;
    let (recorder, mut seen) = recorder();
    let options = from_start()
        .with_max_retries(0)
        .with_concurrency(3)
        .with_visibility_timeout(Duration::from_millis(100))
        .with_poll_interval(Duration::from_millis(20));
    let consumer = streams
        .subscribe("s", "g", options, recorder)
        .await
        .unwrap();
    // Several claims are made in vain, each with another number.
    let claims = "SELECT DISTINCT claim FROM tidings_stream_lease WHERE deadline IS NOT NULL
        UNION SELECT DISTINCT claim FROM tidings_stream_retry WHERE claim IS NOT NULL";
    let mut numbers = BTreeSet::new();
    until(async || {
        let rows = client.query(claims, &[]).await.unwrap();
        numbers.extend(rows.iter().map(|row| row.get::<_, i64>(0)));
        numbers.len() >= 4
    })
    .await;
    rename("hidden", "tidings_stream").await;
    for _ in 0..3 {
        assert_eq!(next(&mut seen).await.unwrap().attempt, 1);
    }
    until(async || consumer.stats().acknowledged == 3).await;
    consumer.close().await;
    assert_eq!(streams.stats("s.dead").await.unwrap().messages, 0);
}

/// Behind a pooler whose sessions are shared, an engine leaves them as it found them.
#[tokio::test]
async fn regression_a_pooler_gets_its_sessions_back_unchanged() {
    let server = PostgresServer::start().unwrap();
    let pooler = PgBouncer::start(&server, 1).await.unwrap();
    let settings = [
        "enable_seqscan",
        "jit",
        "plan_cache_mode",
        "synchronous_commit",
        "lock_timeout",
    ];
    let show = async || {
        let client = crate::database::connect(&pooler.url()).await;
        let mut values = Vec::new();
        for setting in settings {
            let row = client
                .simple_query(&format!("SHOW {setting}"))
                .await
                .unwrap();
            values.push(format!("{row:?}"));
        }
        values
    };
    let before = show().await;
    let config = Config::new(&pooler.url()).unwrap();
    let config = config.with_listen_url(&server.url()).unwrap();
    let options = PostgresOptions::default().without_prepared_statements();
    let engine = PostgresEngine::open(config, options).await.unwrap();
    let streams = Streams::new(Arc::new(engine), ServiceConfig::default());
    let (recorder, mut seen) = recorder();
    let consumer = streams
        .subscribe("s", "g", from_start(), recorder)
        .await
        .unwrap();
    streams.publish("s", NewMessage::new("")).await.unwrap();
    next(&mut seen).await.unwrap();
    until(async || consumer.stats().acknowledged == 1).await;
    streams.trim().await.unwrap();
    assert_eq!(streams.list().await.unwrap(), ["s"]);
    assert_eq!(streams.members("s", "g").await.unwrap().len(), 1);
    consumer.close().await;
    streams.delete_stream("s").await.unwrap();
    assert_eq!(show().await, before);
}

/// A stream that cannot be trimmed does not keep the others from it.
#[tokio::test]
async fn regression_one_locked_stream_does_not_end_the_trimming() {
    let schema = Schema::create().await;
    let streams = open_streams(&schema.url()).await;
    for stream in ["a", "b", "c"] {
        streams.publish_batch(stream, numbered(5)).await.unwrap();
    }
    let bound = "UPDATE tidings_stream SET max_len = 2";
    schema.client().await.execute(bound, &[]).await.unwrap();
    let mut client = schema.client().await;
    let holding = client.transaction().await.unwrap();
    let lock = "SELECT FROM tidings_stream WHERE name = 'app.default.b' FOR UPDATE";
    holding.execute(lock, &[]).await.unwrap();
    streams.trim().await.unwrap_err();
    let messages = async |stream| streams.stats(stream).await.unwrap().messages;
    assert_eq!((messages("a").await, messages("b").await), (2, 5));
    assert_eq!(messages("c").await, 2);
    holding.rollback().await.unwrap();
    until(async || messages("b").await == 2 || streams.trim().await.is_err()).await;
}

/// What the client has given up is not stored later.
#[tokio::test]
async fn regression_a_publish_that_was_given_up_is_not_stored_later() {
    let schema = Schema::create().await;
    let url = schema.url();
    let config = Config::new(&url).unwrap();
    let config = config.with_reply_limit(Duration::from_secs(1));
    let engine = PostgresEngine::open(config, PostgresOptions::default())
        .await
        .unwrap();
    let streams = Streams::new(Arc::new(engine), ServiceConfig::default());
    // One that is more patient makes the stream and, later, looks at it.
    let patient = schema.streams().await;
    patient.publish("s", NewMessage::new("")).await.unwrap();
    let mut client = schema.client().await;
    let holding = client.transaction().await.unwrap();
    let lock = "LOCK TABLE tidings_stream_message IN ACCESS EXCLUSIVE MODE";
    holding.batch_execute(lock).await.unwrap();
    for _ in 0..3 {
        streams.publish("s", NewMessage::new("")).await.unwrap_err();
    }
    // The statements that waited have gone, and leave no session behind.
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted
        AND relation = 'tidings_stream_message'::regclass";
    let other = schema.client().await;
    until(async || {
        other
            .query_one(waiting, &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
            == 0
    })
    .await;
    holding.rollback().await.unwrap();
    assert_eq!(patient.stats("s").await.unwrap().messages, 1);
    let id = patient.publish("s", NewMessage::new("")).await.unwrap();
    assert_eq!(id.as_u64(), 2);
}

/// Makes a message impossible to read, or possible again.
async fn set_readable(client: &tokio_postgres::Client, number: u64, is_readable: bool) {
    let is_wanted = format!("{number} BETWEEN p_lo AND p_hi OR {number} = ANY(p_again)");
    let check = format!("BEGIN IF {is_wanted} THEN RAISE EXCEPTION 'broken'; END IF;\n");
    let definition = "SELECT pg_get_functiondef('tidings_stream_claimed'::regproc)";
    let row = client.query_one(definition, &[]).await.unwrap();
    let definition: String = row.get(0);
    let (from, to) = if is_readable {
        (&*check, "BEGIN\n")
    } else {
        ("BEGIN\n", &*check)
    };
    assert!(definition.contains(from), "{definition}");
    client
        .batch_execute(&definition.replacen(from, to, 1))
        .await
        .unwrap();
}

/// A message whose content cannot be read stops no other, and none loses an attempt by it.
#[tokio::test]
async fn regression_a_message_that_cannot_be_read_stops_no_other() {
    let schema = Schema::create().await;
    let streams = schema.streams().await;
    let client = schema.client().await;
    for number in 1..=40 {
        // So large that it is read by a statement of its own.
        let message = NewMessage::new(vec![number; 40 << 10]);
        streams.publish("s", message).await.unwrap();
    }
    set_readable(&client, 7, false).await;
    a_message_that_cannot_be_read_stops_no_other(&streams, async || {
        set_readable(&client, 7, true).await;
    })
    .await;
}

/// The same for small messages, which come with the reply to the claim.
#[tokio::test]
async fn regression_a_small_message_that_cannot_be_read_stops_no_other() {
    let schema = Schema::create().await;
    let streams = schema.streams().await;
    let client = schema.client().await;
    streams.publish_batch("s", numbered(40)).await.unwrap();
    let set_headers = async |headers: &str| {
        let set =
            "UPDATE tidings_stream_message SET headers = convert_to($1, 'UTF8') WHERE number = 7";
        assert_eq!(client.execute(set, &[&headers]).await.unwrap(), 1);
    };
    set_headers("broken").await;
    let restore = async || set_headers("{}").await;
    a_message_that_cannot_be_read_stops_no_other(&streams, restore).await;
}

/// The name of the server leads to a standby, which is promoted later. The log has a line for that, and one
/// for its end, from each loop that meets it.
#[tokio::test]
async fn consumers_go_on_at_a_standby_that_is_promoted() {
    let log = Log::default();
    let _listening = log.listen();
    let primary = PostgresServer::start().unwrap();
    let standby = primary.start_standby(Duration::ZERO).unwrap();
    let proxy = Proxy::start(&primary.url()).await.unwrap();
    let streams = open_streams(proxy.url()).await;
    let (recorder, mut seen) = recorder();
    let consumer = streams
        .subscribe("s", "g", impatient(), recorder)
        .await
        .unwrap();
    streams.publish("s", NewMessage::new("")).await.unwrap();
    assert_eq!(next(&mut seen).await.unwrap().id.as_u64(), 1);
    consumer.pause();
    streams.publish_batch("s", numbered(20)).await.unwrap();
    let count = "SELECT count(*) FROM tidings_stream_message WHERE number > 1";
    // The standby has no such table until it has replayed so far.
    until(async || standby.execute(count).is_ok_and(|it| it.trim() == "20")).await;

    proxy.lead_to(&standby.url()).unwrap();
    primary.crash().unwrap();
    consumer.resume();
    publishing_is_refused_for_a_while(&streams).await;
    standby.promote().unwrap();
    let mut missing: BTreeSet<u64> = (2..=21).collect();
    while !missing.is_empty() {
        missing.remove(&next(&mut seen).await.unwrap().id.as_u64());
    }
    let mut published = None;
    until(async || {
        published = streams.publish("s", NewMessage::new("")).await.ok();
        published.is_some()
    })
    .await;
    until(async || next(&mut seen).await.map(|it| it.id) == published).await;
    until(async || log.lines("restored the notification connection").len() == 1).await;
    assert_one_warning_each(&log).await;
    consumer.close().await;
}

/// The standby that was promoted lagged behind: what it had not got is lost, and numbers are given again. What
/// is published afterwards arrives.
#[tokio::test]
async fn consumers_go_on_at_a_standby_that_lagged_behind() {
    let primary = PostgresServer::start().unwrap();
    let proxy = Proxy::start(&primary.url()).await.unwrap();
    let streams = open_streams(proxy.url()).await;
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
    let standby = primary.start_standby(Duration::ZERO).unwrap();
    let stop_receiving = "ALTER SYSTEM SET primary_conninfo = ''";
    standby.execute(stop_receiving).unwrap();
    standby.execute("SELECT pg_reload_conf()").unwrap();
    let receivers = "SELECT count(*) FROM pg_stat_wal_receiver";
    until(async || standby.execute(receivers).unwrap().trim() == "0").await;
    publish_and_see(5, &mut seen).await;

    proxy.lead_to(&standby.url()).unwrap();
    primary.crash().unwrap();
    standby.promote().unwrap();
    let mut published = None;
    until(async || {
        let message = NewMessage::new("afterwards");
        published = streams.publish("s", message).await.ok();
        published.is_some()
    })
    .await;
    assert_eq!(published.unwrap().as_u64(), 11);
    // The standby may not have got the last acknowledgements.
    until(async || next(&mut seen).await.unwrap().payload == "afterwards").await;
    until(async || {
        let stats = streams.stats("s").await;
        stats.is_ok_and(|stats| (stats.groups[0].lag, stats.groups[0].pending) == (0, 0))
    })
    .await;
    consumer.close().await;
}
