use std::fmt;
use std::str::FromStr;

use arcstr::ArcStr;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::user::check_name;
use crate::{EventId, EventKey, InvalidName, Payload, UserId};

/// One notification, as it stands in its user's log.
///
/// As JSON: `{"id","user_id","type","payload","timestamp","read_at","archived_at","key"}`, with times
/// in RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "Notification"))]
#[non_exhaustive]
pub struct Event {
    /// Its place in the log, and what a client hands back as `Last-Event-ID`.
    pub id: EventId,
    /// Who it is for.
    #[serde(rename = "user_id")]
    pub user: UserId,
    /// What happened, for instance `comment.created`.
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// What the application says about it.
    pub payload: Payload,
    /// When it happened, by the application's word.
    pub timestamp: Timestamp,
    /// When its user read it.
    #[serde(default)]
    pub read_at: Option<Timestamp>,
    /// When it was taken out of the inbox, by its user or by a later event with its key.
    #[serde(default)]
    pub archived_at: Option<Timestamp>,
    /// What it is about, if later events about the same replace it.
    #[serde(default)]
    pub key: Option<EventKey>,
}

impl Event {
    /// The unread event that a draft becomes once a store has given it its id.
    pub fn from_draft(draft: Draft, id: EventId) -> Self {
        Self {
            id,
            user: draft.user,
            event_type: draft.event_type,
            payload: draft.payload,
            timestamp: draft.timestamp,
            read_at: None,
            archived_at: None,
            key: draft.key,
        }
    }
}

/// A notification that has no place in a log yet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Draft {
    pub(crate) user: UserId,
    pub(crate) event_type: EventType,
    pub(crate) payload: Payload,
    pub(crate) timestamp: Timestamp,
    pub(crate) key: Option<EventKey>,
}

impl Draft {
    /// A notification that happens now.
    pub fn new(user: UserId, event_type: EventType, payload: Payload) -> Self {
        Self {
            user,
            event_type,
            payload,
            timestamp: to_microseconds(Timestamp::now()),
            key: None,
        }
    }

    /// Says when it happened, to the microsecond: finer parts are cut off, because not every store
    /// can keep them.
    pub fn with_timestamp(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = to_microseconds(timestamp);
        self
    }

    /// Replaces the user's earlier events with this key: they are archived in the same transaction.
    pub fn with_key(mut self, key: EventKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Addresses it to another user.
    pub fn with_user(mut self, user: UserId) -> Self {
        self.user = user;
        self
    }

    /// Who it is for.
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// What happened.
    pub fn event_type(&self) -> &EventType {
        &self.event_type
    }

    /// What the application says about it.
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// Which earlier events it replaces, if any.
    pub fn key(&self) -> Option<&EventKey> {
        self.key.as_ref()
    }

    /// When it happened.
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }
}

pub(crate) fn to_microseconds(timestamp: Timestamp) -> Timestamp {
    at_microsecond(timestamp.as_microsecond())
}

/// The time in a store, which may have been written from outside: at most the last one that can be read.
pub(crate) fn at_microsecond(microsecond: i64) -> Timestamp {
    /// Those in the same second after it are out of range.
    const LAST: Timestamp = Timestamp::constant(253_402_207_200, 0);
    let nearest = if microsecond < 0 {
        Timestamp::MIN
    } else {
        LAST
    };
    Timestamp::from_microsecond(microsecond).unwrap_or(nearest)
}

/// How the control events of a stream are named where each event is named by its type: no
/// [`EventType`] begins so.
const RESERVED_PREFIX: &str = "tidings.";

/// What kind of thing happened: an opaque string of 1 to 255 bytes without control characters,
/// by custom words joined by full stops (`comment.created`). Names that begin with `tidings.` are
/// those of the control events of a stream, and refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventType(ArcStr);

impl EventType {
    /// Checks and takes a type's name.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] when the text is empty, longer than 255 bytes, has a control character, or
    /// begins with `tidings.`.
    pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidName> {
        let name = name.as_ref();
        if name.starts_with(RESERVED_PREFIX) {
            return Err(InvalidName::Reserved);
        }
        check_name(name).map(Self)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for EventType {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl TryFrom<String> for EventType {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text)
    }
}

impl From<EventType> for String {
    fn from(event_type: EventType) -> Self {
        event_type.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regression_every_time_of_a_draft_can_be_read_from_a_store() {
        for timestamp in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
            let stored = to_microseconds(timestamp);
            let read = Timestamp::from_microsecond(stored.as_microsecond());
            assert_eq!(read.unwrap(), stored);
        }
    }
}
