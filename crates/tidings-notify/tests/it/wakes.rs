//! Wake-ups from outside: by the store, and by the application.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidings_notify::{Notifier, Since, Subscription, Wake};

use crate::support::{Observed, ann, draft, first_sweep, numbers, user, without_sweep};

async fn screens(notifier: &Notifier, count: usize) -> Vec<Subscription> {
    let mut screens = Vec::new();
    for _ in 0..count {
        let mut screen = notifier.subscribe(ann(), Since::Now).await.unwrap();
        screen.next().await.unwrap();
        screens.push(screen);
    }
    screens
}

/// The events are in the store; no notifier has announced them.
async fn stored_elsewhere(store: &Observed, count: u64) {
    let drafts = (0..count).map(draft).collect();
    store.inner.append(drafts).await.unwrap();
}

#[tokio::test]
async fn a_hint_reads_one_page_for_all_screens_of_the_user() {
    let store = Observed::default();
    let notifier = without_sweep(store.clone()).build().unwrap();
    first_sweep().await;
    let mut screens = screens(&notifier, 20).await;
    // The user's log exists now, and is known here.
    notifier.push(draft(99)).await.unwrap();
    for screen in &mut screens {
        assert_eq!(numbers(screen, 1).await, [99]);
    }
    stored_elsewhere(&store, 3).await;
    let before = store.calls.load(Ordering::SeqCst);
    notifier.hint(&ann());
    for screen in &mut screens {
        assert_eq!(numbers(screen, 3).await, [0, 1, 2]);
    }
    assert_eq!(store.calls.load(Ordering::SeqCst) - before, 1);
    // For users without screens nothing is read.
    notifier.hint(&user("bob"));
    notifier.hint(&ann());
    notifier.hint(&ann());
    stored_elsewhere(&store, 1).await;
    notifier.hint(&ann());
    assert_eq!(numbers(&mut screens[0], 1).await, [0]);
    assert!(store.calls.load(Ordering::SeqCst) - before <= 4);
}

#[tokio::test]
async fn a_hint_for_a_log_that_did_not_exist_is_heard() {
    let store = Observed::default();
    let notifier = without_sweep(store.clone()).build().unwrap();
    let mut screens = screens(&notifier, 2).await;
    stored_elsewhere(&store, 2).await;
    notifier.hint(&ann());
    for screen in &mut screens {
        assert_eq!(numbers(screen, 2).await, [0, 1]);
    }
}

#[tokio::test]
async fn a_store_wakes_its_users_streams() {
    let store = Observed::default();
    let notifier = without_sweep(store.clone()).build().unwrap();
    let mut screens = screens(&notifier, 2).await;
    stored_elsewhere(&store, 2).await;
    store.wake(Wake::Changed(ann()));
    for screen in &mut screens {
        assert_eq!(numbers(screen, 2).await, [0, 1]);
    }
}

#[tokio::test]
async fn lost_wake_ups_are_made_good_by_a_sweep_at_once() {
    let store = Observed::default();
    let notifier = Arc::new(without_sweep(store.clone()).build().unwrap());
    let mut screens = screens(&notifier, 1).await;
    for round in 0..2 {
        stored_elsewhere(&store, 1).await;
        if round == 0 {
            notifier.hint_all();
        } else {
            // More than the queue holds: what the receiver missed counts as lost.
            for n in 0..20 {
                store.wake(Wake::Changed(user(&format!("user-{n}"))));
            }
        }
        assert_eq!(numbers(&mut screens[0], 1).await, [0]);
    }
}

#[tokio::test]
async fn a_log_that_cannot_be_change_after_a_hint_is_left_to_the_next() {
    let store = Observed::default();
    let notifier = without_sweep(store.clone()).build().unwrap();
    let mut screens = screens(&notifier, 1).await;
    stored_elsewhere(&store, 1).await;
    store.is_broken.store(true, Ordering::SeqCst);
    let before = store.calls.load(Ordering::SeqCst);
    notifier.hint(&ann());
    while store.calls.load(Ordering::SeqCst) == before {
        tokio::task::yield_now().await;
    }
    store.is_broken.store(false, Ordering::SeqCst);
    notifier.hint(&ann());
    assert_eq!(numbers(&mut screens[0], 1).await, [0]);
}
