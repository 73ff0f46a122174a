//! Listing the inbox.

use super::support::{append, append_sized, draft, inbox, now, ok, seqs, user};
use crate::{
    Draft, Epoch, EventId, EventType, InboxAction, InboxQuery, MAX_INBOX_PAGE_BYTES, Payload,
    Store, StoreError,
};

/// Pages join into the whole inbox, newest first.
pub async fn inbox_pages_go_from_new_to_old_without_repeats(store: &dyn Store) {
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

/// Large payloads end a page before the limit does, and the next page continues.
pub async fn inbox_ends_a_page_of_large_payloads_early(store: &dyn Store) {
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
pub async fn inbox_filters_by_type_and_unread(store: &dyn Store) {
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
    let read = InboxAction::Read(vec![events[0].id, events[3].id, events[4].id]);
    ok(store.change(&ann, &read, now()).await);

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

/// Archived events are listed on their own, in pages and with the other filters.
pub async fn inbox_lists_what_is_archived(store: &dyn Store) {
    let ann = user("ann");
    let events = append(store, &ann, 6).await;
    let id = |n: usize| events[n - 1].id;
    for action in [
        InboxAction::Read(vec![id(2)]),
        InboxAction::Archive(vec![id(1), id(2), id(4), id(5)]),
        InboxAction::Read(vec![id(4)]),
    ] {
        ok(store.change(&ann, &action, now()).await);
    }
    for (query, expected) in [
        (InboxQuery::default(), vec![6, 3]),
        (InboxQuery::default().with_archived_only(), vec![5, 4, 2, 1]),
        (
            InboxQuery::default()
                .with_archived_only()
                .with_unread_only(),
            vec![5, 1],
        ),
        (InboxQuery::default().with_unread_only(), vec![6, 3]),
    ] {
        let mut query = query.with_limit(1);
        let mut listed = Vec::new();
        loop {
            let page = inbox(store, &ann, &query).await;
            assert_eq!((page.unread, page.cursor), (2, id(6)));
            listed.extend(seqs(&page.events));
            match page.next {
                Some(next) => query = query.with_cursor(next),
                None => break,
            }
        }
        assert_eq!(listed, expected, "{query:?}");
    }
}

/// However many events between them are archived or read, and however long they follow one another, all that are
/// wanted are listed.
pub async fn inbox_lists_what_is_far_apart(store: &dyn Store) {
    let ann = user("ann");
    let is_rare = |seq: &u64| seq % 100 == 7;
    let is_kept = |seq: &u64| is_rare(seq) || (250..=420).contains(seq);
    let is_read = |seq: &u64| (251..=419).contains(seq);
    let draft = |seq| Draft {
        event_type: EventType::new(if is_rare(&seq) { "rare" } else { "frequent" })
            .expect("the name is valid"),
        ..draft(&ann, seq)
    };
    let events = ok(store.append((1..=500).map(draft).collect()).await);
    let ids = events.iter().map(|event| event.id);
    let others = ids.clone().filter(|id| !is_kept(&id.seq)).collect();
    let read = ids.filter(|id| is_read(&id.seq)).collect();
    for action in [InboxAction::Archive(others), InboxAction::Read(read)] {
        ok(store.change(&ann, &action, now()).await);
    }
    let kept: Vec<u64> = (1..=500).rev().filter(is_kept).collect();
    let unread = kept.iter().copied().filter(|seq| !is_read(seq)).collect();
    let rare = kept.iter().copied().filter(is_rare).collect();
    let of_type = EventType::new("rare").expect("the name is valid");
    for (query, expected) in [
        (InboxQuery::default(), kept),
        (InboxQuery::default().with_unread_only(), unread),
        (InboxQuery::default().with_event_type(of_type), rare),
    ] {
        let mut query = query.with_limit(40);
        let mut listed = Vec::new();
        loop {
            let page = inbox(store, &ann, &query).await;
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
pub async fn inbox_refuses_a_cursor_of_another_log(store: &dyn Store) {
    let ann = user("ann");
    append(store, &ann, 1).await;
    let bobs = append(store, &user("bob"), 1).await;
    let of_no_log = [EventId::ORIGIN, EventId::new(Epoch::NONE, 5)];
    for user in [&ann, &user("nobody")] {
        for cursor in [bobs[0].id].into_iter().chain(of_no_log) {
            let query = InboxQuery::default().with_cursor(cursor);
            let refused = store.inbox(user, &query).await;
            assert!(
                matches!(refused, Err(StoreError::ForeignCursor)),
                "{user:?}, {cursor}: {refused:?}"
            );
        }
    }
}
