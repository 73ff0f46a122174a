//! Listing the logs that changed.

use std::collections::HashSet;

use super::support::{append, now, ok, user};
use crate::{ReadScope, Store};

/// Appends and reads are changes; each log is named with its present state.
pub async fn changes_name_each_log_that_changed(store: &dyn Store) {
    let (ann, bob) = (user("ann"), user("bob"));
    append(store, &ann, 1).await;
    let mark = ok(store.mark().await);
    assert_eq!(ok(store.changes(mark, 10).await).logs, []);

    let bobs = append(store, &bob, 3).await;
    let changes = ok(store.changes(mark, 10).await);
    assert!(changes.mark > mark && !changes.more);
    assert_eq!(changes.logs.len(), 1);
    let change = &changes.logs[0];
    assert_eq!((&change.user, change.epoch), (&bob, bobs[0].id.epoch));
    assert_eq!((change.top_seq, change.unread), (3, 3));

    ok(store.mark_read(&bob, &ReadScope::All, now()).await);
    append(store, &ann, 1).await;
    let changes = ok(store.changes(changes.mark, 10).await);
    let mut logs: Vec<_> = changes
        .logs
        .iter()
        .map(|log| (log.user.as_str(), log.top_seq, log.unread))
        .collect();
    logs.sort_unstable();
    assert_eq!(logs, [("ann", 2, 2), ("bob", 3, 0)]);
    assert_eq!(changes.mark, ok(store.mark().await));
    assert_eq!(ok(store.changes(changes.mark, 10).await).logs, []);
}

/// A limit cuts the list, and the next call goes on.
pub async fn changes_come_in_pages(store: &dyn Store) {
    let mut mark = ok(store.mark().await);
    let names: HashSet<_> = (0..7).map(|n| format!("user-{n}")).collect();
    for name in &names {
        append(store, &user(name), 1).await;
    }
    let mut listed = HashSet::new();
    loop {
        let changes = ok(store.changes(mark, 3).await);
        assert!(changes.logs.len() <= 3 && changes.mark >= mark);
        mark = changes.mark;
        listed.extend(changes.logs.into_iter().map(|log| String::from(log.user)));
        if !changes.more {
            break;
        }
    }
    assert_eq!(listed, names);
}

/// Delivery marks are not changes for streams.
pub async fn changes_do_not_name_what_was_only_delivered(store: &dyn Store) {
    let ann = user("ann");
    let events = append(store, &ann, 1).await;
    let mark = ok(store.mark().await);
    ok(store
        .mark_delivered(vec![(ann.clone(), events[0].id)])
        .await);
    let nothing = ReadScope::Ids(Vec::new());
    ok(store.mark_read(&ann, &nothing, now()).await);
    assert_eq!(ok(store.changes(mark, 10).await).logs, []);
}
