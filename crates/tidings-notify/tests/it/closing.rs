//! What ends, how, and that nothing is lost by it.

use std::sync::Arc;
use std::time::Duration;

use tidings_notify::{Closed, Error, Item, MAX_PAGE_BYTES, MemoryStore, Notifier, Since};

use crate::support::{
    ann, draft, event_numbers, fresh_sqlite, numbers, push_numbers, without_sweep,
};

#[tokio::test]
async fn next_after_close_replies_closed() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    let mut stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
    push_numbers(&notifier, 0..1).await;
    stream.close();
    stream.close();
    assert_eq!(stream.next().await, Err(Closed));
    assert_eq!(stream.next_batch(5, MAX_PAGE_BYTES).await, Err(Closed));
    assert_eq!(notifier.metrics().active_streams, 0);
}

#[tokio::test]
async fn closing_the_notifier_ends_open_streams_and_refuses_everything_later() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    let mut stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
    assert!(matches!(
        stream.next().await.unwrap(),
        Item::CaughtUp { .. }
    ));
    let waiting = tokio::spawn(async move { stream.next().await });
    tokio::task::yield_now().await;
    notifier.close().await.unwrap();
    notifier.close().await.unwrap();
    assert_eq!(waiting.await.unwrap(), Err(Closed));

    let everyone = tidings_notify::InboxAction::ReadAll;
    assert!(matches!(notifier.push(draft(1)).await, Err(Error::Closed)));
    assert!(matches!(
        notifier.push_multi([ann()], draft(1)).await,
        Err(Error::Closed)
    ));
    assert!(matches!(
        notifier.subscribe(ann(), Since::Now).await,
        Err(Error::Closed)
    ));
    assert!(matches!(
        notifier.change(&ann(), &everyone).await,
        Err(Error::Closed)
    ));
    assert_eq!(notifier.store().head(&ann()).await.unwrap().top_seq, 0);
}

#[tokio::test]
async fn regression_closing_the_notifier_gives_what_was_waiting_first() {
    let notifier = without_sweep(MemoryStore::new())
        .buffer_size(4)
        .build()
        .unwrap();
    let mut live = notifier.subscribe(ann(), Since::Now).await.unwrap();
    let mut behind = notifier.subscribe(ann(), Since::Start).await.unwrap();
    push_numbers(&notifier, 0..20).await;
    notifier.close().await.unwrap();
    for stream in [&mut live, &mut behind] {
        assert_eq!(numbers(stream, 20).await, (0..20).collect::<Vec<_>>());
        assert_eq!(stream.next().await, Err(Closed));
    }
}

#[tokio::test]
async fn a_backlog_is_given_in_full_after_the_notifier_was_closed() {
    let (store, _folder) = fresh_sqlite().await;
    let notifier = without_sweep(store).buffer_size(3).build().unwrap();
    push_numbers(&notifier, 0..10).await;
    let mut stream = notifier.subscribe(ann(), Since::Start).await.unwrap();
    notifier.close().await.unwrap();
    let mut items = Vec::new();
    while let Ok(item) = stream.next().await {
        items.push(item);
    }
    assert_eq!(event_numbers(&items), (0..10).collect::<Vec<_>>());
    assert!(matches!(items.last(), Some(Item::CaughtUp { .. })));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_notifier_and_its_streams_ends_the_tasks() {
    let handle = tokio::runtime::Handle::current();
    let before = handle.metrics().num_alive_tasks();
    let notifier = Notifier::new(Arc::new(MemoryStore::new()));
    let stream = notifier.subscribe(ann(), Since::Now).await.unwrap();
    drop(notifier);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(handle.metrics().num_alive_tasks() > before);
    drop(stream);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(handle.metrics().num_alive_tasks(), before);
}

/// The last stream of a user leaves while another one comes: the newcomer must be woken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn regression_a_stream_that_opens_while_the_last_one_closes_gets_live_events() {
    let notifier = without_sweep(MemoryStore::new()).build().unwrap();
    let mut leaving = notifier.subscribe(ann(), Since::Now).await.unwrap();
    for round in 0..2000 {
        let opening = tokio::spawn({
            let notifier = notifier.clone();
            async move { notifier.subscribe(ann(), Since::Now).await.unwrap() }
        });
        let closing = tokio::spawn(async move { drop(leaving) });
        let (opened, closed) = tokio::join!(opening, closing);
        closed.unwrap();
        let mut stream = opened.unwrap();
        push_numbers(&notifier, round..round + 1).await;
        assert_eq!(numbers(&mut stream, 1).await, [round]);
        leaving = stream;
    }
}
