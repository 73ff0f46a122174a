//! The brokers, through their public functions.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod memory;
mod public_types;
#[cfg(feature = "conformance")]
mod relay;

#[cfg(feature = "conformance")]
mod memory_conforms {
    tidings_pubsub::conformance_tests!(tidings_pubsub::Memory::new());
}

#[cfg(feature = "conformance")]
mod any_broker_conforms {
    use tidings_pubsub::{DynBroker, Memory};

    tidings_pubsub::conformance_tests!(DynBroker::new(Memory::new()));
}

#[cfg(feature = "conformance")]
mod relay_conforms {
    tidings_pubsub::conformance_tests!(crate::relay::Relay::start());
}
