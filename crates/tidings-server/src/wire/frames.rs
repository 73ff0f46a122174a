//! What a stream sends beside notifications, and what a WebSocket client may send.

use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use tidings_notify::{Changed, Event, EventId, Gap, InboxChange, Item, UserId};

use super::notification::Counts;
use super::{Data, ErrorDescription};

/// Before the name of a control event where notifications may be named by their type. No type
/// begins so.
pub(crate) const SSE_PREFIX: &str = "tidings.";

/// The name of the frame that carries a notification on a WebSocket.
pub(crate) const NOTIFICATION: &str = "notification";

/// The name of the frame that replies to a request which cannot be carried out.
pub(crate) const ERROR: &str = "error";

pub(crate) const HELLO: &str = "hello";
pub(crate) const CAUGHT_UP: &str = "caught_up";
pub(crate) const GAP: &str = "gap";
pub(crate) const CHANGED: &str = "changed";
pub(crate) const BYE: &str = "bye";

/// A frame that belongs to the stream and is not a notification.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Control<'a> {
    Hello(Hello<'a>),
    CaughtUp(CaughtUp),
    Gap(GapFrame),
    Changed(ChangedFrame),
    Bye(Bye),
}

impl Control<'_> {
    /// The frame for an item; `None` for a notification, and for a kind of item that this version
    /// does not know.
    pub(crate) fn of(item: &Item) -> Option<Self> {
        match item {
            Item::CaughtUp { cursor } => Some(Self::CaughtUp(CaughtUp { cursor: *cursor })),
            Item::Gap(gap) => Some(Self::Gap(gap.into())),
            Item::Changed(change) => Some(Self::Changed(change.into())),
            _ => None,
        }
    }

    /// The name on a WebSocket; Server-Sent Events put [`SSE_PREFIX`] before it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => HELLO,
            Self::CaughtUp(_) => CAUGHT_UP,
            Self::Gap(_) => GAP,
            Self::Changed(_) => CHANGED,
            Self::Bye(_) => BYE,
        }
    }

    /// The cursor that a client has after this frame, if the frame moves it.
    pub(crate) fn cursor(&self) -> Option<EventId> {
        match self {
            Self::Hello(hello) => Some(hello.cursor),
            Self::CaughtUp(caught_up) => Some(caught_up.cursor),
            Self::Gap(gap) => Some(gap.to),
            Self::Changed(_) | Self::Bye(_) => None,
        }
    }
}

/// First on every stream: where it starts.
#[derive(Debug, Serialize)]
pub(crate) struct Hello<'a> {
    pub(crate) user_id: &'a UserId,
    /// What to resume from if nothing follows.
    pub(crate) cursor: EventId,
    pub(crate) unread: u64,
    pub(crate) unseen: u64,
    /// The longest silence to expect.
    #[serde(rename = "ping_interval_ms", serialize_with = "as_milliseconds")]
    pub(crate) ping_interval: Duration,
}

fn as_milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u128(duration.as_millis())
}

/// The backlog is over; what follows is live.
#[derive(Debug, Serialize)]
pub(crate) struct CaughtUp {
    pub(crate) cursor: EventId,
}

/// Events are missing here.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct GapFrame {
    /// The client's cursor, if it could be read.
    pub(crate) from: Option<EventId>,
    /// The cursor before the first event that follows.
    pub(crate) to: EventId,
    pub(crate) reason: &'static str,
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
pub(crate) struct ChangedFrame {
    /// `read`, `unread`, `archived`, `unarchived`, `seen`, `replaced` (by notifications with a key, which
    /// have been sent before) or `unknown` (what changed, because it was elsewhere).
    pub(crate) change: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ids: Option<Vec<EventId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) up_to: Option<EventId>,
    #[serde(flatten)]
    pub(crate) counts: Counts,
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
            _ => ("unknown", None, None),
        };
        Self {
            change: name,
            ids,
            up_to,
            counts: change.into(),
        }
    }
}

/// Last on a stream that the server ends.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Bye {
    /// Also the close code of a WebSocket. 4000 to 4099: do not reconnect; 4100 to 4199: back off;
    /// 4200 to 4299: reconnect at once.
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) reconnect_after_ms: u64,
}

impl Bye {
    /// The server stops; the waits are spread so that the clients do not all reconnect at once.
    pub(crate) fn stopping() -> Self {
        Self {
            code: 4200,
            reason: "the server is stopping",
            reconnect_after_ms: fastrand::u64(250..2000),
        }
    }

    /// The client does not reply to pings: its connection is broken without either side knowing.
    pub(crate) fn silent() -> Self {
        Self {
            code: 4201,
            reason: "the client does not reply to pings",
            reconnect_after_ms: 0,
        }
    }

    /// A limit on open streams is reached.
    pub(crate) fn full(reason: &'static str) -> Self {
        Self {
            code: 4100,
            reason,
            reconnect_after_ms: fastrand::u64(10_000..30_000),
        }
    }
}

/// A text frame on a WebSocket: a name, with the document inside it or beside it.
#[derive(Debug, Serialize)]
pub(crate) struct WebSocketFrame<D> {
    event: &'static str,
    #[serde(flatten)]
    document: D,
}

impl<'a> From<&'a Event> for WebSocketFrame<Data<&'a Event>> {
    fn from(data: &'a Event) -> Self {
        Self {
            event: NOTIFICATION,
            document: Data { data },
        }
    }
}

impl<'a> From<Control<'a>> for WebSocketFrame<Control<'a>> {
    fn from(control: Control<'a>) -> Self {
        Self {
            event: control.name(),
            document: control,
        }
    }
}

impl From<ErrorDescription> for WebSocketFrame<ErrorDescription> {
    fn from(document: ErrorDescription) -> Self {
        Self {
            event: ERROR,
            document,
        }
    }
}

/// What a WebSocket client may send.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Request {
    /// The client has everything up to this event.
    Ack(EventId),
    /// The user has read this event.
    Read(EventId),
    /// The user has seen that there is everything up to this event.
    Seen(EventId),
    /// The user has archived this event.
    Archive(EventId),
}
