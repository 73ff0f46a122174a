//! What goes over the wire, for servers of any framework: there are no HTTP types in it.
//!
//! A stream sends a [`Hello`] first, then the backlog, then `caught_up`, then what happens; a `gap` where
//! events are missing, a `changed` where the inbox was changed, an `expiring` before the user's token
//! expires, and a `bye` if the server ends it. The same documents go over both transports:
//!
//! | | Server-Sent Events | WebSocket |
//! |---|---|---|
//! | written by | [`SseWriter`], or [`server_sent_events`] as a whole | [`WebSocketFrame`] |
//! | a notification | `data:` its JSON, `id:` its id | `{"event":"notification","data":…}` |
//! | anything else | `event: tidings.<name>` | `{"event":"<name>",…}` |
//! | keeps a silent connection alive | a comment, `: ping` | `{"event":"ping"}` beside a ping of the protocol |
//! | the reader's cursor | the `Last-Event-ID` header | a parameter of the URL |
//! | what the client may say | | [`Request`] |
//!
//! Where a stream starts follows from header and parameters by [`since`], which decides which cursor
//! counts. A whole server is the example `axum`.
//!
//! Browsers decide much of this. An `EventSource` gives up for good after any status but 200, so a stream
//! that must not be opened is sent as a [`Bye`] in a 200. It does not read headers, so what it must know is
//! a frame. A proxy must be kept from buffering the response: `Cache-Control: no-cache, no-transform`, and
//! `X-Accel-Buffering: no`.

mod control;
mod sse;
mod start;
mod time;
mod websocket;

pub use control::{
    BYE, Bye, CAUGHT_UP, CHANGED, CaughtUp, ChangedFrame, Control, Counts, EXPIRING, Expiring, GAP,
    GapFrame, HELLO, Hello, NOTIFICATION,
};
pub use sse::{EventNaming, SSE_PREFIX, SseWriter, server_sent_events};
pub use start::{InvalidSince, since};
pub use time::parse_time;
pub use websocket::{ERROR, Notification, PING, Ping, Request, WebSocketFrame};

/// Most items in one write. More would only delay the first of them.
pub const MAX_BATCH: usize = 128;

/// Most bytes of payloads in one write, unless it is a single event: what a client that does not read costs.
pub const MAX_BATCH_BYTES: usize = 16 * 1024;
