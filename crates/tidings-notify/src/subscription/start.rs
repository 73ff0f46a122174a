//! Where a stream begins.

use super::{Gap, GapReason};
use crate::{EventId, Head, Since, Store, StoreError, UserId};

/// The cursor that a stream begins after, and the gap that it begins with, if any.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) cursor: EventId,
    pub(super) gap: Option<Gap>,
}

impl Start {
    /// Finds the cursor that `since` stands for. `delivered` is how far this instance has sent the
    /// user's log, as far as it may not be in the store yet.
    pub(super) async fn find(
        since: &Since,
        store: &dyn Store,
        user: &UserId,
        delivered: Option<EventId>,
    ) -> Result<(Self, Head), StoreError> {
        // Asked for first, so that the head is not older than it.
        let at_time = match since {
            Since::Time(time) => Some(store.cursor_before(user, *time).await?),
            _ => None,
        };
        let head = store.head(user).await?;
        let start = match (since, at_time) {
            (_, Some(cursor)) => Self::at_time(cursor, &head),
            (Since::Start, _) => Self::without_gap(head.before_first()),
            (Since::After(id), _) => Self::after(*id, &head),
            (Since::Cursor(text), _) => match text.parse() {
                Ok(id) => Self::after(id, &head),
                Err(_) => Self::with_gap(None, GapReason::Invalid, &head),
            },
            (Since::Undelivered, _) => {
                let here = delivered.filter(|id| id.epoch == head.epoch);
                let seq = here.map_or(0, |id| id.seq).max(head.delivered_seq);
                Self::after(EventId::new(head.epoch, seq), &head)
            }
            (Since::Now | Since::Time(_), _) => Self::without_gap(head.top()),
        };
        Ok((start, head))
    }

    fn without_gap(cursor: EventId) -> Self {
        Self { cursor, gap: None }
    }

    fn with_gap(from: Option<EventId>, reason: GapReason, head: &Head) -> Self {
        let to = head.before_first();
        Self {
            cursor: to,
            gap: Some(Gap { from, to, reason }),
        }
    }

    fn after(id: EventId, head: &Head) -> Self {
        match GapReason::between(id, head.top(), head.first_seq) {
            Some(reason) => Self::with_gap(Some(id), reason, head),
            None => Self::without_gap(EventId::new(head.epoch, id.seq)),
        }
    }

    /// When all that is kept is younger than the time asked for, something in between may have
    /// been removed.
    fn at_time(cursor: EventId, head: &Head) -> Self {
        if head.first_seq > 1 && cursor == head.before_first() {
            Self::with_gap(None, GapReason::Expired, head)
        } else {
            Self::after(cursor, head)
        }
    }
}
