//! Streams: what is pushed arrives, once and in order.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use tidings_notify::telemetry::{NOTIFICATION_DELIVERED, SUBSCRIPTION_ACTIVE, SUBSCRIPTION_GAPS};
use tidings_notify::{Item, MAX_PAGE_BYTES, MemoryStore, Notifier, Since, Store};
use tidings_test_support::CallsBack;
use tokio::time::{advance, timeout};

use crate::support::{
    NEVER, Observed, ann, draft, draft_of_size, event_numbers, items_at_hand, number, numbers,
    push_numbers, user, without_sweep,
};

#[tokio::test]
async fn a_pushed_event_reaches_a_local_stream_with_its_type_and_user() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    let mut stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
    let pushed = notifier.push(draft(1)).await.unwrap();
    assert!(matches!(
        stream.next().await.unwrap(),
        Item::CaughtUp { .. }
    ));
    let Item::Event(event) = stream.next().await.unwrap() else {
        panic!("expected the event");
    };
    assert_eq!(*event, pushed);
    assert_eq!(event.user, ann());
    assert_eq!(event.event_type.as_str(), "test.number");
    assert_eq!(stream.cursor(), pushed.id);
}

#[tokio::test]
async fn every_stream_of_a_user_gets_the_event_and_no_other_stream_does() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    let mut first = notifier.subscribe(ann(), Since::Now).await.unwrap();
    let mut second = notifier.subscribe(ann(), Since::Now).await.unwrap();
    let mut other = notifier.subscribe(user("bob"), Since::Now).await.unwrap();
    push_numbers(&notifier, 7..8).await;
    assert_eq!(numbers(&mut first, 1).await, [7]);
    assert_eq!(numbers(&mut second, 1).await, [7]);
    assert_eq!(event_numbers(&items_at_hand(&mut other)), [0; 0]);
}

#[tokio::test]
async fn next_gives_way_to_the_callers_timeout_and_loses_nothing_by_it() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    let mut stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
    stream.next().await.unwrap();
    for round in 0..10 {
        let waited = timeout(Duration::from_millis(1), stream.next()).await;
        assert!(waited.is_err());
        push_numbers(&notifier, round..round + 1).await;
        assert_eq!(numbers(&mut stream, 1).await, [round]);
    }
}

#[tokio::test]
async fn caught_up_comes_once_after_the_backlog() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    let events = push_numbers(&notifier, 0..3).await;
    let mut stream = notifier.subscribe(ann(), Since::Start).await.unwrap();
    let hello = stream.take_hello().unwrap();
    assert_eq!(hello.top, events[2].id);
    assert_eq!(hello.cursor.seq, 0);
    assert_eq!(hello.unread, 3);
    assert_eq!(stream.take_hello(), None);
    push_numbers(&notifier, 3..5).await;
    let items = items_at_hand(&mut stream);
    assert_eq!(event_numbers(&items), [0, 1, 2, 3, 4]);
    assert_eq!(items.len(), 6);
    assert_eq!(
        items[3],
        Item::CaughtUp {
            cursor: events[2].id
        }
    );
}

#[tokio::test]
async fn a_batch_holds_what_is_there_up_to_its_limit() {
    let notifier = without_sweep(MemoryStore::new())
        .buffer_size(2)
        .build()
        .unwrap();
    push_numbers(&notifier, 0..10).await;
    let mut stream = notifier.subscribe(ann(), Since::Start).await.unwrap();
    let mut all = Vec::new();
    for expected in [4, 4, 2] {
        let batch = stream.next_batch(4, MAX_PAGE_BYTES).await.unwrap();
        let events = event_numbers(&batch);
        assert_eq!(events.len(), expected);
        all.extend(events);
    }
    assert_eq!(all, (0..10).collect::<Vec<_>>());
    // A limit of zero means one.
    push_numbers(&notifier, 10..12).await;
    assert_eq!(stream.next_batch(0, MAX_PAGE_BYTES).await.unwrap().len(), 1);
}

/// Whether the events come from the store or from the ring.
#[tokio::test]
async fn regression_a_batch_of_large_events_is_bounded_in_bytes() {
    let third = MAX_PAGE_BYTES / 3;
    for since in [Since::Start, Since::Now] {
        let notifier = without_sweep(MemoryStore::new()).build().unwrap();
        let push = async || {
            for bytes in [third, third, third, third, MAX_PAGE_BYTES + 1, 1, third] {
                notifier.push(draft_of_size(bytes)).await.unwrap();
            }
        };
        let mut stream = if since == Since::Start {
            push().await;
            notifier.subscribe(ann(), since).await.unwrap()
        } else {
            let stream = notifier.subscribe(ann(), since).await.unwrap();
            push().await;
            stream
        };
        let mut batches = Vec::new();
        while batches.iter().sum::<usize>() < 7 {
            let batch = stream.next_batch(100, MAX_PAGE_BYTES).await.unwrap();
            let is_event = |item: &&Item| matches!(item, Item::Event(_));
            batches.push(batch.iter().filter(is_event).count());
        }
        assert_eq!(batches, [3, 1, 1, 2]);
    }
}

#[tokio::test]
async fn regression_a_call_that_is_dropped_leaves_its_question_with_the_store() {
    let store = Observed::default();
    let notifier = without_sweep(store.clone()).build().unwrap();
    push_numbers(&notifier, 0..3).await;
    let mut stream = notifier.subscribe(ann(), Since::Start).await.unwrap();
    let gate = store.gate.clone();
    let closed = gate.acquire().await.unwrap();
    let before = store.calls.load(Ordering::SeqCst);
    for _ in 0..10 {
        assert_eq!(items_at_hand(&mut stream), []);
    }
    assert_eq!(store.calls.load(Ordering::SeqCst) - before, 1);
    // What comes meanwhile is given after it, and once.
    let mut all = store.inner.read(&ann(), 0, 10).await.unwrap().events;
    all.reverse();
    notifier.deliver(&all);
    drop(closed);
    let items = items_at_hand(&mut stream);
    assert_eq!(event_numbers(&items), [0, 1, 2]);
    push_numbers(&notifier, 3..5).await;
    assert_eq!(event_numbers(&items_at_hand(&mut stream)), [3, 4]);
    assert_eq!(store.calls.load(Ordering::SeqCst) - before, 3);
}

#[tokio::test]
async fn a_stream_that_is_closed_drops_its_question() {
    let store = Observed::default();
    let notifier = without_sweep(store.clone()).build().unwrap();
    push_numbers(&notifier, 0..3).await;
    let mut stream = notifier.subscribe(ann(), Since::Start).await.unwrap();
    let gate = store.gate.clone();
    let closed = gate.acquire().await.unwrap();
    assert_eq!(items_at_hand(&mut stream), []);
    stream.close();
    assert!(stream.next().await.is_err());
    drop(closed);
    assert!(stream.next().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_dropped_do_not_ask_a_failing_store_more_often() {
    let store = Observed::default();
    let notifier = without_sweep(store.clone()).build().unwrap();
    push_numbers(&notifier, 0..1).await;
    let mut stream = notifier.subscribe(ann(), Since::Start).await.unwrap();
    store.is_broken.store(true, Ordering::SeqCst);
    let before = store.calls.load(Ordering::SeqCst);
    for _ in 0..100 {
        assert_eq!(items_at_hand(&mut stream), []);
        advance(Duration::from_millis(10)).await;
    }
    // Every half second.
    let calls = store.calls.load(Ordering::SeqCst) - before;
    assert!((2..=3).contains(&calls), "{calls}");
    store.is_broken.store(false, Ordering::SeqCst);
    assert_eq!(numbers(&mut stream, 1).await, [0]);
}

#[tokio::test(start_paused = true)]
async fn regression_a_pushed_event_is_not_given_again_by_the_sweep() {
    let notifier = Notifier::new(Arc::new(MemoryStore::new()));
    let mut stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
    push_numbers(&notifier, 0..3).await;
    assert_eq!(numbers(&mut stream, 3).await, [0, 1, 2]);
    advance(Duration::from_secs(60)).await;
    push_numbers(&notifier, 3..4).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(event_numbers(&items_at_hand(&mut stream)), [3]);
}

#[tokio::test]
async fn regression_a_backlog_longer_than_the_buffer_arrives_in_order() {
    let notifier = without_sweep(MemoryStore::new())
        .buffer_size(4)
        .build()
        .unwrap();
    push_numbers(&notifier, 0..50).await;
    let mut stream = notifier.subscribe(ann(), Since::Start).await.unwrap();
    let mut seen = numbers(&mut stream, 10).await;
    push_numbers(&notifier, 50..60).await;
    seen.extend(numbers(&mut stream, 50).await);
    assert_eq!(seen, (0..60).collect::<Vec<_>>());
}

#[tokio::test]
async fn regression_a_slow_reader_loses_nothing() {
    let notifier = without_sweep(MemoryStore::new())
        .buffer_size(2)
        .build()
        .unwrap();
    let mut slow = notifier.subscribe(ann(), Since::Now).await.unwrap();
    let mut quick = notifier.subscribe(ann(), Since::Now).await.unwrap();
    for number in 0..500 {
        push_numbers(&notifier, number..number + 1).await;
        assert_eq!(numbers(&mut quick, 1).await, [number]);
    }
    assert_eq!(numbers(&mut slow, 500).await, (0..500).collect::<Vec<_>>());
}

#[tokio::test]
async fn readers_at_the_top_are_served_without_the_store() {
    let store = Observed::default();
    let notifier = without_sweep(store.clone()).build().unwrap();
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(notifier.subscribe(ann(), Since::Now).await.unwrap());
    }
    let before = store.calls.load(Ordering::SeqCst);
    push_numbers(&notifier, 0..10).await;
    for stream in &mut streams {
        assert_eq!(numbers(stream, 10).await, (0..10).collect::<Vec<_>>());
    }
    assert_eq!(store.calls.load(Ordering::SeqCst) - before, 10);
}

#[tokio::test]
async fn events_delivered_again_or_in_any_order_are_given_once_in_order() {
    let store = MemoryStore::new();
    let notifier = without_sweep(store.clone()).build().unwrap();
    let mut stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
    let events = store.append((0..6).map(draft).collect()).await.unwrap();
    for index in [3, 1, 1, 0, 5, 4, 2, 5, 0] {
        notifier.deliver(&events[index..=index]);
    }
    let items = items_at_hand(&mut stream);
    assert_eq!(event_numbers(&items), [0, 1, 2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_delivered_event_of_another_log_is_not_believed() {
    let store = MemoryStore::new();
    let notifier = Notifier::new(Arc::new(store.clone()));
    let mut stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
    push_numbers(&notifier, 0..1).await;
    let foreign = MemoryStore::new();
    let strange = foreign.append((10..15).map(draft).collect()).await.unwrap();
    notifier.deliver(&strange);
    push_numbers(&notifier, 1..2).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(event_numbers(&items_at_hand(&mut stream)), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_for_a_while_delays_a_stream_and_no_more() {
    let store = Observed::default();
    let notifier = Notifier::builder(Arc::new(store.clone()))
        .buffer_size(1)
        .build()
        .unwrap();
    let mut stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
    push_numbers(&notifier, 0..5).await;
    store.is_broken.store(true, Ordering::SeqCst);
    let waiting = tokio::spawn(async move { numbers(&mut stream, 5).await });
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!waiting.is_finished());
    assert!(notifier.metrics().sweeps_failed > 0);
    store.is_broken.store(false, Ordering::SeqCst);
    assert_eq!(waiting.await.unwrap(), [0, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn regression_the_log_says_what_made_the_store_fail() {
    let store = Observed::default();
    let notifier = without_sweep(store.clone()).build().unwrap();
    push_numbers(&notifier, 0..1).await;
    let mut stream = notifier.subscribe(ann(), Since::Start).await.unwrap();
    store.is_broken.store(true, Ordering::SeqCst);
    let log = tempfile::NamedTempFile::new().unwrap();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(log.reopen().unwrap())
        .finish();
    let guard = tidings_test_support::set_default(subscriber);
    assert_eq!(items_at_hand(&mut stream), []);
    drop(guard);
    let text = std::fs::read_to_string(log.path()).unwrap();
    assert!(text.contains("failed to read a stream"), "{text}");
    assert!(text.contains("the disk is on fire"), "{text}");
}

#[tokio::test]
async fn metrics_count_open_streams_and_what_they_were_given() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    let mut first = notifier.subscribe(ann(), Since::Now).await.unwrap();
    let mut second = notifier
        .subscribe(ann(), Since::Cursor("?".to_owned()))
        .await
        .unwrap();
    assert_eq!(notifier.metrics().active_streams, 2);
    push_numbers(&notifier, 0..3).await;
    numbers(&mut first, 3).await;
    numbers(&mut second, 2).await;
    drop(first);
    second.close();
    let metrics = notifier.metrics();
    assert_eq!(
        (metrics.active_streams, metrics.delivered, metrics.gaps),
        (0, 5, 1)
    );
}

#[tokio::test]
async fn a_stream_outlives_the_handle_that_opened_it() {
    let store = MemoryStore::new();
    let other = without_sweep(store.clone()).build().unwrap();
    let notifier = Notifier::builder(Arc::new(store))
        .poll_interval(Duration::from_millis(10))
        .build()
        .unwrap();
    let mut stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
    drop(notifier);
    // Only the sweep of the notifier that is gone can find this.
    push_numbers(&other, 5..6).await;
    let item = numbers(&mut stream, 1);
    assert_eq!(timeout(NEVER, item).await.unwrap(), [5]);
}

#[tokio::test]
async fn ids_compare_as_they_were_assigned() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    let events = push_numbers(&notifier, 0..120).await;
    assert!(events.is_sorted_by_key(|event| event.id.seq));
    assert!(events.iter().all(|event| event.id.seq == number(event) + 1));
    assert!(
        events
            .iter()
            .all(|event| event.id.epoch == events[0].id.epoch)
    );
}

#[test]
fn a_recorder_may_use_the_notifier_that_it_records() {
    let recorded = CallsBack::during(async |recorder| {
        let notifier = without_sweep(MemoryStore::new()).build().unwrap();
        let caller = notifier.clone();
        recorder.call(move || {
            caller.hint(&ann());
            // After the close they fail.
            drop(caller.push(draft(2)).now_or_never());
            drop(caller.subscribe(ann(), Since::Now).now_or_never());
        });
        let mut stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
        notifier.push(draft(1)).await.unwrap();
        let mut given = numbers(&mut stream, 2).await;
        given.sort_unstable();
        assert_eq!(given, [1, 2]);
        let unknown = Since::Cursor("unknown".to_owned());
        let mut stream = notifier.subscribe(ann(), unknown).await.unwrap();
        assert!(matches!(stream.next().await, Ok(Item::Gap(_))));
        notifier.close().await.unwrap();
    });
    let all = [
        NOTIFICATION_DELIVERED,
        SUBSCRIPTION_ACTIVE,
        SUBSCRIPTION_GAPS,
    ];
    assert_eq!(recorded, all.map(str::to_owned).into());
}
