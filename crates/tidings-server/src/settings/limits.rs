//! The limits. They are all that can be changed while the server runs, besides the log.

use std::num::NonZeroU32;

use clap::Args;

use super::count;

/// How much callers may send, and how much may be open.
#[derive(Debug, Clone, Args)]
#[non_exhaustive]
pub struct LimitSettings {
    /// Maximum size of a request body in bytes, 1024 to 67108864 (64 MiB)
    #[arg(long, env = "TIDINGS_MAX_BODY_BYTES", value_name = "BYTES",
          default_value = "1048576", value_parser = count(1 << 10, 1_usize << 26))]
    pub max_body_bytes: usize,

    /// Maximum number of open streams (SSE and WebSocket), 1 to 1000000
    #[arg(long, env = "TIDINGS_MAX_STREAMS", value_name = "COUNT",
          default_value = "10000", value_parser = count(1, 1_000_000_usize))]
    pub max_streams: usize,

    /// Maximum number of open streams of one user, 1 to 100000
    #[arg(long, env = "TIDINGS_MAX_STREAMS_PER_USER", value_name = "COUNT",
          default_value = "100", value_parser = count(1, 100_000_usize))]
    pub max_streams_per_user: usize,

    /// Maximum number of open connections from one address, 1 to 1000000; behind proxies that are trusted, of
    /// requests and streams [default: no limit]
    #[arg(long, env = "TIDINGS_MAX_ADDRESS_CONNECTIONS", value_name = "COUNT",
          value_parser = count(1, 1_000_000_usize))]
    pub max_address_connections: Option<usize>,

    /// Maximum number of requests per second of each API key, 1 to 1000000; those of the configuration count
    /// together [default: no limit]
    #[arg(long, env = "TIDINGS_MAX_KEY_REQUESTS", value_name = "COUNT", value_parser = rate())]
    pub max_key_requests: Option<NonZeroU32>,

    /// Maximum number of requests per second of each user with a token, 1 to 1000000
    #[arg(long, env = "TIDINGS_MAX_USER_REQUESTS", value_name = "COUNT",
          default_value = "300", value_parser = rate())]
    pub max_user_requests: NonZeroU32,

    /// Maximum number of notifications per second for each user, 1 to 1000000 [default: no limit]
    #[arg(long, env = "TIDINGS_MAX_USER_NOTIFICATIONS", value_name = "COUNT", value_parser = rate())]
    pub max_user_notifications: Option<NonZeroU32>,

    /// Maximum number of webhook endpoints of each user, and of those for all users, 1 to 10000
    #[arg(long, env = "TIDINGS_MAX_ENDPOINTS", value_name = "COUNT",
          default_value = "100", value_parser = count(1, 10_000_usize))]
    pub max_endpoints: usize,
}

/// How many may come in a second.
fn rate() -> impl Fn(&str) -> Result<NonZeroU32, String> + Clone + Send + Sync + 'static {
    count(
        NonZeroU32::MIN,
        NonZeroU32::MIN.saturating_add(1_000_000 - 1),
    )
}
