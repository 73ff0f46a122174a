//! What is particular to Redis.

use tidings_pubsub::{Redis, RedisConfig};

/// The server that the tests run against.
pub(crate) fn url() -> String {
    std::env::var("REDIS_URL").expect("REDIS_URL is set; scripts/services does so")
}

pub(crate) fn broker() -> Redis {
    Redis::new(RedisConfig::new(&url()).unwrap())
}
