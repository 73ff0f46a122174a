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
use crate::explain::find;

/// A Redis server that instances share.
#[derive(Debug)]
pub struct Redis {
    pub(super) presence: Arc<dyn Presence>,
    pub(super) wakes: Arc<dyn WakeChannel>,
}

impl Redis {
    /// Connects. Instances of one environment use the same number of the database in the URL, other
    /// environments another one. A server that is away is connected to when it is there, because nothing
    /// but presence needs it.
    ///
    /// # Errors
    ///
    /// [`PresenceError`] when the URL or the server cannot be used.
    pub async fn open(url: &RedisUrl) -> Result<Self, PresenceError> {
        let config = Config::new(url.expose()).map_err(PresenceError::backend)?;
        if let Some(warning) = without_tls(&config) {
            tracing::warn!("{warning}");
        }
        let channel = format!("tidings:wake:{}", config.database());
        let options = RedisOptions::default();
        let presence = match RedisPresence::open(config.clone(), options.clone()).await {
            Err(error) if find(&error).is_some_and(Error::is_away) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "starting without Redis (--redis), which is used as soon as it can be reached"
                );
                RedisPresence::open_lazy(config.clone(), options)?
            }
            opened => opened?,
        };
        Ok(Self {
            presence: Arc::new(presence),
            wakes: Arc::new(RedisWakes::new(config, channel)),
        })
    }
}

/// What an operator should know if connections to another machine have no TLS.
pub(super) fn without_tls(config: &Config) -> Option<String> {
    let host = config.plain_host()?;
    Some(format!(
        "the connection to Redis at {host} has no TLS, so others on the way can read it; `rediss://` in the URL demands \
         TLS"
    ))
}

/// Whether the reason of the error is a server that cannot be used at the moment. The tracker of the presence logs the
/// outage.
pub fn is_unavailable(error: &PresenceError) -> bool {
    find::<Error>(error).is_some_and(|error| error.is_unavailable() || error.is_full())
}

#[cfg(test)]
mod tests {
    use tidings_redis::redis::{ErrorKind, RedisError, ServerErrorKind, make_extension_error};

    use super::*;

    #[test]
    fn a_server_that_loads_its_data_or_is_full_is_unavailable() {
        let loading = ErrorKind::Server(ServerErrorKind::BusyLoading);
        let loading = RedisError::from((loading, "refused"));
        let full = make_extension_error("OOM".to_owned(), None);
        let wrong = make_extension_error("WRONGTYPE".to_owned(), None);
        for (refusal, expected) in [(loading, true), (full, true), (wrong, false)] {
            let error = PresenceError::from(Error::from(refusal));
            assert_eq!(is_unavailable(&error), expected, "{error:?}");
        }
    }
}
