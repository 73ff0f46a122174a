//! The behaviour that every [`Store`] must have, as functions.
//!
//! Each function checks one rule of the contract on a fresh, empty store, and panics when the store
//! breaks it. [`store_conformance!`](crate::store_conformance) makes a test of each; the crate that
//! uses it needs tokio with `macros` and `rt`.
//!
//! ```
//! use tidings_notify::{MemoryStore, store_conformance};
//!
//! // An expression for a fresh store, and whatever must live as long as it does.
//! store_conformance!(memory, (MemoryStore::new(), ()));
//! ```

#![allow(
    clippy::missing_panics_doc,
    reason = "all of them panic for the reason that the module states"
)]

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};

use crate::event::to_microseconds;
use crate::{
    Draft, Epoch, Event, EventId, EventType, Head, InboxPage, InboxQuery, MAX_INBOX_PAGE_BYTES,
    MAX_PAGE_BYTES, Marked, Page, Payload, ReadScope, Store, StoreError, UserId,
};

/// Makes a module with one test for each rule of the [`Store`](crate::Store) contract.
///
/// Takes the module's name, and an expression for a pair: a fresh, empty store, and something to
/// keep as long as the store is used. The expression may `.await`.
#[macro_export]
macro_rules! store_conformance {
    ($module:ident, $fresh:expr) => {
        $crate::store_conformance!(@tests $module, $fresh,
            append_assigns_dense_numbers_from_one,
            append_answers_in_the_order_of_the_drafts,
            every_log_has_an_epoch_of_its_own,
            all_fields_survive_a_round_trip,
            read_is_strictly_after_rising_and_capped,
            read_ends_a_page_of_large_payloads_early,
            an_unknown_user_reads_empty_without_error,
            concurrent_appends_neither_repeat_nor_skip_a_number,
            find_knows_only_events_that_are_kept,
            inbox_pages_go_from_new_to_old_without_repeats,
            inbox_ends_a_page_of_large_payloads_early,
            inbox_filters_by_type_and_unread,
            inbox_refuses_a_cursor_of_another_log,
            mark_read_is_exact_and_idempotent,
            mark_read_up_to_leaves_later_events_unread,
            mark_read_ignores_other_logs,
            mark_all_read_leaves_none,
            delivered_marks_only_move_forward,
            cursor_before_finds_the_first_event_stamped_so_late,
            cursor_before_is_exact_for_disordered_stamps,
            changes_name_each_log_that_changed,
            changes_come_in_pages,
            changes_do_not_name_what_was_only_delivered,
            cleanup_removes_the_old_and_keeps_the_log,
            cleanup_keeps_the_unread_count_exact,
            cleanup_of_a_long_log_removes_exactly_the_old,
            cleanup_counts_age_from_storing_and_not_from_the_stamp,
            calls_after_close_answer_closed,
        );
    };
    (@tests $module:ident, $fresh:expr, $($behaviour:ident,)*) => {
        mod $module {
            #[allow(unused_imports, reason = "the store's expression may need none of them")]
            use super::*;

            $(
                #[tokio::test]
                async fn $behaviour() {
                    let (store, _keep) = $fresh;
                    $crate::conformance::$behaviour(&store).await;
                }
            )*
        }
    };
}

/// Numbers are 1, 2, 3 … in one epoch, and the head follows.
pub async fn append_assigns_dense_numbers_from_one(store: &impl Store) {
    let ann = user("ann");
    for expected in 1..=3 {
        let event = append(store, &ann, 1).await.remove(0);
        let head = head(store, &ann).await;
        assert_eq!(event.id, EventId::new(head.epoch, expected));
        assert_eq!((head.first_seq, head.top_seq), (1, expected));
        assert_eq!((head.unread, head.delivered_seq), (expected, 0));
    }
}

/// One event for each draft, in the same order, whoever they are for.
pub async fn append_answers_in_the_order_of_the_drafts(store: &impl Store) {
    let users = ["ann", "bob", "ann", "cid", "ann"].map(user);
    let drafts: Vec<_> = (0..).zip(&users).map(|(n, user)| draft(user, n)).collect();
    let events = ok(store.append(drafts).await);
    assert_eq!(numbers(&events), [0, 1, 2, 3, 4]);
    assert_eq!(
        events.iter().map(|e| &e.user).collect::<Vec<_>>(),
        users.iter().collect::<Vec<_>>()
    );
    assert_eq!(
        events.iter().map(|e| e.id.seq).collect::<Vec<_>>(),
        [1, 1, 2, 1, 3]
    );
    assert_eq!(ok(store.append(Vec::new()).await), []);
}

/// Epochs are random, and stay with their log.
pub async fn every_log_has_an_epoch_of_its_own(store: &impl Store) {
    let mut epochs = HashSet::new();
    for name in ["ann", "bob", "cid"] {
        let first = append(store, &user(name), 2).await;
        assert_eq!(first[0].id.epoch, first[1].id.epoch);
        assert_ne!(first[0].id.epoch, Epoch::NONE);
        epochs.insert(first[0].id.epoch);
    }
    assert_eq!(epochs.len(), 3);
}

/// Type, user, payload and timestamp come back as they were stored.
pub async fn all_fields_survive_a_round_trip(store: &impl Store) {
    let ann = user("ann ✉ {}:*'\"");
    let payload = r#"{"text":"ü\n\u0000","big":123456789012345678901234567890,"deep":[[{}]]}"#;
    let times = ["1969-12-31T23:59:59.999999Z", "2026-01-02T03:04:05.678901Z"];
    for time in times {
        let draft = Draft::new(
            ann.clone(),
            EventType::new("ein.typ/ü ").expect("the name is valid"),
            Payload::parse(payload).expect("the payload is JSON"),
        )
        .with_timestamp(time.parse().expect("the time is valid"));
        let event = ok(store.append(vec![draft.clone()]).await).remove(0);
        assert_eq!(event, Event::from_draft(draft, event.id));
        assert_eq!(ok(store.find(&ann, event.id).await).as_ref(), Some(&event));
        let page = ok(store.read(&ann, event.id.seq - 1, 10).await);
        assert_eq!(page.events, std::slice::from_ref(&event));
        let inbox = inbox(store, &ann, &InboxQuery::default()).await;
        assert_eq!(inbox.events[0], event);
    }
}

/// A page holds what is after the cursor, rising, and at most the limit.
pub async fn read_is_strictly_after_rising_and_capped(store: &impl Store) {
    let ann = user("ann");
    append(store, &ann, 10).await;
    append(store, &user("bob"), 3).await;
    for (after, limit, expected) in [
        (0, 100, vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (3, 4, vec![4, 5, 6, 7]),
        (9, 4, vec![10]),
        (10, 4, vec![]),
        (u64::MAX, 4, vec![]),
    ] {
        let page = ok(store.read(&ann, after, limit).await);
        assert_eq!(seqs(&page.events), expected, "after {after}, limit {limit}");
        assert_eq!((page.first_seq, page.top_seq), (1, 10));
        assert_eq!(page.epoch, head(store, &ann).await.epoch);
    }
}

/// Large payloads end a page before the limit does, but no page ends before its first event.
pub async fn read_ends_a_page_of_large_payloads_early(store: &impl Store) {
    let ann = user("ann");
    let (half, whole) = (MAX_PAGE_BYTES / 2, MAX_PAGE_BYTES);
    let sizes = [half, half, 1, whole + 1, whole, 1, half, 1];
    append_sized(store, &ann, &sizes).await;
    let mut pages = Vec::new();
    let mut after = 0;
    while after < 8 {
        let page = ok(store.read(&ann, after, 100).await);
        assert_eq!((page.first_seq, page.top_seq), (1, 8));
        let seqs = seqs(&page.events);
        after = *seqs.last().expect("a page has at least one event");
        pages.push(seqs);
    }
    assert_eq!(
        pages,
        [vec![1, 2], vec![3], vec![4], vec![5], vec![6, 7, 8]]
    );
    assert_eq!(seqs(&ok(store.read(&ann, 5, 2).await).events), [6, 7]);
}

/// Everything about a user without a log is empty, and nothing is an error.
pub async fn an_unknown_user_reads_empty_without_error(store: &impl Store) {
    let nobody = user("nobody");
    let id = EventId::new(Epoch::random(), 1);
    assert_eq!(ok(store.read(&nobody, 0, 10).await), Page::empty());
    assert_eq!(head(store, &nobody).await, Head::EMPTY);
    assert_eq!(
        inbox(store, &nobody, &InboxQuery::default()).await,
        InboxPage::empty()
    );
    assert_eq!(ok(store.find(&nobody, id).await), None);
    assert_eq!(
        ok(store.cursor_before(&nobody, now()).await),
        EventId::ORIGIN
    );
    let update = ok(store.mark_read(&nobody, &ReadScope::All, now()).await);
    assert_eq!((update.changed, update.change.unread), (0, 0));
    ok(store.mark_delivered(vec![(nobody.clone(), id)]).await);
    assert_eq!(ok(store.cleanup(now()).await), 0);
    assert_eq!(head(store, &nobody).await, Head::EMPTY);
}

/// Appends that run at the same time share one dense sequence.
pub async fn concurrent_appends_neither_repeat_nor_skip_a_number(store: &impl Store) {
    let ann = user("ann");
    let append_some = async |first: u64| {
        let mut taken = Vec::new();
        for number in 0..20 {
            let events = ok(store.append(vec![draft(&ann, first + number)]).await);
            taken.push(events[0].id.seq);
        }
        taken
    };
    let (a, b, c, d) = tokio::join!(
        append_some(0),
        append_some(100),
        append_some(200),
        append_some(300)
    );
    for taken in [&a, &b, &c, &d] {
        assert!(taken.is_sorted(), "one writer's numbers rise: {taken:?}");
    }
    let mut all = [a, b, c, d].concat();
    all.sort_unstable();
    assert_eq!(all, (1..=80).collect::<Vec<_>>());
    assert_eq!(seqs(&ok(store.read(&ann, 0, 100).await).events), all);
}

/// `find` answers the event itself, and nothing for ids of other logs or beyond the top.
pub async fn find_knows_only_events_that_are_kept(store: &impl Store) {
    let ann = user("ann");
    let events = append(store, &ann, 2).await;
    append(store, &user("bob"), 1).await;
    assert_eq!(
        ok(store.find(&ann, events[1].id).await).as_ref(),
        Some(&events[1])
    );
    let epoch = events[0].id.epoch;
    for unknown in [
        EventId::new(epoch, 0),
        EventId::new(epoch, 3),
        EventId::new(epoch, u64::MAX),
        EventId::new(Epoch::random(), 1),
    ] {
        assert_eq!(ok(store.find(&ann, unknown).await), None, "{unknown}");
    }
    assert_eq!(ok(store.find(&user("bob"), events[0].id).await), None);
}

/// Pages join into the whole inbox, newest first.
pub async fn inbox_pages_go_from_new_to_old_without_repeats(store: &impl Store) {
    let ann = user("ann");
    let events = append(store, &ann, 7).await;
    append(store, &user("bob"), 5).await;
    let mut query = InboxQuery::default().with_limit(3);
    let mut pages = Vec::new();
    loop {
        let page = inbox(store, &ann, &query).await;
        assert_eq!(page.unread, 7);
        assert_eq!(page.cursor, events[6].id);
        pages.push(seqs(&page.events));
        match page.next {
            Some(next) => query = query.with_cursor(next),
            None => break,
        }
    }
    assert_eq!(pages, [vec![7, 6, 5], vec![4, 3, 2], vec![1]]);
    // A page that ends with the last event has no next.
    let exact = inbox(store, &ann, &InboxQuery::default().with_limit(7)).await;
    assert_eq!((exact.events.len(), exact.next), (7, None));
}

/// Large payloads end a page before the limit does, and the next page goes on.
pub async fn inbox_ends_a_page_of_large_payloads_early(store: &impl Store) {
    let ann = user("ann");
    let (half, whole) = (MAX_INBOX_PAGE_BYTES / 2, MAX_INBOX_PAGE_BYTES);
    append_sized(store, &ann, &[1, half, half, whole + 1, half, half]).await;
    let mut query = InboxQuery::default();
    let mut pages = Vec::new();
    loop {
        let page = inbox(store, &ann, &query).await;
        pages.push(seqs(&page.events));
        match page.next {
            Some(next) => query = query.with_cursor(next),
            None => break,
        }
    }
    assert_eq!(pages, [vec![6, 5], vec![4], vec![3, 2], vec![1]]);
}

/// The filters combine, page, and leave the count of the whole inbox as it is.
pub async fn inbox_filters_by_type_and_unread(store: &impl Store) {
    let ann = user("ann");
    let kinds = ["a", "b", "a", "b", "a", "c", "a"];
    let drafts = kinds.iter().map(|kind| {
        let event_type = EventType::new(kind).expect("the name is valid");
        Draft::new(
            ann.clone(),
            event_type,
            Payload::parse("null").expect("null is JSON"),
        )
    });
    let events = ok(store.append(drafts.collect()).await);
    let read = ReadScope::Ids(vec![events[0].id, events[3].id, events[4].id]);
    ok(store.mark_read(&ann, &read, now()).await);

    let all = InboxQuery::default();
    let of_type = |kind| {
        all.clone()
            .with_event_type(EventType::new(kind).expect("it is valid"))
    };
    for (query, expected) in [
        (all.clone(), vec![7, 6, 5, 4, 3, 2, 1]),
        (all.clone().with_unread_only(), vec![7, 6, 3, 2]),
        (of_type("a"), vec![7, 5, 3, 1]),
        (of_type("a").with_unread_only(), vec![7, 3]),
        (of_type("nothing"), vec![]),
    ] {
        let mut query = query.with_limit(2);
        let mut listed = Vec::new();
        loop {
            let page = inbox(store, &ann, &query).await;
            assert_eq!(page.unread, 4);
            assert!(page.events.len() <= 2);
            listed.extend(seqs(&page.events));
            match page.next {
                Some(next) => query = query.with_cursor(next),
                None => break,
            }
        }
        assert_eq!(listed, expected, "{query:?}");
    }
}

/// A cursor of another log is an error and not a wrong page.
pub async fn inbox_refuses_a_cursor_of_another_log(store: &impl Store) {
    let ann = user("ann");
    append(store, &ann, 1).await;
    let bobs = append(store, &user("bob"), 1).await;
    for user in [&ann, &user("nobody")] {
        let query = InboxQuery::default().with_cursor(bobs[0].id);
        let refused = store.inbox(user, &query).await;
        assert!(
            matches!(refused, Err(StoreError::ForeignCursor)),
            "{refused:?}"
        );
    }
}

/// Marking tells what changed, keeps the first time, and changes nothing the second time.
pub async fn mark_read_is_exact_and_idempotent(store: &impl Store) {
    let ann = user("ann");
    let events = append(store, &ann, 4).await;
    let at = now();
    let before = head(store, &ann).await;
    let scope = ReadScope::Ids(vec![events[1].id, events[3].id, events[1].id]);
    let update = ok(store.mark_read(&ann, &scope, at).await);
    assert_eq!(update.changed, 2);
    assert_eq!(
        update.change.marked,
        Marked::Ids([events[1].id, events[3].id].into())
    );
    assert_eq!(
        (update.change.unread, update.change.as_of),
        (2, events[3].id)
    );
    assert_eq!(update.revision, before.read_revision + 1);
    let after = head(store, &ann).await;
    assert_eq!((after.unread, after.read_revision), (2, update.revision));

    let later = at + SignedDuration::from_secs(60);
    let again = ok(store.mark_read(&ann, &scope, later).await);
    assert_eq!((again.changed, again.change.unread), (0, 2));
    assert_eq!(again.revision, update.revision);
    assert_eq!(head(store, &ann).await, after);
    let page = ok(store.read(&ann, 0, 10).await);
    let times: Vec<_> = page.events.iter().map(|event| event.read_at).collect();
    assert_eq!(times, [None, Some(at), None, Some(at)]);
}

/// Events after the given one stay unread.
pub async fn mark_read_up_to_leaves_later_events_unread(store: &impl Store) {
    let ann = user("ann");
    let events = append(store, &ann, 5).await;
    let update = ok(store
        .mark_read(&ann, &ReadScope::UpTo(events[2].id), now())
        .await);
    assert_eq!((update.changed, update.change.unread), (3, 2));
    assert_eq!(update.change.marked, Marked::UpTo(events[2].id));
    // Beyond the top means the top.
    let beyond = EventId::new(events[0].id.epoch, u64::MAX);
    let update = ok(store.mark_read(&ann, &ReadScope::UpTo(beyond), now()).await);
    assert_eq!((update.changed, update.change.unread), (2, 0));
    assert_eq!(update.change.marked, Marked::UpTo(events[4].id));
    append(store, &ann, 1).await;
    assert_eq!(head(store, &ann).await.unread, 1);
}

/// Ids of other logs mark nothing.
pub async fn mark_read_ignores_other_logs(store: &impl Store) {
    let ann = user("ann");
    let events = append(store, &ann, 2).await;
    let bobs = append(store, &user("bob"), 2).await;
    let epoch = events[0].id.epoch;
    for scope in [
        ReadScope::Ids(vec![
            bobs[0].id,
            EventId::new(epoch, 0),
            EventId::new(epoch, 9),
        ]),
        ReadScope::UpTo(bobs[1].id),
        ReadScope::UpTo(EventId::ORIGIN),
        ReadScope::Ids(Vec::new()),
    ] {
        let update = ok(store.mark_read(&ann, &scope, now()).await);
        assert_eq!((update.changed, update.change.unread), (0, 2), "{scope:?}");
    }
    assert_eq!(head(store, &user("bob")).await.unread, 2);
}

/// Everything there is becomes read, of this user alone.
pub async fn mark_all_read_leaves_none(store: &impl Store) {
    let ann = user("ann");
    let events = append(store, &ann, 3).await;
    append(store, &user("bob"), 2).await;
    let update = ok(store.mark_read(&ann, &ReadScope::All, now()).await);
    assert_eq!((update.changed, update.change.unread), (3, 0));
    assert_eq!(update.change.marked, Marked::UpTo(events[2].id));
    let unread = inbox(store, &ann, &InboxQuery::default().with_unread_only()).await;
    assert_eq!((unread.events, unread.unread), (vec![], 0));
    assert_eq!(head(store, &user("bob")).await.unread, 2);
}

/// The mark rises and never falls; marks that cannot be true are ignored.
pub async fn delivered_marks_only_move_forward(store: &impl Store) {
    let ann = user("ann");
    let events = append(store, &ann, 5).await;
    let epoch = events[0].id.epoch;
    let mark = async |id: EventId| {
        ok(store.mark_delivered(vec![(ann.clone(), id)]).await);
        head(store, &ann).await.delivered_seq
    };
    assert_eq!(mark(events[2].id).await, 3);
    assert_eq!(mark(events[1].id).await, 3);
    assert_eq!(mark(EventId::new(Epoch::random(), 5)).await, 3);
    assert_eq!(mark(EventId::new(epoch, 6)).await, 3);
    assert_eq!(mark(events[4].id).await, 5);
}

/// A time finds the first event stamped at or after it.
pub async fn cursor_before_finds_the_first_event_stamped_so_late(store: &impl Store) {
    let ann = user("ann");
    let epoch = append_stamped(store, &ann, &[10, 20, 20, 30]).await;
    for (time, seq) in [(0, 0), (10, 0), (11, 1), (20, 1), (21, 3), (30, 3), (31, 4)] {
        let cursor = ok(store.cursor_before(&ann, at_second(time)).await);
        assert_eq!(cursor, EventId::new(epoch, seq), "at second {time}");
    }
}

/// The same holds when stamps go back: later events follow whatever their stamps are.
pub async fn cursor_before_is_exact_for_disordered_stamps(store: &impl Store) {
    let ann = user("ann");
    let epoch = append_stamped(store, &ann, &[10, 50, 5, 20, 60, 1]).await;
    for (time, seq) in [(10, 0), (11, 1), (50, 1), (51, 4), (60, 4), (61, 6)] {
        let cursor = ok(store.cursor_before(&ann, at_second(time)).await);
        assert_eq!(cursor, EventId::new(epoch, seq), "at second {time}");
    }
}

/// Appends and reads are changes; each log is named with its present state.
pub async fn changes_name_each_log_that_changed(store: &impl Store) {
    let (ann, bob) = (user("ann"), user("bob"));
    append(store, &ann, 1).await;
    let mark = ok(store.mark().await);
    assert_eq!(ok(store.changes(mark, 10).await).logs, []);

    let bobs = append(store, &bob, 3).await;
    let changes = ok(store.changes(mark, 10).await);
    assert!(changes.mark > mark && !changes.more);
    assert_eq!(changes.logs.len(), 1);
    let change = &changes.logs[0];
    assert_eq!((&change.user, change.epoch), (&bob, bobs[0].id.epoch));
    assert_eq!((change.top_seq, change.unread), (3, 3));

    ok(store.mark_read(&bob, &ReadScope::All, now()).await);
    append(store, &ann, 1).await;
    let changes = ok(store.changes(changes.mark, 10).await);
    let mut logs: Vec<_> = changes
        .logs
        .iter()
        .map(|log| (log.user.as_str(), log.top_seq, log.unread))
        .collect();
    logs.sort_unstable();
    assert_eq!(logs, [("ann", 2, 2), ("bob", 3, 0)]);
    assert_eq!(changes.mark, ok(store.mark().await));
    assert_eq!(ok(store.changes(changes.mark, 10).await).logs, []);
}

/// A limit cuts the list, and the next call goes on.
pub async fn changes_come_in_pages(store: &impl Store) {
    let mut mark = ok(store.mark().await);
    let names: HashSet<_> = (0..7).map(|n| format!("user-{n}")).collect();
    for name in &names {
        append(store, &user(name), 1).await;
    }
    let mut listed = HashSet::new();
    loop {
        let changes = ok(store.changes(mark, 3).await);
        assert!(changes.logs.len() <= 3 && changes.mark >= mark);
        mark = changes.mark;
        listed.extend(changes.logs.into_iter().map(|log| String::from(log.user)));
        if !changes.more {
            break;
        }
    }
    assert_eq!(listed, names);
}

/// Delivery marks are no change that streams need to hear of.
pub async fn changes_do_not_name_what_was_only_delivered(store: &impl Store) {
    let ann = user("ann");
    let events = append(store, &ann, 1).await;
    let mark = ok(store.mark().await);
    ok(store
        .mark_delivered(vec![(ann.clone(), events[0].id)])
        .await);
    let nothing = ReadScope::Ids(Vec::new());
    ok(store.mark_read(&ann, &nothing, now()).await);
    assert_eq!(ok(store.changes(mark, 10).await).logs, []);
}

/// What is old goes, of every user; the log stays, with its epoch and its numbers.
pub async fn cleanup_removes_the_old_and_keeps_the_log(store: &impl Store) {
    let (ann, bob) = (user("ann"), user("bob"));
    let before = next_moment();
    let epoch = append(store, &ann, 2).await[0].id.epoch;
    append(store, &bob, 2).await;
    let between = next_moment();
    append(store, &ann, 1).await;
    assert_eq!(ok(store.cleanup(before).await), 0);
    assert_eq!(ok(store.cleanup(between).await), 4);
    let page = ok(store.read(&ann, 0, 10).await);
    assert_eq!((page.epoch, page.first_seq, page.top_seq), (epoch, 3, 3));
    assert_eq!(seqs(&page.events), [3]);
    assert_eq!(
        seqs(&inbox(store, &ann, &InboxQuery::default()).await.events),
        [3]
    );
    assert_eq!(ok(store.find(&ann, EventId::new(epoch, 2)).await), None);

    let head_of_bob = head(store, &bob).await;
    assert_eq!((head_of_bob.first_seq, head_of_bob.top_seq), (3, 2));
    assert_eq!(ok(store.read(&bob, 0, 10).await).events, []);
    assert_eq!(
        ok(store.cursor_before(&bob, at_second(0)).await),
        head_of_bob.top()
    );
    let next = append(store, &bob, 1).await;
    assert_eq!(next[0].id, EventId::new(head_of_bob.epoch, 3));
}

/// Unread events that go are taken off the count, and streams hear of it.
pub async fn cleanup_keeps_the_unread_count_exact(store: &impl Store) {
    let ann = user("ann");
    let epoch = append(store, &ann, 3).await[0].id.epoch;
    let cutoff = next_moment();
    append(store, &ann, 1).await;
    let second = ReadScope::Ids(vec![EventId::new(epoch, 2)]);
    ok(store.mark_read(&ann, &second, now()).await);
    let before = head(store, &ann).await;
    assert_eq!(before.unread, 3);
    let mark = ok(store.mark().await);
    assert_eq!(ok(store.cleanup(cutoff).await), 3);
    let after = head(store, &ann).await;
    assert_eq!(after.unread, 1);
    assert!(after.read_revision > before.read_revision);
    assert_eq!(ok(store.changes(mark, 10).await).logs.len(), 1);
    let gone = ok(store.mark_read(&ann, &second, now()).await);
    assert_eq!((gone.changed, gone.change.unread), (0, 1));
}

/// A long log is removed in steps, and none too many.
pub async fn cleanup_of_a_long_log_removes_exactly_the_old(store: &impl Store) {
    let ann = user("ann");
    append(store, &ann, 1400).await;
    let cutoff = next_moment();
    append(store, &ann, 100).await;
    assert_eq!(ok(store.cleanup(cutoff).await), 1400);
    let head = head(store, &ann).await;
    assert_eq!(
        (head.first_seq, head.top_seq, head.unread),
        (1401, 1500, 100)
    );
}

/// An event is as old as its being stored, whether it is stamped in the past or in the future.
pub async fn cleanup_counts_age_from_storing_and_not_from_the_stamp(store: &impl Store) {
    let ann = user("ann");
    let year = SignedDuration::from_hours(24 * 365);
    let stamped = |stamp| draft(&ann, 0).with_timestamp(stamp);
    let before = next_moment();
    let first = vec![stamped(now() - year), stamped(now() + year)];
    ok(store.append(first).await);
    let between = next_moment();
    ok(store
        .append(vec![stamped(now() + year), stamped(now() - year)])
        .await);
    assert_eq!(ok(store.cleanup(before).await), 0);
    assert_eq!(ok(store.cleanup(between).await), 2);
    assert_eq!(seqs(&ok(store.read(&ann, 0, 10).await).events), [3, 4]);
    assert_eq!(ok(store.cleanup(next_moment()).await), 2);
}

/// A closed store answers nothing else.
pub async fn calls_after_close_answer_closed(store: &impl Store) {
    fn is_closed<T>(answer: &Result<T, StoreError>) -> bool {
        matches!(answer, Err(StoreError::Closed))
    }
    let ann = user("ann");
    let event = append(store, &ann, 1).await.remove(0);
    let mark = ok(store.mark().await);
    store.close().await;
    store.close().await;
    assert!(is_closed(&store.append(vec![draft(&ann, 1)]).await));
    assert!(is_closed(&store.read(&ann, 0, 1).await));
    assert!(is_closed(&store.head(&ann).await));
    assert!(is_closed(&store.find(&ann, event.id).await));
    assert!(is_closed(&store.inbox(&ann, &InboxQuery::default()).await));
    assert!(is_closed(
        &store.mark_read(&ann, &ReadScope::All, now()).await
    ));
    assert!(is_closed(
        &store.mark_delivered(vec![(ann.clone(), event.id)]).await
    ));
    assert!(is_closed(&store.cursor_before(&ann, now()).await));
    assert!(is_closed(&store.mark().await));
    assert!(is_closed(&store.changes(mark, 1).await));
    assert!(is_closed(&store.cleanup(now()).await));
}

fn user(name: &str) -> UserId {
    UserId::new(name).expect("the name is valid")
}

fn draft(user: &UserId, number: u64) -> Draft {
    Draft::new(
        user.clone(),
        EventType::new("test.number").expect("the name is valid"),
        Payload::from_value(&number).expect("a number is JSON"),
    )
}

fn now() -> Timestamp {
    to_microseconds(Timestamp::now())
}

/// A time after that of everything stored so far, and not after that of anything stored later.
fn next_moment() -> Timestamp {
    let moment = now() + SignedDuration::from_micros(1);
    while now() < moment {
        std::hint::spin_loop();
    }
    moment
}

fn at_second(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000_000 + second).expect("the time is within range")
}

async fn append(store: &impl Store, user: &UserId, count: u64) -> Vec<Event> {
    let drafts = (0..count).map(|number| draft(user, number)).collect();
    ok(store.append(drafts).await)
}

/// Appends one event for each size, with a payload of so many bytes.
async fn append_sized(store: &impl Store, user: &UserId, sizes: &[usize]) {
    let drafts = sizes.iter().map(|size| Draft {
        payload: Payload::parse(&"1".repeat(*size)).expect("digits are JSON"),
        ..draft(user, 0)
    });
    ok(store.append(drafts.collect()).await);
}

async fn append_stamped(store: &impl Store, user: &UserId, seconds: &[i64]) -> Epoch {
    let drafts = seconds
        .iter()
        .map(|second| draft(user, 0).with_timestamp(at_second(*second)));
    ok(store.append(drafts.collect()).await)[0].id.epoch
}

async fn head(store: &impl Store, user: &UserId) -> Head {
    ok(store.head(user).await)
}

async fn inbox(store: &impl Store, user: &UserId, query: &InboxQuery) -> InboxPage {
    ok(store.inbox(user, query).await)
}

fn seqs(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.id.seq).collect()
}

fn numbers(events: &[Event]) -> Vec<u64> {
    let number = |event: &Event| {
        event
            .payload
            .as_str()
            .parse()
            .expect("the payload is a number")
    };
    events.iter().map(number).collect()
}

#[track_caller]
fn ok<T>(answer: Result<T, StoreError>) -> T {
    answer.expect("the store answers")
}
