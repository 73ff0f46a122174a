//! Removing old events.

use jiff::{SignedDuration, Timestamp};

use super::Subject;
use super::support::{append, at_second, draft, head, inbox, next_moment, now, ok, seqs, user};
use crate::{EventId, EventKey, InboxAction, InboxQuery, Store};

/// What is old goes, of every user; the log stays, with its epoch and its numbers.
pub async fn cleanup_removes_the_old_and_keeps_the_log(store: &dyn Store) {
    let (ann, bob) = (user("ann"), user("bob"));
    let before = next_moment();
    let epoch = append(store, &ann, 2).await[0].id.epoch;
    append(store, &bob, 2).await;
    let between = next_moment();
    append(store, &ann, 1).await;
    assert_eq!(ok(store.cleanup(before).await), 0);
    assert_eq!(ok(store.cleanup(between).await), 4);
    let page = ok(store.read(&ann, 0, 10).await);
    let kept = (page.head.epoch, page.head.first_seq, page.head.top_seq);
    assert_eq!(kept, (epoch, 3, 3));
    assert_eq!(seqs(&page.events), [3]);
    assert_eq!(
        seqs(&inbox(store, &ann, &InboxQuery::default()).await.events),
        [3]
    );
    assert_eq!(ok(store.find(&ann, EventId::new(epoch, 2)).await), None);

    let head_of_bob = head(store, &bob).await;
    assert_eq!((head_of_bob.first_seq, head_of_bob.top_seq), (3, 2));
    assert_eq!(ok(store.read(&bob, 0, 10).await).events, []);
    assert_eq!(
        ok(store.cursor_before(&bob, at_second(0)).await),
        head_of_bob.top()
    );
    let next = append(store, &bob, 1).await;
    assert_eq!(next[0].id, EventId::new(head_of_bob.epoch, 3));
}

/// Unread events that go are taken off the count, and streams are woken for it.
pub async fn cleanup_keeps_the_unread_count_exact(store: &dyn Store) {
    let ann = user("ann");
    let epoch = append(store, &ann, 3).await[0].id.epoch;
    let cutoff = next_moment();
    append(store, &ann, 1).await;
    let second = InboxAction::Read(vec![EventId::new(epoch, 2)]);
    ok(store.change(&ann, &second, now()).await);
    let before = head(store, &ann).await;
    assert_eq!(before.unread, 3);
    let mark = ok(store.mark().await);
    assert_eq!(ok(store.cleanup(cutoff).await), 3);
    let after = head(store, &ann).await;
    assert_eq!(after.unread, 1);
    assert!(after.revision > before.revision);
    let changes = ok(store.changes(&mark, 10).await);
    assert!(changes.logs.iter().any(|log| log.user == ann));
    let gone = ok(store.change(&ann, &second, now()).await);
    assert_eq!((gone.changed, gone.change.unread), (0, 1));
}

/// Whatever state an event is in, its going leaves the counts exact.
pub async fn cleanup_counts_every_state(store: &dyn Store) {
    let ann = user("ann");
    let keyed =
        |number| draft(&ann, number).with_key(EventKey::new("k").expect("the key is valid"));
    let mut events = append(store, &ann, 6).await;
    events.extend(ok(store.append(vec![keyed(7)]).await));
    let id = |n: usize| events[n - 1].id;
    for action in [
        InboxAction::ReadUpTo(id(2)),
        InboxAction::Unread(vec![id(1)]),
        InboxAction::Archive(vec![id(3)]),
        InboxAction::Read(vec![id(4)]),
        InboxAction::SeeUpTo(id(5)),
    ] {
        ok(store.change(&ann, &action, now()).await);
    }
    // Unread are 1, 5, 6 and 7; unseen are 6 and 7.
    let head_before = head(store, &ann).await;
    assert_eq!((head_before.unread, head_before.unseen), (4, 2));
    let cutoff = next_moment();
    append(store, &ann, 2).await;
    assert_eq!(ok(store.cleanup(cutoff).await), 7);
    let head_after = head(store, &ann).await;
    assert_eq!((head_after.unread, head_after.unseen), (2, 2));
    // What is gone is in no one's way.
    ok(store.append(vec![keyed(10)]).await);
    let update = ok(store.change(&ann, &InboxAction::ReadAll, now()).await);
    assert_eq!(
        (update.changed, update.change.unread, update.change.unseen),
        (3, 0, 0)
    );
    assert_eq!(
        seqs(&inbox(store, &ann, &InboxQuery::default()).await.events),
        [10, 9, 8]
    );
}

/// Of a log that is longer than any step of a store, exactly the old events are removed.
pub async fn cleanup_of_a_long_log_removes_exactly_the_old(store: &dyn Store) {
    let ann = user("ann");
    append(store, &ann, 1400).await;
    let cutoff = next_moment();
    append(store, &ann, 100).await;
    assert_eq!(ok(store.cleanup(cutoff).await), 1400);
    let head = head(store, &ann).await;
    assert_eq!(
        (head.first_seq, head.top_seq, head.unread),
        (1401, 1500, 100)
    );
}

/// An event is as old as its being stored, whether it is stamped in the past or in the future.
pub async fn cleanup_counts_age_from_storing_and_not_from_the_stamp(store: &dyn Store) {
    let ann = user("ann");
    let year = SignedDuration::from_hours(24 * 365);
    let stamped = |stamp| draft(&ann, 0).with_timestamp(stamp);
    let before = next_moment();
    let first = vec![stamped(now() - year), stamped(now() + year)];
    ok(store.append(first).await);
    let between = next_moment();
    ok(store
        .append(vec![stamped(now() + year), stamped(now() - year)])
        .await);
    assert_eq!(ok(store.cleanup(before).await), 0);
    assert_eq!(ok(store.cleanup(between).await), 2);
    assert_eq!(seqs(&ok(store.read(&ann, 0, 10).await).events), [3, 4]);
    assert_eq!(ok(store.cleanup(next_moment()).await), 2);
}

/// A limit on the number leaves the newest events of each user, also for other handles, with exact counts. What
/// is gone is a gap up to the first event that is kept. For stores that have such a limit.
pub async fn a_limit_leaves_the_newest_events(subject: &Subject) {
    let Some((max, limited)) = subject.limited() else {
        return;
    };
    let (store, ann, bob) = (subject.store(), user("ann"), user("bob"));
    let events = append(limited, &ann, 3 * max).await;
    append(limited, &bob, max).await;
    let first = usize::try_from(2 * max).expect("it is small");
    let read = InboxAction::Read(vec![events[0].id, events[first].id]);
    ok(limited.change(&ann, &read, now()).await);
    ok(limited.cleanup(Timestamp::UNIX_EPOCH).await);

    let head_of_ann = head(store, &ann).await;
    assert_eq!(
        (head_of_ann.first_seq, head_of_ann.top_seq),
        (2 * max + 1, 3 * max)
    );
    assert_eq!(head_of_ann.before_first(), events[first - 1].id);
    assert_eq!((head_of_ann.unread, head_of_ann.unseen), (max - 1, max - 1));
    let page = ok(store.read(&ann, 0, events.len()).await);
    assert_eq!(seqs(&page.events), seqs(&events[first..]));
    let gone = events[first - 1].id;
    assert_eq!(ok(store.find(&ann, gone).await), None);
    let head_of_bob = head(store, &bob).await;
    assert_eq!(
        (head_of_bob.first_seq, head_of_bob.unread),
        (1, max),
        "another log is as long as it may be"
    );
    assert_eq!(ok(limited.cleanup(Timestamp::UNIX_EPOCH).await), 0);
    // The limit continues to hold, one by one.
    append(limited, &ann, 1).await;
    ok(limited.cleanup(Timestamp::UNIX_EPOCH).await);
    assert_eq!(head(store, &ann).await.first_seq, 2 * max + 2);
}

/// A store that keeps what is unread removes nothing from the oldest unread event of the inbox on, neither by
/// number nor by age. For stores that can.
pub async fn unread_events_outlive_limit_and_age(subject: &Subject) {
    let Some((max, keeping)) = subject.unread_kept() else {
        return;
    };
    let (store, ann, bob) = (subject.store(), user("ann"), user("bob"));
    let events = append(keeping, &ann, 2 * max).await;
    let id = |seq: u64| events[usize::try_from(seq).expect("it is small") - 1].id;
    assert_eq!(ok(keeping.cleanup(next_moment()).await), 0);
    assert_eq!(head(store, &ann).await.first_seq, 1);

    let change = async |action| ok(keeping.change(&ann, &action, now()).await);
    // The limit is applied with the next append, or with the next cleanup.
    let removed_up_to = async |last| {
        append(keeping, &ann, 1).await;
        // Another log is not held up by this one.
        append(keeping, &bob, 1).await;
        ok(keeping.change(&bob, &InboxAction::ReadAll, now()).await);
        ok(keeping.cleanup(next_moment()).await);
        assert_eq!(head(store, &ann).await.first_seq, last + 1);
        let head_of_bob = head(store, &bob).await;
        assert_eq!(head_of_bob.first_seq, head_of_bob.top_seq + 1);
    };
    change(InboxAction::ReadUpTo(id(max))).await;
    change(InboxAction::Unread(vec![id(3)])).await;
    removed_up_to(2).await;
    assert_eq!(head(store, &ann).await.unread, max + 2);
    // One that was archived before it was read does not count as unread.
    change(InboxAction::Archive(vec![id(3), id(max + 1)])).await;
    removed_up_to(max + 1).await;
    change(InboxAction::Unarchive(vec![id(max + 1)])).await;
    assert_eq!(head(store, &ann).await.unread, max + 1);
    change(InboxAction::ReadAll).await;
    ok(keeping.cleanup(next_moment()).await);
    let after = head(store, &ann).await;
    assert_eq!((after.first_seq, after.unread), (after.top_seq + 1, 0));
}
