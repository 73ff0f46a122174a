//! What goes wrong between the store and its Redis server.

use std::sync::Arc;

use tidings_notify::redis::{Config, RedisOptions, RedisStore};
use tidings_notify::{Head, InboxAction, Store, StoreError};
use tidings_test_support::{Fault, Outage, RedisOutage};

use crate::postgres_faults::{REPLY_LIMIT, come_and_go, nothing_stored_is_lost};
use crate::redis::retried;
use crate::support::{ann, draft};

#[tokio::test]
async fn every_fault_is_an_error_and_is_survived() {
    let mut outage = RedisOutage::start().await.unwrap();
    let options = RedisOptions::default();
    let config = Config::new(outage.url())
        .unwrap()
        .with_reply_limit(REPLY_LIMIT);
    let store = RedisStore::open(config, options).await.unwrap();
    for (number, fault) in (0..).zip(Fault::ALL) {
        store.append(vec![draft(number)]).await.unwrap();
        outage.begin(fault).await.unwrap();
        let refused = store.append(vec![draft(99)]).await.unwrap_err();
        if fault == Fault::Fill {
            assert!(matches!(refused, StoreError::Full(_)), "{refused:?}");
            // What takes no room continues.
            let all = InboxAction::ReadAll;
            store
                .change(&ann(), &all, jiff::Timestamp::now())
                .await
                .unwrap();
        } else {
            let is_unavailable = matches!(refused, StoreError::Unavailable(_));
            // A connection that breaks may do so before the call or during it.
            let is_named = match fault {
                Fault::Freeze => refused.may_have_been_done(),
                _ => is_unavailable || refused.may_have_been_done(),
            };
            assert!(is_named, "{fault:?}: {refused:?}");
        }
        outage.restore().await.unwrap();
        let page = retried(async || store.read(&ann(), 0, 100).await).await;
        // A frozen server may have done what was asked.
        let seen: Vec<u64> = page.events.iter().map(crate::support::number).collect();
        let known: Vec<u64> = seen.iter().copied().filter(|n| *n != 99).collect();
        assert_eq!(known, (0..=number).collect::<Vec<_>>(), "{fault:?}");
    }
    let head: Head = store.head(&ann()).await.unwrap();
    assert_eq!(head.unread, 0);
}

/// A server that keeps what it has replied to leaves no gap behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_server_crashes_is_cut_off_stops_or_is_full() {
    let mut outage = RedisOutage::start().await.unwrap();
    for fault in Fault::ALL {
        let open = async || {
            let config = Config::new(outage.url()).unwrap();
            let config = config.with_reply_limit(REPLY_LIMIT);
            let options = RedisOptions::default()
                .with_prefix(format!("{fault:?}"))
                .with_durable_server();
            Arc::new(RedisStore::open(config, options).await.unwrap())
        };
        let stores: [Arc<dyn Store>; 2] = [open().await, open().await];
        nothing_stored_is_lost(stores, async || come_and_go(&mut outage, fault).await).await;
    }
}
