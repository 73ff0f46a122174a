//! Listing the logs that changed.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::support::{append, draft, now, ok, seqs, user};
use super::{OpenTransaction, Subject};
use crate::{ChangeMark, Changes, Head, InboxAction, Store};

/// Follows the changes of a store, as a notifier does.
struct Follower {
    mark: ChangeMark,
}

impl Follower {
    async fn new(store: &dyn Store) -> Self {
        Self {
            mark: ok(store.mark().await),
        }
    }

    /// What is listed since the last call. A log may be listed again: the latest entry counts.
    async fn listed(&mut self, store: &dyn Store, limit: usize) -> HashMap<String, Head> {
        let mut listed = HashMap::new();
        loop {
            let Changes {
                mark,
                logs,
                more,
                rewound,
            } = ok(store.changes(&self.mark, limit).await);
            assert!(!rewound, "nothing was put back");
            assert!(!logs.is_empty() || !more, "a page moves forward");
            self.mark = mark;
            listed.extend(logs.into_iter().map(|log| (log.user.into(), log.head)));
            if !more {
                return listed;
            }
        }
    }
}

/// Appends and reads are changes; each log is named with its present state.
pub async fn changes_name_each_log_that_changed(store: &dyn Store) {
    let (ann, bob) = (user("ann"), user("bob"));
    append(store, &ann, 1).await;
    let mut follower = Follower::new(store).await;

    let bobs = append(store, &bob, 3).await;
    let listed = follower.listed(store, 10).await;
    let head = listed["bob"];
    assert_eq!((head.epoch, head.first_seq), (bobs[0].id.epoch, 1));
    assert_eq!((head.top_seq, head.unread), (3, 3));

    ok(store.change(&bob, &InboxAction::ReadAll, now()).await);
    append(store, &ann, 1).await;
    let listed = follower.listed(store, 10).await;
    let state = |name: &str| (listed[name].top_seq, listed[name].unread);
    assert_eq!((state("ann"), state("bob")), ((2, 2), (3, 0)));
}

/// A limit cuts the list, and the next call continues, also between logs that changed at once.
pub async fn changes_come_in_pages(store: &dyn Store) {
    let mut follower = Follower::new(store).await;
    let names: HashSet<_> = (0..7).map(|n| format!("user-{n}")).collect();
    for name in &names {
        append(store, &user(name), 1).await;
    }
    let together: HashSet<_> = (0..8).map(|n| format!("other-{n}")).collect();
    let drafts = together.iter().map(|name| draft(&user(name), 0));
    ok(store.append(drafts.collect()).await);
    let listed: HashSet<_> = follower.listed(store, 3).await.into_keys().collect();
    assert_eq!(listed, &names | &together);
}

/// Delivery marks, and calls that change nothing, are not changes for streams.
pub async fn changes_do_not_name_what_was_only_delivered(store: &dyn Store) {
    let ann = user("ann");
    let events = append(store, &ann, 1).await;
    let mut follower = Follower::new(store).await;
    // What was listed before, another store may list again for a while.
    let settled = async {
        while !follower.listed(store, 10).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let settled = tokio::time::timeout(Duration::from_secs(60), settled).await;
    settled.expect("a log that does not change is not listed for ever");
    ok(store
        .mark_delivered(vec![(ann.clone(), events[0].id)])
        .await);
    let nothing = InboxAction::Read(Vec::new());
    ok(store.change(&ann, &nothing, now()).await);
    assert_eq!(follower.listed(store, 10).await, HashMap::new());
}

/// A change is listed on every handle, whichever handle made it.
pub async fn changes_are_listed_on_every_handle(subject: &Subject) {
    let (first, second) = (subject.store(), subject.second());
    let mut followers = [Follower::new(first).await, Follower::new(second).await];
    for (store, name) in [(first, "ann"), (second, "bob")] {
        append(store, &user(name), 1).await;
        for (follower, store) in followers.iter_mut().zip([first, second]) {
            let listed = follower.listed(store, 10).await;
            assert_eq!(listed[name].top_seq, 1);
        }
    }
    // A mark is one of the store, not of a handle.
    append(first, &user("ann"), 1).await;
    let listed = followers[0].listed(second, 10).await;
    assert_eq!(listed["ann"].top_seq, 2);
}

/// A mark that the store did not make is accepted, and says that nothing can be concluded from it.
pub async fn changes_after_a_foreign_mark_are_a_rewind(store: &dyn Store) {
    append(store, &user("ann"), 1).await;
    let foreign = ChangeMark::from_bytes(*b"a mark of another store");
    let changes = ok(store.changes(&foreign, 10).await);
    assert!(changes.rewound && !changes.more);
    let mut follower = Follower { mark: changes.mark };
    append(store, &user("bob"), 1).await;
    assert!(follower.listed(store, 10).await.contains_key("bob"));
}

/// A transaction that commits after later ones is listed when it commits, at whatever page size, and
/// one that is rolled back leaves nothing.
pub async fn changes_that_commit_late_are_listed(subject: &Subject) {
    let Some(transactions) = subject.transactions() else {
        return;
    };
    let (first, second) = (subject.store(), subject.second());
    for limit in [1, 3, 100] {
        let name = |kind: &str, n: usize| user(&format!("{kind}-{n}-{limit}"));
        let held = async |kind, users: usize| -> Box<dyn OpenTransaction> {
            let drafts = (0..users).map(|n| draft(&name(kind, n), 0)).collect();
            transactions.append(drafts).await
        };
        let mut follower = Follower::new(second).await;
        append(first, &name("before", 0), 1).await;
        let late = held("late", 4).await;
        let lost = held("lost", 1).await;
        append(first, &name("between", 0), 1).await;
        let listed = follower.listed(second, limit).await;
        for seen in [name("before", 0), name("between", 0)] {
            assert!(listed.contains_key(seen.as_str()), "{seen} is committed");
        }
        let unseen = name("late", 0);
        assert!(!listed.contains_key(unseen.as_str()), "it is not committed");

        late.commit().await;
        lost.roll_back().await;
        append(first, &name("after", 0), 1).await;
        let listed = follower.listed(second, limit).await;
        for n in 0..4 {
            let user = name("late", n);
            assert!(listed.contains_key(user.as_str()), "{user} committed late");
        }
        assert!(listed.contains_key(name("after", 0).as_str()));
        let lost = name("lost", 0);
        assert!(!listed.contains_key(lost.as_str()));
        assert_eq!(ok(second.head(&lost).await), Head::EMPTY);
    }
}

/// While a transaction is open, others append to other users' logs without waiting for it.
pub async fn an_open_transaction_delays_only_its_users(subject: &Subject) {
    let Some(transactions) = subject.transactions() else {
        return;
    };
    let (ann, bob) = (user("ann"), user("bob"));
    append(subject.store(), &ann, 1).await;
    let open = transactions.append(vec![draft(&ann, 1)]).await;
    append(subject.store(), &bob, 1).await;
    append(subject.second(), &bob, 1).await;
    assert_eq!(ok(subject.store().head(&ann).await).top_seq, 1);
    // Of this user the next append may wait; both get a number of their own.
    let (_next, ()) = tokio::join!(append(subject.second(), &ann, 1), open.commit());
    let page = ok(subject.store().read(&ann, 0, 10).await);
    assert_eq!(seqs(&page.events), [1, 2, 3]);
}
