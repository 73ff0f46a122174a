//! What is particular to the store on Redis.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tidings_notify::conformance::Subject;
use tidings_notify::redis::{Config, RedisOptions, RedisStore};
use tidings_notify::{
    Draft, EventKey, GapReason, InboxAction, InboxQuery, Item, Notifier, Payload, Since, Store,
    StoreError, Wake,
};
use tidings_test_support::RedisServer;
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::task::AbortOnDropHandle;

use crate::database::PATIENT;
use crate::support::{NEVER, ann, draft, numbers, push_numbers, user};

/// The server that the tests run against.
pub(crate) fn url() -> String {
    std::env::var("REDIS_URL")
        .expect("REDIS_URL names a Redis server; `scripts/services` runs a command with one")
}

/// A prefix that no other test has, nor an earlier run.
pub(crate) fn prefix() -> String {
    format!("test {:016x}", fastrand::u64(..))
}

pub(crate) async fn open(prefix: &str) -> RedisStore {
    open_at(&url(), RedisOptions::default().with_prefix(prefix)).await
}

pub(crate) async fn open_at(url: &str, options: RedisOptions) -> RedisStore {
    let config = Config::new(url).unwrap().with_reply_limit(PATIENT);
    RedisStore::open(config, options).await.unwrap()
}

/// The only node of a cluster. There is one at a time: the port of its bus cannot be chosen.
pub(crate) async fn node() -> (RedisServer, MutexGuard<'static, ()>) {
    static ONLY: Mutex<()> = Mutex::const_new(());
    let only = ONLY.lock().await;
    let server = RedisServer::start_node().await.unwrap();
    let slots = ["CLUSTER", "ADDSLOTSRANGE", "0", "16383"];
    server.command(&slots).unwrap();
    let info = || server.command(&["CLUSTER", "INFO"]).unwrap();
    while !info().contains("cluster_state:ok") {}
    (server, only)
}

/// Two handles of an empty store.
pub(crate) async fn subject() -> Subject {
    let prefix = prefix();
    let limited = RedisOptions::default()
        .with_prefix(&*prefix)
        .with_max_events_per_user(5);
    let keeping = limited.clone().with_unread_kept();
    Subject::new(open(&prefix).await)
        .with_second_handle(open(&prefix).await)
        .with_limit(5, open_at(&url(), limited).await)
        .with_unread_kept(5, open_at(&url(), keeping).await)
}

#[tokio::test]
async fn a_log_is_bounded_and_streams_get_a_gap() {
    let options = RedisOptions::default()
        .with_prefix(prefix())
        .with_max_events_per_user(3);
    let store = open_at(&url(), options).await;
    let notifier = Notifier::builder(Arc::new(store.clone()))
        .poll_interval(NEVER)
        .buffer_size(1)
        .build()
        .unwrap();
    let mut slow = notifier.subscribe(ann(), Since::Now).await.unwrap();
    let events = push_numbers(&notifier, 0..10).await;
    let head = store.head(&ann()).await.unwrap();
    assert_eq!((head.first_seq, head.top_seq, head.unread), (8, 10, 3));
    assert!(matches!(slow.next().await.unwrap(), Item::CaughtUp { .. }));
    let Item::Gap(gap) = slow.next().await.unwrap() else {
        panic!("expected a gap");
    };
    assert_eq!(gap.to, events[6].id);
    assert_eq!(numbers(&mut slow, 3).await, [7, 8, 9]);
}

/// A log that is much longer than a new bound gets shorter with each append, and none stops the server for long.
#[tokio::test]
async fn regression_one_append_removes_only_some_of_many_events() {
    const KEPT: u64 = 10;
    let server = RedisServer::start().await.unwrap();
    let store = open_at(&server.url(), RedisOptions::default()).await;
    let key = |number: u64| EventKey::new(format!("k{number}")).unwrap();
    for first in (0..5000).step_by(1000) {
        let drafts = (first..first + 1000).map(|number| draft(number).with_key(key(number)));
        store.append(drafts.collect()).await.unwrap();
    }
    let options = RedisOptions::default().with_max_events_per_user(KEPT);
    let store = open_at(&server.url(), options).await;
    let mut head = store.head(&ann()).await.unwrap();
    while head.top_seq >= head.first_seq + KEPT {
        store.append(vec![draft(0)]).await.unwrap();
        let next = store.head(&ann()).await.unwrap();
        let removed = next.first_seq - head.first_seq;
        assert!((1..1100).contains(&removed), "{removed} events");
        head = next;
    }
    assert_eq!(
        (head.top_seq, head.unread),
        (head.first_seq + KEPT - 1, KEPT)
    );
    // Some of those that are left have keys, and of the others nothing is kept.
    let keyed = server.command(&["KEYS", "*:keyed:ann"]).unwrap();
    let keys = server.command(&["HLEN", keyed.trim()]).unwrap();
    let appended = head.top_seq - 5000;
    assert_eq!(keys.trim(), (KEPT - appended).to_string());
}

/// Another process is woken, without a sweep.
#[tokio::test]
async fn a_change_wakes_every_handle() {
    let prefix = prefix();
    let (here, there) = (open(&prefix).await, open(&prefix).await);
    let mut wakes = there.wakes().unwrap();
    // From the time when it listens, nothing is lost.
    while wakes.next().await != Some(Wake::Lost) {}
    here.append(vec![draft(1)]).await.unwrap();
    assert_eq!(wakes.next().await, Some(Wake::Changed(ann())));
    let (ann, all) = (ann(), InboxAction::ReadAll);
    let change = here.change(&ann, &all, jiff::Timestamp::now());
    assert_eq!(change.await.unwrap().changed, 1);
    assert_eq!(wakes.next().await, Some(Wake::Changed(ann)));
}

/// An append for many users is few messages.
#[tokio::test]
async fn one_message_wakes_many_users() {
    let server = RedisServer::start().await.unwrap();
    let store = open_at(&server.url(), RedisOptions::default()).await;
    let mut wakes = store.wakes().unwrap();
    while wakes.next().await != Some(Wake::Lost) {}
    let users: Vec<_> = (0..700).map(|n| user(&format!("u {n}"))).collect();
    let drafts = users.iter().map(|user| draft(1).with_user(user.clone()));
    server.command(&["CONFIG", "RESETSTAT"]).unwrap();
    store.append(drafts.collect()).await.unwrap();
    for user in users {
        assert_eq!(wakes.next().await, Some(Wake::Changed(user)));
    }
    let statistics = server.command(&["INFO", "commandstats"]).unwrap();
    assert!(
        statistics.contains("cmdstat_publish:calls=2,"),
        "{statistics}"
    );
}

#[tokio::test]
async fn an_event_reaches_a_screen_on_another_instance_by_a_wake_up() {
    let prefix = prefix();
    let build = |store| {
        Notifier::builder(Arc::new(store))
            .poll_interval(NEVER)
            .build()
            .unwrap()
    };
    let (here, there) = (build(open(&prefix).await), build(open(&prefix).await));
    let mut screen = there.subscribe(ann(), Since::Start).await.unwrap();
    push_numbers(&here, 0..20).await;
    assert_eq!(numbers(&mut screen, 20).await, (0..20).collect::<Vec<_>>());
}

/// After a restart the newest events may be gone, and nothing reports it.
#[tokio::test]
async fn a_server_that_lost_its_newest_events_shows_a_gap() {
    let mut server = RedisServer::start().await.unwrap();
    let store = open_at(&server.url(), RedisOptions::default()).await;
    let lost = store.append((0..3).map(draft).collect()).await.unwrap();
    let mark = store.mark().await.unwrap();
    // It keeps nothing.
    server.stop().unwrap();
    server.start_again().await.unwrap();
    let changes = retried(async || store.changes(&mark, 10).await).await;
    assert!(changes.rewound);
    // As many as were lost, so that the numbers are the same.
    let events = store.append((3..6).map(draft).collect()).await.unwrap();
    assert_eq!(events[2].id.seq, lost[2].id.seq);
    let notifier = Notifier::new(Arc::new(store));
    let since = Since::After(lost[1].id);
    let mut stream = notifier.subscribe(ann(), since).await.unwrap();
    let Item::Gap(gap) = stream.next().await.unwrap() else {
        panic!("expected a gap");
    };
    assert_eq!(gap.reason, GapReason::UnknownEpoch);
    assert_eq!(numbers(&mut stream, 3).await, [3, 4, 5]);
}

/// What is on disk stays. Whether the epoch does depends on what was promised.
#[tokio::test]
async fn a_durable_server_keeps_what_was_accepted() {
    for is_promised in [false, true] {
        let mut server = RedisServer::start_durable().await.unwrap();
        let mut options = RedisOptions::default();
        if is_promised {
            options = options.with_durable_server();
        }
        let store = open_at(&server.url(), options).await;
        let before = store.append((0..3).map(draft).collect()).await.unwrap();
        let mark = store.mark().await.unwrap();
        server.stop().unwrap();
        server.start_again().await.unwrap();
        let page = retried(async || store.read(&ann(), 0, 10).await).await;
        assert_eq!(page.events, before);
        let after = store.append(vec![draft(3)]).await.unwrap();
        assert_eq!(after[0].id.seq, 4);
        assert_eq!(after[0].id.epoch == before[0].id.epoch, is_promised);
        let changes = store.changes(&mark, 10).await.unwrap();
        assert_eq!(changes.rewound, !is_promised);
        assert_eq!(changes.logs.len(), usize::from(is_promised));
    }
}

/// Asks again while the connection is made again.
pub(crate) async fn retried<T>(mut ask: impl AsyncFnMut() -> Result<T, StoreError>) -> T {
    loop {
        if let Ok(reply) = ask().await {
            return reply;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whichever key is lost, events continue to be stored, and what a reader does not get is a gap.
#[tokio::test]
async fn regression_a_lost_key_is_a_gap_and_stops_no_log() {
    let server = RedisServer::start().await.unwrap();
    for kind in [
        "log", "event", "row", "open", "state", "mark", "keyed", "changed", "oldest", "meta",
    ] {
        server.command(&["FLUSHALL"]).unwrap();
        let store = open_at(&server.url(), RedisOptions::default()).await;
        let notifier = Notifier::builder(Arc::new(store.clone()))
            .poll_interval(Duration::from_millis(20))
            .build()
            .unwrap();
        let keyed = |number| draft(number).with_key(EventKey::new("k").unwrap());
        let mut events = store.append((0..4).map(draft).collect()).await.unwrap();
        events.extend(store.append((4..6).map(keyed).collect()).await.unwrap());
        for action in [
            InboxAction::ReadUpTo(events[1].id),
            InboxAction::Unread(vec![events[0].id]),
            InboxAction::Archive(vec![events[2].id]),
        ] {
            notifier.change(&ann(), &action).await.unwrap();
        }
        let keys = server.command(&["KEYS", "*"]).unwrap();
        let is_lost =
            |key: &&str| key.ends_with(&format!(":{kind}")) || key.contains(&format!(":{kind}:"));
        let key = keys
            .lines()
            .find(is_lost)
            .unwrap_or_else(|| panic!("{kind} in {keys}"));
        server.command(&["DEL", key]).unwrap();

        let since = Since::After(events[1].id);
        let mut reader = notifier.subscribe(ann(), since).await.unwrap();
        notifier.push(keyed(9)).await.unwrap();
        let mut seen = Vec::new();
        while seen.last() != Some(&9) {
            if let Item::Event(event) = reader.next().await.unwrap() {
                seen.push(crate::support::number(&event));
            }
        }
        assert!(
            seen == [2, 3, 4, 5, 9] || reader.gaps() > 0,
            "{kind}: {seen:?}"
        );
        let all = InboxAction::ReadAll;
        let update = notifier.change(&ann(), &all).await.unwrap();
        assert_eq!(update.change.unread, 0, "{kind}");
        let page = store.read(&ann(), 0, 10).await.unwrap();
        let first = page.events[0].id.seq;
        assert_eq!(page.head.first_seq, first, "{kind}");
        store.cleanup(jiff::Timestamp::now()).await.unwrap();
    }
}

/// A node of a cluster refuses a script that touches keys of several slots.
#[tokio::test]
async fn every_key_lies_in_the_slot_of_its_store() {
    let (server, _only) = node().await;
    let store = open_at(&server.url(), RedisOptions::default().with_prefix("tag")).await;
    for name in ["ann", "{a}", "}{", "a:b", ":log:x"] {
        let key = tidings_notify::EventKey::new("{k}").unwrap();
        let drafts = (0..3).map(|n| draft(n).with_user(user(name)).with_key(key.clone()));
        let events = store.append(drafts.collect()).await.unwrap();
        let ids = vec![events[2].id];
        store
            .change(
                &user(name),
                &InboxAction::Unread(ids.clone()),
                jiff::Timestamp::now(),
            )
            .await
            .unwrap();
        store
            .change(&user(name), &InboxAction::ReadAll, jiff::Timestamp::now())
            .await
            .unwrap();
        let page = store
            .inbox(&user(name), &InboxQuery::default())
            .await
            .unwrap();
        assert_eq!((page.events.len(), page.unread), (1, 0));
    }
    let keys = server.command(&["KEYS", "*"]).unwrap();
    assert!(keys.lines().count() > 20, "{keys}");
    assert!(keys.lines().all(|key| key.starts_with("{tag}:")), "{keys}");
}

/// How many commands the server has run since its statistics were reset, of the names that count.
fn calls(server: &RedisServer, counts: impl Fn(&str) -> bool) -> u64 {
    let statistics = server.command(&["INFO", "commandstats"]).unwrap();
    let calls = statistics.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let is_own = !["info", "hello"].contains(&name) && counts(name);
        is_own.then(|| rest.split(',').next()?.parse::<u64>().ok())?
    });
    calls.sum()
}

/// "All up to here" does not touch the events that it is about.
#[tokio::test]
async fn reading_all_of_a_long_log_takes_few_commands() {
    let server = RedisServer::start().await.unwrap();
    let store = open_at(&server.url(), RedisOptions::default()).await;
    let mut costs = Vec::new();
    for count in [10, 9_000] {
        store.append((0..count).map(draft).collect()).await.unwrap();
        server.command(&["CONFIG", "RESETSTAT"]).unwrap();
        let now = jiff::Timestamp::now();
        for (action, expected) in [(InboxAction::ReadAll, count), (InboxAction::SeeAll, 0)] {
            let changed = store.change(&ann(), &action, now).await.unwrap();
            assert_eq!(changed.changed, expected);
        }
        costs.push(calls(&server, |name| !name.starts_with("config")));
    }
    assert!(costs.iter().all(|cost| *cost < 30), "{costs:?}");
}

#[tokio::test]
async fn a_page_over_many_events_is_found_in_parts() {
    let server = RedisServer::start().await.unwrap();
    let store = open_at(&server.url(), RedisOptions::default()).await;
    let drafts = (0..5_000).map(draft).collect();
    let events = store.append(drafts).await.unwrap();
    let ids: Vec<_> = [1, 2_500, 4_999].map(|at: usize| events[at].id).to_vec();
    let now = jiff::Timestamp::now();
    store
        .change(&ann(), &InboxAction::ReadAll, now)
        .await
        .unwrap();
    store
        .change(&ann(), &InboxAction::Unread(ids.clone()), now)
        .await
        .unwrap();
    let unread = InboxQuery::default().with_unread_only();
    server.command(&["CONFIG", "RESETSTAT"]).unwrap();
    let page = store.inbox(&ann(), &unread).await.unwrap();
    assert!(calls(&server, |name| name == "xrange") > 1);
    let found: Vec<_> = page.events.iter().rev().map(|event| event.id).collect();
    assert_eq!((found, page.unread, page.next), (ids, 3, None));
    let only = InboxQuery::default().with_event_type("other".parse().unwrap());
    let page = store.inbox(&ann(), &only).await.unwrap();
    assert_eq!((page.events.len(), page.next), (0, None));
}

/// A filter that finds little looks at many parts, and none is of the same moment as the first.
#[tokio::test]
async fn regression_an_inbox_that_changes_all_the_time_is_listed() {
    let store = open(&prefix()).await;
    let rare = Draft::new(
        ann(),
        "rare".parse().unwrap(),
        Payload::from_value(&0).unwrap(),
    );
    store.append(vec![rare]).await.unwrap();
    let events = store.append((0..4_000).map(draft).collect()).await.unwrap();
    let ids = vec![events[9].id];
    let (busy, ann) = (store.clone(), ann());
    let changing = AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            for action in [
                InboxAction::Read(ids.clone()),
                InboxAction::Unread(ids.clone()),
            ] {
                let change = busy.change(&ann, &action, jiff::Timestamp::now());
                assert_eq!(change.await.unwrap().changed, 1);
            }
        }
    }));
    let only = InboxQuery::default().with_event_type("rare".parse().unwrap());
    let mut query = only.clone();
    let mut found = Vec::new();
    let listing = async {
        loop {
            let page = store.inbox(&user("ann"), &query).await.unwrap();
            found.extend(page.events);
            match page.next {
                Some(next) => query = only.clone().with_cursor(next),
                None => break,
            }
        }
    };
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, listing).await.unwrap();
    drop(changing);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].id.seq, 1);
}

#[tokio::test]
async fn regression_a_log_that_is_lost_hides_no_change_of_another() {
    let server = RedisServer::start().await.unwrap();
    let store = open_at(&server.url(), RedisOptions::default()).await;
    let mut mark = store.mark().await.unwrap();
    for name in ["ann", "bob", "cy"] {
        let draft = draft(1).with_user(user(name));
        store.append(vec![draft]).await.unwrap();
    }
    let lost = "{tidings:notify}:log:bob";
    assert_eq!(server.command(&["DEL", lost]).unwrap().trim(), "1");
    let mut found = Vec::new();
    loop {
        let changes = store.changes(&mark, 2).await.unwrap();
        assert!(!changes.rewound);
        mark = changes.mark;
        found.extend(changes.logs.into_iter().map(|log| log.user));
        if !changes.more {
            break;
        }
    }
    assert_eq!(found, [ann(), user("cy")]);
    let changes = store.changes(&mark, 2).await.unwrap();
    assert!(changes.logs.is_empty() && !changes.more);
}

/// Each is looked at once, however many have been passed over before, and many have the same age.
#[tokio::test]
async fn a_cleanup_passes_over_many_logs_with_unread_events() {
    let server = RedisServer::start().await.unwrap();
    let options = RedisOptions::default().with_unread_kept();
    let store = open_at(&server.url(), options).await;
    let users: Vec<_> = (0..1000).map(|n| user(&format!("user-{n}"))).collect();
    let drafts = users.iter().map(|user| draft(1).with_user(user.clone()));
    store.append(drafts.collect()).await.unwrap();
    let now = jiff::Timestamp::now();
    for user in users.iter().step_by(10) {
        store
            .change(user, &InboxAction::ReadAll, now)
            .await
            .unwrap();
    }
    server.command(&["CONFIG", "RESETSTAT"]).unwrap();
    let cutoff = now + SignedDuration::from_hours(1);
    assert_eq!(store.cleanup(cutoff).await.unwrap(), 100);
    let statistics = server.command(&["INFO", "commandstats"]).unwrap();
    assert!(
        statistics.contains("cmdstat_evalsha:calls=1001,"),
        "{statistics}"
    );
    let heads = store.heads(&users).await.unwrap();
    assert_eq!(heads.iter().map(|head| head.unread).sum::<u64>(), 900);
    assert_eq!(store.cleanup(cutoff).await.unwrap(), 0);
}

#[tokio::test]
async fn a_closed_store_listens_no_more() {
    let server = RedisServer::start().await.unwrap();
    let store = open_at(&server.url(), RedisOptions::default()).await;
    let mut wakes = store.wakes().unwrap();
    while wakes.next().await != Some(Wake::Lost) {}
    store.close().await;
    let clients = || {
        server
            .command(&["CLIENT", "LIST", "TYPE", "pubsub"])
            .unwrap()
    };
    let closed = async {
        while !clients().trim().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, closed)
        .await
        .expect("it is closed");
    drop(store);
}
