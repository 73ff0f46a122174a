use jiff::Timestamp;

use crate::store::NewReplay;
use crate::{EndpointId, Error};

/// What to replay, and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Replay {
    since: Timestamp,
    until: Option<Timestamp>,
    per_second: u32,
}

/// How fast a replay is by default.
const DEFAULT_PER_SECOND: u32 = 10;

/// The fastest replay, in events per second.
pub const MAX_REPLAY_RATE: u32 = 10_000;

impl Replay {
    /// What was accepted from a time on until now, ten per second.
    pub fn since(since: Timestamp) -> Self {
        Self {
            since,
            until: None,
            per_second: DEFAULT_PER_SECOND,
        }
    }

    /// Only what was accepted before a time.
    pub fn with_until(mut self, until: Timestamp) -> Self {
        self.until = Some(until);
        self
    }

    /// Sets how many are sent per second at most: 1 to 10,000. The default is 10.
    pub fn with_rate(mut self, per_second: u32) -> Self {
        self.per_second = per_second;
        self
    }

    pub(crate) fn checked(self, endpoint: EndpointId, now: Timestamp) -> Result<NewReplay, Error> {
        if !(1..=MAX_REPLAY_RATE).contains(&self.per_second) {
            return Err(Error::invalid("per_second", "1 to 10,000"));
        }
        let until = self.until.unwrap_or(Timestamp::MAX);
        if until <= self.since || self.since > now {
            return Err(Error::invalid(
                "since",
                "a time that is past and before `until`",
            ));
        }
        Ok(NewReplay {
            endpoint,
            since: self.since,
            until,
            per_second: self.per_second,
        })
    }
}
