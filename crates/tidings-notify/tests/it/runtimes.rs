//! A runtime that ends before the notifier that was made on it.

use std::sync::Arc;

use tidings_notify::{Closed, Error, InboxAction, Item, MemoryStore, Notifier, Since, Store};
use tidings_test_support::soon;
use tokio::runtime::{Builder, Runtime};

use crate::support::{ann, draft, event_numbers};

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn regression_a_notifier_whose_runtime_has_ended_is_closed() {
    let (first, second) = (runtime(), runtime());
    let store = MemoryStore::new();
    let notifier = first.block_on(async { Notifier::new(Arc::new(store.clone())) });
    second.block_on(async {
        let mut stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
        let caught_up = stream.next().await.unwrap();
        assert!(matches!(caught_up, Item::CaughtUp { .. }));
        let sent = notifier.push(draft(0)).await.unwrap();
        assert_eq!(event_numbers(&[stream.next().await.unwrap()]), [0]);
        stream.sent(sent.id);
        let waiting = tokio::spawn(async move { stream.next().await });
        drop_elsewhere(first);
        assert_eq!(soon("the end", waiting).await.unwrap(), Err(Closed));

        let refused = notifier.subscribe(ann(), Since::Now).await.map(drop);
        assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
        let refused = notifier.push(draft(1)).await.map(drop);
        assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
        let refused = notifier.push_multi([ann()], draft(1)).await.map(drop);
        assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
        let refused = notifier.change(&ann(), &InboxAction::ReadAll).await;
        assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
        assert_eq!(store.head(&ann()).await.unwrap().top_seq, 1);

        // What was sent has not been stored, and is by the close.
        soon("the close", notifier.close()).await.unwrap();
        let head = store.head(&ann()).await.unwrap();
        assert_eq!(head.delivered_seq, 1);
    });
}

/// A runtime must not be dropped within another one.
fn drop_elsewhere(runtime: Runtime) {
    std::thread::spawn(move || drop(runtime)).join().unwrap();
}
