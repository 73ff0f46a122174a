use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::support::{PATIENCE, message, publish, received, subscribe, topics, within};
use crate::{Broker, Overflow, Received, SubscribeOptions};

/// A handler that does not return holds up neither its publisher nor other subscriptions.
pub async fn a_slow_handler_delays_no_other(broker: Arc<dyn Broker>) {
    const MESSAGES: u32 = 500;
    let [topic] = topics();
    let started = Arc::new(Semaphore::new(0));
    let signal = Arc::clone(&started);
    let slow = subscribe(&broker, &[&topic]).await.handle(move |_| {
        signal.add_permits(1);
        std::future::pending()
    });
    let options = SubscribeOptions::default().with_capacity(MESSAGES as usize + 1);
    let mut quick = broker
        .subscribe(vec![topic.clone()], options)
        .await
        .expect("subscribes");
    publish(&broker, &topic, "start").await;
    within("the handler to be called", started.acquire())
        .await
        .expect("never closed")
        .forget();
    for number in 0..MESSAGES {
        publish(&broker, &topic, number.to_string()).await;
    }
    assert_eq!(message(&mut quick).await.payload(), "start");
    for number in 0..MESSAGES {
        assert_eq!(*message(&mut quick).await.payload(), number.to_string());
    }
    assert_eq!(
        started.available_permits(),
        0,
        "called while it was running"
    );
    drop(slow);
}

/// With [`Overflow::DropOldest`] the newest messages are there, and what is missing is counted where
/// it is missing.
pub async fn the_oldest_make_room_and_every_loss_is_counted(broker: Arc<dyn Broker>) {
    let account = overflow(broker, Overflow::DropOldest).await;
    assert_eq!(account.last(), Some(&Some(TOTAL - 1)), "{account:?}");
    assert!(account.iter().flatten().count() < TOTAL, "{account:?}");
}

/// With [`Overflow::DropNewest`] the first messages are there, and what is missing is counted where
/// it is missing.
pub async fn the_newest_are_dropped_and_every_loss_is_counted(broker: Arc<dyn Broker>) {
    let account = overflow(broker, Overflow::DropNewest).await;
    let first: Vec<_> = (0..CAPACITY).map(Some).collect();
    assert_eq!(account[..CAPACITY], first, "{account:?}");
    assert!(account.iter().flatten().count() < TOTAL, "{account:?}");
}

/// With [`Overflow::Wait`] a subscriber that reads in time misses nothing.
pub async fn nothing_is_lost_when_there_is_room_in_time(broker: Arc<dyn Broker>) {
    let [topic] = topics();
    let options = SubscribeOptions::default()
        .with_capacity(1)
        .with_overflow(Overflow::Wait(PATIENCE));
    let mut subscription = broker
        .subscribe(vec![topic.clone()], options)
        .await
        .expect("subscribes");
    let publishing = async {
        for number in 0..TOTAL {
            publish(&broker, &topic, number.to_string()).await;
        }
    };
    let reading = async {
        for number in 0..TOTAL {
            assert_eq!(
                *message(&mut subscription).await.payload(),
                number.to_string()
            );
        }
    };
    tokio::join!(publishing, reading);
}

/// With [`Overflow::Wait`] a subscriber that does not read gets a count of what it missed.
pub async fn waiting_for_room_ends_and_every_loss_is_counted(broker: Arc<dyn Broker>) {
    let account = overflow(broker, Overflow::Wait(Duration::from_millis(5))).await;
    let first: Vec<_> = (0..CAPACITY).map(Some).collect();
    assert_eq!(account[..CAPACITY], first, "{account:?}");
}

/// How many messages the subscription of [`overflow`] has room for.
const CAPACITY: usize = 4;

/// How many are published to it.
const TOTAL: usize = 12;

/// Publishes more than fits to a subscription that does not read until all have been sent, and
/// returns what it then finds: the number of a message, or `None` for each that is missing.
///
/// A report of losses that is wrong, or in the wrong place, fails here.
async fn overflow(broker: Arc<dyn Broker>, overflow: Overflow) -> Vec<Option<usize>> {
    let [topic] = topics();
    let options = SubscribeOptions::default()
        .with_capacity(CAPACITY)
        .with_overflow(overflow);
    let mut slow = broker
        .subscribe(vec![topic.clone()], options)
        .await
        .expect("subscribes");
    let mut witness = subscribe(&broker, &[&topic]).await;
    for number in 0..TOTAL {
        publish(&broker, &topic, number.to_string()).await;
    }
    // A subscriber that has the last one knows that all others have at least the one before.
    for _ in 0..TOTAL {
        message(&mut witness).await;
    }
    let mut account = Vec::new();
    while account.len() < TOTAL {
        match received(&mut slow).await {
            Received::Message(message) => {
                assert_eq!(*message.payload(), account.len().to_string(), "{account:?}");
                account.push(Some(account.len()));
            }
            Received::Lagged(lagged) => {
                let missed = lagged.missed().expect("the broker was not interrupted");
                let missed = usize::try_from(missed).expect("not more than were sent");
                account.extend(std::iter::repeat_n(None, missed));
            }
        }
    }
    account
}
