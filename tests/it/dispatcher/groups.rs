//! Groups of lanes: many endpoints of one owner beside those of others.

use tidings_test_support::{Behaviour, Receiver, Script};
use tokio::time::timeout;

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

/// Of a dispatcher in which a group has two workers and two slow places.
fn builder() -> DispatcherBuilder {
    Dispatcher::builder()
        .workers(8)
        .max_slow(16)
        .slow_after(Duration::from_millis(50))
}

/// Adds an endpoint of an owner.
fn add(dispatcher: &Dispatcher, owner: &str, id: &str, receiver: &Receiver) {
    let endpoint = Endpoint::builder(receiver.url("/")).timeout(HOUR);
    let lane = LaneConfig::default().with_group(owner);
    let endpoint = endpoint.build().unwrap();
    dispatcher.insert_with(id, endpoint, &lane).unwrap();
}

/// Has a hundred endpoints of an owner, all at one receiver, reply quickly and then stall, so that
/// at least so many attempts do.
async fn stall(dispatcher: &Dispatcher, owner: &str, at_least: u64) -> Receiver {
    let receiver = receiver(Reply::ok()).await;
    let ids: Vec<_> = (0..100).map(|number| format!("{owner}{number}")).collect();
    for id in &ids {
        add(dispatcher, owner, id, &receiver);
        for _ in 0..4 {
            dispatcher.deliver(id, "x").await.unwrap();
        }
    }
    receiver.switch_to(Script::always(Behaviour::NeverReply));
    for id in &ids {
        for _ in 0..8 {
            dispatcher.notify(id, "x").unwrap();
        }
    }
    receiver.request(400 + at_least).await;
    receiver
}

/// Delivers to an endpoint of another owner, for longer than an attempt takes to turn late.
async fn deliver_beside(dispatcher: &Dispatcher, owner: &str) {
    let reply = Reply::ok().with_delay(Duration::from_millis(20));
    let receiver = receiver(reply).await;
    add(dispatcher, owner, owner, &receiver);
    for _ in 0..20 {
        let delivered = timeout(PATIENCE, dispatcher.deliver(owner, "x"));
        delivered.await.expect("it waits for no other").unwrap();
    }
}

#[tokio::test]
async fn a_hundred_quick_endpoints_of_one_owner_that_all_stall_hold_up_no_other_owner() {
    let (dispatcher, _errors) = started(builder().max_in_flight_per_host(10_000));
    let _mallory = stall(&dispatcher, "mallory", 4).await;
    deliver_beside(&dispatcher, "bob").await;
    let _oscar = stall(&dispatcher, "oscar", 4).await;
    deliver_beside(&dispatcher, "carl").await;
    dispatcher.stop_within(Duration::ZERO).await;
}

#[tokio::test]
async fn a_hundred_quick_endpoints_of_one_owner_that_all_stall_hold_up_nobody_at_their_host() {
    let (dispatcher, _errors) = started(builder().max_in_flight_per_host(8));
    let _mallory = stall(&dispatcher, "mallory", 2).await;
    deliver_beside(&dispatcher, "bob").await;
    dispatcher.stop_within(Duration::ZERO).await;
}
