//! What is particular to PostgreSQL.

use std::time::Duration;

use jiff::Timestamp;
use tidings_test_support::{Gate, Proxy, Reply, Schema, Script};
use tidings_webhooks::postgres::{PostgresOptions, PostgresStore};
use tidings_webhooks::store::{Addressed, Disabled, LaneQuery, NewReplay, StoredEndpoint};
use tidings_webhooks::{
    DeliveryState, EndpointId, NewEndpoint, Owner, STREAM, Store, StoreError, WebhookEvent,
};

use crate::support::{
    config, event, numbers, receiver_of, schedule, soon, start_on_postgres, store, user,
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

/// A replay makes deliveries of old events while these are cleaned: of one that had none, and of one whose only
/// delivery has ended.
#[tokio::test(flavor = "multi_thread")]
async fn regression_an_event_that_is_replayed_is_not_cleaned() {
    const STEP: &str = "SELECT tidings_webhook_replay_step($1, $2, $3, $4, NULL, NULL, 0)";
    let at = |second| Timestamp::from_second(second).unwrap();
    let schema = Schema::create().await;
    let store = store(&schema).await;
    let of = |number| EndpointId::from_i64(number);
    for number in [1, 2] {
        let mut endpoint = stored_endpoint(number);
        endpoint.disabled = (number == 2).then(|| Disabled {
            because: "off".to_owned(),
        });
        store.insert_endpoint(endpoint, None, None).await.unwrap();
    }
    let (bare, ended) = (event(1), event(2));
    let events = [(bare, Vec::new()), (ended, vec![(of(2), at(0))])];
    let events = events.map(|(event, to)| Addressed { event, to });
    store.add_deliveries(events.into(), at(0)).await.unwrap();
    let cancelled = store.cancel_deliveries(of(2), "off", at(0), 10).await;
    assert_eq!(cancelled.unwrap(), 1);
    let replay = NewReplay {
        endpoint: of(1),
        since: at(0),
        until: at(1),
        per_second: 5,
    };
    assert!(store.start_replay(replay, at(1)).await.unwrap());
    let page = store.replay_page(of(1), 10).await.unwrap().unwrap();
    let numbers: Vec<i64> = page.events.iter().map(|event| event.number).collect();
    assert_eq!(numbers.len(), 2);

    let client = config(&schema).connect().await.unwrap();
    client.batch_execute("BEGIN").await.unwrap();
    let dues = [1_i64, 1];
    client
        .execute(STEP, &[&1_i64, &page.from, &numbers, &dues.as_slice()])
        .await
        .unwrap();
    assert_eq!(soon(store.clean(at(100), 10)).await.unwrap(), 0);
    client.batch_execute("COMMIT").await.unwrap();
    // The delivery to the other endpoint goes, and leaves its event.
    assert_eq!(store.clean(at(100), 10).await.unwrap(), 1);
    let query = LaneQuery {
        endpoint: of(1),
        now: at(100),
        held: Vec::new(),
        limit: 10,
        max_bytes: 1 << 20,
    };
    let due = store.lane_work(query).await.unwrap().due;
    let found: Vec<_> = due.into_iter().map(|due| due.event.unwrap()).collect();
    let ids: Vec<_> = found.iter().map(WebhookEvent::id).collect();
    assert_eq!(ids, ["event-1", "event-2"]);
}

fn stored_endpoint(number: i64) -> StoredEndpoint {
    StoredEndpoint {
        id: EndpointId::from_i64(number),
        owner: Owner::Operator,
        settings: "{}".to_owned(),
        event_types: "[]".to_owned(),
        secrets: "[]".to_owned(),
        first_wait: None,
        disabled: None,
        removed: false,
        revision: 1,
        created_at: Timestamp::from_second(0).unwrap(),
    }
}

/// The server adds the endpoint, and its reply is lost on the way.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_reply_is_lost_may_have_been_done() {
    let schema = Schema::create().await;
    let proxy = Proxy::start(&schema.url()).await.unwrap();
    let near = store(&schema).await;
    let by_proxy = tidings_postgres::Config::new(proxy.url()).unwrap();
    let by_proxy = by_proxy.with_reply_limit(config(&schema).reply_limit());
    let far = PostgresStore::open(by_proxy, PostgresOptions::default());
    let far = far.await.unwrap();
    let endpoint = stored_endpoint;
    far.insert_endpoint(endpoint(1), None, None).await.unwrap();
    let holder = config(&schema).connect().await.unwrap();
    let lock = "BEGIN; LOCK TABLE tidings_webhook_endpoint IN ACCESS EXCLUSIVE MODE";
    holder.batch_execute(lock).await.unwrap();
    let is_waiting = "SELECT count(*) FROM pg_locks
        WHERE NOT granted AND relation = 'tidings_webhook_endpoint'::regclass";
    let losing = async {
        while holder
            .query_one(is_waiting, &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
            == 0
        {}
        // The server hears nothing of it and continues.
        proxy.freeze();
        holder.batch_execute("ROLLBACK").await.unwrap();
        let id = EndpointId::from_i64(2);
        while near.endpoint(id).await.unwrap().is_none() {}
        proxy.block();
    };
    let (lost, ()) =
        soon(async { tokio::join!(far.insert_endpoint(endpoint(2), None, None), losing) }).await;
    let lost = lost.unwrap_err();
    assert!(matches!(lost, StoreError::OutcomeUnknown(_)), "{lost:?}");
    assert!(tidings_webhooks::Error::from(lost).may_have_been_done());
    // Without a connection, which the store may have to find out first.
    let unsent = soon(async {
        loop {
            let refused = far.endpoint(EndpointId::from_i64(1)).await.unwrap_err();
            if !refused.may_have_been_done() {
                return refused;
            }
        }
    })
    .await;
    assert!(matches!(unsent, StoreError::Unavailable(_)), "{unsent:?}");
}
