//! What is particular to PostgreSQL.

use std::time::Duration;

use tidings_test_support::{Gate, Reply, Schema, Script};
use tidings_webhooks::{DeliveryState, NewEndpoint, Owner, STREAM};

use crate::support::{
    config, event, numbers, receiver_of, schedule, soon, start_on_postgres, user,
};

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_accepted_in_the_applications_own_transaction() {
    let receiver = receiver_of(Reply::ok()).await;
    let schema = Schema::create().await;
    let app = start_on_postgres(&schema, schedule(&[0])).await;
    let settings = tidings_webhooks::EndpointSettings::new(receiver.url("/"));
    let new = NewEndpoint::new(Owner::User(user("anna")), settings);
    let (endpoint, _) = app.webhooks.create_endpoint(new).await.unwrap();
    let client = config(&schema).connect().await.unwrap();
    for (number, name, end) in [
        (0, "anna", "ROLLBACK"),
        (1, "bo", "COMMIT"),
        (2, "anna", "COMMIT"),
    ] {
        client.batch_execute("BEGIN").await.unwrap();
        let events = [event(number).with_user(user(name))];
        let stream = app.webhooks.stream();
        let wanted = tidings_webhooks::postgres::accept_in(&*client, stream, &events).await;
        assert_eq!(wanted.unwrap(), name == "anna");
        client.batch_execute(end).await.unwrap();
        app.webhooks.wake();
    }
    app.until(endpoint.id, DeliveryState::Delivered, 1).await;
    assert_eq!(numbers(&receiver), [2]);
    let stats = app.streams.stats(STREAM).await.unwrap();
    assert!(stats.messages <= 1);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lanes_of_a_crashed_instance_are_served_when_its_lease_ends() {
    // The first attempt hangs with the instance that makes it.
    let script = Script::sequence([Reply::ok().after(Gate::new())], Reply::ok());
    let receiver = receiver_of(script).await;
    let schema = Schema::create().await;
    let options = || schedule(&[0]).with_lease(Duration::from_secs(2));
    let crashed = start_on_postgres(&schema, options()).await;
    let endpoint = crashed.endpoint(receiver.url("/")).await;
    crashed.accept(0..3).await;
    soon(receiver.request(1)).await;
    // Nothing is given back, and nothing continues.
    drop(crashed);
    soon(receiver.closed(1)).await;
    let other = start_on_postgres(&schema, options()).await;
    let delivered = other.until(endpoint, DeliveryState::Delivered, 3).await;
    assert!(delivered.iter().all(|delivery| delivery.attempts == 1));
    assert_eq!(numbers(&receiver).len(), 4);
    other.stop().await;
}
