//! Changing the inbox, and marking events as delivered.

use jiff::SignedDuration;

use super::support::{append, draft, head, inbox, now, ok, seqs, user};
use crate::{
    Changed, Draft, Epoch, EventId, EventKey, InboxAction, InboxQuery, MAX_IDS, Store, StoreError,
    UserId,
};

/// Marking returns what changed, keeps the first time, and changes nothing the second time.
pub async fn mark_read_is_exact_and_idempotent(store: &dyn Store) {
    let ann = user("ann");
    let events = append(store, &ann, 4).await;
    let at = now();
    let before = head(store, &ann).await;
    let scope = InboxAction::Read(vec![events[1].id, events[3].id, events[1].id]);
    let update = ok(store.change(&ann, &scope, at).await);
    assert_eq!(update.changed, 2);
    assert_eq!(
        update.change.what,
        Changed::Read([events[1].id, events[3].id].into())
    );
    assert_eq!(
        (update.change.unread, update.change.cursor),
        (2, events[3].id)
    );
    assert_eq!(update.revision, before.revision + 1);
    let after = head(store, &ann).await;
    assert_eq!((after.unread, after.revision), (2, update.revision));

    let later = at + SignedDuration::from_secs(60);
    let again = ok(store.change(&ann, &scope, later).await);
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
        .change(&ann, &InboxAction::ReadUpTo(events[2].id), now())
        .await);
    assert_eq!((update.changed, update.change.unread), (3, 2));
    assert_eq!(update.change.what, Changed::ReadUpTo(events[2].id));
    // Beyond the top means the top.
    let beyond = EventId::new(events[0].id.epoch, u64::MAX);
    let update = ok(store
        .change(&ann, &InboxAction::ReadUpTo(beyond), now())
        .await);
    assert_eq!((update.changed, update.change.unread), (2, 0));
    assert_eq!(update.change.what, Changed::ReadUpTo(events[4].id));
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
        InboxAction::Read(vec![
            bobs[0].id,
            EventId::new(epoch, 0),
            EventId::new(epoch, 9),
        ]),
        InboxAction::ReadUpTo(bobs[1].id),
        InboxAction::ReadUpTo(EventId::ORIGIN),
        InboxAction::Read(Vec::new()),
    ] {
        let update = ok(store.change(&ann, &scope, now()).await);
        assert_eq!((update.changed, update.change.unread), (0, 2), "{scope:?}");
    }
    assert_eq!(head(store, &user("bob")).await.unread, 2);
}

/// More events than one action may name are refused before anything is changed, and no fewer.
pub async fn a_change_of_too_many_events_is_refused(store: &dyn Store) {
    let ann = user("ann");
    let id = append(store, &ann, 1).await[0].id;
    let actions = [
        InboxAction::Read,
        InboxAction::Unread,
        InboxAction::Archive,
        InboxAction::Unarchive,
    ];
    for action in actions {
        let action = action(vec![id; MAX_IDS + 1]);
        let refused = store.change(&ann, &action, now()).await;
        assert!(
            matches!(refused, Err(StoreError::TooMany { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(head(store, &ann).await.revision, 0);
    let read = InboxAction::Read(vec![id; MAX_IDS]);
    assert_eq!(ok(store.change(&ann, &read, now()).await).changed, 1);
}

/// Everything there is becomes read, of this user alone.
pub async fn mark_all_read_leaves_none(store: &dyn Store) {
    let ann = user("ann");
    let events = append(store, &ann, 3).await;
    append(store, &user("bob"), 2).await;
    let update = ok(store.change(&ann, &InboxAction::ReadAll, now()).await);
    assert_eq!((update.changed, update.change.unread), (3, 0));
    assert_eq!(update.change.what, Changed::ReadUpTo(events[2].id));
    let unread = inbox(store, &ann, &InboxQuery::default().with_unread_only()).await;
    assert_eq!((unread.events, unread.unread), (vec![], 0));
    assert_eq!(head(store, &user("bob")).await.unread, 2);
}

/// Events go back to unread one by one, also below a mark, and a later mark reads them again.
pub async fn unread_again_is_exact(store: &dyn Store) {
    let ann = user("ann");
    let events = append(store, &ann, 5).await;
    let at = now();
    ok(store
        .change(&ann, &InboxAction::ReadUpTo(events[3].id), at)
        .await);
    let back = InboxAction::Unread(vec![events[1].id, events[4].id, events[2].id]);
    let update = ok(store.change(&ann, &back, now()).await);
    // The last is unread anyway.
    let changed = [events[1].id, events[2].id];
    assert_eq!(update.change.what, Changed::Unread(changed.into()));
    assert_eq!((update.changed, update.change.unread), (2, 3));
    let again = ok(store.change(&ann, &back, now()).await);
    assert_eq!((again.changed, again.revision), (0, update.revision));
    let unread = inbox(store, &ann, &InboxQuery::default().with_unread_only()).await;
    assert_eq!((seqs(&unread.events), unread.unread), (vec![5, 3, 2], 3));

    let later = at + SignedDuration::from_secs(60);
    let update = ok(store
        .change(&ann, &InboxAction::ReadUpTo(events[1].id), later)
        .await);
    assert_eq!((update.changed, update.change.unread), (1, 2));
    let page = ok(store.read(&ann, 0, 10).await);
    let times: Vec<_> = page.events.iter().map(|event| event.read_at).collect();
    assert_eq!(times, [Some(at), Some(later), None, Some(at), None]);
    let update = ok(store.change(&ann, &InboxAction::ReadAll, later).await);
    assert_eq!((update.changed, update.change.unread), (2, 0));
}

/// Archived events are neither listed nor counted, and come back as they were.
pub async fn archived_events_leave_the_inbox_and_come_back(store: &dyn Store) {
    let ann = user("ann");
    let events = append(store, &ann, 4).await;
    let at = now();
    ok(store
        .change(&ann, &InboxAction::Read(vec![events[1].id]), at)
        .await);
    let ids = vec![events[1].id, events[2].id, events[2].id];
    let update = ok(store
        .change(&ann, &InboxAction::Archive(ids.clone()), at)
        .await);
    let changed = [events[1].id, events[2].id];
    assert_eq!(update.change.what, Changed::Archived(changed.into()));
    assert_eq!(
        (update.changed, update.change.unread, update.change.unseen),
        (2, 2, 2)
    );
    assert_eq!(update.change.cursor, events[3].id);
    let page = inbox(store, &ann, &InboxQuery::default()).await;
    assert_eq!(
        (seqs(&page.events), page.unread, page.unseen),
        (vec![4, 1], 2, 2)
    );
    // They are still in the log.
    let page = ok(store.read(&ann, 0, 10).await);
    let times: Vec<_> = page.events.iter().map(|event| event.archived_at).collect();
    assert_eq!(times, [None, Some(at), Some(at), None]);

    let update = ok(store
        .change(&ann, &InboxAction::Unarchive(ids), now())
        .await);
    assert_eq!(update.change.what, Changed::Unarchived(changed.into()));
    assert_eq!((update.changed, update.change.unread), (2, 3));
    let page = inbox(store, &ann, &InboxQuery::default()).await;
    assert_eq!(seqs(&page.events), [4, 3, 2, 1]);
    assert_eq!(page.events[2].read_at, Some(at));
    assert_eq!(page.events[1].archived_at, None);
}

/// What was archived unread stays so, however much is read up to an event.
pub async fn all_up_to_an_event_leaves_archived_events_alone(store: &dyn Store) {
    let ann = user("ann");
    let events = append(store, &ann, 3).await;
    let second = vec![events[1].id];
    ok(store
        .change(&ann, &InboxAction::Archive(second.clone()), now())
        .await);
    let update = ok(store.change(&ann, &InboxAction::ReadAll, now()).await);
    assert_eq!((update.changed, update.change.unread), (2, 0));
    let archived = inbox(store, &ann, &InboxQuery::default().with_archived_only()).await;
    assert_eq!(archived.events[0].read_at, None);
    let update = ok(store
        .change(&ann, &InboxAction::Unarchive(second.clone()), now())
        .await);
    assert_eq!(update.change.unread, 1);
    let update = ok(store.change(&ann, &InboxAction::Read(second), now()).await);
    assert_eq!((update.changed, update.change.unread), (1, 0));
}

/// The unseen are the unread events after what was seen.
pub async fn what_is_seen_only_moves_forward(store: &dyn Store) {
    let ann = user("ann");
    let events = append(store, &ann, 4).await;
    let see = async |id| {
        let update = ok(store.change(&ann, &InboxAction::SeeUpTo(id), now()).await);
        assert_eq!(update.change.what, Changed::SeenUpTo(id));
        let head = head(store, &ann).await;
        assert_eq!(
            (update.change.unseen, update.change.unread),
            (head.unseen, head.unread)
        );
        assert_eq!(update.revision, head.revision);
        (update.changed, head.unseen)
    };
    assert_eq!(see(events[1].id).await, (2, 2));
    assert_eq!(see(events[0].id).await, (0, 2));
    assert_eq!(see(events[1].id).await, (0, 2));
    // Reading what is unseen takes it off both counts; reading what was seen, off one.
    let read = InboxAction::Read(vec![events[0].id, events[3].id]);
    let update = ok(store.change(&ann, &read, now()).await);
    assert_eq!((update.change.unread, update.change.unseen), (2, 1));
    let update = ok(store.change(&ann, &InboxAction::SeeAll, now()).await);
    assert_eq!(
        (update.changed, update.change.unread, update.change.unseen),
        (1, 2, 0)
    );
    append(store, &ann, 1).await;
    let page = inbox(store, &ann, &InboxQuery::default()).await;
    assert_eq!((page.unread, page.unseen), (3, 1));
    let foreign = ok(store
        .change(
            &ann,
            &InboxAction::SeeUpTo(EventId::new(Epoch::random(), 9)),
            now(),
        )
        .await);
    assert_eq!((foreign.changed, foreign.change.unseen), (0, 1));
}

fn keyed(user: &UserId, number: u64, key: &str) -> Draft {
    draft(user, number).with_key(EventKey::new(key).expect("the key is valid"))
}

/// Earlier events with the key are archived with the append, and none when one of them comes back.
pub async fn an_event_with_a_key_replaces_earlier_ones(store: &dyn Store) {
    let ann = user("ann");
    let mut ids = Vec::new();
    for (number, key) in [(1, Some("a")), (2, Some("b")), (3, None), (4, Some("a"))] {
        let draft = match key {
            Some(key) => keyed(&ann, number, key),
            None => draft(&ann, number),
        };
        let event = ok(store.append(vec![draft]).await).remove(0);
        assert_eq!(event.key.as_ref().map(EventKey::as_str), key);
        ids.push(event.id);
    }
    let page = inbox(store, &ann, &InboxQuery::default()).await;
    assert_eq!(
        (seqs(&page.events), page.unread, page.unseen),
        (vec![4, 3, 2], 3, 3)
    );
    // Each event with a key is a change of the inbox.
    assert_eq!(head(store, &ann).await.revision, 3);
    let first = ok(store.find(&ann, ids[0]).await).expect("it is kept");
    assert!(first.archived_at.is_some() && first.read_at.is_none());

    ok(store
        .change(&ann, &InboxAction::Unarchive(vec![ids[0]]), now())
        .await);
    ok(store
        .change(&ann, &InboxAction::Archive(vec![ids[1]]), now())
        .await);
    // In one call, too: of these only the last of each key stays.
    let drafts = vec![
        keyed(&ann, 5, "a"),
        keyed(&ann, 6, "a"),
        keyed(&ann, 7, "b"),
    ];
    ok(store.append(drafts).await);
    let page = inbox(store, &ann, &InboxQuery::default()).await;
    assert_eq!((seqs(&page.events), page.unread), (vec![7, 6, 3], 3));
}

/// Another user's events with the same key stay.
pub async fn keys_are_those_of_one_user(store: &dyn Store) {
    let (ann, bob) = (user("ann"), user("bob"));
    ok(store
        .append(vec![keyed(&ann, 1, "k"), keyed(&bob, 1, "k")])
        .await);
    ok(store.append(vec![keyed(&bob, 2, "k")]).await);
    let listed = async |user| seqs(&inbox(store, user, &InboxQuery::default()).await.events);
    assert_eq!((listed(&ann).await, listed(&bob).await), (vec![1], vec![2]));
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
