use std::time::Duration;

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
    /// The newest message that it has claimed, or that it began after; 0 before the first.
    pub position: MessageId,
    /// The oldest message that it has yet to finish: pending, or never claimed. `None` when it is
    /// done with all there are.
    pub oldest_unfinished: Option<MessageId>,
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
            position: MessageId::from_u64(0),
            oldest_unfinished: None,
            lag: 0,
            pending: 0,
            dead_lettered: 0,
            lost_to_trim: 0,
        }
    }
}

/// A message that a group has begun and not finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingMessage {
    /// The message.
    pub id: MessageId,
    /// How many attempts have begun.
    pub attempts: u32,
    /// The [consumer](crate::Consumer::id) that has claimed it; `None` when it waits for its next
    /// attempt.
    pub consumer: Option<String>,
    /// For how long it has been claimed, or has been waiting.
    pub age: Duration,
    /// In how long it may be claimed again, unless it is settled or extended before; zero when it
    /// may be now.
    pub due_in: Duration,
    /// What the handler of an earlier attempt said.
    pub last_error: Option<String>,
}

/// A consumer of a group, in this process or another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name: [`Consumer::id`](crate::Consumer::id).
    pub consumer: String,
    /// Whether it was heard of lately. One that is not has crashed, or is cut off; its messages
    /// come again.
    pub is_alive: bool,
    /// Messages that it has claimed and not settled.
    pub pending: u64,
}
