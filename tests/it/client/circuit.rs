//! The circuit breaker of the only endpoint.

use tokio::task::yield_now;

use super::*;

#[tokio::test]
async fn without_retry_an_open_circuit_fails_messages_at_once() {
    let server = server(&[500]).await;
    let (client, _errors) =
        started(Client::builder(server.uri()).circuit_breaker(fragile(HOUR / 10)));
    assert_eq!(client.circuit_state(), Some(CircuitState::Closed));
    client.deliver("trips").await.unwrap_err();
    assert_eq!(client.circuit_state(), Some(CircuitState::Open));
    let error = client.deliver("x").await.unwrap_err();
    assert!(matches!(error.cause(), DeliveryErrorCause::CircuitOpen));
    assert!(error.attempts().is_empty() && error.is_retryable());
    assert_eq!(server.received_requests().await.unwrap().len(), 1);
}

#[tokio::test]
async fn with_retry_messages_wait_for_the_probe_and_burn_no_attempt() {
    let server = server(&[500, 200]).await;
    let builder = Client::builder(server.uri())
        .workers(4)
        .retry(at_once(2))
        .circuit_breaker(fragile(Duration::from_millis(50)));
    let (client, _errors) = started(builder);
    let (first, second, third) = tokio::join!(
        client.deliver("1"),
        client.deliver("2"),
        client.deliver("3")
    );
    let attempts: usize = [first, second, third]
        .map(|delivered| delivered.unwrap().attempts.len())
        .iter()
        .sum();
    assert_eq!(attempts, server.received_requests().await.unwrap().len());
    assert_eq!(attempts, 4);
    client.stop().await;
}

#[tokio::test]
async fn a_message_does_not_wait_for_a_circuit_beyond_its_maximum_age() {
    let server = server(&[500]).await;
    let builder = Client::builder(server.uri())
        .retry(at_once(5).with_max_age(Duration::from_secs(1)))
        .circuit_breaker(fragile(HOUR / 10));
    let (client, _errors) = started(builder);
    let error = client.deliver("x").await.unwrap_err();
    assert!(matches!(error.cause(), DeliveryErrorCause::CircuitOpen));
    assert_eq!(error.attempts().len(), 1);
}

#[tokio::test]
async fn stopping_does_not_wait_for_an_open_circuit() {
    let server = server(&[500]).await;
    let builder = Client::builder(server.uri())
        .retry(at_once(5))
        .circuit_breaker(fragile(HOUR / 10));
    let (client, mut errors) = started(builder);
    for _ in 0..5 {
        client.notify("x").unwrap();
    }
    while client.circuit_state() != Some(CircuitState::Open) || client.queued() < 5 {
        yield_now().await;
    }
    // All workers run on this thread: each has seen by now that the circuit is open.
    for _ in 0..5 {
        yield_now().await;
    }
    let stopped = timeout(Duration::from_secs(10), client.stop()).await;
    stopped.unwrap();
    for _ in 0..5 {
        let (_message, error) = errors.recv().await.unwrap();
        assert!(error.is_retryable());
    }
}
