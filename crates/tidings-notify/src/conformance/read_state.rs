//! Marking events as read and as delivered.

use jiff::SignedDuration;

use super::support::{append, head, inbox, now, ok, user};
use crate::{Epoch, EventId, InboxQuery, Marked, ReadScope, Store};

/// Marking returns what changed, keeps the first time, and changes nothing the second time.
pub async fn mark_read_is_exact_and_idempotent(store: &dyn Store) {
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
pub async fn mark_read_up_to_leaves_later_events_unread(store: &dyn Store) {
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
pub async fn mark_read_ignores_other_logs(store: &dyn Store) {
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
pub async fn mark_all_read_leaves_none(store: &dyn Store) {
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
pub async fn delivered_marks_only_move_forward(store: &dyn Store) {
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
