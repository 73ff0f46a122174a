//! The brokers, through their public functions.
//!
//! Those over a network need a server each, which `scripts/services` starts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[cfg(any(feature = "postgres", feature = "redis"))]
mod faults;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
mod public_types;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "conformance")]
mod relay;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod runtimes;
mod telemetry;
#[cfg(all(feature = "postgres", feature = "redis"))]
mod tls;

#[cfg(feature = "conformance")]
mod memory_conforms {
    tidings_pubsub::conformance_tests!(tidings_pubsub::MemoryBroker::new(), patterns);
}

#[cfg(feature = "conformance")]
mod relay_conforms {
    tidings_pubsub::conformance_tests!(crate::relay::Relay::start());
}

#[cfg(all(feature = "conformance", feature = "redis"))]
mod redis_conforms {
    tidings_pubsub::conformance_tests!(crate::redis::broker(), patterns);
}

#[cfg(all(feature = "conformance", feature = "postgres"))]
mod postgres_conforms {
    tidings_pubsub::conformance_tests!(crate::postgres::broker());
}
