use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use crate::Reply;

/// One way to treat one request.
///
/// All but [`Reply`](Self::Reply) and [`Interim`](Self::Interim) end the connection,
/// at the latest when the sender lets go of it. Those that never end send as fast as the sender
/// reads, unless they have a `pause`; none keeps more than a small buffer in memory.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Behaviour {
    /// Reads the request and replies properly.
    Reply(Reply),
    /// Reads the request and never replies.
    NeverReply,
    /// Replies `200 OK` and then sends one more byte of a header that never ends after each pause:
    /// every single read of the sender succeeds in time.
    DripHead {
        /// How long to wait before each byte.
        pause: Duration,
    },
    /// Replies with a whole head, which promises a long body, and then sends one byte of that body
    /// after each pause.
    DripBody {
        /// How long to wait before each byte.
        pause: Duration,
    },
    /// Replies `200 OK` with a chunked body that has no last chunk.
    EndlessBody,
    /// Replies `200 OK` with a body of so many bytes, and closes after it.
    HugeBody {
        /// Its length, announced in `content-length`.
        bytes: u64,
    },
    /// Replies `200 OK` with 1 MiB that a decoder of `content-encoding: gzip` turns into 1 GiB, and
    /// closes after it. Whether the request accepts gzip is ignored.
    GzipBomb,
    /// Replies `200 OK` and then sends header lines without end.
    EndlessHeaders,
    /// Replies `200 OK` with one header of so many bytes, and an empty body; closes after it.
    HugeHeader {
        /// The length of the header's value.
        bytes: u64,
    },
    /// Sends an interim response over and over before the final one.
    ///
    /// RFC 9110, section 15.2, allows any number of them.
    Interim {
        /// The status of the interim responses, of the 1xx kind.
        status: StatusCode,
        /// How many of them there are.
        count: u64,
        /// The reply at last.
        then: Reply,
    },
    /// Resets the connection (TCP RST) once the head has been read: the request cannot have been
    /// handled.
    ResetBeforeBody,
    /// Resets the connection once the whole request has been read: whether it was handled, the
    /// sender cannot know.
    ResetAfterBody,
    /// Reads the whole request and closes the connection in good order without a reply.
    HangUp,
    /// Sends half of a status line and closes.
    HalfHead,
    /// Sends a whole head, half of the body that it promises, and closes.
    HalfBody,
    /// Sends these bytes, whatever they are, and closes.
    Raw(Bytes),
}

impl From<Reply> for Behaviour {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}
