use tidings::circuit_breaker::CircuitBreaker;
use tidings::retry::RetryPolicy;
use tidings::signing::{Secret, Signer, Verifier};
use tidings::{
    Attempt, Client, DeliveryError, Dispatcher, Endpoint, LaneConfig, Message, Phases, Sender,
    SenderBuilder,
};

fn send_sync<T: Send + Sync + 'static>() {}

fn send<T: Send>(_: T) {}

#[test]
fn public_types_and_futures_cross_threads() {
    send_sync::<(Client, Sender, Endpoint, Message, DeliveryError)>();
    send_sync::<(Attempt, Phases, SenderBuilder)>();
    #[cfg(feature = "v1a")]
    send_sync::<(tidings::signing::PrivateKey, tidings::signing::PublicKey)>();
    send_sync::<(CircuitBreaker, RetryPolicy, Secret, Signer, Verifier)>();
    send_sync::<(Dispatcher, LaneConfig)>();
    let client = Client::new("http://example.com").unwrap();
    send(client.enqueue("x"));
    send(client.deliver("x"));
    send(client.stop());
    send(client.stop_within(std::time::Duration::ZERO));
    let dispatcher = Dispatcher::builder().build().unwrap();
    send(dispatcher.enqueue("a", "x"));
    send(dispatcher.deliver("a", "x"));
    send(dispatcher.stop());
    send(dispatcher.stop_within(std::time::Duration::ZERO));
}
