//! The store on PostgreSQL, and what is particular to it.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tidings_notify::conformance::{OpenTransaction, Subject, Transactions};
use tidings_notify::postgres::{
    CallOutcome, Config, PostgresOptions, PostgresStore, append_calls_in, append_in,
};
use tidings_notify::{
    Changed, Draft, Event, EventId, EventKey, EventType, InboxAction, InboxQuery, Item, Notifier,
    Payload, Since, Store, StoreError, Subscription, store_conformance,
};
use tidings_postgres::Client;

use crate::database::Schema;
use crate::support::{ann, draft, number, numbers, user, without_sweep};

store_conformance!(conformance, subject().await);

/// Two handles, as two processes would have them.
async fn subject() -> Subject {
    let schema = Schema::create().await;
    let [first, second] = [schema.store().await, schema.store().await];
    let limited = PostgresOptions::default().with_max_events_per_user(5);
    let keeping = limited.clone().with_unread_kept();
    let [limited, keeping] = [limited, keeping].map(|it| PostgresStore::open(schema.config(), it));
    Subject::new(first)
        .with_second_handle(second)
        .with_limit(5, limited.await.unwrap())
        .with_unread_kept(5, keeping.await.unwrap())
        .with_transactions(Applications(schema.config()))
        .keeping(schema)
}

/// Applications with transactions of their own.
struct Applications(Config);

pub(crate) struct Application {
    client: Client,
    events: Vec<Event>,
}

impl Application {
    pub(crate) async fn begin(config: &Config, drafts: &[Draft]) -> Self {
        let client = config.connect().await.unwrap();
        client.batch_execute("BEGIN").await.unwrap();
        let events = append_in(&*client, drafts).await.unwrap();
        Self { client, events }
    }

    pub(crate) async fn end(&self, statement: &str) {
        self.client.batch_execute(statement).await.unwrap();
    }
}

#[async_trait]
impl Transactions for Applications {
    async fn append(&self, drafts: Vec<Draft>) -> Box<dyn OpenTransaction> {
        Box::new(Application::begin(&self.0, &drafts).await)
    }
}

#[async_trait]
impl OpenTransaction for Application {
    async fn commit(self: Box<Self>) {
        self.end("COMMIT").await;
    }

    async fn roll_back(self: Box<Self>) {
        self.end("ROLLBACK").await;
    }
}

/// What happens within a time that a sweep of these tests does not come in.
pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, work).await.expect(what)
}

async fn screen(notifier: &Notifier) -> Subscription {
    let mut screen = notifier.subscribe(ann(), Since::Now).await.unwrap();
    assert!(matches!(
        screen.next().await.unwrap(),
        Item::CaughtUp { .. }
    ));
    screen
}

#[tokio::test]
async fn what_one_instance_changes_is_on_the_screens_of_another_without_a_sweep() {
    let schema = Schema::create().await;
    let (here, there) = (schema.store().await, schema.store().await);
    let here = without_sweep(here).build().unwrap();
    let there = without_sweep(there).build().unwrap();
    let mut screen = screen(&here).await;
    let event = there.push(draft(1)).await.unwrap();
    let first = soon("the event", screen.next()).await.unwrap();
    assert_eq!(first, Item::Event(Arc::new(event.clone())));
    let archive = InboxAction::Archive(vec![event.id]);
    there.change(&ann(), &archive).await.unwrap();
    let Item::Changed(change) = soon("the change", screen.next()).await.unwrap() else {
        panic!("expected a change");
    };
    assert_eq!((change.what, change.unread), (Changed::Unknown, 0));
    let mut seen = Vec::new();
    for number in [2, 3] {
        let key = EventKey::new("k").unwrap();
        there.push(draft(number).with_key(key)).await.unwrap();
        assert_eq!(soon("the next", numbers(&mut screen, 1)).await, [number]);
        let Item::Changed(change) = soon("the counts", screen.next()).await.unwrap() else {
            panic!("expected a change");
        };
        assert_eq!(change.unread, 1);
        seen.push(change.what);
    }
    // The look at all logs after the listener's first connection may have found the counts of one of them.
    assert!(seen.contains(&Changed::Replaced), "{seen:?}");
}

#[tokio::test]
async fn an_event_of_the_applications_own_transaction_is_there_after_its_commit_alone() {
    let schema = Schema::create().await;
    let store = schema.store().await;
    let other = without_sweep(schema.store().await).build().unwrap();
    let notifier = without_sweep(store.clone()).build().unwrap();
    let mut here = screen(&notifier).await;
    let mut elsewhere = screen(&other).await;
    for (number, end) in [(1, "ROLLBACK"), (2, "COMMIT")] {
        let application = Application::begin(&schema.config(), &[draft(number)]).await;
        assert_eq!(store.head(&ann()).await.unwrap().top_seq, 0);
        application.end(end).await;
        if end == "COMMIT" {
            notifier.announce(&application.events);
        }
        store.wake([&ann()]);
    }
    for screen in [&mut here, &mut elsewhere] {
        assert_eq!(soon("the event", numbers(screen, 1)).await, [2]);
    }
    let page = store.inbox(&ann(), &InboxQuery::default()).await.unwrap();
    assert_eq!((page.events.len(), page.unread), (1, 1));
}

/// Also where the transaction has just created the log: there is no row yet that could be skipped.
pub(crate) fn draft_of(name: &str, number: u64) -> Draft {
    let payload = Payload::from_value(&number).unwrap();
    Draft::new(user(name), EventType::new("test.number").unwrap(), payload)
}

/// What is left out takes nothing from the others, however many users it has.
#[tokio::test]
async fn regression_each_call_of_a_shared_transaction_gets_its_own_events() {
    let schema = Schema::create().await;
    let store = schema.store().await;
    let users = ["a", "b", "c", "d", "e", "f"];
    let drafts = users.map(|name| draft_of(name, 0)).to_vec();
    store.append(drafts).await.unwrap();
    let slow = Application::begin(&schema.config(), &[draft_of("b", 1)]).await;

    let calls = [
        vec![draft_of("a", 1), draft_of("b", 2), draft_of("c", 3)],
        vec![draft_of("d", 4)],
        vec![draft_of("e", 5), draft_of("f", 6)],
    ];
    let client = schema.config().connect().await.unwrap();
    client.batch_execute("BEGIN").await.unwrap();
    let slices: Vec<&[Draft]> = calls.iter().map(Vec::as_slice).collect();
    let appended = append_calls_in(&*client, &slices).await.unwrap();
    client.batch_execute("COMMIT").await.unwrap();
    let is_of = |event: &Event, draft: &Draft| {
        (&event.user, &event.payload) == (draft.user(), draft.payload())
    };
    assert_eq!(appended.len(), calls.len());
    assert_eq!(appended[0], CallOutcome::Locked);
    for (outcome, drafts) in appended.iter().zip(&calls).skip(1) {
        let CallOutcome::Appended(events) = outcome else {
            panic!("expected events, got {outcome:?}");
        };
        assert_eq!(events.len(), drafts.len());
        assert!(
            events
                .iter()
                .zip(drafts)
                .all(|(event, draft)| is_of(event, draft))
        );
    }
    slow.end("ROLLBACK").await;
}

/// The same through the store, where calls that are left out come again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_appends_beside_a_locked_log_return_their_own_events() {
    let schema = Schema::create().await;
    let store = schema.store().await;
    let names: Vec<String> = (0..12).map(|n| format!("user-{n}")).collect();
    let drafts = names.iter().map(|name| draft_of(name, 0)).collect();
    store.append(drafts).await.unwrap();
    let slow = Application::begin(&schema.config(), &[draft_of("user-1", 1)]).await;

    let (mut waiting, mut free) = (Vec::new(), Vec::new());
    for (round, number) in (0..40).zip(100..) {
        let one = 3 + round % 9;
        let is_waiting = round % 4 == 0;
        let users = if is_waiting { 0..3 } else { one..one + 1 };
        let drafts: Vec<Draft> = users.map(|n| draft_of(&names[n], number)).collect();
        let store = store.clone();
        let append = tokio::spawn(async move {
            let events = store.append(drafts.clone()).await.unwrap();
            (drafts, events)
        });
        let appends = if is_waiting { &mut waiting } else { &mut free };
        appends.push(append);
    }
    let mut appended = Vec::new();
    for append in free {
        appended.push(soon("an append beside the lock", append).await.unwrap());
    }
    assert!(waiting.iter().all(|append| !append.is_finished()));
    slow.end("ROLLBACK").await;
    for append in waiting {
        appended.push(soon("an append", append).await.unwrap());
    }
    let mut total = 0;
    for (drafts, events) in appended {
        assert_eq!(events.len(), drafts.len());
        total += drafts.len();
        for (event, draft) in events.iter().zip(&drafts) {
            assert_eq!(
                (&event.user, &event.payload),
                (draft.user(), draft.payload())
            );
        }
    }
    let mut stored = 0;
    for name in &names {
        stored += store.head(&user(name)).await.unwrap().top_seq - 1;
    }
    assert_eq!(stored, u64::try_from(total).unwrap(), "each is stored once");
}

/// Counts the batches that a store has sent.
const COUNT_BATCHES: &str = "CREATE SEQUENCE batches;
    CREATE OR REPLACE FUNCTION tidings_notify_durable() RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM nextval('batches');
    END $$";

/// Each of them is a batch of its own. One that is new need not wait for all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_large_calls_for_a_locked_log_take_no_turns_of_others() {
    let schema = Schema::create().await;
    let store = schema.store().await;
    let names = ["locked".to_owned()].into_iter();
    let names: Vec<String> = names.chain((0..600).map(|n| format!("user-{n}"))).collect();
    let drafts = || -> Vec<Draft> { names.iter().map(|name| draft_of(name, 0)).collect() };
    store.append(drafts()).await.unwrap();
    let client = schema.config().connect().await.unwrap();
    client.batch_execute(COUNT_BATCHES).await.unwrap();
    let count = "SELECT last_value FROM batches";
    let batches = async || -> i64 { client.query_one(count, &[]).await.unwrap().get(0) };
    let slow = Application::begin(&schema.config(), &[draft_of("locked", 1)]).await;

    let waiting = (0..20).map(|_| {
        let (store, drafts) = (store.clone(), drafts());
        tokio::spawn(async move { store.append(drafts).await })
    });
    let waiting: Vec<_> = waiting.collect();
    while batches().await < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let before = batches().await;
    for number in 0..20 {
        let append = store.append(vec![draft_of("free", number)]);
        soon("an append beside the lock", append).await.unwrap();
    }
    let spent = batches().await - before;
    assert!(spent < 100, "{spent} batches for 20 appends");
    assert!(waiting.iter().all(|append| !append.is_finished()));
    slow.end("ROLLBACK").await;
    for append in waiting {
        soon("an append", append).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_slow_transaction_delays_only_the_users_it_writes_to() {
    let schema = Schema::create().await;
    let store = schema.store().await;
    for round in 0..2 {
        let slow = Application::begin(&schema.config(), &[draft(100)]).await;
        let waiting: Vec<_> = (0..3)
            .map(|number| {
                let store = store.clone();
                tokio::spawn(async move { store.append(vec![draft(number)]).await })
            })
            .collect();
        for number in 0..50 {
            let draft = draft(number).with_user(user(&format!("user-{}", number % 7)));
            let limit = Duration::from_secs(2);
            let appended = tokio::time::timeout(limit, store.append(vec![draft])).await;
            appended.expect("it waits for no one else").unwrap();
        }
        assert!(
            waiting.iter().all(|append| !append.is_finished()),
            "{round}"
        );
        slow.end("COMMIT").await;
        for append in waiting {
            soon("the append", append).await.unwrap().unwrap();
        }
        let top = store.head(&ann()).await.unwrap().top_seq;
        assert_eq!(top, 4 * (round + 1));
    }
}

/// There are fewer connections than changes that wait.
#[tokio::test]
async fn regression_changes_of_a_locked_inbox_hold_up_no_one_else() {
    let schema = Schema::create().await;
    let store = schema.store().await;
    let (bob, at) = (user("bob"), Timestamp::now());
    let drafts = vec![draft(0), draft_of("bob", 0)];
    store.append(drafts).await.unwrap();
    let slow = Application::begin(&schema.config(), &[draft(1)]).await;
    let change = || {
        let store = store.clone();
        tokio::spawn(async move { store.change(&ann(), &InboxAction::ReadAll, at).await })
    };
    let waiting: Vec<_> = (0..4).map(|_| change()).collect();
    for _ in 0..20 {
        soon("a read", store.head(&bob)).await.unwrap();
    }
    let read = store.change(&bob, &InboxAction::ReadAll, at);
    assert_eq!(soon("a change", read).await.unwrap().changed, 1);
    let cleanup = store.cleanup(at + SignedDuration::from_hours(1));
    assert_eq!(soon("a cleanup", cleanup).await.unwrap(), 1);
    assert!(waiting.iter().all(|change| !change.is_finished()));
    slow.end("COMMIT").await;
    let mut changed = 0;
    for change in waiting {
        changed += soon("the change", change).await.unwrap().unwrap().changed;
    }
    assert_eq!(changed, 2);
}

/// A log that is always locked by some append would never be trimmed.
#[tokio::test]
async fn regression_a_cleanup_waits_for_an_append_to_end() {
    const IS_WAITED_FOR: &str = "SELECT count(*) > 0 FROM pg_stat_activity
        WHERE pg_blocking_pids(pid) @> ARRAY[$1::integer]";
    let schema = Schema::create().await;
    let store = schema.store().await;
    let observer = schema.config().connect().await.unwrap();
    let later = Timestamp::now() + SignedDuration::from_hours(1);
    store.append(vec![draft(0)]).await.unwrap();
    let cleaned = async {
        // A machine that stands still meanwhile makes it give up.
        loop {
            let append = Application::begin(&schema.config(), &[draft(1)]).await;
            let pid = append.client.query_one("SELECT pg_backend_pid()", &[]);
            let pid: i32 = pid.await.unwrap().get(0);
            let cleaning = store.clone();
            let cleaning = tokio::spawn(async move { cleaning.cleanup(later).await });
            let is_waited_for = async || {
                let row = observer.query_one(IS_WAITED_FOR, &[&pid]).await;
                row.unwrap().get::<_, bool>(0)
            };
            while !cleaning.is_finished() && !is_waited_for().await {}
            append.end("COMMIT").await;
            if cleaning.await.unwrap().unwrap() > 0 {
                break;
            }
        }
    };
    soon("the events are removed", cleaned).await;
}

#[tokio::test]
async fn regression_what_was_delivered_stays_so_in_a_new_epoch() {
    let schema = Schema::create().await;
    let store = schema.store().await;
    let events = store.append((0..3).map(draft).collect()).await.unwrap();
    let marks = |id| vec![(ann(), id)];
    store.mark_delivered(marks(events[2].id)).await.unwrap();
    psql(&schema, "UPDATE tidings_notify_log SET line = line + 1").unwrap();
    let epoch = store.append(vec![draft(3)]).await.unwrap()[0].id.epoch;
    assert_ne!(epoch, events[0].id.epoch);
    let delivered = async || store.head(&ann()).await.unwrap().delivered_seq;
    assert_eq!(delivered().await, 3);
    for (seq, expected) in [(2, 3), (4, 4)] {
        let id = EventId::new(epoch, seq);
        store.mark_delivered(marks(id)).await.unwrap();
        assert_eq!(delivered().await, expected);
    }
}

#[tokio::test]
async fn all_callers_that_wait_for_a_table_are_refused_together() {
    let schema = Schema::create().await;
    schema.store().await.append(vec![draft(0)]).await.unwrap();
    let limit = Duration::from_secs(1);
    let config = schema.config().with_reply_limit(limit);
    let store = PostgresStore::open(config, PostgresOptions::default())
        .await
        .unwrap();
    let holder = schema.config().connect().await.unwrap();
    holder
        .batch_execute("BEGIN; LOCK TABLE tidings_notify_log IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let appends = (0..60).map(|n| store.append(vec![draft(n)]));
    // One after the other they would take a minute.
    let refused = tokio::time::timeout(20 * limit, futures_util::future::join_all(appends)).await;
    for refused in refused.unwrap() {
        assert!(
            matches!(refused, Err(StoreError::Unavailable(_))),
            "{refused:?}"
        );
    }
    holder.batch_execute("ROLLBACK").await.unwrap();
    store.append(vec![draft(1)]).await.unwrap();
}

#[tokio::test]
async fn a_caller_that_waits_too_long_for_a_lock_gets_an_error() {
    let schema = Schema::create().await;
    // The first one makes the tables, for which it has more time.
    schema.store().await.append(vec![draft(0)]).await.unwrap();
    let config = schema.config().with_reply_limit(Duration::from_secs(4));
    let store = PostgresStore::open(config, PostgresOptions::default())
        .await
        .unwrap();
    let slow = Application::begin(&schema.config(), &[draft(1)]).await;
    let refused = store.append(vec![draft(2)]).await;
    assert!(matches!(refused, Err(StoreError::Locked)), "{refused:?}");
    let ann = ann();
    let change = store.change(&ann, &InboxAction::ReadAll, Timestamp::now());
    let refused = change.await;
    assert!(matches!(refused, Err(StoreError::Locked)), "{refused:?}");
    slow.end("ROLLBACK").await;
    let stored = store.append(vec![draft(3)]).await.unwrap();
    assert_eq!(stored[0].id.seq, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_appends_share_a_transaction() {
    let schema = Schema::create().await;
    let store = schema.store().await;
    let appends = (0..500).map(|number| {
        let store = store.clone();
        tokio::spawn(async move { store.append(vec![draft(number)]).await.unwrap() })
    });
    for append in appends.collect::<Vec<_>>() {
        append.await.unwrap();
    }
    assert_eq!(store.head(&ann()).await.unwrap().top_seq, 500);
    let spent = transactions(&schema).await;
    assert!(spent < 400, "{spent} transactions for 500 appends");
}

/// How many transactions have stored the events of this schema.
pub(crate) async fn transactions(schema: &Schema) -> i64 {
    let client = schema.config().connect().await.unwrap();
    let count = "SELECT count(DISTINCT xmin::text) FROM tidings_notify_event";
    client.query_one(count, &[]).await.unwrap().get(0)
}

/// A commit that notifies takes a lock of the whole server, so appends leave it to a transaction of its
/// own, and many of them share one.
#[tokio::test]
async fn notifications_are_sent_after_the_commits_and_together() {
    let schema = Schema::create().await;
    let store = schema.store().await;
    let mut listening = schema.config().listen().await.unwrap();
    let client = schema.config().connect().await.unwrap();
    let row = client.query_one("SELECT tidings_notify_channel()", &[]);
    let channel: String = row.await.unwrap().get(0);
    let listen = format!("LISTEN \"{channel}\"");
    let nothing = |_| std::future::ready(());
    listening.run(&listen, nothing).await.unwrap();
    let appends = (0..300).map(|number| {
        let (store, user) = (store.clone(), user(&format!("user-{}", number % 50)));
        tokio::spawn(async move { store.append(vec![draft(number).with_user(user)]).await })
    });
    for append in appends.collect::<Vec<_>>() {
        append.await.unwrap().unwrap();
    }
    let (mut count, mut named) = (0, std::collections::BTreeSet::new());
    while named.len() < 50 {
        let next = soon("a notification", listening.next()).await.unwrap();
        named.extend(next.payload().split('\n').skip(1).map(str::to_owned));
        count += 1;
    }
    assert!(count < 100, "{count} notifications for 300 appends");
    // The application's own transaction sends none.
    Application::begin(&schema.config(), &[draft(1)])
        .await
        .end("COMMIT")
        .await;
    store
        .append(vec![draft(2).with_user(user("bob"))])
        .await
        .unwrap();
    loop {
        let next = soon("a notification", listening.next()).await.unwrap();
        let users: Vec<_> = next.payload().split('\n').skip(1).collect();
        assert!(!users.contains(&"ann"));
        if users.contains(&"bob") {
            break;
        }
    }
}

#[tokio::test]
async fn a_push_to_ten_thousand_users_is_one_transaction() {
    let schema = Schema::create().await;
    let notifier = without_sweep(schema.store().await).build().unwrap();
    let users: Vec<_> = (0..10_000).map(|n| user(&format!("user-{n}"))).collect();
    let pushed = notifier.push_multi(users.clone(), draft(1)).await.unwrap();
    assert_eq!(pushed.len(), 10_000);
    let heads = notifier.store().heads(&users).await.unwrap();
    assert!(
        heads
            .iter()
            .all(|head| (head.top_seq, head.unread) == (1, 1))
    );
    assert_eq!(transactions(&schema).await, 1);
}

#[tokio::test]
async fn cleanup_leaves_each_user_the_events_that_are_allowed() {
    let schema = Schema::create().await;
    let options = PostgresOptions::default().with_max_events_per_user(1500);
    let store = PostgresStore::open(schema.config(), options).await.unwrap();
    store.append((0..4000).map(draft).collect()).await.unwrap();
    let bob = draft(1).with_user(user("bob"));
    store.append(vec![bob]).await.unwrap();
    assert_eq!(store.cleanup(Timestamp::UNIX_EPOCH).await.unwrap(), 2500);
    let head = store.head(&ann()).await.unwrap();
    assert_eq!(
        (head.first_seq, head.top_seq, head.unread),
        (2501, 4000, 1500)
    );
    assert_eq!(store.head(&user("bob")).await.unwrap().unread, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_that_are_opened_together_make_the_tables_once() {
    let schema = Schema::create().await;
    let opening: Vec<_> = (0..6)
        .map(|_| {
            let config = schema.config();
            tokio::spawn(PostgresStore::open(config, PostgresOptions::default()))
        })
        .collect();
    for (number, opened) in (0..).zip(opening) {
        let store = opened.await.unwrap().unwrap();
        store.append(vec![draft(number)]).await.unwrap();
    }
    let store = schema.store().await;
    assert_eq!(store.head(&ann()).await.unwrap().top_seq, 6);
}

/// Runs statements as an application in any language would.
fn psql(schema: &Schema, statements: &str) -> Result<String, String> {
    let output = Command::new("psql")
        .args([
            &schema.url(),
            "-X",
            "-A",
            "-t",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            statements,
        ])
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().trim().to_owned();
    if output.status.success() {
        Ok(text(output.stdout))
    } else {
        Err(text(output.stderr))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psql_publishes_in_its_own_transaction() {
    let schema = Schema::create().await;
    let store = schema.store().await;
    // It sweeps, as an application that does not wake relies on.
    let notifier = Notifier::new(Arc::new(store.clone()));
    let mut screen = screen(&notifier).await;
    let rolled_back = "BEGIN; SELECT tidings_notify('ann', 'order', '{\"n\": 1}'); ROLLBACK";
    psql(&schema, rolled_back).unwrap();
    assert_eq!(store.head(&ann()).await.unwrap().top_seq, 0);
    let committed = "BEGIN;
        CREATE TABLE paid (id text);
        INSERT INTO paid SELECT tidings_notify('ann', 'order', '{\"n\": [2.50]}', key => 'order-2');
        COMMIT; SELECT id FROM paid";
    let id = psql(&schema, committed).unwrap();
    let Item::Event(event) = soon("the event", screen.next()).await.unwrap() else {
        panic!("expected the event");
    };
    assert_eq!(event.id.to_string(), id);
    assert_eq!(event.event_type.as_str(), "order");
    assert_eq!(event.payload.as_str(), r#"{"n": [2.50]}"#);
    assert_eq!(event.key, Some(EventKey::new("order-2").unwrap()));
    let page = store.inbox(&ann(), &InboxQuery::default()).await.unwrap();
    assert_eq!((&page.events[0], page.unread), (&*event, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psql_wakes_screens_after_its_commit() {
    let schema = Schema::create().await;
    let notifier = without_sweep(schema.store().await).build().unwrap();
    let mut screen = screen(&notifier).await;
    let many = "SELECT user_id FROM tidings_notify_all(ARRAY['zoe', 'ann', 'zoe'], 'n', '7')";
    assert_eq!(psql(&schema, many).unwrap(), "zoe\nann");
    psql(&schema, "SELECT tidings_notify_wake('ann', 'zoe')").unwrap();
    let Item::Event(event) = soon("the event", screen.next()).await.unwrap() else {
        panic!("expected the event");
    };
    assert_eq!(number(&event), 7);
}

#[tokio::test]
async fn the_sql_function_refuses_what_the_library_refuses() {
    let schema = Schema::create().await;
    let store = schema.store().await;
    let deep = format!("{}{}", "[".repeat(121), "]".repeat(121));
    let long = "x".repeat(256);
    for (arguments, reason) in [
        ("'', 't', '1'", "user_id to have 1 to 255 bytes"),
        (
            &format!("'{long}', 't', '1'"),
            "user_id to have 1 to 255 bytes",
        ),
        ("NULL, 't', '1'", "user_id to have 1 to 255 bytes"),
        ("'..', 't', '1'", "looks like no other"),
        ("' ann', 't', '1'", "looks like no other"),
        ("E'ann\\u202e', 't', '1'", "looks like no other"),
        ("E'\\u00a0ann', 't', '1'", "looks like no other"),
        ("E'ann\\u2007', 't', '1'", "looks like no other"),
        ("E'ann\\u202f', 't', '1'", "looks like no other"),
        ("E'\\u3000ann', 't', '1'", "looks like no other"),
        (
            "E'a\\nb', 't', '1'",
            "user_id to have no control characters",
        ),
        (
            "'ann', 'tidings.bye', '1'",
            "type not to begin with tidings.",
        ),
        ("'ann', NULL, '1'", "type to have 1 to 255 bytes"),
        ("'ann', 't', NULL", "payload to be JSON"),
        (&format!("'ann', 't', '{deep}'"), "at most 120 levels"),
        ("'ann', 't', '1', ''", "key to have 1 to 255 bytes"),
        ("'ann', 't', '1', 'k', NULL", "occurred_at to be a time"),
        (
            "'ann', 't', '1', 'k', '9999-12-31Z'",
            "occurred_at to be a time",
        ),
        (
            "'ann', 't', '1', 'k', 'infinity'",
            "occurred_at to be a time",
        ),
        (
            "'ann', 't', '1', 'k', '0001-12-31Z BC'",
            "occurred_at to be a time",
        ),
        ("'ann', 't', 'nonsense'", "json"),
    ] {
        let refused = psql(&schema, &format!("SELECT tidings_notify({arguments})")).unwrap_err();
        assert!(refused.contains(reason), "{arguments}: {refused}");
    }
    assert_eq!(store.head(&ann()).await.unwrap().top_seq, 0);
    // As deep as it may be, and brackets in strings do not count.
    let deepest = format!(
        "{}\"{}\\\\\\\"[{{\"{}",
        "[".repeat(120),
        "[".repeat(9),
        "]".repeat(120)
    );
    psql(
        &schema,
        &format!("SELECT tidings_notify('ann', 't', E'{deepest}')"),
    )
    .unwrap();
    let page = store.read(&ann(), 0, 10).await.unwrap();
    assert_eq!(page.events.len(), 1);
}

#[tokio::test]
async fn regression_an_event_that_is_given_to_no_one_leaves_the_transaction_as_it_is() {
    let schema = Schema::create().await;
    schema.store().await;
    let statements = "BEGIN;
        SELECT tidings_notify_all('{}', 't', '1');
        SELECT tidings_notify_all(NULL, 't', '1');
        COMMIT; SELECT 'committed'";
    assert_eq!(psql(&schema, statements).unwrap(), "committed");
}

/// As statements of another program may have left them.
#[tokio::test]
async fn regression_events_of_times_out_of_range_are_read() {
    let schema = Schema::create().await;
    let store = schema.store().await;
    store.append(vec![draft(0), draft(1)]).await.unwrap();
    let far = "UPDATE tidings_notify_event SET timestamp = CASE seq
        WHEN 1 THEN -9223372036854775808 ELSE 9223372036854775807 END";
    psql(&schema, far).unwrap();
    let page = store.read(&ann(), 0, 10).await.unwrap();
    let times: Vec<_> = page.events.iter().map(|event| event.timestamp).collect();
    // The last microsecond that there is.
    let last = Timestamp::from_second(Timestamp::MAX.as_second());
    assert_eq!(times, [Timestamp::MIN, last.unwrap()]);
}
