//! What may cross threads does.

use std::sync::Arc;
use tidings_stream::engine::Engine;
use tidings_stream::sqlite::SqliteEngine;
use tidings_stream::{
    Consumer, Error, HandlerError, MemoryEngine, Message, NewMessage, PulledMessage,
    PulledMessages, ServiceConfig, Streams, SubscribeOptions,
};

fn is_send<T: Send>(_: T) {}

/// Never called: that it compiles is the point.
fn closing_may_be_spawned(consumer: &Consumer) {
    is_send(consumer.close());
}

fn is_send_and_sync<T: Send + Sync + std::fmt::Debug + 'static>() {}

#[test]
fn public_types_are_send_and_sync() {
    is_send_and_sync::<Streams>();
    is_send_and_sync::<Consumer>();
    is_send_and_sync::<PulledMessages>();
    is_send_and_sync::<PulledMessage>();
    is_send_and_sync::<Arc<dyn Engine>>();
    is_send_and_sync::<MemoryEngine>();
    is_send_and_sync::<SqliteEngine>();
    is_send_and_sync::<Message>();
    is_send_and_sync::<NewMessage>();
    is_send_and_sync::<HandlerError>();
    is_send_and_sync::<Error>();
}

#[test]
fn futures_may_be_spawned() {
    let _ = closing_may_be_spawned;
    let streams = Streams::new(Arc::new(MemoryEngine::new()), ServiceConfig::default());
    is_send(streams.publish("s", NewMessage::new("")));
    is_send(streams.publish_batch("s", Vec::new()));
    is_send(
        streams.subscribe("s", "g", SubscribeOptions::default(), |_: Message| async {
            Ok(())
        }),
    );
    is_send(streams.stats("s"));
    is_send(streams.close());
}
