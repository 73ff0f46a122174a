//! Pushing: stored first, then sent; who is skipped; what a batch is.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use tidings_notify::presence::{
    Heartbeat, Lease, LeaseId, Mark, PresenceError, Standing, Transitions, Update,
};
use tidings_notify::{
    Error, MAX_DRAFTS, MemoryPresence, MemoryStore, OfflinePolicy, Presence, Pushed, RoutingInfo,
    Since, StoreError, UserId, sqlite,
};

use crate::support::{
    Observed, ann, connect, draft, fresh_sqlite, items_at_hand, numbers, open_sqlite, presence,
    push_numbers, user, without_sweep,
};

fn stored(pushed: &[Pushed]) -> Vec<(&str, u64)> {
    let ids = pushed.iter().map(|outcome| match outcome {
        Pushed::Stored(event) => (event.user.as_str(), event.id.seq),
        other => panic!("expected an event, got {other:?}"),
    });
    ids.collect()
}

#[tokio::test]
async fn regression_a_batch_gives_every_user_an_event_with_its_own_id() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    push_numbers(&notifier, 0..2).await;
    let mut anns = notifier.subscribe(ann(), Since::Now).await.unwrap();
    let users = ["bob", "ann", "cid", "ann"].map(user);
    let pushed = notifier.push_multi(users, draft(7)).await.unwrap();
    assert_eq!(stored(&pushed), [("bob", 1), ("ann", 3), ("cid", 1)]);
    assert_eq!(numbers(&mut anns, 1).await, [7]);
    let Pushed::Stored(event) = &pushed[1] else {
        panic!("expected an event");
    };
    assert_eq!(anns.cursor(), event.id);
    let empty: [UserId; 0] = [];
    assert_eq!(notifier.push_multi(empty, draft(8)).await.unwrap(), []);
}

#[tokio::test]
async fn a_push_to_too_many_users_is_refused() {
    let store = Observed::default();
    let notifier = without_sweep(store.clone()).build().unwrap();
    let users = |count| (0..count).map(|n| user(&format!("user-{n}")));
    let before = store.calls.load(Ordering::SeqCst);
    let refused = notifier.push_multi(users(MAX_DRAFTS + 1), draft(1)).await;
    assert!(
        matches!(refused, Err(Error::Store(StoreError::TooMany { .. }))),
        "{refused:?}"
    );
    assert_eq!(store.calls.load(Ordering::SeqCst), before);
    // One who is named twice counts once.
    let most = users(MAX_DRAFTS).chain(users(1));
    let pushed = notifier.push_multi(most, draft(1)).await.unwrap();
    assert_eq!(pushed.len(), MAX_DRAFTS);
}

#[tokio::test]
async fn regression_nothing_is_delivered_that_could_not_be_stored() {
    let store = Observed::default();
    let notifier = without_sweep(store.clone()).build().unwrap();
    let mut stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
    items_at_hand(&mut stream);
    store.is_broken.store(true, Ordering::SeqCst);
    assert!(matches!(
        notifier.push(draft(1)).await,
        Err(Error::Store(_))
    ));
    let batch = notifier.push_multi([ann(), user("bob")], draft(2)).await;
    assert!(matches!(batch, Err(Error::Store(_))));
    store.is_broken.store(false, Ordering::SeqCst);
    assert_eq!(items_at_hand(&mut stream), []);
    push_numbers(&notifier, 3..4).await;
    assert_eq!(numbers(&mut stream, 1).await, [3]);
}

#[tokio::test]
async fn regression_events_sent_while_a_user_reconnects_are_there_on_return() {
    let presence = presence();
    let notifier = without_sweep(MemoryStore::new())
        .presence(presence.clone())
        .build()
        .unwrap();
    let connection = connect(&presence, ann(), "one").await;
    let mut stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
    push_numbers(&notifier, 0..1).await;
    assert_eq!(numbers(&mut stream, 1).await, [0]);
    let cursor = stream.cursor();
    drop((stream, connection));

    push_numbers(&notifier, 1..4).await;
    let mut stream = notifier
        .subscribe(ann(), Since::After(cursor))
        .await
        .unwrap();
    assert_eq!(numbers(&mut stream, 3).await, [1, 2, 3]);
}

#[tokio::test]
async fn offline_users_are_skipped_when_the_notifier_is_configured_so() {
    let presence = presence();
    let notifier = without_sweep(MemoryStore::new())
        .presence(presence.clone())
        .offline_policy(OfflinePolicy::Skip)
        .build()
        .unwrap();
    assert!(matches!(notifier.push(draft(1)).await, Err(Error::Offline)));
    let _connection = connect(&presence, ann(), "one").await;
    notifier.push(draft(2)).await.unwrap();
    let pushed = notifier
        .push_multi(["bob", "ann"].map(user), draft(3))
        .await
        .unwrap();
    assert_eq!(pushed[0], Pushed::Skipped(user("bob")));
    assert_eq!(stored(&pushed[1..]), [("ann", 2)]);
    assert_eq!(
        notifier.store().head(&user("bob")).await.unwrap().top_seq,
        0
    );

    // No instance is skipped when presence cannot be asked.
    presence.close().await;
    notifier.push(draft(4)).await.unwrap();
    let pushed = notifier.push_multi([user("bob")], draft(5)).await.unwrap();
    assert_eq!(stored(&pushed), [("bob", 1)]);
}

#[tokio::test]
async fn events_of_the_callers_own_transaction_are_stored_with_it_or_not_at_all() {
    let (store, folder) = fresh_sqlite().await;
    let database = open_sqlite(&folder);
    let notifier = without_sweep(store).build().unwrap();
    let mut stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
    database
        .write(|tx| {
            tx.execute_batch("CREATE TABLE work (n INTEGER)")?;
            Ok::<_, tidings_sqlite::Error>(())
        })
        .await
        .unwrap();

    let rolled_back = database
        .write(|tx| {
            sqlite::append_in(tx, &[draft(1), draft(2)])?;
            tx.execute("INSERT INTO nowhere VALUES (1)", [])?;
            Ok::<_, tidings_notify::StoreError>(())
        })
        .await;
    rolled_back.unwrap_err();
    assert_eq!(notifier.store().head(&ann()).await.unwrap().top_seq, 0);

    let events = database
        .write(|tx| {
            tx.execute("INSERT INTO work VALUES (1)", [])?;
            sqlite::append_in(tx, &[draft(3), draft(4)])
        })
        .await
        .unwrap();
    notifier.announce(&events);
    assert_eq!(numbers(&mut stream, 2).await, [3, 4]);
    assert_eq!(notifier.store().head(&ann()).await.unwrap().unread, 2);
}

/// Returns the users who are online in an order of its own.
#[derive(Debug, Default)]
struct Reversing(MemoryPresence);

#[async_trait]
impl Presence for Reversing {
    async fn update(&self, lease: &Lease, update: &Update) -> Result<Standing, PresenceError> {
        self.0.update(lease, update).await
    }

    async fn beat(&self, lease: &Lease, expected: &Heartbeat) -> Result<Standing, PresenceError> {
        self.0.beat(lease, expected).await
    }

    async fn end(&self, lease: LeaseId) -> Result<(), PresenceError> {
        self.0.end(lease).await
    }

    async fn online_users(&self, users: &[UserId]) -> Result<Vec<UserId>, PresenceError> {
        let mut online = self.0.online_users(users).await?;
        online.reverse();
        Ok(online)
    }

    async fn locate(&self, user: &UserId) -> Result<Vec<RoutingInfo>, PresenceError> {
        self.0.locate(user).await
    }

    async fn transitions(
        &self,
        after: Option<Mark>,
        limit: usize,
    ) -> Result<Transitions, PresenceError> {
        self.0.transitions(after, limit).await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

#[tokio::test]
async fn regression_a_tracker_with_an_order_of_its_own_makes_no_user_skipped() {
    let presence: Arc<dyn Presence> = Arc::new(Reversing::default());
    let notifier = without_sweep(MemoryStore::new())
        .presence(presence.clone())
        .offline_policy(OfflinePolicy::Skip)
        .build()
        .unwrap();
    let users = ["ann", "bob", "cid"].map(user);
    let mut leases = Vec::new();
    for user in &users[..2] {
        leases.push(connect(&presence, user.clone(), "one").await);
    }
    let pushed = notifier.push_multi(users.clone(), draft(1)).await.unwrap();
    let [
        Pushed::Stored(first),
        Pushed::Stored(second),
        Pushed::Skipped(third),
    ] = &pushed[..]
    else {
        panic!("{pushed:?}");
    };
    assert_eq!(
        [&first.user, &second.user, third],
        [&users[0], &users[1], &users[2]]
    );
}
