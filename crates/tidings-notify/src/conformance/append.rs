//! Appending events.

use std::collections::HashSet;

use super::support::{append, draft, head, inbox, numbers, ok, seqs, user};
use crate::{
    Draft, Epoch, Event, EventId, EventKey, EventType, Head, InboxQuery, MAX_DRAFTS, Payload,
    Store, StoreError,
};

/// Numbers are 1, 2, 3 … in one epoch, and the head follows.
pub async fn append_assigns_dense_numbers_from_one(store: &dyn Store) {
    let ann = user("ann");
    for expected in 1..=3 {
        let event = append(store, &ann, 1).await.remove(0);
        let head = head(store, &ann).await;
        assert_eq!(event.id, EventId::new(head.epoch, expected));
        assert_eq!((head.first_seq, head.top_seq), (1, expected));
        assert_eq!((head.unread, head.unseen), (expected, expected));
        assert_eq!((head.delivered_seq, head.revision), (0, 0));
    }
}

/// One event for each draft, in the same order, for any users.
pub async fn append_returns_events_in_the_order_of_the_drafts(store: &dyn Store) {
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

/// More drafts than one call may have are refused before anything is stored, and no fewer.
pub async fn append_refuses_too_many_drafts(store: &dyn Store) {
    let ann = user("ann");
    let drafts = |count| vec![draft(&ann, 0); count];
    let refused = store.append(drafts(MAX_DRAFTS + 1)).await;
    assert!(
        matches!(refused, Err(StoreError::TooMany { .. })),
        "{refused:?}"
    );
    assert_eq!(head(store, &ann).await, Head::EMPTY);
    let stored = ok(store.append(drafts(MAX_DRAFTS)).await);
    assert_eq!(stored.len(), MAX_DRAFTS);
}

/// Epochs are random, and stay with their log.
pub async fn every_log_has_an_epoch_of_its_own(store: &dyn Store) {
    let mut epochs = HashSet::new();
    for name in ["ann", "bob", "cid"] {
        let first = append(store, &user(name), 2).await;
        assert_eq!(first[0].id.epoch, first[1].id.epoch);
        assert_ne!(first[0].id.epoch, Epoch::NONE);
        epochs.insert(first[0].id.epoch);
    }
    assert_eq!(epochs.len(), 3);
}

/// Type, user, payload, timestamp and key come back as they were stored.
pub async fn all_fields_survive_a_round_trip(store: &dyn Store) {
    let ann = user("ann ✉ {}:*'\"");
    let payload = r#"{"text":"ü\n\u0000","big":123456789012345678901234567890,"deep":[[{}]]}"#;
    let times = ["1969-12-31T23:59:59.999999Z", "2026-01-02T03:04:05.678901Z"];
    for time in times {
        let draft = Draft::new(
            ann.clone(),
            EventType::new("ein.typ/ü ").expect("the name is valid"),
            Payload::parse(payload).expect("the payload is JSON"),
        )
        .with_timestamp(time.parse().expect("the time is valid"))
        .with_key(EventKey::new(format!("schlüssel {time}")).expect("the key is valid"));
        let event = ok(store.append(vec![draft.clone()]).await).remove(0);
        assert_eq!(event, Event::from_draft(draft, event.id));
        assert_eq!(ok(store.find(&ann, event.id).await).as_ref(), Some(&event));
        let page = ok(store.read(&ann, event.id.seq - 1, 10).await);
        assert_eq!(page.events, std::slice::from_ref(&event));
        let inbox = inbox(store, &ann, &InboxQuery::default()).await;
        assert_eq!(inbox.events[0], event);
    }
}

/// Appends that run at the same time share one dense sequence.
pub async fn concurrent_appends_neither_repeat_nor_skip_a_number(store: &dyn Store) {
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
