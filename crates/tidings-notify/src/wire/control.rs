//! The documents that a stream sends beside notifications.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::{Changed, EventId, Gap, Head, InboxChange, InboxPage, Item, UserId, subscription};

/// The name of the frame that carries a notification on a WebSocket.
pub const NOTIFICATION: &str = "notification";
/// The name of [`Hello`].
pub const HELLO: &str = "hello";
/// The name of [`CaughtUp`].
pub const CAUGHT_UP: &str = "caught_up";
/// The name of [`GapFrame`].
pub const GAP: &str = "gap";
/// The name of [`ChangedFrame`].
pub const CHANGED: &str = "changed";
/// The name of [`Expiring`].
pub const EXPIRING: &str = "expiring";
/// The name of [`Bye`].
pub const BYE: &str = "bye";

/// A document that belongs to the stream and is not a notification.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub enum Control<'a> {
    /// First on every stream.
    Hello(Hello<'a>),
    /// The backlog is over.
    CaughtUp(CaughtUp),
    /// Events are missing here.
    Gap(GapFrame),
    /// The inbox was changed.
    Changed(ChangedFrame),
    /// The stream ends soon, unless the client opens another one with a new token.
    Expiring(Expiring),
    /// Last on a stream that the server ends.
    Bye(Bye),
}

impl Control<'_> {
    /// The document for an item; `None` for a notification, and for a kind of item that this version
    /// does not know.
    pub fn of(item: &Item) -> Option<Self> {
        match item {
            Item::CaughtUp { cursor } => Some(Self::CaughtUp(CaughtUp { cursor: *cursor })),
            Item::Gap(gap) => Some(Self::Gap(gap.into())),
            Item::Changed(change) => Some(Self::Changed(change.into())),
            Item::Event(_) => None,
        }
    }

    /// The name on a WebSocket; Server-Sent Events put [`SSE_PREFIX`](super::SSE_PREFIX) before it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => HELLO,
            Self::CaughtUp(_) => CAUGHT_UP,
            Self::Gap(_) => GAP,
            Self::Changed(_) => CHANGED,
            Self::Expiring(_) => EXPIRING,
            Self::Bye(_) => BYE,
        }
    }

    /// The cursor that a client has after this document, if it moves the cursor.
    pub fn cursor(&self) -> Option<EventId> {
        match self {
            Self::Hello(hello) => Some(hello.cursor),
            Self::CaughtUp(caught_up) => Some(caught_up.cursor),
            Self::Gap(gap) => Some(gap.to),
            Self::Changed(_) | Self::Expiring(_) | Self::Bye(_) => None,
        }
    }
}

/// First on every stream: where it starts.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Hello<'a> {
    /// Whose stream it is.
    pub user_id: &'a UserId,
    /// What to resume from if nothing follows.
    pub cursor: EventId,
    /// How many events are unread.
    pub unread: u64,
    /// How many events are unseen.
    pub unseen: u64,
    /// The longest silence to expect.
    #[serde(rename = "ping_interval_ms", serialize_with = "as_milliseconds")]
    #[cfg_attr(feature = "schema", schemars(with = "u64"))]
    pub ping_interval: Duration,
}

impl<'a> Hello<'a> {
    /// The hello of a stream of this user that [starts](crate::Subscription::take_hello) here.
    pub fn new(user_id: &'a UserId, start: subscription::Hello, ping_interval: Duration) -> Self {
        Self {
            user_id,
            cursor: start.cursor,
            unread: start.unread,
            unseen: start.unseen,
            ping_interval,
        }
    }
}

fn as_milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u128(duration.as_millis())
}

/// The backlog is over; what follows is live.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct CaughtUp {
    /// Where the client is.
    pub cursor: EventId,
}

/// Events are missing here.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct GapFrame {
    /// The client's cursor, if it could be read.
    pub from: Option<EventId>,
    /// The cursor before the first event that follows.
    pub to: EventId,
    /// Why: see [`GapReason::as_str`](crate::GapReason::as_str).
    pub reason: &'static str,
}

impl From<&Gap> for GapFrame {
    fn from(gap: &Gap) -> Self {
        Self {
            from: gap.from,
            to: gap.to,
            reason: gap.reason.as_str(),
        }
    }
}

/// The inbox was changed: the notifications in `ids`, or all up to `up_to`. Its counts include what the
/// stream has sent before.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct ChangedFrame {
    /// `read`, `unread`, `archived`, `unarchived`, `seen`, `replaced` (by notifications with a key, which
    /// have been sent before) or `unknown` (what changed, because it was elsewhere).
    pub change: &'static str,
    /// The events that were changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<EventId>>,
    /// The last of the events that were changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up_to: Option<EventId>,
    /// The inbox afterwards.
    #[serde(flatten)]
    pub counts: Counts,
}

impl From<&InboxChange> for ChangedFrame {
    fn from(change: &InboxChange) -> Self {
        let (name, ids, up_to) = match &change.what {
            Changed::Read(ids) => ("read", Some(ids.to_vec()), None),
            Changed::ReadUpTo(id) => ("read", None, Some(*id)),
            Changed::Unread(ids) => ("unread", Some(ids.to_vec()), None),
            Changed::Archived(ids) => ("archived", Some(ids.to_vec()), None),
            Changed::Unarchived(ids) => ("unarchived", Some(ids.to_vec()), None),
            Changed::SeenUpTo(id) => ("seen", None, Some(*id)),
            Changed::Replaced => ("replaced", None, None),
            Changed::Unknown => ("unknown", None, None),
        };
        Self {
            change: name,
            ids,
            up_to,
            counts: change.into(),
        }
    }
}

/// How many notifications of the whole inbox are unread and unseen, and the newest of its log: a stream
/// that begins after it misses nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Counts {
    /// How many events are unread.
    pub unread: u64,
    /// How many events are unseen.
    pub unseen: u64,
    /// The newest event.
    pub cursor: EventId,
}

impl From<&InboxChange> for Counts {
    fn from(change: &InboxChange) -> Self {
        Self {
            unread: change.unread,
            unseen: change.unseen,
            cursor: change.cursor,
        }
    }
}

impl From<&Head> for Counts {
    fn from(head: &Head) -> Self {
        Self {
            unread: head.unread,
            unseen: head.unseen,
            cursor: head.top(),
        }
    }
}

impl From<&InboxPage> for Counts {
    fn from(page: &InboxPage) -> Self {
        Self {
            unread: page.unread,
            unseen: page.unseen,
            cursor: page.cursor,
        }
    }
}

/// The client's token expires: the stream ends then, and never continues as another user.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Expiring {
    /// When the stream ends.
    pub expires_at: Timestamp,
}

impl Expiring {
    /// The notice of a stream that ends at this time.
    pub fn new(expires_at: Timestamp) -> Self {
        Self { expires_at }
    }
}

/// Last on a stream that the server ends.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Bye {
    /// Also the close code of a WebSocket. 4000 to 4099: do not reconnect; 4100 to 4199: back off;
    /// 4200 to 4299: reconnect when `reconnect_after_ms` is over, which is soon.
    pub code: u16,
    /// Why, for people.
    pub reason: &'static str,
    /// How long the client should wait before it reconnects.
    pub reconnect_after_ms: u64,
}

impl Bye {
    /// An end for a reason of your own.
    pub fn new(code: u16, reason: &'static str, reconnect_after: Duration) -> Self {
        let milliseconds = u64::try_from(reconnect_after.as_millis());
        Self {
            code,
            reason,
            reconnect_after_ms: milliseconds.unwrap_or(u64::MAX),
        }
    }

    /// The server stops; the waits are spread so that the clients do not all reconnect at once.
    pub fn stopping() -> Self {
        let wait = Duration::from_millis(fastrand::u64(250..2000));
        Self::new(4200, "the server is stopping", wait)
    }

    /// The client does not reply to pings: its connection is broken without either side knowing.
    pub fn silent() -> Self {
        let reason = "the client does not reply to pings";
        Self::new(4201, reason, Duration::ZERO)
    }

    /// The client's token or key has expired. Reconnecting with it fails; a client may connect with a new one.
    pub fn expired() -> Self {
        Self::new(4003, "the token or key has expired", Duration::from_secs(1))
    }

    /// The client's key was revoked.
    pub fn revoked() -> Self {
        Self::new(4004, "the key was revoked", Duration::from_secs(1))
    }

    /// A limit on open streams is reached.
    pub fn full(reason: &'static str) -> Self {
        let wait = Duration::from_millis(fastrand::u64(10_000..30_000));
        Self::new(4100, reason, wait)
    }
}
