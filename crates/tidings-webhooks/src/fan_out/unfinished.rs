//! Batches that were broken off: they come before later messages.
//!
//! A handler is dropped shortly before the claims of its messages end, if the stream cannot extend them. If the stream
//! works again in that moment, it hands out later messages first.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidings_stream::{Message, MessageId};
use tokio::time::Instant;

/// The first message of each batch that was broken off or put back, and when its claim is certainly over: after that
/// the stream hands it out before later ones, if it is still there.
#[derive(Debug, Default)]
pub(super) struct Unfinished(Mutex<BTreeMap<MessageId, Instant>>);

/// A batch that is being handled. If it is dropped before its [`end`](Self::end), it is unfinished.
pub(super) struct Begun<'a> {
    unfinished: &'a Unfinished,
    /// Its first message.
    first: Option<MessageId>,
    claims: Duration,
}

impl Unfinished {
    /// Begins to handle a batch, whose messages are in order. Returns `None` if it has to be put back, because an
    /// unfinished one comes first.
    pub(super) fn begin(&self, messages: &[Message], claims: Duration) -> Option<Begun<'_>> {
        let first = messages.first().map(|message| message.id);
        let now = Instant::now();
        let mut unfinished = self.lock();
        unfinished.retain(|id, over_at| {
            let is_here = || {
                messages
                    .binary_search_by_key(id, |message| message.id)
                    .is_ok()
            };
            now < *over_at && !is_here()
        });
        if let (Some(first), Some((earliest, _))) = (first, unfinished.first_key_value())
            && *earliest < first
        {
            unfinished.insert(first, now + claims);
            return None;
        }
        drop(unfinished);
        Some(Begun {
            unfinished: self,
            first,
            claims,
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<MessageId, Instant>> {
        // The map is whole after every statement, so a poisoned lock is still right.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Begun<'_> {
    /// Takes note that nothing of the batch has to come before later messages.
    pub(super) fn end(mut self) {
        self.first = None;
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if let Some(first) = self.first {
            let over_at = Instant::now() + self.claims;
            self.unfinished.lock().insert(first, over_at);
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use tidings_stream::{NewMessage, StreamName};

    use super::*;

    const CLAIMS: Duration = Duration::from_secs(15);

    fn batch(ids: &[u64]) -> Vec<Message> {
        let stream = StreamName::new("app", "default", "events").unwrap();
        let message = |id: &u64| {
            let content = NewMessage::new("[]");
            let id = MessageId::from_u64(*id);
            Message::new(id, stream.clone(), content, Timestamp::UNIX_EPOCH, 1)
        };
        ids.iter().map(message).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_was_broken_off_comes_before_later_ones_until_its_claim_is_over() {
        let unfinished = Unfinished::default();
        let is_put_back = |ids: &[u64]| match unfinished.begin(&batch(ids), CLAIMS) {
            Some(begun) => {
                begun.end();
                false
            }
            None => true,
        };
        assert!(!is_put_back(&[1, 2]));
        drop(unfinished.begin(&batch(&[3, 4]), CLAIMS));
        assert!(is_put_back(&[5]));
        assert!(is_put_back(&[6]));
        assert!(!is_put_back(&[3, 4]));
        // What was put back comes in its order, too.
        assert!(is_put_back(&[6]));
        assert!(!is_put_back(&[5, 6, 7]));
        // The claim of one that is gone is over after its time.
        drop(unfinished.begin(&batch(&[8]), CLAIMS));
        assert!(is_put_back(&[9]));
        tokio::time::advance(CLAIMS).await;
        assert!(!is_put_back(&[9]));
        assert!(!is_put_back(&[10]));
    }
}
