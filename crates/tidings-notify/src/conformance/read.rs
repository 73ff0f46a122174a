//! Reading a log by cursor, by id and by time.

use super::support::{
    append, append_sized, append_stamped, at_second, head, inbox, next_moment, now, ok, seqs, user,
};
use crate::{
    Epoch, EventId, Head, InboxAction, InboxPage, InboxQuery, MAX_PAGE_BYTES, Page, Store,
};

/// A page holds what is after the cursor, rising, and at most the limit.
pub async fn read_is_strictly_after_rising_and_capped(store: &dyn Store) {
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
        assert_eq!(page.head, head(store, &ann).await);
        assert_eq!((page.head.first_seq, page.head.top_seq), (1, 10));
    }
}

/// Large payloads end a page before the limit does, but no page ends before its first event.
pub async fn read_ends_a_page_of_large_payloads_early(store: &dyn Store) {
    let ann = user("ann");
    let (half, whole) = (MAX_PAGE_BYTES / 2, MAX_PAGE_BYTES);
    let sizes = [half, half, 1, whole + 1, whole, 1, half, 1];
    append_sized(store, &ann, &sizes).await;
    let mut pages = Vec::new();
    let mut after = 0;
    while after < 8 {
        let page = ok(store.read(&ann, after, 100).await);
        assert_eq!((page.head.first_seq, page.head.top_seq), (1, 8));
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
pub async fn an_unknown_user_reads_empty_without_error(store: &dyn Store) {
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
    let update = ok(store.change(&nobody, &InboxAction::ReadAll, now()).await);
    assert_eq!((update.changed, update.change.unread), (0, 0));
    ok(store.mark_delivered(vec![(nobody.clone(), id)]).await);
    assert_eq!(ok(store.cleanup(now()).await), 0);
    assert_eq!(head(store, &nobody).await, Head::EMPTY);
}

/// One head for each user, in order, also for one who is named twice or has no log.
pub async fn heads_come_in_the_order_of_the_users(store: &dyn Store) {
    let [ann, bob, nobody] = ["ann", "bob", "nobody"].map(user);
    append(store, &ann, 1).await;
    append(store, &bob, 2).await;
    let asked = [bob.clone(), nobody, ann.clone(), bob.clone()];
    let heads = ok(store.heads(&asked).await);
    let tops: Vec<_> = heads.iter().map(|head| head.top_seq).collect();
    assert_eq!(tops, [2, 0, 1, 2]);
    assert_eq!((heads[0], heads[1]), (head(store, &bob).await, Head::EMPTY));
    assert_eq!(ok(store.heads(&[]).await), []);
}

/// `find` returns the event itself, and nothing for ids of other logs or beyond the top.
pub async fn find_knows_only_events_that_are_kept(store: &dyn Store) {
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

/// A time finds the first event stamped at or after it.
pub async fn cursor_before_finds_the_first_event_stamped_so_late(store: &dyn Store) {
    let ann = user("ann");
    let epoch = append_stamped(store, &ann, &[10, 20, 20, 30]).await;
    for (time, seq) in [(0, 0), (10, 0), (11, 1), (20, 1), (21, 3), (30, 3), (31, 4)] {
        let cursor = ok(store.cursor_before(&ann, at_second(time)).await);
        assert_eq!(cursor, EventId::new(epoch, seq), "at second {time}");
    }
}

/// The same holds when stamps go back: later events follow whatever their stamps are.
pub async fn cursor_before_is_exact_for_disordered_stamps(store: &dyn Store) {
    let ann = user("ann");
    let epoch = append_stamped(store, &ann, &[10, 50, 5, 20, 60, 1]).await;
    for (time, seq) in [(10, 0), (11, 1), (50, 1), (51, 4), (60, 4), (61, 6)] {
        let cursor = ok(store.cursor_before(&ann, at_second(time)).await);
        assert_eq!(cursor, EventId::new(epoch, seq), "at second {time}");
    }
}

/// The same holds when the event with the late stamp was removed, and no event of that time is left.
pub async fn cursor_before_counts_the_stamps_of_removed_events(store: &dyn Store) {
    let ann = user("ann");
    let epoch = append_stamped(store, &ann, &[100]).await;
    assert_eq!(ok(store.cleanup(next_moment()).await), 1);
    append_stamped(store, &ann, &[10]).await;
    for (time, seq) in [(10, 1), (50, 1), (100, 1), (101, 2)] {
        let cursor = ok(store.cursor_before(&ann, at_second(time)).await);
        assert_eq!(cursor, EventId::new(epoch, seq), "at second {time}");
    }
}
