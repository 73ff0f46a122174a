use crate::{GroupName, MessageId};

/// Figures of one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamStats {
    /// The oldest message that is kept; `None` when there is none.
    pub oldest: Option<MessageId>,
    /// The newest message; `None` when there is none.
    pub newest: Option<MessageId>,
    /// How many messages are kept.
    pub messages: u64,
    /// The stream's groups, in the order of their names.
    pub groups: Vec<GroupStats>,
}

/// Figures of one consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupStats {
    /// The group.
    pub name: GroupName,
    /// Messages that it has never claimed.
    pub lag: u64,
    /// Messages that it has claimed and not settled, or that wait for another attempt.
    pub pending: u64,
    /// Messages that it sent to dead letters, since it was created.
    pub dead_lettered: u64,
    /// Messages that were trimmed before it had handled them, since it was created.
    pub lost_to_trim: u64,
}

impl GroupStats {
    /// The figures of a group that has nothing, for engines to fill in.
    pub fn new(name: GroupName) -> Self {
        Self {
            name,
            lag: 0,
            pending: 0,
            dead_lettered: 0,
            lost_to_trim: 0,
        }
    }
}
