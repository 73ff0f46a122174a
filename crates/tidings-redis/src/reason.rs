//! Why a server cannot be used, and what it replied, in plain words.

use std::fmt;

use redis::{ErrorKind, RedisError, ServerErrorKind};
use tidings_reconnect::{Cause, Obstacle};

/// What a server replied on connecting, or what replied in its place.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Reason {
    #[error("the server refused the user or the password of the URL")]
    Login,
    #[error("the server demands a password, and the URL has none")]
    NoPassword,
    #[error("the server refused the database {number} of the URL ({})", Reply(.reply))]
    Database { number: i64, reply: RedisError },
    #[error(
        "the server ended the connection: it may have no room for clients (`maxclients`), or expect TLS \
         (`rediss://`)"
    )]
    Ended,
    #[error("the server is older than Redis 6")]
    TooOld,
    #[error(
        "what replies there does not speak the protocol of Redis; a port for TLS needs `rediss://`"
    )]
    Protocol,
    #[error("{}", Reply(.0))]
    Replied(RedisError),
}

/// Why connecting failed; `database` is the number in the URL.
pub(crate) fn of_connecting(error: RedisError, database: i64) -> Cause {
    match Obstacle::find(&error) {
        Some(Obstacle::Ended) => return Reason::Ended.into(),
        Some(obstacle) => return obstacle.into(),
        None => {}
    }
    let reason = match error.kind() {
        ErrorKind::AuthenticationFailed => Reason::Login,
        ErrorKind::Parse => Reason::Protocol,
        ErrorKind::RESP3NotSupported => Reason::TooOld,
        _ if error.code() == Some("WRONGPASS") => Reason::Login,
        _ if error.code() == Some("NOAUTH") => Reason::NoPassword,
        ErrorKind::Server(ServerErrorKind::ResponseError) if database != 0 => Reason::Database {
            number: database,
            reply: error,
        },
        ErrorKind::Server(_) | ErrorKind::Extension => Reason::Replied(error),
        _ => return error.into(),
    };
    reason.into()
}

/// Whether this reason for a missing connection passes by itself.
pub(crate) fn is_away(cause: &Cause) -> bool {
    use Obstacle::{Ended, Late, NoRoute, NoSocket, NotListening, UnknownHost};
    if let Some(obstacle) = cause.downcast_ref::<Obstacle>() {
        let away = [NotListening, NoSocket, UnknownHost, NoRoute, Late, Ended];
        return away.contains(obstacle);
    }
    match cause.downcast_ref::<Reason>() {
        Some(Reason::Ended) => true,
        Some(Reason::Replied(error)) => {
            error.kind() == ErrorKind::Server(ServerErrorKind::BusyLoading)
                || error.code() == Some("BUSY")
        }
        _ => false,
    }
}

/// Why there was no reply.
pub(crate) fn of_silence(error: RedisError) -> Cause {
    match Obstacle::find(&error) {
        Some(obstacle) => obstacle.into(),
        None if error.kind() == ErrorKind::Parse => Reason::Protocol.into(),
        None => error.into(),
    }
}

/// A refusal of the server, as an operator reads it.
pub(crate) struct Reply<'a>(pub(crate) &'a RedisError);

impl fmt::Display for Reply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(error) = self;
        if error.is_cluster_error() || error.kind() == ErrorKind::Server(ServerErrorKind::CrossSlot)
        {
            f.write_str("it is a node of a Redis Cluster, and Tidings needs a single server: ")?;
        }
        match (error.code(), error.detail()) {
            (Some(code), Some(detail)) => write!(f, "Redis replied: {code} {detail}"),
            (Some(code), None) => write!(f, "Redis replied: {code}"),
            // Several commands of a pipeline.
            (None, _) => error.fmt(f),
        }
    }
}
