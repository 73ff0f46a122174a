//! Trimming all streams, one after the other.

use crate::Error;

/// What a round over all streams has done so far. A stream that cannot be trimmed, because it is locked
/// for instance, does not keep the round from the others.
#[derive(Debug, Default)]
pub(super) struct Round {
    removed: u64,
    failed: Option<Error>,
}

impl Round {
    /// Adds what became of one stream. An error ends the round: the store was closed.
    pub(super) fn add(&mut self, trimmed: Result<u64, Error>) -> Result<(), Error> {
        match trimmed {
            Ok(removed) => self.removed += removed,
            Err(Error::Closed) => return Err(Error::Closed),
            Err(error) => {
                self.failed.get_or_insert(error);
            }
        }
        Ok(())
    }

    /// How many messages were removed, or the first error.
    pub(super) fn finish(self) -> Result<u64, Error> {
        self.failed.map_or(Ok(self.removed), Err)
    }
}
