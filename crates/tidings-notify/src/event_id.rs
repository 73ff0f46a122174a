use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The incarnation of one user's log: random, and new when a log is created or rewound.
///
/// Written as sixteen hexadecimal digits. Zero is no log's epoch; it stands for a log that does not
/// exist yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch of a log that does not exist yet.
    pub const NONE: Self = Self(0);

    /// Draws a new epoch from the operating system's random source.
    ///
    /// # Panics
    ///
    /// When the operating system has no random source, which Linux does not do after boot.
    pub fn random() -> Self {
        let drawn = getrandom::u64().expect("the operating system has a random source");
        // One draw in 2^64 would be the reserved zero.
        Self(drawn.max(1))
    }

    /// Draws several with one question to the random source.
    #[cfg(any(feature = "postgres", feature = "redis"))]
    pub(crate) fn several(count: usize) -> Vec<Self> {
        let mut drawn = vec![[0; 8]; count];
        getrandom::fill(drawn.as_flattened_mut())
            .expect("the operating system has a random source");
        let epoch = |bytes| Self(u64::from_ne_bytes(bytes).max(1));
        drawn.into_iter().map(epoch).collect()
    }

    /// The epoch as a number, for stores.
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// The epoch of a number that a store kept.
    pub fn from_u64(value: u64) -> Self {
        Self(value)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The place of an event in its user's log, written `<epoch>-<seq>`.
///
/// Clients hand it back as `Last-Event-ID`. It is opaque outside the stores: ids of one epoch order
/// by `seq`, ids of different epochs have no order, so there is no `Ord`.
///
/// As a cursor it names the last event that a reader has; `seq` zero means "none yet".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventId {
    /// The incarnation of the log.
    pub epoch: Epoch,
    /// The number of the event in it: 1, 2, 3 …
    pub seq: u64,
}

impl EventId {
    /// The cursor before the first event of a log that does not exist yet. It is never stale: when
    /// the log has come into being since, it means the log's beginning.
    pub const ORIGIN: Self = Self {
        epoch: Epoch::NONE,
        seq: 0,
    };

    /// The id of event `seq` in the log of `epoch`.
    pub fn new(epoch: Epoch, seq: u64) -> Self {
        Self { epoch, seq }
    }

    /// The id, or the top of its log if it is beyond; `None` for an id of another log.
    pub(crate) fn clamped(self, top: Self) -> Option<Self> {
        (self.epoch == top.epoch).then(|| Self::new(self.epoch, self.seq.min(top.seq)))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

/// A text that is no event id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an event id: sixteen hexadecimal digits, a hyphen, and a number")]
pub struct InvalidEventId;

impl FromStr for EventId {
    type Err = InvalidEventId;

    /// Reads exactly what `Display` writes: an id has one spelling.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (epoch, seq) = text.split_once('-').ok_or(InvalidEventId)?;
        let id = Self {
            epoch: Epoch(u64::from_str_radix(epoch, 16).map_err(|_| InvalidEventId)?),
            seq: seq.parse().map_err(|_| InvalidEventId)?,
        };
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(InvalidEventId)
        }
    }
}

impl TryFrom<String> for EventId {
    type Error = InvalidEventId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<EventId> for String {
    fn from(id: EventId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_written() {
        for id in [
            EventId::ORIGIN,
            EventId::new(Epoch::from_u64(u64::MAX), u64::MAX),
            EventId::new(Epoch::random(), 42),
        ] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in [
            "",
            "-",
            "1-1",
            "garbage",
            "00000000000000ff",
            "00000000000000ff-",
            "00000000000000FF-1",
            "00000000000000ff-01",
            "00000000000000ff-+1",
            "+0000000000000ff-1",
            "00000000000000ff-1-1",
            "00000000000000ff-18446744073709551616",
            " 00000000000000ff-1",
        ] {
            assert_eq!(text.parse::<EventId>(), Err(InvalidEventId), "{text:?}");
        }
    }
}
