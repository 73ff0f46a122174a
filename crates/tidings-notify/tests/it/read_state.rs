//! Read and unread, on every screen of the user.

use std::sync::Arc;
use std::time::Duration;

use tidings_notify::{
    EventId, Item, Marked, MemoryStore, Notifier, ReadChange, ReadScope, Since, Store,
};

use crate::support::{ann, draft, event_numbers, items_at_hand, push_numbers, without_sweep};

fn read_changes(items: &[Item]) -> Vec<&ReadChange> {
    let changes = items.iter().filter_map(|item| match item {
        Item::Read(change) => Some(change),
        _ => None,
    });
    changes.collect()
}

#[tokio::test]
async fn reading_on_one_screen_is_told_to_the_others() {
    let notifier = without_sweep(MemoryStore::new()).build();
    let events = push_numbers(&notifier, 0..3).await;
    let mut screen = notifier.subscribe(ann(), Since::Now).await.unwrap();
    let ids = ReadScope::Ids(vec![events[1].id]);
    let update = notifier.mark_read(&ann(), &ids).await.unwrap();
    assert_eq!((update.changed, update.change.unread), (1, 2));
    notifier.mark_read(&ann(), &ids).await.unwrap();
    notifier.mark_read(&ann(), &ReadScope::All).await.unwrap();

    let items = items_at_hand(&mut screen);
    let change = |marked, unread| ReadChange {
        marked,
        unread,
        as_of: events[2].id,
    };
    let first = change(Marked::Ids([events[1].id].into()), 2);
    let second = change(Marked::UpTo(events[2].id), 0);
    assert_eq!(read_changes(&items), [&first, &second]);
    assert_eq!(notifier.store().head(&ann()).await.unwrap().unread, 0);
}

#[tokio::test]
async fn a_change_comes_after_the_events_that_it_counts() {
    let notifier = without_sweep(MemoryStore::new())
        .with_buffer_size(4)
        .build();
    let mut slow = notifier.subscribe(ann(), Since::Now).await.unwrap();
    let events = push_numbers(&notifier, 0..10).await;
    notifier
        .mark_read(&ann(), &ReadScope::UpTo(events[1].id))
        .await
        .unwrap();
    push_numbers(&notifier, 10..12).await;
    let mut order = Vec::new();
    for item in items_at_hand(&mut slow) {
        match item {
            Item::Event(event) => {
                let is_read = event.read_at.is_some();
                assert_eq!(is_read, event.id.seq <= 2, "{event:?}");
                order.push(format!("{}", event.id.seq));
            }
            Item::Read(change) => order.push(format!("{} unread", change.unread)),
            _ => {}
        }
    }
    let expected = "1 2 3 4 5 6 7 8 9 10|8 unread|11 12";
    assert_eq!(order.join(" "), expected.replace('|', " "));
}

#[tokio::test]
async fn an_event_that_was_read_before_it_was_given_says_so() {
    let notifier = without_sweep(MemoryStore::new()).build();
    let mut slow = notifier.subscribe(ann(), Since::Now).await.unwrap();
    push_numbers(&notifier, 0..3).await;
    notifier.mark_read(&ann(), &ReadScope::All).await.unwrap();
    let items = items_at_hand(&mut slow);
    assert_eq!(event_numbers(&items), [0, 1, 2]);
    for item in items {
        if let Item::Event(event) = item {
            assert!(event.read_at.is_some(), "{event:?}");
        }
    }
}

#[tokio::test]
async fn a_reader_behind_many_changes_gets_one_that_stands_for_all() {
    let notifier = without_sweep(MemoryStore::new())
        .with_buffer_size(4)
        .build();
    let events = push_numbers(&notifier, 0..20).await;
    let mut slow = notifier.subscribe(ann(), Since::Now).await.unwrap();
    for event in &events {
        let ids = ReadScope::Ids(vec![event.id]);
        notifier.mark_read(&ann(), &ids).await.unwrap();
    }
    let items = items_at_hand(&mut slow);
    let expected = ReadChange {
        marked: Marked::Unknown,
        unread: 0,
        as_of: events[19].id,
    };
    assert_eq!(read_changes(&items), [&expected]);
}

#[tokio::test(start_paused = true)]
async fn reading_on_another_instance_is_found_by_the_sweep() {
    let store = MemoryStore::new();
    let here = Notifier::builder(Arc::new(store.clone())).build();
    let there = without_sweep(store).build();
    let mut screen = here.subscribe(ann(), Since::Now).await.unwrap();
    let events = push_numbers(&here, 0..4).await;
    assert_eq!(event_numbers(&items_at_hand(&mut screen)).len(), 4);
    there
        .mark_read(&ann(), &ReadScope::UpTo(events[2].id))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let items = items_at_hand(&mut screen);
    let expected = ReadChange {
        marked: Marked::Unknown,
        unread: 1,
        as_of: events[3].id,
    };
    assert_eq!(items, [Item::Read(expected)]);
    // And not again.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(items_at_hand(&mut screen), []);
}

#[tokio::test]
async fn the_hello_and_the_changes_after_it_add_up_to_the_exact_count() {
    let notifier = without_sweep(MemoryStore::new()).build();
    let events = push_numbers(&notifier, 0..5).await;
    notifier
        .mark_read(&ann(), &ReadScope::UpTo(events[1].id))
        .await
        .unwrap();
    let mut screen = notifier.subscribe(ann(), Since::Now).await.unwrap();
    let mut unread = screen.hello().unread;
    let mut as_of = screen.hello().top;
    push_numbers(&notifier, 5..8).await;
    notifier
        .mark_read(&ann(), &ReadScope::UpTo(events[3].id))
        .await
        .unwrap();
    push_numbers(&notifier, 8..9).await;
    for item in items_at_hand(&mut screen) {
        match item {
            Item::Event(event) if event.id.seq > as_of.seq => unread += 1,
            Item::Read(change) => (unread, as_of) = (change.unread, change.as_of),
            _ => {}
        }
    }
    assert_eq!(unread, notifier.store().head(&ann()).await.unwrap().unread);
    assert_eq!(unread, 5);
}

#[tokio::test]
async fn marking_what_is_not_there_changes_nothing_and_wakes_nobody() {
    let notifier = without_sweep(MemoryStore::new()).build();
    let mut screen = notifier.subscribe(ann(), Since::Now).await.unwrap();
    items_at_hand(&mut screen);
    let ids = ReadScope::Ids(vec![EventId::ORIGIN]);
    let update = notifier.mark_read(&ann(), &ids).await.unwrap();
    assert_eq!((update.changed, update.change.unread), (0, 0));
    assert_eq!(items_at_hand(&mut screen), []);
}

#[tokio::test]
async fn regression_a_late_announcement_brings_no_read_event_back_as_unread() {
    let store = MemoryStore::new();
    let notifier = without_sweep(store.clone()).build();
    let _open = notifier.subscribe(ann(), Since::Now).await.unwrap();
    let events = store.append(vec![draft(1)]).await.unwrap();
    notifier.mark_read(&ann(), &ReadScope::All).await.unwrap();
    notifier.announce(&events);
    let mut later = notifier.subscribe(ann(), Since::Start).await.unwrap();
    let Item::Event(event) = later.next().await.unwrap() else {
        panic!("expected the event first");
    };
    assert!(event.read_at.is_some());
}
