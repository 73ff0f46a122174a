//! What was sent, and that `undelivered` begins after it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidings_notify::{Epoch, EventId, GapReason, Item, MemoryStore, Notifier, Since, Store};

use crate::support::{
    Observed, ann, draft, event_numbers, items_at_hand, numbers, push_numbers, user, without_sweep,
};

#[tokio::test]
async fn undelivered_gives_what_no_connection_was_sent() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    let events = push_numbers(&notifier, 0..5).await;
    let mut stream = notifier.subscribe(ann(), Since::Undelivered).await.unwrap();
    assert_eq!(numbers(&mut stream, 5).await, [0, 1, 2, 3, 4]);
    stream.sent(events[2].id);
    stream.sent(events[1].id);
    // The mark counts at once, before it is in the store.
    let mut next = notifier.subscribe(ann(), Since::Undelivered).await.unwrap();
    assert_eq!(event_numbers(&items_at_hand(&mut next)), [3, 4]);
}

#[tokio::test(start_paused = true)]
async fn marks_reach_the_store_together_and_only_when_there_are_some() {
    let store = Observed::default();
    let notifier = without_sweep(store.clone()).build().unwrap();
    let events = push_numbers(&notifier, 0..100).await;
    let mut stream = notifier.subscribe(ann(), Since::Start).await.unwrap();
    items_at_hand(&mut stream);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = store.calls.load(Ordering::SeqCst);
    for event in &events {
        stream.sent(event.id);
    }
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(store.calls.load(Ordering::SeqCst) - before, 1);
    assert_eq!(store.head(&ann()).await.unwrap().delivered_seq, 100);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_has_its_marks_stored_at_once() {
    let store = MemoryStore::new();
    let notifier = without_sweep(store.clone()).build().unwrap();
    let event = notifier.push(draft(0)).await.unwrap();
    let mut stream = notifier.subscribe(ann(), Since::Start).await.unwrap();
    items_at_hand(&mut stream);
    stream.sent(event.id);
    drop(stream);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(store.head(&ann()).await.unwrap().delivered_seq, 1);
}

#[tokio::test]
async fn closing_stores_the_marks_and_closing_again_those_that_came_later() {
    let store = MemoryStore::new();
    let notifier = without_sweep(store.clone()).build().unwrap();
    let events = push_numbers(&notifier, 0..2).await;
    let mut stream = notifier.subscribe(ann(), Since::Start).await.unwrap();
    items_at_hand(&mut stream);
    stream.sent(events[0].id);
    notifier.close().await.unwrap();
    assert_eq!(store.head(&ann()).await.unwrap().delivered_seq, 1);
    stream.sent(events[1].id);
    drop(stream);
    notifier.close().await.unwrap();
    assert_eq!(store.head(&ann()).await.unwrap().delivered_seq, 2);
}

#[tokio::test(start_paused = true)]
async fn marks_that_could_not_be_stored_are_stored_later() {
    let store = Observed::default();
    let notifier = without_sweep(store.clone()).build().unwrap();
    let event = notifier.push(draft(0)).await.unwrap();
    let mut stream = notifier.subscribe(ann(), Since::Start).await.unwrap();
    items_at_hand(&mut stream);
    store.is_broken.store(true, Ordering::SeqCst);
    stream.sent(event.id);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let tries = store.calls.load(Ordering::SeqCst);
    assert!(tries < 100, "tried {tries} times in thirty seconds");
    store.is_broken.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(store.head(&ann()).await.unwrap().delivered_seq, 1);
}

#[tokio::test]
async fn a_mark_beyond_what_the_stream_gave_is_ignored() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    let events = push_numbers(&notifier, 0..3).await;
    let mut stream = notifier.subscribe(ann(), Since::Start).await.unwrap();
    assert_eq!(numbers(&mut stream, 1).await, [0]);
    stream.sent(events[2].id);
    stream.sent(EventId::new(Epoch::random(), 1));
    notifier.close().await.unwrap();
    let head = notifier.store().head(&ann()).await.unwrap();
    assert_eq!(head.delivered_seq, 0);
}

#[tokio::test(start_paused = true)]
async fn marks_of_many_users_all_reach_the_store() {
    let store = MemoryStore::new();
    let notifier = without_sweep(store.clone()).build().unwrap();
    for n in 0..1200 {
        let user = user(&format!("user-{n}"));
        let event = notifier
            .push(draft(0).with_user(user.clone()))
            .await
            .unwrap();
        let mut stream = notifier.subscribe(user, Since::Start).await.unwrap();
        items_at_hand(&mut stream);
        stream.sent(event.id);
    }
    notifier.close().await.unwrap();
    for n in 0..1200 {
        let head = store.head(&user(&format!("user-{n}"))).await.unwrap();
        assert_eq!(head.delivered_seq, 1);
    }
}

#[tokio::test]
async fn undelivered_events_that_are_gone_make_a_gap() {
    let store = MemoryStore::new().with_max_events_per_user(2);
    let notifier = Notifier::new(Arc::new(store));
    push_numbers(&notifier, 0..5).await;
    let mut stream = notifier.subscribe(ann(), Since::Undelivered).await.unwrap();
    let items = items_at_hand(&mut stream);
    let Item::Gap(gap) = &items[0] else {
        panic!("expected a gap first, got {items:?}");
    };
    assert_eq!(gap.reason, GapReason::Expired);
    assert_eq!(event_numbers(&items), [3, 4]);
}
