//! Where a stream begins, and what it says when it cannot begin there.

use jiff::{SignedDuration, Timestamp};
use tidings_notify::sqlite::{SqliteOptions, SqliteStore};
use tidings_notify::{
    Epoch, Event, EventId, Gap, GapReason, Item, MAX_PAGE_BYTES, MemoryStore, Notifier, Since,
    Store, Subscription,
};

use crate::support::{
    ann, draft, event_numbers, fresh_sqlite, items_at_hand, numbers, push_numbers, without_sweep,
};

fn years_ago(years: i64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_hours(years * 365 * 24)
}

/// After everything that is stored now.
fn in_a_year() -> Timestamp {
    years_ago(-1)
}

/// A log of six events whose first three are gone.
async fn trimmed() -> (Notifier, Vec<Event>) {
    let store = MemoryStore::new();
    let notifier = without_sweep(store.clone()).build().unwrap();
    let stamped = |numbers: std::ops::Range<u64>, years| {
        let drafts = numbers.map(|number| draft(number).with_timestamp(years_ago(years)));
        store.append(drafts.collect())
    };
    let mut events = stamped(0..3, 10).await.unwrap();
    assert_eq!(store.cleanup(in_a_year()).await.unwrap(), 3);
    events.extend(stamped(3..6, 1).await.unwrap());
    (notifier, events)
}

async fn first_gap(stream: &mut Subscription) -> Gap {
    match stream.next().await.unwrap() {
        Item::Gap(gap) => gap,
        other => panic!("expected a gap first, got {other:?}"),
    }
}

#[tokio::test]
async fn a_user_without_a_log_starts_at_the_origin_and_can_come_back_with_it() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    let mut stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
    assert_eq!(stream.take_hello().unwrap().cursor, EventId::ORIGIN);
    assert_eq!(
        stream.next().await.unwrap(),
        Item::CaughtUp {
            cursor: EventId::ORIGIN
        }
    );
    push_numbers(&notifier, 0..2).await;
    assert_eq!(numbers(&mut stream, 2).await, [0, 1]);

    // A client that broke off before the first event misses none.
    let cursor = Since::Cursor(EventId::ORIGIN.to_string());
    let mut resumed = notifier.subscribe(ann(), cursor).await.unwrap();
    assert_eq!(numbers(&mut resumed, 2).await, [0, 1]);
    assert_eq!(notifier.metrics().gaps, 0);
}

#[tokio::test]
async fn regression_a_garbage_cursor_makes_a_gap_and_no_error() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    push_numbers(&notifier, 0..2).await;
    for text in [
        "",
        "garbage",
        "1-1",
        "\u{0}",
        "0000000000000001-99999999999999999999",
    ] {
        let since = Since::Cursor(text.to_owned());
        let mut stream = notifier.subscribe(ann(), since).await.unwrap();
        let gap = first_gap(&mut stream).await;
        assert_eq!(
            (gap.from, gap.reason),
            (None, GapReason::Invalid),
            "{text:?}"
        );
        assert_eq!(gap.to.seq, 0);
        assert_eq!(numbers(&mut stream, 2).await, [0, 1]);
    }
}

#[tokio::test]
async fn regression_a_cursor_of_another_log_makes_a_gap_then_the_oldest_kept() {
    let (notifier, events) = trimmed().await;
    let foreign = EventId::new(Epoch::random(), 5);
    let mut stream = notifier
        .subscribe(ann(), Since::After(foreign))
        .await
        .unwrap();
    // Until it has heard of the gap, a client must come back with what it had.
    assert_eq!(stream.take_hello().unwrap().cursor, foreign);
    let expected = Gap {
        from: Some(foreign),
        to: events[2].id,
        reason: GapReason::UnknownEpoch,
    };
    assert_eq!(first_gap(&mut stream).await, expected);
    assert_eq!(stream.cursor(), events[2].id);
    assert_eq!(numbers(&mut stream, 3).await, [3, 4, 5]);
    assert!(matches!(
        stream.next().await.unwrap(),
        Item::CaughtUp { .. }
    ));
}

#[tokio::test]
async fn regression_an_expired_cursor_makes_a_gap_then_the_oldest_kept() {
    let (notifier, events) = trimmed().await;
    let before_first = EventId::new(events[0].id.epoch, 0);
    for old in [EventId::ORIGIN, before_first, events[0].id, events[1].id] {
        let mut stream = notifier.subscribe(ann(), Since::After(old)).await.unwrap();
        let gap = first_gap(&mut stream).await;
        assert_eq!((gap.from, gap.to), (Some(old), events[2].id));
        assert_eq!(gap.reason, GapReason::Expired);
        assert_eq!(numbers(&mut stream, 3).await, [3, 4, 5]);
    }
    // The last event that is gone was seen, so that nothing is missing.
    let mut stream = notifier
        .subscribe(ann(), Since::After(events[2].id))
        .await
        .unwrap();
    assert_eq!(
        event_numbers(&stream.next_batch(9, MAX_PAGE_BYTES).await.unwrap()),
        [3, 4, 5]
    );
}

#[tokio::test]
async fn regression_a_cursor_ahead_of_the_top_makes_a_gap_then_the_oldest_kept() {
    let (notifier, events) = trimmed().await;
    let ahead = EventId::new(events[0].id.epoch, 7);
    let mut stream = notifier
        .subscribe(ann(), Since::After(ahead))
        .await
        .unwrap();
    let gap = first_gap(&mut stream).await;
    assert_eq!((gap.from, gap.reason), (Some(ahead), GapReason::Ahead));
    assert_eq!(numbers(&mut stream, 3).await, [3, 4, 5]);
}

#[tokio::test]
async fn start_gives_all_that_is_kept() {
    let (notifier, events) = trimmed().await;
    let mut stream = notifier.subscribe(ann(), Since::Start).await.unwrap();
    assert_eq!(stream.take_hello().unwrap().cursor, events[2].id);
    assert_eq!(event_numbers(&items_at_hand(&mut stream)), [3, 4, 5]);
}

#[tokio::test]
async fn a_time_gives_what_is_stamped_since_and_says_when_more_is_gone() {
    let (notifier, _) = trimmed().await;
    let mut stream = notifier
        .subscribe(ann(), Since::Time(years_ago(20)))
        .await
        .unwrap();
    let gap = first_gap(&mut stream).await;
    assert_eq!((gap.from, gap.reason), (None, GapReason::Expired));
    assert_eq!(event_numbers(&items_at_hand(&mut stream)), [3, 4, 5]);

    push_numbers(&notifier, 6..8).await;
    let month_ago = Timestamp::now() - SignedDuration::from_hours(24 * 30);
    let mut stream = notifier
        .subscribe(ann(), Since::Time(month_ago))
        .await
        .unwrap();
    let items = items_at_hand(&mut stream);
    assert_eq!(event_numbers(&items), [6, 7]);
    assert_eq!(items.len(), 3);

    let future = Timestamp::now() + SignedDuration::from_hours(1);
    let mut stream = notifier
        .subscribe(ann(), Since::Time(future))
        .await
        .unwrap();
    assert_eq!(event_numbers(&items_at_hand(&mut stream)), [0; 0]);
}

#[tokio::test]
async fn a_reader_overtaken_by_retention_gets_a_gap_in_mid_stream() {
    let store = MemoryStore::new();
    let notifier = without_sweep(store.clone()).buffer_size(1).build().unwrap();
    let events = store.append((0..6).map(draft).collect()).await.unwrap();
    let mut stream = notifier.subscribe(ann(), Since::Start).await.unwrap();
    assert_eq!(numbers(&mut stream, 2).await, [0, 1]);
    assert_eq!(store.cleanup(in_a_year()).await.unwrap(), 6);
    push_numbers(&notifier, 6..7).await;
    let items = items_at_hand(&mut stream);
    let expected = Gap {
        from: Some(events[1].id),
        to: events[5].id,
        reason: GapReason::Expired,
    };
    assert_eq!(items[0], Item::Gap(expected));
    assert_eq!(event_numbers(&items), [6]);
}

#[tokio::test]
async fn resuming_after_a_restart_needs_no_push_first() {
    let (store, folder) = fresh_sqlite().await;
    let notifier = without_sweep(store).build().unwrap();
    let events = push_numbers(&notifier, 0..3).await;
    drop(notifier);
    let database = crate::support::open_sqlite(&folder);
    let store = SqliteStore::open(database, SqliteOptions::default())
        .await
        .unwrap();
    let notifier = without_sweep(store).build().unwrap();
    let mut stream = notifier
        .subscribe(ann(), Since::After(events[1].id))
        .await
        .unwrap();
    assert_eq!(numbers(&mut stream, 1).await, [2]);
}
