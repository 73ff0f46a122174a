//! The inbox, on every screen of the user.

use std::sync::Arc;
use std::time::Duration;

use tidings_notify::{
    Changed, EventId, EventKey, Hello, InboxAction, InboxChange, Item, MemoryStore, Notifier,
    Since, Store, Subscription,
};

use crate::support::{
    ann, draft, event_numbers, first_sweep, items_at_hand, push_numbers, without_sweep,
};

fn changes(items: &[Item]) -> Vec<&InboxChange> {
    let changes = items.iter().filter_map(|item| match item {
        Item::Changed(change) => Some(change),
        _ => None,
    });
    changes.collect()
}

#[tokio::test]
async fn reading_on_one_screen_is_shown_on_the_others() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    let events = push_numbers(&notifier, 0..3).await;
    let mut screen = notifier.subscribe(ann(), Since::Now).await.unwrap();
    let ids = InboxAction::Read(vec![events[1].id]);
    let update = notifier.change(&ann(), &ids).await.unwrap();
    assert_eq!((update.changed, update.change.unread), (1, 2));
    notifier.change(&ann(), &ids).await.unwrap();
    notifier
        .change(&ann(), &InboxAction::ReadAll)
        .await
        .unwrap();

    let items = items_at_hand(&mut screen);
    let change = |what, unread| InboxChange {
        what,
        unread,
        unseen: unread,
        cursor: events[2].id,
    };
    let first = change(Changed::Read([events[1].id].into()), 2);
    let second = change(Changed::ReadUpTo(events[2].id), 0);
    assert_eq!(changes(&items), [&first, &second]);
    assert_eq!(notifier.store().head(&ann()).await.unwrap().unread, 0);
}

#[tokio::test]
async fn a_change_comes_after_the_events_that_it_counts() {
    let notifier = without_sweep(MemoryStore::new())
        .buffer_size(4)
        .build()
        .unwrap();
    let mut slow = notifier.subscribe(ann(), Since::Now).await.unwrap();
    let events = push_numbers(&notifier, 0..10).await;
    notifier
        .change(&ann(), &InboxAction::ReadUpTo(events[1].id))
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
            Item::Changed(change) => order.push(format!("{} unread", change.unread)),
            _ => {}
        }
    }
    let expected = "1 2 3 4 5 6 7 8 9 10|8 unread|11 12";
    assert_eq!(order.join(" "), expected.replace('|', " "));
}

#[tokio::test]
async fn an_event_that_was_read_before_it_was_given_says_so() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    let mut slow = notifier.subscribe(ann(), Since::Now).await.unwrap();
    push_numbers(&notifier, 0..3).await;
    notifier
        .change(&ann(), &InboxAction::ReadAll)
        .await
        .unwrap();
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
        .buffer_size(4)
        .build()
        .unwrap();
    let events = push_numbers(&notifier, 0..20).await;
    let mut slow = notifier.subscribe(ann(), Since::Now).await.unwrap();
    for event in &events {
        let ids = InboxAction::Read(vec![event.id]);
        notifier.change(&ann(), &ids).await.unwrap();
    }
    let items = items_at_hand(&mut slow);
    let expected = InboxChange {
        what: Changed::Unknown,
        unread: 0,
        unseen: 0,
        cursor: events[19].id,
    };
    assert_eq!(changes(&items), [&expected]);
}

#[tokio::test(start_paused = true)]
async fn reading_on_another_instance_is_found_by_the_sweep() {
    let store = MemoryStore::new();
    let here = Notifier::new(Arc::new(store.clone()));
    let there = without_sweep(store).build().unwrap();
    let mut screen = here.subscribe(ann(), Since::Now).await.unwrap();
    let events = push_numbers(&here, 0..4).await;
    assert_eq!(event_numbers(&items_at_hand(&mut screen)).len(), 4);
    there
        .change(&ann(), &InboxAction::ReadUpTo(events[2].id))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let items = items_at_hand(&mut screen);
    let expected = InboxChange {
        what: Changed::Unknown,
        unread: 1,
        unseen: 1,
        cursor: events[3].id,
    };
    assert_eq!(items, [Item::Changed(expected)]);
    // And not again.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(items_at_hand(&mut screen), []);
}

#[tokio::test]
async fn the_hello_and_the_changes_after_it_add_up_to_the_exact_count() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    let events = push_numbers(&notifier, 0..5).await;
    notifier
        .change(&ann(), &InboxAction::ReadUpTo(events[1].id))
        .await
        .unwrap();
    let mut screen = notifier.subscribe(ann(), Since::Now).await.unwrap();
    let Hello {
        mut unread,
        top: mut cursor,
        ..
    } = screen.take_hello().unwrap();
    push_numbers(&notifier, 5..8).await;
    notifier
        .change(&ann(), &InboxAction::ReadUpTo(events[3].id))
        .await
        .unwrap();
    push_numbers(&notifier, 8..9).await;
    for item in items_at_hand(&mut screen) {
        match item {
            Item::Event(event) if event.id.seq > cursor.seq => unread += 1,
            Item::Changed(change) => (unread, cursor) = (change.unread, change.cursor),
            _ => {}
        }
    }
    assert_eq!(unread, notifier.store().head(&ann()).await.unwrap().unread);
    assert_eq!(unread, 5);
}

#[tokio::test]
async fn marking_what_is_not_there_changes_nothing_and_wakes_no_reader() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    let mut screen = notifier.subscribe(ann(), Since::Now).await.unwrap();
    items_at_hand(&mut screen);
    let ids = InboxAction::Read(vec![EventId::ORIGIN]);
    let update = notifier.change(&ann(), &ids).await.unwrap();
    assert_eq!((update.changed, update.change.unread), (0, 0));
    assert_eq!(items_at_hand(&mut screen), []);
}

#[tokio::test]
async fn regression_a_late_announcement_brings_no_read_event_back_as_unread() {
    let store = MemoryStore::new();
    let notifier = without_sweep(store.clone()).build().unwrap();
    let _open = notifier.subscribe(ann(), Since::Now).await.unwrap();
    let events = store.append(vec![draft(1)]).await.unwrap();
    notifier
        .change(&ann(), &InboxAction::ReadAll)
        .await
        .unwrap();
    notifier.announce(&events);
    let mut later = notifier.subscribe(ann(), Since::Start).await.unwrap();
    let Item::Event(event) = later.next().await.unwrap() else {
        panic!("expected the event first");
    };
    assert!(event.read_at.is_some());
}

fn keyed(number: u64) -> tidings_notify::Draft {
    draft(number).with_key(EventKey::new("progress").unwrap())
}

async fn next_change(screen: &mut Subscription) -> InboxChange {
    loop {
        if let Item::Changed(change) = screen.next().await.unwrap() {
            return change;
        }
    }
}

#[tokio::test]
async fn every_change_of_the_inbox_reaches_the_other_screens() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    let events = push_numbers(&notifier, 0..4).await;
    let mut screen = notifier.subscribe(ann(), Since::Now).await.unwrap();
    let ids = || vec![events[0].id, events[2].id];
    for (action, what, unread, unseen) in [
        (
            InboxAction::SeeUpTo(events[1].id),
            Changed::SeenUpTo(events[1].id),
            4,
            2,
        ),
        (InboxAction::Read(ids()), Changed::Read(ids().into()), 2, 1),
        (
            InboxAction::Unread(ids()),
            Changed::Unread(ids().into()),
            4,
            2,
        ),
        (
            InboxAction::Archive(ids()),
            Changed::Archived(ids().into()),
            2,
            1,
        ),
        (
            InboxAction::Unarchive(ids()),
            Changed::Unarchived(ids().into()),
            4,
            2,
        ),
        (
            InboxAction::ReadUpTo(events[2].id),
            Changed::ReadUpTo(events[2].id),
            1,
            1,
        ),
        (InboxAction::SeeAll, Changed::SeenUpTo(events[3].id), 1, 0),
    ] {
        let update = notifier.change(&ann(), &action).await.unwrap();
        let cursor = events[3].id;
        let expected = InboxChange {
            what,
            unread,
            unseen,
            cursor,
        };
        assert_eq!(update.change, expected);
        assert_eq!(next_change(&mut screen).await, expected);
    }
}

#[tokio::test]
async fn a_late_stream_is_given_the_state_that_events_have_now() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    // Keeps the events in memory.
    let _open = notifier.subscribe(ann(), Since::Now).await.unwrap();
    let events = push_numbers(&notifier, 0..4).await;
    for action in [
        InboxAction::Archive(vec![events[1].id, events[2].id]),
        InboxAction::ReadAll,
        InboxAction::Unread(vec![events[3].id]),
        InboxAction::Unarchive(vec![events[2].id]),
    ] {
        notifier.change(&ann(), &action).await.unwrap();
    }
    assert_given_as_stored(&notifier).await;
}

/// A new stream from the start is given what the store returns now.
async fn assert_given_as_stored(notifier: &Notifier) {
    let mut late = notifier.subscribe(ann(), Since::Start).await.unwrap();
    let given = items_at_hand(&mut late);
    let stored = notifier.store().read(&ann(), 0, 10).await.unwrap().events;
    let given: Vec<_> = given
        .iter()
        .filter_map(|item| match item {
            Item::Event(event) => Some((**event).clone()),
            _ => None,
        })
        .collect();
    assert_eq!(given, stored);
}

/// Pushes two events with one key while a stream is open, which keeps them in memory.
async fn replaced() -> (Notifier, Subscription, EventId) {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    let open = notifier.subscribe(ann(), Since::Now).await.unwrap();
    let first = notifier.push(keyed(1)).await.unwrap();
    notifier.push(keyed(2)).await.unwrap();
    (notifier, open, first.id)
}

#[tokio::test]
async fn regression_a_late_stream_is_given_a_replaced_event_as_archived() {
    let (notifier, _open, _first) = replaced().await;
    assert_given_as_stored(&notifier).await;
}

#[tokio::test]
async fn regression_a_replaced_event_that_came_back_is_read_with_all_others() {
    let (notifier, _open, first) = replaced().await;
    for action in [InboxAction::Unarchive(vec![first]), InboxAction::ReadAll] {
        notifier.change(&ann(), &action).await.unwrap();
    }
    assert_given_as_stored(&notifier).await;
}

#[tokio::test]
async fn an_event_with_a_key_comes_with_the_counts_that_it_leaves() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    let mut screen = notifier.subscribe(ann(), Since::Now).await.unwrap();
    notifier.push(draft(0)).await.unwrap();
    for number in 1..4 {
        let event = notifier.push(keyed(number)).await.unwrap();
        let expected = InboxChange {
            what: Changed::Replaced,
            unread: 2,
            unseen: 2,
            cursor: event.id,
        };
        assert_eq!(next_change(&mut screen).await, expected);
    }
    // A change made here is not mistaken for one made elsewhere.
    notifier.push(keyed(4)).await.unwrap();
    let update = notifier.change(&ann(), &InboxAction::SeeAll).await.unwrap();
    let mut change = next_change(&mut screen).await;
    if change.what == Changed::Replaced {
        change = next_change(&mut screen).await;
    }
    assert_eq!(change, update.change);
}

#[tokio::test]
async fn changes_over_a_second_notifier_arrive_after_a_hint() {
    let store = MemoryStore::new();
    let here = without_sweep(store.clone()).build().unwrap();
    let there = without_sweep(store).build().unwrap();
    first_sweep().await;
    let mut screen = here.subscribe(ann(), Since::Now).await.unwrap();
    let event = there.push(keyed(1)).await.unwrap();
    here.hint(&ann());
    assert!(matches!(
        screen.next().await.unwrap(),
        Item::CaughtUp { .. }
    ));
    assert_eq!(screen.next().await.unwrap(), Item::Event(Arc::new(event)));
    assert_eq!(next_change(&mut screen).await.what, Changed::Replaced);

    there.push(keyed(2)).await.unwrap();
    let event = there.push(keyed(3)).await.unwrap();
    here.hint(&ann());
    let replaced = next_change(&mut screen).await;
    assert_eq!((replaced.what, replaced.unread), (Changed::Replaced, 1));

    let archive = InboxAction::Archive(vec![event.id]);
    there.change(&ann(), &archive).await.unwrap();
    here.hint(&ann());
    let elsewhere = next_change(&mut screen).await;
    assert_eq!((elsewhere.what, elsewhere.unread), (Changed::Unknown, 0));
}
