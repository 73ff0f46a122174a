//! Trimming all streams, one after the other.

#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::StreamName;
use crate::{Error, Result};

/// Most messages that are removed at once, so that publishers get in between.
pub(super) const CHUNK: u64 = 1000;

/// A part of a stream that was removed.
pub(super) struct Removed {
    pub(super) messages: u64,
    pub(super) has_more: bool,
}

impl From<u64> for Removed {
    /// So many messages, of [`CHUNK`] at most.
    fn from(messages: u64) -> Self {
        Self {
            messages,
            has_more: messages >= CHUNK,
        }
    }
}

/// Trims streams by a function that removes up to a chunk of one. Returns how many messages were removed.
///
/// A stream that cannot be trimmed, because it is locked for instance, does not keep the round from the
/// others; the first of their errors is returned.
pub(super) async fn trim_all<S, F, R>(
    streams: impl IntoIterator<Item = S>,
    trim: impl Fn(&S) -> F,
) -> Result<u64>
where
    F: Future<Output = Result<R>>,
    R: Into<Removed>,
{
    let (mut total, mut failed) = (0, None);
    for stream in streams {
        loop {
            match trim(&stream).await {
                Ok(removed) => {
                    let removed = removed.into();
                    total += removed.messages;
                    if !removed.has_more {
                        break;
                    }
                }
                Err(Error::Closed) => return Err(Error::Closed),
                Err(error) => {
                    failed.get_or_insert(error);
                    break;
                }
            }
        }
    }
    failed.map_or(Ok(total), Err)
}

/// What is deleted is out of reach at once, whatever becomes of its rows: those that could not be removed are left to
/// the next trimming.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) fn leave_rest(stream: &StreamName, removed: Result<()>) {
    if let Err(error) = removed {
        tracing::warn!(
            error = &error as &dyn std::error::Error, %stream,
            "cannot remove all of what was deleted, leaving the rest to the next trimming"
        );
    }
}
