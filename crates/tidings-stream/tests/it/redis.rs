//! What is particular to streams on Redis.

use std::sync::atomic::{AtomicU64, Ordering};

use tidings_stream::redis::{Config, RedisEngine, RedisOptions};

/// The server that the tests run against.
pub(crate) fn url() -> String {
    std::env::var("REDIS_URL").expect("REDIS_URL is set; scripts/services does so")
}

/// A prefix that no other test has, nor an earlier run.
pub(crate) fn prefix() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("test {:016x} {number}", fastrand::u64(..))
}

/// An engine without streams.
pub(crate) async fn engine() -> RedisEngine {
    let options = RedisOptions::default().with_prefix(prefix());
    let config = Config::new(&url()).unwrap();
    RedisEngine::open_with(config, options).await.unwrap()
}
