use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::Topic;

/// One subscriber's copy of what was published.
///
/// Clones share everything, so that a copy for each of a thousand subscribers costs next to nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Message(Arc<Parts>);

#[derive(PartialEq, Eq)]
struct Parts {
    topic: Topic,
    payload: Bytes,
}

impl Message {
    /// A message, for brokers to deliver.
    pub fn new(topic: Topic, payload: impl Into<Bytes>) -> Self {
        let payload = payload.into();
        Self(Arc::new(Parts { topic, payload }))
    }

    /// Where it was published.
    pub fn topic(&self) -> &Topic {
        &self.0.topic
    }

    /// Its bytes, exactly as they were published.
    pub fn payload(&self) -> &Bytes {
        &self.0.payload
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", self.topic())
            .field("payload", self.payload())
            .finish()
    }
}

/// What comes out of a subscription: a message, or a report that messages are missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A message.
    Message(Message),
    /// Messages are missing here. The subscription continues.
    Lagged(Lagged),
}

/// That messages are missing at this place of a subscription, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lagged {
    missed: Option<u64>,
}

impl Lagged {
    /// Exactly so many messages found the mailbox full.
    pub fn by(missed: u64) -> Self {
        Self {
            missed: Some(missed),
        }
    }

    /// The broker's connection was broken for a while, and what it missed was not counted: nothing,
    /// or any number of messages of any topic.
    pub fn unknown() -> Self {
        Self { missed: None }
    }

    /// How many messages are missing; `None` if it cannot be known.
    pub fn missed(self) -> Option<u64> {
        self.missed
    }
}

impl fmt::Display for Lagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.missed {
            Some(1) => f.write_str("1 message was missed"),
            Some(missed) => write!(f, "{missed} messages were missed"),
            None => f.write_str("messages may have been missed while the connection was broken"),
        }
    }
}
