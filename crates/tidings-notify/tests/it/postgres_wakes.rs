//! Wake channels of an application that do not do what they should.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use tidings_notify::postgres::{PostgresOptions, PostgresStore};
use tidings_notify::{Store, StoreError, Wake, WakeChannel, WakeSender, Wakes};
use tidings_test_support::soon;

use crate::database::Schema;
use crate::postgres_faults::REPLY_LIMIT;
use crate::support::{ann, draft};

/// What a channel does with its first hints. It loses all others without a word.
#[derive(Debug, Clone, Copy)]
enum First {
    Panics,
    Waits,
}

#[derive(Debug)]
struct Faulty {
    first: First,
    calls: AtomicUsize,
}

#[async_trait]
impl WakeChannel for Faulty {
    async fn send(&self, _: &[Wake]) -> Result<(), StoreError> {
        match (self.calls.fetch_add(1, Ordering::SeqCst), self.first) {
            (0, First::Panics) => panic!("the test wants it"),
            (0, First::Waits) => std::future::pending().await,
            _ => Ok(()),
        }
    }

    fn wakes(&self) -> Wakes {
        WakeSender::new(1).receiver()
    }
}

#[tokio::test]
async fn regression_hints_that_a_channel_does_not_send_reach_others_by_notify() {
    for first in [First::Panics, First::Waits] {
        let schema = Schema::create().await;
        let channel = Arc::new(Faulty {
            first,
            calls: AtomicUsize::new(0),
        });
        let options = PostgresOptions::default().with_wake_channel(channel.clone());
        let config = schema.config().with_reply_limit(REPLY_LIMIT);
        let here = PostgresStore::open(config, options).await.unwrap();
        let there = schema.store().await;
        let mut wakes = there.wakes().unwrap();
        assert_eq!(wakes.next().await, Some(Wake::Reconnected));
        here.append(vec![draft(1)]).await.unwrap();
        let heard = soon("a wake-up", wakes.next()).await;
        assert_eq!(heard, Some(Wake::Changed(ann())), "{first:?}");
        // The channel is used again.
        here.append(vec![draft(2)]).await.unwrap();
        let used = async {
            while channel.calls.load(Ordering::SeqCst) < 2 {
                tokio::task::yield_now().await;
            }
        };
        soon("the next hint", used).await;
    }
}
