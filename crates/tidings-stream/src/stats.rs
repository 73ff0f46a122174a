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
    /// How many messages are kept. One that was deleted counts until it is trimmed.
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
    /// Messages that it has never claimed. On PostgreSQL up to 10,000 of them may have no id yet, because
    /// [a transaction has published them](crate#in-a-transaction).
    pub lag: u64,
    /// How long ago the oldest message was published that it has yet to finish: its lag in time, by
    /// the clock of the store. `None` when it is done with all there are.
    pub lag_time: Option<Duration>,
    /// Messages that it has claimed and not settled, or that wait for another attempt or for their ordering
    /// keys.
    pub pending: u64,
    /// Messages that it sent to dead letters, since it was created.
    pub dead_lettered: u64,
    /// Messages that were trimmed or deleted before it had handled them, since it was created.
    pub lost_to_trim: u64,
}

/// What an engine knows of a group.
#[derive(Debug, Clone)]
pub struct GroupFigures {
    /// The group.
    pub name: GroupName,
    /// The number of the newest message that it has claimed, or that it began after.
    pub cursor: u64,
    /// The number of the oldest that it has yet to finish, published or not, kept or not.
    pub first_needed: u64,
    /// How long ago that one was published, or the first that is kept after it.
    pub lag: Option<Duration>,
    /// See [`GroupStats::pending`].
    pub pending: u64,
    /// See [`GroupStats::dead_lettered`].
    pub dead_lettered: u64,
    /// See [`GroupStats::lost_to_trim`].
    pub lost_to_trim: u64,
}

impl StreamStats {
    /// The figures of a stream with these ends and groups: `tail` is the number of the oldest message,
    /// `head` that of the newest, which is one less if there is none. For engines.
    pub fn new(tail: u64, head: u64, groups: impl IntoIterator<Item = GroupFigures>) -> Self {
        let holds_any = tail <= head;
        let groups = groups.into_iter().map(|it| {
            let first_needed = it.first_needed.max(tail);
            let is_behind = first_needed <= head;
            GroupStats {
                name: it.name,
                position: MessageId::from_u64(it.cursor),
                oldest_unfinished: is_behind.then(|| MessageId::from_u64(first_needed)),
                lag: head.saturating_sub(it.cursor.max(tail - 1)),
                lag_time: it.lag.filter(|_| is_behind),
                pending: it.pending,
                dead_lettered: it.dead_lettered,
                lost_to_trim: it.lost_to_trim,
            }
        });
        Self {
            oldest: holds_any.then(|| MessageId::from_u64(tail)),
            newest: holds_any.then(|| MessageId::from_u64(head)),
            messages: (head + 1).saturating_sub(tail),
            groups: groups.collect(),
        }
    }
}

/// A message that a group has begun and not finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingMessage {
    /// The message.
    pub id: MessageId,
    /// How many attempts have begun; 0 while it waits for earlier messages of its ordering key.
    pub attempts: u32,
    /// The [consumer](crate::Consumer::id) that has claimed it; `None` when it waits for its next
    /// attempt.
    pub consumer: Option<String>,
    /// For how long it has been claimed, or has been waiting.
    pub age: Duration,
    /// In how long it may be claimed again, unless it is settled or extended before; zero when it
    /// may be now, and beyond any time while it waits for earlier messages of its ordering key.
    pub due_in: Duration,
    /// What the handler of an earlier attempt said.
    pub last_error: Option<String>,
}

/// A consumer of a group, in this process or another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name: [`Consumer::id`](crate::Consumer::id).
    pub consumer: String,
    /// Whether it has checked in lately. One that has not crashed or is cut off; its messages are
    /// delivered again.
    pub is_alive: bool,
    /// Messages that it has claimed and not settled.
    pub pending: u64,
}
