//! Where a reader of all changes continues.

use std::sync::Arc;

use super::Head;
use crate::UserId;

/// A moment in the history of a whole store, to continue from with
/// [`Store::changes`](crate::Store::changes).
///
/// Only the store knows what it means. Marks have no order, and a mark of another store, or of
/// another life of this one, is reported with [`Changes::rewound`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChangeMark(Arc<[u8]>);

impl ChangeMark {
    /// The mark that a store writes as these bytes.
    pub fn from_bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes, for the store that wrote them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The mark of a store whose changes are visible in the order of their numbers.
    pub fn from_u64(number: u64) -> Self {
        Self::from_bytes(number.to_be_bytes())
    }

    /// The number of a mark that was made of a number.
    pub fn as_u64(&self) -> Option<u64> {
        Some(u64::from_be_bytes(self.as_bytes().try_into().ok()?))
    }
}

/// What changed in a store since a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Where to ask from next.
    pub mark: ChangeMark,
    /// The logs that changed.
    pub logs: Vec<LogChange>,
    /// Whether there are more to list now.
    pub more: bool,
    /// Whether the store cannot continue from the mark: it was put back to an older copy, a replica
    /// was promoted, or the mark is not its own. Any log may have changed in any way.
    pub rewound: bool,
}

/// A log that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChange {
    /// Whose log it is.
    pub user: UserId,
    /// Where it stands. `delivered_seq` need not be up to date.
    pub head: Head,
}
