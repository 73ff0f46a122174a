use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use tokio::time::{Instant, timeout_at};

use crate::MAX_RESPONSE_BYTES;

/// Longest time that is spent on a response's body once its status is known.
const BODY_TIME: Duration = Duration::from_secs(1);

/// The beginning of a body: what arrives before the limits of size and time. The rest is not read:
/// dropping the response closes its connection.
pub(super) async fn read_head<B>(mut body: B, responded_at: Instant, deadline: Instant) -> Bytes
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut head = BytesMut::new();
    let reading = async {
        while head.len() < MAX_RESPONSE_BYTES {
            let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context));
            // It is complete, or it broke off: the status has decided already.
            let Some(Ok(frame)) = frame.await else { break };
            // Trailers come last and are not kept.
            let Ok(chunk) = frame.into_data() else { break };
            let room = MAX_RESPONSE_BYTES - head.len();
            head.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
    };
    // What has arrived when the time is up is kept.
    let deadline = deadline.min(responded_at + BODY_TIME);
    drop(timeout_at(deadline, reading).await);
    head.freeze()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::task::{Context, Poll};

    use http_body::Frame;

    use super::*;

    /// Some chunks, the last one first, and then nothing and no end.
    struct Stalled(Vec<Bytes>);

    /// Chunks of so many bytes.
    fn chunks(lengths: &[usize]) -> Stalled {
        let chunks = lengths
            .iter()
            .rev()
            .map(|length| vec![b'x'; *length].into());
        Stalled(chunks.collect())
    }

    impl Body for Stalled {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.0.pop() {
                Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None => Poll::Pending,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_gets_a_second_but_no_time_beyond_the_deadline() {
        for (left, expected) in [(30_000, 1000), (1000, 1000), (300, 300), (0, 0)] {
            let body = Stalled(vec![Bytes::from_static(b"first")]);
            let start = Instant::now();
            let head = read_head(body, start, start + Duration::from_millis(left)).await;
            assert_eq!(start.elapsed(), Duration::from_millis(expected));
            assert_eq!(head, "first");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_limit_nothing_more_is_waited_for_and_what_lies_beyond_is_not_kept() {
        for lengths in [
            &[10 * MAX_RESPONSE_BYTES][..],
            &[MAX_RESPONSE_BYTES],
            &[MAX_RESPONSE_BYTES - 1, 2],
            &[1, 10 * MAX_RESPONSE_BYTES],
        ] {
            let start = Instant::now();
            let deadline = start + Duration::from_secs(60);
            let head = read_head(chunks(lengths), start, deadline).await;
            assert_eq!(head.len(), MAX_RESPONSE_BYTES, "{lengths:?}");
            assert_eq!(start.elapsed(), Duration::ZERO, "{lengths:?}");
        }
    }
}
