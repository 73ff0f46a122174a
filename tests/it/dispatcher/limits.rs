//! Bounds of queues, workers, hosts and retries.

use tidings::retry::{RetryPolicy, Schedule};
use tidings_test_support::Script;

use super::*;

#[tokio::test]
async fn each_queue_is_bounded_and_all_together_are() {
    let server = Server::start().await;
    let lane = LaneConfig::default().with_queue_size(3);
    let (dispatcher, _errors) = started(Dispatcher::builder().lane(lane).queue_size(5));
    for id in ["a", "b"] {
        dispatcher.insert(id, server.endpoint("/dead"));
        dispatcher.open_circuit(id);
    }
    for _ in 0..3 {
        dispatcher.notify("a", "x").unwrap();
    }
    let full = dispatcher.notify("a", "x");
    assert_eq!(full.unwrap_err().reason(), Refusal::QueueFull);
    dispatcher.notify("b", "x").unwrap();
    dispatcher.notify("b", "x").unwrap();
    let full = dispatcher.notify("b", "x");
    assert_eq!(full.unwrap_err().reason(), Refusal::QueueFull);
    assert_eq!(dispatcher.queued(), 5);
    // What is removed makes room.
    dispatcher.remove("a").unwrap();
    dispatcher.notify("b", "x").unwrap();
}

#[tokio::test]
async fn a_hundred_lanes_with_full_queues_keep_no_other_message_out() {
    let lane = LaneConfig::default().with_queue_size(100);
    let (dispatcher, _errors) = started(Dispatcher::builder().lane(lane).queue_size(8000));
    let unreachable = || Endpoint::new("http://127.0.0.1:9/").unwrap();
    for number in 0..100 {
        let id = format!("failing{number}");
        dispatcher.insert(id.as_str(), unreachable());
        dispatcher.open_circuit(&id);
        while dispatcher.notify(&id, "x").is_ok() {}
    }
    let queued = dispatcher.queued();
    assert!(queued >= 6000, "{queued}");
    for number in 0..100 {
        let id = format!("healthy{number}");
        dispatcher.insert(id.as_str(), unreachable());
        dispatcher.open_circuit(&id);
        dispatcher.notify(&id, "x").unwrap();
        let mut waiting = Box::pin(dispatcher.enqueue(&id, "x"));
        assert!(!support::is_pending(waiting.as_mut()).await);
        // The runtime makes a task wait now and then.
        yield_now().await;
    }
    dispatcher.stop_within(Duration::ZERO).await;
}

#[tokio::test]
async fn endpoints_of_one_host_share_its_limit() {
    let server = Server::start().await;
    let lane = LaneConfig::default().with_in_flight(4, 4);
    let builder = Dispatcher::builder().lane(lane).max_in_flight_per_host(3);
    let (dispatcher, _errors) = started(builder);
    for number in 0..10 {
        let id = number.to_string();
        let endpoint = server.endpoint(&format!("/held/{number}"));
        dispatcher.insert(id.as_str(), endpoint);
        for _ in 0..5 {
            dispatcher.notify(&id, "x").unwrap();
        }
    }
    while server.concurrent.load(Ordering::SeqCst) < 3 {
        yield_now().await;
    }
    server.held.add_permits(50);
    dispatcher.stop().await;
    assert_eq!(server.most_concurrent.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn retries_to_a_failing_endpoint_stay_within_their_budget() {
    let server = Server::start().await;
    let budget = RetryBudget::default().with_share(0.2).with_trickle(HOUR);
    let breaker = CircuitBreakerConfig::default()
        .with_consecutive_failures(1000)
        .without_failure_rate();
    let lane = at_once(100)
        .with_retry_budget(budget)
        .with_circuit_breaker(breaker);
    let (dispatcher, _errors) = started(Dispatcher::builder().lane(lane));
    let endpoint = server.endpoint("/status/503");
    dispatcher.insert("a", endpoint);
    dispatcher.open_circuit("a");
    for _ in 0..50 {
        dispatcher.notify("a", "x").unwrap();
    }
    dispatcher.close_circuit("a");
    // Fifty first attempts, the ten retries that are saved, and those that the first attempts add
    // while the credit is being spent: less than a fifth of fifty.
    let attempts = || server.requests("/status/503");
    while attempts() < 60 || status(&dispatcher, "a").in_flight > 0 {
        yield_now().await;
    }
    // Lanes take turns: a retry that may go would go between these.
    dispatcher.insert("b", server.endpoint("/ok"));
    for _ in 0..50 {
        dispatcher.deliver("b", "x").await.unwrap();
    }
    let left = dispatcher.stop_within(Duration::ZERO).await;
    assert_eq!(left.len(), 50);
    assert!((60..70).contains(&attempts()), "{}", attempts());
}

/// The claim of the whole design: of a thousand endpoints ten never reply, there are fewer workers
/// than that, and everything for the others is delivered while the ten hold one attempt each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_endpoints_do_not_hold_up_the_others() {
    const DEAD: usize = 10;
    const ENDPOINTS: usize = 1000;

    let server = Server::start().await;
    let builder = Dispatcher::builder()
        .workers(4)
        .slow_after(Duration::from_millis(20))
        .max_in_flight_per_host(10_000);
    let (dispatcher, mut errors) = started(builder);
    let dead: Vec<_> = (0..DEAD).map(|number| format!("dead{number}")).collect();
    for id in &dead {
        let endpoint = server.endpoint(&format!("/dead/{id}"));
        dispatcher.insert(id.as_str(), endpoint);
        for _ in 0..100 {
            dispatcher.notify(id, "x").unwrap();
        }
    }
    let mut deliveries = JoinSet::new();
    for number in DEAD..ENDPOINTS {
        let id = number.to_string();
        let endpoint = server.endpoint("/ok");
        dispatcher.insert(id.as_str(), endpoint);
        let dispatcher = dispatcher.clone();
        deliveries.spawn(async move { dispatcher.deliver(id, "x").await });
    }
    while let Some(delivered) = deliveries.join_next().await {
        delivered.unwrap().unwrap();
    }
    for id in &dead {
        while status(&dispatcher, id).speed != Speed::Slow {
            yield_now().await;
        }
        let status = status(&dispatcher, id);
        assert_eq!((status.in_flight, status.in_flight_limit), (1, 1));
        assert_eq!(status.queued, 99);
        assert_eq!(server.requests(&format!("/dead/{id}")), 1);
    }
    assert!(errors.try_recv().is_err());
    let left = dispatcher.stop_within(Duration::ZERO).await;
    assert_eq!(left.len(), DEAD * 100);
}

#[tokio::test]
async fn a_retry_that_is_due_before_all_others_is_not_overslept() {
    let receiver = receiver(Script::sequence(
        [
            Reply::new(StatusCode::BAD_GATEWAY),
            Reply::new(StatusCode::BAD_GATEWAY),
        ],
        Reply::ok(),
    ))
    .await;
    let (dispatcher, _errors) = started(Dispatcher::builder().workers(1));
    let endpoint = || Endpoint::new(receiver.url("/")).unwrap();
    let soon = Schedule::new([Duration::from_millis(50)]).unwrap();
    let soon = LaneConfig::default().with_retry(RetryPolicy::new(soon));
    dispatcher
        .insert_with("late", endpoint(), &in_an_hour())
        .unwrap();
    dispatcher.insert_with("soon", endpoint(), &soon).unwrap();
    dispatcher.notify("late", "x").unwrap();
    receiver.request(1).await;
    while status(&dispatcher, "late").in_flight > 0 {
        yield_now().await;
    }
    // All that is left to wake the only worker is the timer, which sleeps for an hour.
    let delivered = dispatcher.deliver("soon", "y").await.unwrap();
    assert_eq!(delivered.attempts.len(), 2);
}
