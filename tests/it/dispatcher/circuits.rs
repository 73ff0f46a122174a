//! Circuits, and how they are reported.

use super::*;

#[tokio::test]
async fn circuits_open_and_close_by_hand_and_every_change_is_reported() {
    let server = Server::start().await;
    let (report, mut reported) = mpsc::channel(100);
    let builder = Dispatcher::builder().on_circuit_change(move |id, state| {
        report.try_send((id.to_string(), state)).unwrap();
    });
    let (dispatcher, _errors) = started(builder);
    dispatcher.insert("a", server.endpoint("/ok/a"));
    assert!(dispatcher.open_circuit("a"));
    let change = |state| ("a".to_owned(), state);
    assert_eq!(reported.recv().await.unwrap(), change(CircuitState::Open));

    let mut delivery = JoinSet::new();
    delivery.spawn({
        let dispatcher = dispatcher.clone();
        async move { dispatcher.deliver("a", "x").await }
    });
    while dispatcher.queued() == 0 {
        yield_now().await;
    }
    assert_eq!(server.requests("/ok/a"), 0);
    assert!(dispatcher.close_circuit("a"));
    assert_eq!(reported.recv().await.unwrap(), change(CircuitState::Closed));
    delivery.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_circuit_that_trips_probes_and_closes_is_reported_in_order() {
    let server = Server::start().await;
    let (report, mut reported) = mpsc::channel(100);
    let breaker = CircuitBreakerConfig::default()
        .with_consecutive_failures(1)
        .with_open_for(Duration::from_millis(20))
        .with_ramp(1);
    let builder = Dispatcher::builder()
        .lane(at_once(3).with_circuit_breaker(breaker))
        .on_circuit_change(move |_, state| report.try_send(state).unwrap());
    let (dispatcher, _errors) = started(builder);
    dispatcher.insert("a", server.endpoint("/status/503"));
    dispatcher.notify("a", "x").unwrap();
    assert_eq!(reported.recv().await, Some(CircuitState::Open));
    dispatcher.insert("a", server.endpoint("/ok"));
    let mut last = CircuitState::Open;
    while last != CircuitState::Closed {
        let state = reported.recv().await.unwrap();
        assert_ne!(state, last);
        last = state;
    }
    dispatcher.stop().await;
}

#[tokio::test]
async fn a_callback_may_use_the_dispatcher() {
    let server = Server::start().await;
    let slot: Arc<std::sync::OnceLock<Dispatcher>> = Arc::default();
    let (report, mut reported) = mpsc::channel(100);
    let inside = Arc::clone(&slot);
    let builder = Dispatcher::builder().on_circuit_change(move |id, state| {
        report.try_send(state).unwrap();
        if state == CircuitState::Open {
            assert!(inside.get().unwrap().close_circuit(id));
        }
    });
    let (dispatcher, _errors) = started(builder);
    slot.set(dispatcher.clone()).unwrap();
    dispatcher.insert("a", server.endpoint("/ok"));
    dispatcher.open_circuit("a");
    assert_eq!(reported.recv().await, Some(CircuitState::Open));
    assert_eq!(reported.recv().await, Some(CircuitState::Closed));
}
