//! What goes wrong between the store and its server.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidings_notify::postgres::{Config, PostgresOptions, PostgresStore};
use tidings_notify::{
    Changed, Event, GapReason, InboxAction, InboxChange, Item, Notifier, Since, Store, StoreError,
    Subscription, Wake, WakeSender,
};
use tidings_test_support::{Fault, Outage, PostgresOutage, PostgresServer, Proxy, soon};

use crate::database::{PATIENT, Schema};
use crate::redis::retried;
use crate::support::{Observed, ann, draft, number, numbers, without_sweep};

/// How long a call waits for a server that is silent: longer than a busy machine may stand still.
pub(crate) const REPLY_LIMIT: Duration = Duration::from_secs(4);

async fn open(url: &str) -> PostgresStore {
    let config = Config::new(url).unwrap().with_reply_limit(REPLY_LIMIT);
    let config = config.with_health_interval(Duration::from_millis(500));
    PostgresStore::open(config, PostgresOptions::default())
        .await
        .unwrap()
}

async fn two(url: &str) -> [Arc<dyn Store>; 2] {
    [Arc::new(open(url).await), Arc::new(open(url).await)]
}

fn notifier(store: Arc<dyn Store>) -> Notifier {
    Notifier::builder(store)
        .poll_interval(Duration::from_millis(200))
        .build()
        .unwrap()
}

/// Pushes numbers until the test stops it, each until it is stored, and returns what was stored for sure.
async fn push_through(notifier: &Notifier, stop: &AtomicBool, first: u64) -> Vec<Event> {
    let mut stored = Vec::new();
    for number in first.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        match notifier.push(draft(number)).await {
            Ok(event) => stored.push(event),
            Err(tidings_notify::Error::Store(
                StoreError::Unavailable(_) | StoreError::OutcomeUnknown(_) | StoreError::Full(_),
            )) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("{error:?}"),
        }
    }
    stored
}

/// Reads a stream until it has given this event, and checks that it gives each number of the log once
/// and in order.
async fn read_up_to(stream: &mut Subscription, last: &Event) -> BTreeSet<u64> {
    let mut given = BTreeSet::new();
    let mut next = 1;
    loop {
        match stream.next().await.unwrap() {
            Item::Event(event) => {
                assert_eq!(event.id.seq, next, "in order, once, without holes");
                next += 1;
                given.insert(number(&event));
                if event.id == last.id {
                    return given;
                }
            }
            Item::Gap(gap) => panic!("nothing was lost: {gap:?}"),
            _ => {}
        }
    }
}

/// While the fault comes and goes, two instances push and one of them reads: everything that was stored is
/// on the screen, in order and once.
pub(crate) async fn nothing_stored_is_lost(stores: [Arc<dyn Store>; 2], fault: impl AsyncFnOnce()) {
    let [here, there] = stores.clone().map(notifier);
    let mut stream = here.subscribe(ann(), Since::Now).await.unwrap();
    let stop = AtomicBool::new(false);
    let (mut pushed, more, ()) = tokio::join!(
        push_through(&here, &stop, 0),
        push_through(&there, &stop, 1_000_000),
        async {
            fault().await;
            // Some more, afterwards.
            tokio::time::sleep(Duration::from_millis(500)).await;
            stop.store(true, Ordering::Relaxed);
        }
    );
    assert!(!pushed.is_empty() && !more.is_empty());
    pushed.extend(more);
    let last = here.push(draft(9_999_999)).await.unwrap();
    let given = soon("the last event", read_up_to(&mut stream, &last)).await;
    for event in &pushed {
        assert!(given.contains(&number(event)), "{event:?} is missing");
    }
    let head = stores[1].head(&ann()).await.unwrap();
    assert_eq!((head.top_seq, head.unread), (last.id.seq, last.id.seq));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_sessions_lose_nothing() {
    let schema = Schema::create().await;
    let mark = format!("mark{:016x}", fastrand::u64(..));
    let url = format!("{}&application_name={mark}", schema.url());
    let client = schema.config().connect().await.unwrap();
    nothing_stored_is_lost(two(&url).await, async || {
        let mut killed = 0_i64;
        while killed < 20 {
            let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                WHERE application_name = $1";
            killed += client
                .query_one(kill, &[&mark])
                .await
                .unwrap()
                .get::<_, i64>(0);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_server_crashes_is_cut_off_stops_or_is_full() {
    let mut outage = PostgresOutage::start().await.unwrap();
    for fault in Fault::ALL {
        outage
            .server()
            .execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
            .unwrap();
        let url = outage.url().to_owned();
        let stores = two(&url).await;
        nothing_stored_is_lost(stores, async || come_and_go(&mut outage, fault).await).await;
    }
}

/// The fault comes while events are pushed, and goes again.
pub(crate) async fn come_and_go(outage: &mut dyn Outage, fault: Fault) {
    tokio::time::sleep(Duration::from_millis(200)).await;
    outage.begin(fault).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    if fault == Fault::Freeze {
        // Longer than a call waits.
        tokio::time::sleep(REPLY_LIMIT * 2).await;
    }
    outage.restore().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_be_reached_is_named_as_such() {
    let mut outage = PostgresOutage::start().await.unwrap();
    let store = open(outage.url()).await;
    store.append(vec![draft(1)]).await.unwrap();
    outage.cut().await.unwrap();
    let refused = [
        store.append(vec![draft(2)]).await.err(),
        store.head(&ann()).await.err(),
        store.cleanup(jiff::Timestamp::now()).await.err(),
    ];
    for error in refused {
        assert!(
            matches!(
                error,
                Some(StoreError::Unavailable(_) | StoreError::OutcomeUnknown(_))
            ),
            "{error:?}"
        );
    }
    outage.restore().await.unwrap();
    soon("the server is back", async {
        while store.append(vec![draft(3)]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// The server appends the event, and its reply is lost on the way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_whose_reply_is_lost_may_have_been_done() {
    let schema = Schema::create().await;
    let proxy = Proxy::start(&schema.url()).await.unwrap();
    let near = schema.store().await;
    let config = Config::new(proxy.url()).unwrap().with_reply_limit(PATIENT);
    let far = PostgresStore::open(config, PostgresOptions::default())
        .await
        .unwrap();
    far.append(vec![draft(1)]).await.unwrap();
    let holder = schema.config().connect().await.unwrap();
    holder
        .batch_execute("BEGIN; LOCK TABLE tidings_notify_log IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let is_waiting = "SELECT count(*) FROM pg_locks
        WHERE NOT granted AND relation = 'tidings_notify_log'::regclass";
    let losing = async {
        while holder
            .query_one(is_waiting, &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
            == 0
        {}
        // The server hears nothing of it and continues.
        proxy.freeze();
        holder.batch_execute("ROLLBACK").await.unwrap();
        while near.head(&ann()).await.unwrap().top_seq < 2 {}
        proxy.block();
    };
    let notifier = notifier(Arc::new(far));
    let (lost, ()) = soon("the reply to be lost", async {
        tokio::join!(notifier.push(draft(2)), losing)
    })
    .await;
    let lost = lost.unwrap_err();
    assert!(lost.may_have_been_done(), "{lost:?}");
    let inner = std::error::Error::source(&lost);
    let inner = inner.and_then(|cause| cause.downcast_ref::<tidings_postgres::Error>());
    assert!(inner.is_some(), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_without_a_connection_was_not_done() {
    let schema = Schema::create().await;
    let proxy = Proxy::start(&schema.url()).await.unwrap();
    let store = open(proxy.url()).await;
    store.append(vec![draft(1)]).await.unwrap();
    proxy.block();
    // Whether it broke before the call was sent is not known of a connection that was open.
    let unsent = soon("no connection to be left", async {
        loop {
            let refused = store.append(vec![draft(2)]).await.unwrap_err();
            if !refused.may_have_been_done() {
                return refused;
            }
        }
    })
    .await;
    assert!(matches!(unsent, StoreError::Unavailable(_)), "{unsent:?}");
}

/// A server that writes what waits for no disk as late as it can.
fn lazy_server() -> PostgresServer {
    let server = PostgresServer::start().unwrap();
    for statement in [
        "ALTER SYSTEM SET wal_writer_delay = '10s'",
        "SELECT pg_reload_conf()",
    ] {
        server.execute(statement).unwrap();
    }
    server
}

/// A server that crashes gives the numbers of those transactions again that it had not written to its disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_no_change_after_a_crash_is_taken_for_an_earlier_one() {
    const SHORT: &str = "DO $$ BEGIN
        PERFORM set_config('synchronous_commit', 'off', false);
        FOR i IN 1..100 LOOP
            PERFORM pg_current_xact_id();
            COMMIT;
        END LOOP;
    END $$";
    const NEXT: &str = "SELECT pg_snapshot_xmax(pg_current_snapshot())";
    let server = lazy_server();
    let next = || -> u64 { server.execute(NEXT).unwrap().parse().unwrap() };
    let proxy = Proxy::start(&server.url()).await.unwrap();
    let there = open(&server.url()).await;
    there.append(vec![draft(0)]).await.unwrap();
    for round in 1.. {
        let here = open(proxy.url()).await;
        let wakes = WakeSender::new(100);
        let mut heard = here.wakes().unwrap();
        let sender = wakes.clone();
        let passing_on = tokio::spawn(async move {
            while let Some(wake) = heard.next().await {
                sender.send(wake);
            }
        });
        let mut store = Observed::silent(Arc::new(here));
        store.wakes = Some(wakes);
        server.execute(SHORT).unwrap();
        let seen = next();
        let here = without_sweep(store.clone()).build().unwrap();
        // The second sweep begins when the first has its mark.
        let swept = async {
            while store.calls.load(Ordering::SeqCst) < 2 {
                here.hint_all();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon("two sweeps", swept).await;
        let mut stream = here.subscribe(ann(), Since::Now).await.unwrap();
        proxy.block();
        server.crash().unwrap();
        server.start_again().unwrap();
        let appending = retried(async || there.append(vec![draft(round)]).await);
        soon("an append", appending).await;
        let is_given_again = next() <= seen;
        // So many that the number of the next one shows nothing.
        while next() <= seen {
            server.execute(SHORT).unwrap();
        }
        proxy.restore();
        assert_eq!(soon("the event", numbers(&mut stream, 1)).await, [round]);
        passing_on.abort();
        if is_given_again {
            break;
        }
        assert!(round < 10, "the server has written everything each time");
    }
}

/// A screen knows the counts by a number, which another change must not get.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_counts_that_a_trim_has_changed_survive_a_crash() {
    let server = lazy_server();
    let store = open(&server.url()).await;
    store.append((0..3).map(draft).collect()).await.unwrap();
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    assert_eq!(store.cleanup(later).await.unwrap(), 3);
    let before = store.head(&ann()).await.unwrap();
    assert_eq!(before.unread, 0);
    server.crash().unwrap();
    server.start_again().unwrap();
    let reading = retried(async || store.head(&ann()).await);
    let after = soon("a read", reading).await;
    assert_eq!(after, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_was_cut_off_comes_back_and_misses_nothing() {
    let schema = Schema::create().await;
    let proxy = Proxy::start(&schema.url()).await.unwrap();
    let (here, there) = (open(proxy.url()).await, schema.store().await);
    // It never sweeps by itself.
    let here = without_sweep(here).build().unwrap();
    let mut stream = here.subscribe(ann(), Since::Now).await.unwrap();
    there.append(vec![draft(1)]).await.unwrap();
    assert_eq!(soon("the first", numbers(&mut stream, 1)).await, [1]);
    proxy.block();
    there.append(vec![draft(2)]).await.unwrap();
    proxy.restore();
    // The connection that is made again says that wake-ups were lost.
    assert_eq!(soon("the second", numbers(&mut stream, 1)).await, [2]);
    there.append(vec![draft(3)]).await.unwrap();
    assert_eq!(soon("the third", numbers(&mut stream, 1)).await, [3]);
}

/// A standby that has what the primary has now, and gets nothing of what comes.
async fn cut_off_standby(primary: &PostgresServer) -> PostgresServer {
    let standby = primary.start_standby(Duration::ZERO).unwrap();
    let deaf = "ALTER SYSTEM SET primary_conninfo = ''";
    standby.execute(deaf).unwrap();
    standby.execute("SELECT pg_reload_conf()").unwrap();
    soon("the standby is cut off", async {
        let senders = "SELECT count(*) FROM pg_stat_replication";
        while primary.execute(senders).unwrap() != "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    standby
}

/// The replica lacks the last events of its primary, and gives their numbers to others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_promoted_replica_lacks_is_a_gap() {
    let primary = PostgresServer::start().unwrap();
    let proxy = Proxy::start(&primary.url()).await.unwrap();
    let store = open(proxy.url()).await;
    let notifier = notifier(Arc::new(store.clone()));
    let mut stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
    let stored = store.append((0..5).map(draft).collect()).await.unwrap();
    let standby = cut_off_standby(&primary).await;
    store.append((5..8).map(draft).collect()).await.unwrap();
    assert_eq!(
        soon("all", numbers(&mut stream, 8)).await,
        [0, 1, 2, 3, 4, 5, 6, 7]
    );
    proxy.lead_to(&standby.url()).unwrap();
    standby.promote().unwrap();
    primary.crash().unwrap();
    let mut lost = Vec::new();
    soon("the replica takes writes", async {
        loop {
            match store.append((10..15).map(draft).collect()).await {
                Ok(events) => break lost = events,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    })
    .await;
    assert_eq!(lost[0].id.seq, stored[4].id.seq + 1);
    assert_ne!(lost[0].id.epoch, stored[4].id.epoch);
    let gap = soon("the gap", async {
        loop {
            if let Item::Gap(gap) = stream.next().await.unwrap() {
                break gap;
            }
        }
    })
    .await;
    assert_eq!(gap.reason, GapReason::UnknownEpoch);
    let kept = soon("what is kept", numbers(&mut stream, 10)).await;
    assert_eq!(kept, [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_a_change_on_a_promoted_replica_is_not_taken_for_one_that_it_lacks() {
    let primary = PostgresServer::start().unwrap();
    let proxy = Proxy::start(&primary.url()).await.unwrap();
    let screens = Screens::of(Arc::new(open(proxy.url()).await)).await;
    let standby = cut_off_standby(&primary).await;
    screens
        .hear_of_a_change_after(async || {
            proxy.lead_to(&standby.url()).unwrap();
            standby.promote().unwrap();
            primary.crash().unwrap();
        })
        .await;
}

/// Two screens of the same user, who has five events, on two instances that sweep when they are asked to.
pub(crate) struct Screens {
    notifiers: [Notifier; 2],
    streams: [Subscription; 2],
    wakes: WakeSender,
    stored: Vec<Event>,
}

impl Screens {
    pub(crate) async fn of(store: Arc<dyn Store>) -> Self {
        let wakes = WakeSender::new(4);
        let mut first = Observed::silent(store.clone());
        first.wakes = Some(wakes.clone());
        let second = Observed::silent(store.clone());
        let notifiers = [first, second].map(|store| without_sweep(store).build().unwrap());
        let mut streams = Vec::new();
        for notifier in &notifiers {
            streams.push(notifier.subscribe(ann(), Since::Now).await.unwrap());
        }
        let stored = store.append((0..5).map(draft).collect()).await.unwrap();
        for (notifier, stream) in notifiers.iter().zip(&mut streams) {
            notifier.hint_all();
            let swept = numbers(stream, 5);
            assert_eq!(soon("a sweep", swept).await, [0, 1, 2, 3, 4]);
        }
        Self {
            notifiers,
            streams: streams.try_into().unwrap(),
            wakes,
            stored,
        }
    }

    /// Has a change of the inbox lost by a failover, and makes another one before any sweep. Only an append would
    /// begin another epoch, so it gets the revision of the first.
    pub(crate) async fn hear_of_a_change_after(mut self, failover: impl AsyncFnOnce()) {
        let [here, there] = &self.notifiers;
        let lost = InboxAction::Read(vec![self.stored[0].id]);
        let lost = here.change(&ann(), &lost).await.unwrap();
        there.hint(&ann());
        for stream in &mut self.streams {
            let change = soon("the change that is lost", changed(stream)).await;
            assert_eq!(change.unread, 4);
        }
        failover().await;
        let archive = InboxAction::Archive(vec![self.stored[1].id, self.stored[2].id]);
        let changing = retried(async || {
            let changed = here.change(&ann(), &archive).await;
            changed.map_err(StoreError::backend)
        });
        let kept = soon("the new server", changing).await;
        assert_eq!((kept.changed, kept.revision), (2, lost.revision));
        self.wakes.send(Wake::Reconnected);
        there.hint_all();
        for stream in &mut self.streams {
            let change = soon("the change after the failover", changed(stream)).await;
            assert_eq!((change.what, change.unread), (Changed::Unknown, 3));
        }
    }
}

/// The next change of the inbox that a stream gives.
async fn changed(stream: &mut Subscription) -> InboxChange {
    loop {
        if let Item::Changed(change) = stream.next().await.unwrap() {
            return change;
        }
    }
}
