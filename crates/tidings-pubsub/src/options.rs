use std::time::Duration;

/// Messages that a mailbox holds unless another number is set.
const DEFAULT_CAPACITY: usize = 100;

/// How a subscription keeps messages that its subscriber has not read yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct SubscribeOptions {
    capacity: usize,
    overflow: Overflow,
}

impl Default for SubscribeOptions {
    /// One hundred messages; the oldest is dropped when there are more.
    fn default() -> Self {
        Self {
            capacity: DEFAULT_CAPACITY,
            overflow: Overflow::default(),
        }
    }
}

impl SubscribeOptions {
    /// Sets how many messages the mailbox holds; at least one. The default is 100.
    pub fn with_capacity(mut self, messages: usize) -> Self {
        self.capacity = messages.max(1);
        self
    }

    /// Sets what happens when it is full. The default is [`Overflow::DropOldest`].
    pub fn with_overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn overflow(&self) -> Overflow {
        self.overflow
    }
}

/// What becomes of a message that finds a mailbox full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// It takes the place of the oldest one: the subscriber sees what is new.
    #[default]
    DropOldest,
    /// It is dropped: the subscriber sees what came first.
    DropNewest,
    /// Its publisher waits for room, at most this long, before it is dropped; a year is the longest. All others have their
    /// copies by then, but the publisher's next message is late for all of them.
    ///
    /// Over a network the publisher cannot be made to wait: there the message itself waits, in a queue
    /// of up to 1,024 behind the full mailbox, and delays no other.
    Wait(Duration),
}
