use jiff::Timestamp;

use crate::EventId;

/// Which events a new stream begins with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Since {
    /// None that exist yet: new ones only.
    #[default]
    Now,
    /// The oldest that is kept.
    Start,
    /// The one after this.
    After(EventId),
    /// The one after this cursor, as a client sent it. Text that is not an event id makes a gap, never
    /// an error, because a browser does not reconnect after an error.
    Cursor(String),
    /// The first that is stamped at or after this time, and all after it.
    Time(Timestamp),
    /// The first that no connection of the user has been sent yet; see
    /// [`Subscription::sent`](crate::Subscription::sent).
    Undelivered,
}
