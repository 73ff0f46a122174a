//! Errors for people: any error as one line of text.

use std::error::Error as StdError;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use tidings_notify::presence::PresenceError;
use tidings_postgres::tokio_postgres::{self, error::DbError};
use tidings_redis::redis::RedisError;
use tidings_sqlite::rusqlite;

use crate::StorageError;

/// Looks for an error of this type in an error and its causes.
pub fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let found = error.downcast_ref();
        if found.is_some() {
            return found;
        }
        cause = error.source();
    }
    None
}

/// Writes an error and its causes on one line: `error: cause: cause of the cause`. Layers that add nothing
/// are left out.
pub fn explain(error: &(dyn StdError + 'static)) -> String {
    let mut text = said(error).unwrap_or_else(|| error.to_string());
    let mut last = text.clone();
    let mut cause = error.source();
    while let Some(error) = cause {
        cause = error.source();
        if let Some(said) = said(error).filter(|said| *said != last) {
            text.push_str(": ");
            text.push_str(&said);
            last = said;
        }
    }
    text
}

/// What a cause says to an operator. `None` if it says less than its own cause, or repeats it as a code.
fn said(error: &(dyn StdError + 'static)) -> Option<String> {
    let error = shared(error);
    if let Some(reply) = error.downcast_ref::<DbError>() {
        return Some(format!("PostgreSQL replied: {}", reply.message()));
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return Some(said_by_system(error));
    }
    let is_of_client = error.is::<tokio_postgres::Error>() || error.is::<RedisError>();
    let is_layer = (is_of_client && error.source().is_some())
        || matches!(error.downcast_ref(), Some(StorageError::Failed { .. }))
        || matches!(error.downcast_ref(), Some(PresenceError::Backend { .. }));
    let is_code = error.is::<rusqlite::ffi::Error>();
    (!is_layer && !is_code).then(|| error.to_string())
}

/// What the operating system reported, in words and without its number. The text of an error that it did not
/// report stays as it is.
pub fn said_by_system(error: &io::Error) -> String {
    let Some(number) = error.raw_os_error() else {
        return error.to_string();
    };
    let text = match error.kind() {
        ErrorKind::AddrInUse => "another program uses this address",
        ErrorKind::AddrNotAvailable => "this machine does not have this address",
        ErrorKind::ConnectionRefused => "connection refused",
        ErrorKind::ConnectionReset => "connection reset",
        ErrorKind::IsADirectory => "expected a file, got a folder",
        ErrorKind::NotADirectory => "a part of the path is not a folder",
        ErrorKind::NotFound => "no such file or folder",
        ErrorKind::PermissionDenied => "permission denied",
        ErrorKind::ReadOnlyFilesystem => "the file system is read-only",
        ErrorKind::StorageFull => "the disk is full",
        _ => {
            let text = error.to_string();
            let words = text.strip_suffix(&format!(" (os error {number})"));
            return words.unwrap_or(&text).to_owned();
        }
    };
    text.to_owned()
}

/// The error in an `Arc`, as the client library of Redis keeps causes: such an `Arc` is an error by itself.
fn shared<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    match error.downcast_ref::<Arc<dyn StdError + Send + Sync>>() {
        Some(shared) => &**shared,
        None => error,
    }
}
