//! Several instances on one store: the sweep, and routing ahead of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tidings_notify::{Event, MemoryStore, Notifier, RouteError, Router, RoutingInfo, Since, Store};
use tokio::sync::Semaphore;

use crate::support::{
    Observed, ann, connect, draft, event_numbers, items_at_hand, numbers, presence, push_numbers,
    user, without_sweep,
};

/// Delivers to notifiers of this process by the name of their instance.
#[derive(Debug, Clone, Default)]
pub(crate) struct Switchboard(Arc<Mutex<HashMap<String, Notifier>>>);

impl Switchboard {
    pub(crate) fn connect(&self, instance: &str, notifier: &Notifier) {
        self.0
            .lock()
            .unwrap()
            .insert(instance.to_owned(), notifier.clone());
    }
}

#[async_trait]
impl Router for Switchboard {
    async fn route(&self, to: &RoutingInfo, event: &Event) -> Result<(), RouteError> {
        let notifier = self.0.lock().unwrap().get(&to.instance_id).cloned();
        let notifier = notifier.ok_or_else(|| RouteError::new("no such instance"))?;
        notifier.deliver(std::slice::from_ref(event));
        Ok(())
    }
}

/// Does not reply before it is allowed to.
#[derive(Debug, Clone)]
struct Stalled {
    asked: Arc<AtomicU64>,
    permits: Arc<Semaphore>,
}

#[async_trait]
impl Router for Stalled {
    async fn route(&self, _: &RoutingInfo, _: &Event) -> Result<(), RouteError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.permits
            .acquire()
            .await
            .map_err(RouteError::new)?
            .forget();
        Err(RouteError::new("it was slow for nothing"))
    }
}

#[tokio::test(start_paused = true)]
async fn the_sweep_finds_what_another_instance_stored() {
    let store = MemoryStore::new();
    let here = Notifier::new(Arc::new(store.clone()));
    let there = without_sweep(store).build().unwrap();
    let mut stream = here.subscribe(ann(), Since::Now).await.unwrap();
    for round in 0..5 {
        push_numbers(&there, round * 10..round * 10 + 10).await;
        tokio::time::sleep(Duration::from_millis(2001)).await;
        let given = event_numbers(&items_at_hand(&mut stream));
        assert_eq!(given, (round * 10..round * 10 + 10).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn a_sweep_misses_no_user_among_many() {
    let store = MemoryStore::new();
    let here = Notifier::new(Arc::new(store.clone()));
    let users: Vec<_> = (0..1500).map(|n| user(&format!("user-{n}"))).collect();
    let mut streams = Vec::new();
    for user in &users {
        streams.push(here.subscribe(user.clone(), Since::Now).await.unwrap());
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let drafts = users.iter().map(|user| draft(1).with_user(user.clone()));
    store.append(drafts.collect()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    for stream in &mut streams {
        assert_eq!(event_numbers(&items_at_hand(stream)), [1]);
    }
}

#[tokio::test(start_paused = true)]
async fn regression_a_log_that_cannot_be_read_holds_up_no_other() {
    let store = Observed::default();
    let notifier = without_sweep(store.clone()).build().unwrap();
    let others = (0..20).map(|n| user(&format!("user-{n}")));
    let users: Vec<_> = std::iter::once(ann()).chain(others).collect();
    let mut streams = Vec::new();
    for user in &users {
        let mut stream = notifier.subscribe(user.clone(), Since::Now).await.unwrap();
        items_at_hand(&mut stream);
        streams.push(stream);
    }
    let sweep = async || {
        notifier.hint_all();
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    sweep().await;
    *store.unreadable.lock().unwrap() = Some(ann());
    let drafts = users.iter().map(|user| draft(1).with_user(user.clone()));
    store.inner.append(drafts.collect()).await.unwrap();
    sweep().await;
    for stream in &mut streams[1..] {
        assert_eq!(event_numbers(&items_at_hand(stream)), [1]);
    }
    assert!(event_numbers(&items_at_hand(&mut streams[0])).is_empty());
    // It is not forgotten, though the sweep has gone on.
    *store.unreadable.lock().unwrap() = None;
    sweep().await;
    assert_eq!(event_numbers(&items_at_hand(&mut streams[0])), [1]);
}

#[tokio::test(start_paused = true)]
async fn regression_a_store_that_panics_ends_no_background_task() {
    let store = Observed::default();
    let notifier = Notifier::new(Arc::new(store.clone()));
    let mut stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    store.panics.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!store.panics.load(Ordering::SeqCst));
    store.inner.append(vec![draft(1)]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(event_numbers(&items_at_hand(&mut stream)), [1]);

    // What was sent is stored as well, and no sweep takes the panic.
    let notifier = without_sweep(store.clone()).build().unwrap();
    let mut stream = notifier.subscribe(ann(), Since::Start).await.unwrap();
    numbers(&mut stream, 1).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    store.panics.store(true, Ordering::SeqCst);
    stream.sent(stream.cursor());
    tokio::time::sleep(Duration::from_secs(9)).await;
    let head = store.inner.head(&ann()).await.unwrap();
    assert_eq!(head.delivered_seq, 1);
}

#[tokio::test(start_paused = true)]
async fn regression_the_sweep_costs_the_same_for_a_thousand_streams() {
    let store = Observed::default();
    let notifier = Notifier::new(Arc::new(store.clone()));
    let mut streams = Vec::new();
    for n in 0..1000 {
        let user = user(&format!("user-{}", n % 500));
        let mut stream = notifier.subscribe(user, Since::Now).await.unwrap();
        items_at_hand(&mut stream);
        streams.push(tokio::spawn(async move { stream.next().await }));
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = store.calls.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(store.calls.load(Ordering::SeqCst) - before, 50);
    // Events pushed here need no look at their logs either.
    for n in 0..500 {
        let draft = draft(n).with_user(user(&format!("user-{n}")));
        notifier.push(draft).await.unwrap();
    }
    let before = store.calls.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(store.calls.load(Ordering::SeqCst) - before, 50);
    for stream in streams {
        stream.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn regression_every_instance_that_has_the_user_gets_the_event() {
    let store = MemoryStore::new();
    let presence = presence();
    let board = Switchboard::default();
    let instances = ["one", "two", "three"].map(|name| {
        let notifier = without_sweep(store.clone())
            .presence(presence.clone())
            .router(Arc::new(board.clone()))
            .instance_id(name)
            .build()
            .unwrap();
        board.connect(name, &notifier);
        (name, notifier)
    });
    let mut streams = Vec::new();
    for (name, notifier) in &instances {
        let lease = connect(&presence, ann(), name).await;
        streams.push((notifier.subscribe(ann(), Since::Now).await.unwrap(), lease));
    }
    push_numbers(&instances[0].1, 0..20).await;
    for (stream, _) in &mut streams {
        assert_eq!(numbers(stream, 20).await, (0..20).collect::<Vec<_>>());
    }
    let metrics = instances[0].1.metrics();
    assert_eq!((metrics.routing_failed, metrics.routing_dropped), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_failed_route_is_counted_and_made_good_by_the_sweep() {
    let store = MemoryStore::new();
    let presence = presence();
    let here = without_sweep(store.clone())
        .presence(presence.clone())
        .router(Arc::new(Switchboard::default()))
        .instance_id("here")
        .build()
        .unwrap();
    let there = Notifier::new(Arc::new(store));
    let _lease = connect(&presence, ann(), "there").await;
    let mut stream = there.subscribe(ann(), Since::Now).await.unwrap();
    push_numbers(&here, 0..3).await;
    assert_eq!(numbers(&mut stream, 3).await, [0, 1, 2]);
    assert_eq!(
        (here.metrics().routed, here.metrics().routing_failed),
        (0, 3)
    );
}

#[tokio::test]
async fn regression_a_router_that_hangs_holds_up_no_push_and_no_local_stream() {
    let presence = presence();
    let router = Stalled {
        asked: Arc::default(),
        permits: Arc::new(Semaphore::new(0)),
    };
    let notifier = without_sweep(MemoryStore::new())
        .presence(presence.clone())
        .router(Arc::new(router.clone()))
        .instance_id("here")
        .build()
        .unwrap();
    let _elsewhere = connect(&presence, ann(), "elsewhere").await;
    let mut stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
    push_numbers(&notifier, 0..3000).await;
    assert_eq!(
        numbers(&mut stream, 3000).await,
        (0..3000).collect::<Vec<_>>()
    );
    // What found no room in the queue is counted; the rest is asked for a few at a time.
    let metrics = notifier.metrics();
    assert!(metrics.routing_dropped > 1000, "{metrics:?}");
    assert!(router.asked.load(Ordering::SeqCst) <= 64);
    notifier.close().await.unwrap();
}

/// Panics for one instance, and takes its time for the others.
#[derive(Debug, Clone)]
struct Panicking(Switchboard);

#[async_trait]
impl Router for Panicking {
    async fn route(&self, to: &RoutingInfo, event: &Event) -> Result<(), RouteError> {
        assert_ne!(to.instance_id, "bad", "the test wants it");
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.0.route(to, event).await
    }
}

#[tokio::test(start_paused = true)]
async fn regression_a_router_that_panics_for_one_instance_reaches_the_others() {
    let store = MemoryStore::new();
    let presence = presence();
    let board = Switchboard::default();
    let here = without_sweep(store.clone())
        .presence(presence.clone())
        .router(Arc::new(Panicking(board.clone())))
        .instance_id("here")
        .build()
        .unwrap();
    let there = without_sweep(store).build().unwrap();
    board.connect("good", &there);
    let _leases = [
        connect(&presence, ann(), "bad").await,
        connect(&presence, ann(), "good").await,
    ];
    let mut stream = there.subscribe(ann(), Since::Now).await.unwrap();
    push_numbers(&here, 0..1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(event_numbers(&items_at_hand(&mut stream)), [0]);
    let metrics = here.metrics();
    assert_eq!((metrics.routed, metrics.routing_failed), (1, 1));
}

#[tokio::test]
async fn an_instance_does_not_route_to_itself() {
    let presence = presence();
    let board = Switchboard::default();
    let notifier = without_sweep(MemoryStore::new())
        .presence(presence.clone())
        .router(Arc::new(board.clone()))
        .instance_id("here")
        .build()
        .unwrap();
    board.connect("here", &notifier);
    let _here = connect(&presence, ann(), "here").await;
    let _there = connect(&presence, user("bob"), "nowhere").await;
    push_numbers(&notifier, 0..5).await;
    notifier
        .push(draft(9).with_user(user("bob")))
        .await
        .unwrap();
    while notifier.metrics().routing_failed == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(notifier.metrics().routed, 0);
}

/// The store is put back to an older copy while streams are open.
#[tokio::test(start_paused = true)]
async fn a_rewound_log_is_a_gap_for_readers_who_were_further() {
    use rewound::Rewindable;
    let store = Rewindable::default();
    let notifier = Notifier::new(Arc::new(store.clone()));
    let mut stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
    push_numbers(&notifier, 0..3).await;
    store.save();
    push_numbers(&notifier, 3..6).await;
    assert_eq!(
        event_numbers(&items_at_hand(&mut stream)),
        [0, 1, 2, 3, 4, 5]
    );
    store.rewind();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let items = items_at_hand(&mut stream);
    assert!(
        matches!(&items[0], tidings_notify::Item::Gap(gap)
            if gap.reason == tidings_notify::GapReason::Ahead && gap.to.seq == 0),
        "{items:?}"
    );
    assert_eq!(event_numbers(&items), [0, 1, 2]);
    push_numbers(&notifier, 10..11).await;
    assert_eq!(event_numbers(&items_at_hand(&mut stream)), [10]);
}

mod rewound {
    //! A store of one log that can be put back to a saved copy.

    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;
    use jiff::Timestamp;
    use tidings_notify::{
        ChangeMark, Changes, Draft, Epoch, Event, EventId, Head, InboxAction, InboxPage,
        InboxQuery, InboxUpdate, LogChange, Page, Store, StoreError, UserId,
    };

    #[derive(Debug, Clone, Default)]
    pub(super) struct Rewindable(Arc<Mutex<(Vec<Event>, Vec<Event>)>>);

    impl Rewindable {
        pub(super) fn save(&self) {
            let mut logs = self.0.lock().unwrap();
            let events = logs.0.clone();
            logs.1 = events;
        }

        pub(super) fn rewind(&self) {
            let mut logs = self.0.lock().unwrap();
            let events = logs.1.clone();
            logs.0 = events;
        }
    }

    const EPOCH: u64 = 7;

    #[async_trait]
    impl Store for Rewindable {
        async fn append(&self, drafts: Vec<Draft>) -> Result<Vec<Event>, StoreError> {
            let mut logs = self.0.lock().unwrap();
            let mut events = Vec::new();
            for draft in drafts {
                let id = EventId::new(Epoch::from_u64(EPOCH), logs.0.len() as u64 + 1);
                let event = Event::from_draft(draft, id);
                logs.0.push(event.clone());
                events.push(event);
            }
            Ok(events)
        }

        async fn read(&self, user: &UserId, after: u64, limit: usize) -> Result<Page, StoreError> {
            let head = self.head(user).await?;
            let logs = self.0.lock().unwrap();
            let events = logs.0.iter().filter(|event| event.id.seq > after);
            Ok(Page {
                head,
                events: events.take(limit).cloned().collect(),
            })
        }

        async fn heads(&self, users: &[UserId]) -> Result<Vec<Head>, StoreError> {
            let top_seq = self.0.lock().unwrap().0.len() as u64;
            let epoch = Epoch::from_u64(if top_seq == 0 { 0 } else { EPOCH });
            let head = Head {
                epoch,
                top_seq,
                ..Head::EMPTY
            };
            Ok(vec![head; users.len()])
        }

        async fn mark(&self) -> Result<ChangeMark, StoreError> {
            Ok(ChangeMark::from_u64(self.0.lock().unwrap().0.len() as u64))
        }

        async fn changes(&self, after: &ChangeMark, _: usize) -> Result<Changes, StoreError> {
            let mark = self.mark().await?;
            let head = self.head(&crate::support::ann()).await?;
            let after = after.as_u64().unwrap();
            let changed = (head.top_seq > after).then(|| LogChange {
                user: crate::support::ann(),
                head,
            });
            Ok(Changes {
                mark,
                logs: changed.into_iter().collect(),
                more: false,
                rewound: head.top_seq < after,
            })
        }

        async fn find(&self, _: &UserId, _: EventId) -> Result<Option<Event>, StoreError> {
            Ok(None)
        }

        async fn inbox(&self, _: &UserId, _: &InboxQuery) -> Result<InboxPage, StoreError> {
            Ok(InboxPage::empty())
        }

        async fn change(
            &self,
            _: &UserId,
            _: &InboxAction,
            _: Timestamp,
        ) -> Result<InboxUpdate, StoreError> {
            Ok(InboxUpdate::nothing())
        }

        async fn mark_delivered(&self, _: Vec<(UserId, EventId)>) -> Result<(), StoreError> {
            Ok(())
        }

        async fn cursor_before(&self, _: &UserId, _: Timestamp) -> Result<EventId, StoreError> {
            Ok(EventId::ORIGIN)
        }

        async fn cleanup(&self, _: Timestamp) -> Result<u64, StoreError> {
            Ok(0)
        }

        async fn close(&self) {}
    }
}
