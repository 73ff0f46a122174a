use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::message::PublishKey;
use crate::{Message, MessageId, NewMessage, Result, Retention, StartFrom, StreamName};

/// The messages of one stream.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// The kept messages; the last has the number `head`.
    messages: VecDeque<Place>,
    head: u64,
    /// The publish keys whose windows may still be open: when they end, and the number of the
    /// first message under each.
    keys: HashMap<String, (Instant, u64)>,
}

/// The wall clock to the millisecond, which is what messages keep.
pub(super) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

/// A message in its place.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) content: NewMessage,
    created_at: Timestamp,
}

/// A number's place in the log. It is as large as a message alone: larger ones cost each append a quarter.
#[derive(Debug, Clone)]
enum Place {
    Kept(Stored),
    /// What was appended at this time was deleted.
    Deleted(Timestamp),
}

impl Place {
    fn created_at(&self) -> Timestamp {
        match self {
            Self::Kept(Stored { created_at, .. }) | Self::Deleted(created_at) => *created_at,
        }
    }
}

impl Stored {
    /// The message as it is handed out.
    pub(super) fn to_message(&self, stream: &StreamName, number: u64, attempt: u32) -> Message {
        Message::new(
            MessageId::from_u64(number),
            stream.clone(),
            self.content.clone(),
            self.created_at,
            attempt,
        )
    }
}

impl Log {
    /// The number of the newest message; 0 before the first.
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// The number of the oldest kept message; one past the head when there is none.
    pub(super) fn tail(&self) -> u64 {
        self.head + 1 - self.messages.len() as u64
    }

    /// The message with a number, unless it was trimmed or deleted.
    pub(super) fn get(&self, number: u64) -> Option<&Stored> {
        match self.messages.get(self.index(number)?)? {
            Place::Kept(stored) => Some(stored),
            Place::Deleted(_) => None,
        }
    }

    /// Deletes the content of a message, and returns whether there was any.
    pub(super) fn delete(&mut self, number: u64) -> bool {
        let index = self.index(number);
        let place = index.and_then(|index| self.messages.get_mut(index));
        place.is_some_and(|place| {
            let deleted = Place::Deleted(place.created_at());
            matches!(std::mem::replace(place, deleted), Place::Kept(_))
        })
    }

    fn index(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.tail())?).ok()
    }

    /// How long ago a message was appended.
    pub(super) fn age(&self, number: u64) -> Option<Duration> {
        let place = self.messages.get(self.index(number)?)?;
        let age = Timestamp::now().duration_since(place.created_at());
        Some(Duration::try_from(age).unwrap_or_default())
    }

    /// How many messages are kept.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Appends a message and returns its number, or that of the first one under its publish key.
    pub(super) fn append(&mut self, mut content: NewMessage, now: Timestamp) -> u64 {
        if let Some(PublishKey { key, window }) = content.publish_key.take() {
            let moment = Instant::now();
            if let Some((end, number)) = self.keys.get(&key)
                && *end > moment
            {
                return *number;
            }
            self.keys.insert(key, (moment + window, self.head + 1));
        }
        self.messages.push_back(Place::Kept(Stored {
            content,
            created_at: now,
        }));
        self.head += 1;
        self.head
    }

    pub(super) fn forget_expired_keys(&mut self) {
        let now = Instant::now();
        self.keys.retain(|_, (end, _)| *end > now);
    }

    /// The number before the first one that a group would get from here.
    pub(super) fn position(&self, start: StartFrom) -> Result<u64> {
        start.position(self.tail(), self.head, |time| {
            let earlier = self.messages.partition_point(|m| m.created_at() < time);
            Ok(self.tail() + earlier as u64)
        })
    }

    /// Removes what the retention does not keep, up to the first number that is still `needed`, and
    /// returns how many messages that was.
    pub(super) fn trim(&mut self, retention: &Retention, needed: Option<u64>) -> u64 {
        let Retention {
            max_len, max_age, ..
        } = retention;
        // The first number to keep, by each rule.
        let by_len = max_len.map_or(0, |max| (self.head + 1).saturating_sub(max.get()));
        let by_age = max_age
            .and_then(|age| {
                let age = SignedDuration::try_from(age).ok()?;
                let oldest = Timestamp::now().checked_sub(age).ok()?;
                // Found by halving: what a slow group protects is not counted with every publish.
                let expired = self.messages.partition_point(|m| m.created_at() <= oldest);
                Some(self.tail() + expired as u64)
            })
            .unwrap_or(0);
        let keep = by_len.max(by_age).min(needed.unwrap_or(u64::MAX));
        let excess = keep.saturating_sub(self.tail());
        let excess = usize::try_from(excess)
            .unwrap_or(usize::MAX)
            .min(self.messages.len());
        self.messages.drain(..excess);
        excess as u64
    }
}
