//! Local trouble, and rows that cannot be read.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidings::transport::{RequestBody, ResponseBody, Transport};
use tidings::{AddressPolicy, AttemptError, ErrorKind, Sender};
use tidings_test_support::{Gate, Reply};
use tidings_webhooks::{DeliveryQuery, DeliveryState, Error, Options, Webhooks};

use crate::support::{Place, receiver_of, schedule, soon, start};
use crate::watched::{Counts, Watched};

#[tokio::test(flavor = "multi_thread")]
async fn regression_an_outcome_that_cannot_be_written_is_kept() {
    let gate = Gate::new();
    let receiver = receiver_of(Reply::ok().after(gate.clone())).await;
    let place = Place::new();
    let counts = Arc::<Counts>::default();
    let options = schedule(&[0, 10, 10, 10]);
    let app = start(&place.file(), options, |store| {
        Watched::wrap(store, &counts)
    })
    .await;
    let endpoint = app.endpoint(receiver.url("/")).await;
    app.accept(0..1).await;
    soon(receiver.request(1)).await;

    // Another process writes for longer than SQLite waits.
    let lock = rusqlite::Connection::open(place.file()).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    gate.open();
    soon(async {
        while counts.failed_records.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    lock.execute_batch("ROLLBACK").unwrap();

    let delivered = app.until(endpoint, DeliveryState::Delivered, 1).await;
    assert_eq!(delivered[0].attempts, 1);
    let attempts = app.attempts(delivered[0].id).await;
    assert_eq!(attempts.len(), 1);
    assert_eq!(receiver.requests().len(), 1);
    app.stop().await;
}

#[tokio::test]
async fn regression_what_cannot_be_read_fails_with_a_reason_and_alone() {
    let receiver = receiver_of(Reply::ok()).await;
    let place = Place::new();
    let app = place.start(schedule(&[0])).await;
    let broken = app.endpoint(receiver.url("/broken")).await;
    let healthy = app.endpoint(receiver.url("/healthy")).await;
    let id = broken.as_i64();
    let other = rusqlite::Connection::open(place.file()).unwrap();
    let change =
        "UPDATE webhook_endpoint SET settings = 'x', event_types = 'x' WHERE endpoint = ?1";
    other.execute(change, [id]).unwrap();
    app.accept(0..3).await;
    let failed = app.until(broken, DeliveryState::Failed, 3).await;
    let reason = failed[0].reason.as_deref().unwrap();
    assert!(reason.contains("cannot be read"), "{reason}");
    assert_eq!(failed[0].attempts, 0);
    app.until(healthy, DeliveryState::Delivered, 3).await;

    // It can be seen for what it is, and removed.
    let shown = app.webhooks.endpoint(broken).await;
    assert!(matches!(shown, Err(Error::Unreadable(_))));
    let listed = app
        .webhooks
        .endpoints(&tidings_webhooks::Owner::Operator)
        .await;
    assert_eq!(listed.unwrap().len(), 1);
    assert!(app.webhooks.remove_endpoint(broken).await.unwrap());

    // The same for an event.
    app.webhooks
        .disable_endpoint(healthy, "for now")
        .await
        .unwrap();
    app.accept(3..5).await;
    soon(async {
        let stored = "SELECT count(*) FROM webhook_event";
        while other
            .query_row(stored, [], |row| row.get::<_, i64>(0))
            .unwrap()
            < 5
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let change = "UPDATE webhook_event SET payload = 'x' WHERE id = 'event-3'";
    other.execute(change, []).unwrap();
    app.webhooks.enable_endpoint(healthy).await.unwrap();
    let replay = tidings_webhooks::Replay::since(jiff::Timestamp::UNIX_EPOCH);
    app.webhooks
        .replay(healthy, replay.with_rate(100))
        .await
        .unwrap();
    let failed = app.until(healthy, DeliveryState::Failed, 1).await;
    assert_eq!(failed[0].event_id, "event-3");
    assert!(failed[0].reason.is_some());
    app.until(healthy, DeliveryState::Delivered, 4).await;
    app.stop().await;
}

/// Fails once for want of something on this machine, then delivers.
#[derive(Debug, Default)]
struct OutOfSockets(std::sync::atomic::AtomicBool);

#[async_trait::async_trait]
impl Transport for OutOfSockets {
    async fn send(
        &self,
        _request: http::Request<RequestBody>,
    ) -> Result<http::Response<ResponseBody>, AttemptError> {
        if self.0.swap(true, Ordering::Relaxed) {
            return Ok(http::Response::new(ResponseBody::empty()));
        }
        Err(AttemptError::new(
            ErrorKind::Local,
            "no file descriptor is left",
        ))
    }
}

#[tokio::test]
async fn trouble_of_this_machine_is_not_the_endpoints() {
    let place = Place::new();
    // One attempt: had the first one counted, the delivery would have failed.
    let sender = Sender::builder().transport(OutOfSockets::default());
    let options = schedule(&[0]).with_sender(sender.build().unwrap());
    let app = place.start(options).await;
    let endpoint = app.endpoint("http://127.0.0.1:9/".to_owned()).await;
    app.accept(0..1).await;
    let delivered = app.until(endpoint, DeliveryState::Delivered, 1).await;
    assert_eq!(delivered[0].attempts, 1);
    let health = app.webhooks.health(endpoint).await.unwrap().unwrap();
    assert_eq!(
        (health.last_failure_at, health.success_rate),
        (None, Some(1.0))
    );
    app.stop().await;
}

/// Fails for want of something on this machine, always, and counts.
#[derive(Debug)]
struct AlwaysLocal(Arc<std::sync::atomic::AtomicUsize>);

#[async_trait::async_trait]
impl Transport for AlwaysLocal {
    async fn send(
        &self,
        _request: http::Request<RequestBody>,
    ) -> Result<http::Response<ResponseBody>, AttemptError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let cause = "the proxy at 10.0.0.1 does not reply";
        Err(AttemptError::new(ErrorKind::Local, cause))
    }
}

#[tokio::test]
async fn regression_a_lane_pauses_while_this_machine_is_in_trouble_and_says_why() {
    let place = Place::new();
    let count = Arc::default();
    let transport = AlwaysLocal(Arc::clone(&count));
    let sender = Sender::builder().transport(transport).build().unwrap();
    let app = place.start(schedule(&[0]).with_sender(sender)).await;
    let endpoint = app.endpoint("http://127.0.0.1:9/".to_owned()).await;
    crate::lanes::add(&*app.store, endpoint, 0..100).await;
    // What was handed over before the first failure, and after the pause one alone.
    let first_page = 16;
    let pending = DeliveryQuery::newest(100).in_state(DeliveryState::Pending);
    soon(async {
        while count.load(Ordering::Relaxed) <= first_page {
            // As stored: the others are shown with what they wait for.
            let made = app.store.deliveries(&pending).await.unwrap();
            let why: Vec<_> = made.iter().filter_map(|it| it.reason.as_deref()).collect();
            assert!(why.len() <= first_page + 1, "{}", why.len());
            for why in why {
                assert_eq!(why, "the sender's machine could not make the request");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let health = app.webhooks.health(endpoint).await.unwrap().unwrap();
    assert_eq!((health.last_failure_at, health.pending), (None, 100));
    let made = app.until(endpoint, DeliveryState::Pending, 100).await;
    assert!(made.iter().all(|delivery| delivery.attempts == 0));
    app.stop().await;
}

#[tokio::test]
async fn regression_trouble_of_this_machine_that_lasts_ends_a_delivery_by_its_schedule() {
    let place = Place::new();
    let count = Arc::default();
    let transport = AlwaysLocal(Arc::clone(&count));
    let sender = Sender::builder().transport(transport).build().unwrap();
    let hour = Duration::from_secs(3600);
    let options = schedule(&[0, 0]).with_sender(sender).with_lease(2 * hour);
    let app = place
        .start(options.with_disable_after(Duration::ZERO))
        .await;
    let endpoint = app.endpoint("http://127.0.0.1:9/".to_owned()).await;
    app.accept(0..1).await;
    soon(async {
        while count.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    tokio::time::pause();
    tokio::time::advance(hour).await;
    tokio::time::resume();
    let failed = app.until(endpoint, DeliveryState::Failed, 1).await;
    assert_eq!((failed[0].attempts, &failed[0].reason), (2, &None));
    assert_eq!(count.load(Ordering::Relaxed), 3);
    for attempt in app.attempts(failed[0].id).await {
        let error = attempt.error.as_deref();
        assert_eq!(
            error,
            Some("the sender's machine could not make the request")
        );
    }
    // It is not the endpoint that failed.
    let health = app.webhooks.health(endpoint).await.unwrap().unwrap();
    assert_eq!((health.last_failure_at, health.pending), (None, 0));
    let shown = app.webhooks.endpoint(endpoint).await.unwrap().unwrap();
    assert!(shown.enabled);
    app.stop().await;
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_refused_by_name() {
    use tidings_webhooks::{EndpointSettings, NewEndpoint, Owner};
    let place = Place::new();
    let sender = Sender::builder().address_policy(AddressPolicy::PublicOnly);
    let options = Options::default().with_sender(sender.build().unwrap());
    let app = place.start(options).await;
    let field = async |change: &dyn Fn(&mut EndpointSettings)| {
        let mut settings = EndpointSettings::new("https://example.com/a/../b");
        change(&mut settings);
        let new = NewEndpoint::new(Owner::Operator, settings);
        match app.webhooks.create_endpoint(new).await {
            Ok((endpoint, _)) => endpoint.settings.url,
            Err(error) => error.field().unwrap().to_owned(),
        }
    };
    assert_eq!(field(&|_| ()).await, "https://example.com/b");
    assert_eq!(field(&|it| it.url = "http:///".to_owned()).await, "url");
    assert_eq!(
        field(&|it| it.url = "http://127.0.0.1/".to_owned()).await,
        "url"
    );
    let timeout = Duration::from_secs(100_000);
    assert_eq!(field(&|it| it.timeout = Some(timeout)).await, "timeout_ms");
    let header = || ("webhook-id".to_owned(), "x".to_owned());
    let wrong = field(&|it| it.headers.extend([header()])).await;
    assert_eq!(wrong, "headers.webhook-id");
    app.stop().await;
}

#[tokio::test]
async fn options_that_cannot_be_used_are_refused_by_name_at_the_start() {
    let place = Place::new();
    let lane = tidings::LaneConfig::default;
    let second = Duration::from_secs(1);
    for (field, options) in [
        ("schedule", Options::default().with_schedule([])),
        ("timeout", Options::default().with_timeout(Duration::ZERO)),
        ("timeout", Options::default().with_timeout(7200 * second)),
        ("workers", Options::default().with_workers(0)),
        (
            "in_flight",
            Options::default().with_lane(lane().with_in_flight(8, 4)),
        ),
        (
            "rate_limit",
            Options::default().with_lane(lane().with_rate_limit(0, second)),
        ),
        ("max_lanes", Options::default().with_max_lanes(0)),
        ("lease", Options::default().with_lease(Duration::ZERO)),
        ("lease", Options::default().with_lease(Duration::MAX)),
        (
            "poll_interval",
            Options::default().with_poll_interval(Duration::ZERO),
        ),
        (
            "poll_interval",
            Options::default().with_poll_interval(Duration::MAX),
        ),
    ] {
        let shown = format!("{options:?}");
        let store = app_store(&place).await;
        let error = Webhooks::start(store, streams(), options)
            .await
            .unwrap_err();
        assert_eq!(error.field(), Some(field), "{shown}");
    }
    // What is ignored, and the ends of the ranges.
    let options = Options::default()
        .with_timeout(3600 * second)
        .with_lease(second / 10)
        .with_poll_interval(second / 100)
        .with_max_lanes(usize::MAX)
        .with_disable_after(Duration::MAX)
        .with_lane(lane().with_queue_size(0));
    let app = place.start(options).await;
    app.stop().await;
}

async fn app_store(place: &Place) -> Arc<dyn tidings_webhooks::Store> {
    let options = tidings_sqlite::Options::default();
    let database = tidings_sqlite::Database::open(place.file(), &options).unwrap();
    Arc::new(
        tidings_webhooks::sqlite::SqliteStore::open(database)
            .await
            .unwrap(),
    )
}

fn streams() -> tidings_stream::Streams {
    let config = tidings_stream::ServiceConfig::default();
    tidings_stream::Streams::new(Arc::new(tidings_stream::MemoryEngine::new()), config)
}

/// Leads every name to this machine.
struct Inside;

#[async_trait::async_trait]
impl tidings::Resolve for Inside {
    async fn resolve(&self, _name: &str) -> Result<tidings::Resolved, tidings::ResolveError> {
        Ok([std::net::Ipv4Addr::LOCALHOST.into()].into_iter().collect())
    }
}

/// A name is not an address when the endpoint is made: only the connection shows where it leads.
#[tokio::test]
async fn the_policy_of_the_sender_decides_when_an_endpoint_is_made_and_at_each_connection() {
    use tidings_webhooks::{EndpointSettings, NewEndpoint, Owner};
    let place = Place::new();
    let inside = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    inside.set_nonblocking(true).unwrap();
    let port = inside.local_addr().unwrap().port();
    let sender = Sender::builder()
        .address_policy(AddressPolicy::PublicOnly)
        .resolver(Inside);
    let options = schedule(&[0]).with_sender(sender.build().unwrap());
    let app = place.start(options).await;

    let settings = EndpointSettings::new(format!("http://127.0.0.1:{port}/"));
    let new = NewEndpoint::new(Owner::Operator, settings);
    let refused = app.webhooks.create_endpoint(new).await.unwrap_err();
    assert_eq!(refused.field(), Some("url"));

    let endpoint = app.endpoint(format!("http://hooks.example:{port}/")).await;
    app.accept(0..1).await;
    let failed = app.until(endpoint, DeliveryState::Failed, 1).await;
    let attempts = app.attempts(failed[0].id).await;
    // An owner does not read where names of the network of the server lead.
    let error = attempts[0].error.as_deref();
    assert_eq!(error, Some("the address is not allowed"));
    let connected = inside.accept().map_err(|error| error.kind());
    assert_eq!(connected.unwrap_err(), std::io::ErrorKind::WouldBlock);
    app.stop().await;
}

#[tokio::test]
async fn regression_deliveries_outlast_a_start_whose_policy_forbids_their_address() {
    let place = Place::new();
    let receiver = receiver_of(Reply::ok()).await;
    let waits = || schedule(&[100; 100]);
    let app = place.start(waits()).await;
    let endpoint = app.endpoint(receiver.url("/")).await;
    app.stop().await;

    let sender = Sender::builder().address_policy(AddressPolicy::PublicOnly);
    let forbidden = waits().with_sender(sender.build().unwrap());
    let app = place.start(forbidden).await;
    app.accept(0..1).await;
    let waiting = app.until(endpoint, DeliveryState::Pending, 1).await;
    let attempts = soon(async {
        loop {
            let attempts = app.attempts(waiting[0].id).await;
            if attempts.len() >= 2 {
                return attempts;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let error = attempts[0].error.as_deref();
    assert_eq!(error, Some("the address is not allowed"));
    app.stop().await;

    let app = place.start(waits()).await;
    let delivered = app.until(endpoint, DeliveryState::Delivered, 1).await;
    assert_eq!(delivered[0].id, waiting[0].id);
    app.stop().await;
}
