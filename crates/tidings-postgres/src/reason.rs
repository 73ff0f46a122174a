//! Why there is no connection, or no reply, in plain words.

use std::io::{self, ErrorKind};

use tidings_reconnect::{Cause, Obstacle};
use tokio_postgres::error::{DbError, SqlState};

/// What the server replied on connecting, or what else is wrong.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Reason {
    #[error("PostgreSQL refused the user or the password: {0}")]
    Login(String),
    #[error("the URL names a database that does not exist: {0}")]
    NoDatabase(String),
    #[error("PostgreSQL takes no more connections: {0}")]
    Full(String),
    #[error("PostgreSQL takes no connections at the moment: {0}")]
    NotReady(String),
    #[error("PostgreSQL refused the connection: {0}")]
    Refused(String),
    #[error("the server is a standby, which takes no writes")]
    Standby,
    #[error("what replies there does not speak the protocol of PostgreSQL")]
    Protocol(#[source] Option<Cause>),
    #[error("all connections of the pool are in use")]
    AllInUse,
    #[error("the wait for the synchronous standby was cancelled, so it may lack the commit")]
    Unreplicated,
}

/// Why connecting failed.
pub(crate) fn of_connecting(error: tokio_postgres::Error) -> Cause {
    if let Some(reply) = error.as_db_error() {
        return Reason::of_reply(reply).into();
    }
    if let Some(obstacle) = Obstacle::find(&error) {
        return obstacle.into();
    }
    let cause = std::error::Error::source(&error);
    let cause = cause.and_then(|cause| cause.downcast_ref::<io::Error>());
    match cause.map(io::Error::kind) {
        // How the library reports a server that takes no writes.
        Some(ErrorKind::PermissionDenied) => Reason::Standby.into(),
        Some(ErrorKind::InvalidInput | ErrorKind::InvalidData) => {
            Reason::Protocol(error.into_source().map(Cause::new)).into()
        }
        _ => of_silence(error),
    }
}

/// Why there was no reply.
pub(crate) fn of_silence(error: tokio_postgres::Error) -> Cause {
    if error.is_closed() {
        return Obstacle::Ended.into();
    }
    if let Some(obstacle) = Obstacle::find(&error) {
        return obstacle.into();
    }
    if error.as_db_error().is_some() {
        return error.into();
    }
    // The text of the library around a cause only says in which step it happened.
    match error.into_source() {
        Some(cause) => Cause::new(cause),
        None => Reason::Protocol(None).into(),
    }
}

impl Reason {
    fn of_reply(reply: &DbError) -> Self {
        let said = reply.message().to_owned();
        let code = reply.code();
        if [
            SqlState::INVALID_PASSWORD,
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        ]
        .contains(code)
        {
            Self::Login(said)
        } else if *code == SqlState::INVALID_CATALOG_NAME {
            Self::NoDatabase(said)
        } else if *code == SqlState::TOO_MANY_CONNECTIONS {
            Self::Full(said)
        } else if *code == SqlState::CANNOT_CONNECT_NOW {
            Self::NotReady(said)
        } else {
            Self::Refused(said)
        }
    }
}
