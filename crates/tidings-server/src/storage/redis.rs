//! What a Redis server does beside a database: it keeps who is online, and carries wake-ups.
//!
//! Nothing that was accepted is there, so that a flush or a loss of the server loses nothing: the
//! presence is written again at the next heartbeats, and wake-ups go through the database.

use std::sync::Arc;

use tidings_notify::presence::PresenceError;
use tidings_notify::presence::redis::{RedisOptions, RedisPresence};
use tidings_notify::redis::RedisWakes;
use tidings_notify::{Presence, WakeChannel};
use tidings_redis::{Config, Error};

use super::RedisUrl;

/// A Redis server that instances share.
#[derive(Debug)]
pub(crate) struct Redis {
    pub(super) presence: Arc<dyn Presence>,
    pub(super) wakes: Arc<dyn WakeChannel>,
}

impl Redis {
    /// Connects. Instances of one environment use the same number of the database in the URL, other
    /// environments another one.
    pub(crate) async fn open(url: &RedisUrl) -> Result<Self, PresenceError> {
        let config = Config::new(url.expose()).map_err(PresenceError::backend)?;
        let channel = format!("tidings:wake:{}", config.database());
        let presence = RedisPresence::open(config.clone(), RedisOptions::default()).await?;
        Ok(Self {
            presence: Arc::new(presence),
            wakes: Arc::new(RedisWakes::new(config, channel)),
        })
    }
}

/// Whether the reason of the error is a server that cannot be reached, does not reply, or is a replica. The
/// tracker of the presence logs the outage.
pub(crate) fn is_unavailable(error: &PresenceError) -> bool {
    matches!(
        crate::error::find(error),
        Some(Error::Unsent(_) | Error::NotPrimary | Error::NoReply(_))
    )
}
