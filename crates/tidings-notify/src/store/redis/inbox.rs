//! Pages of the inbox.

use super::MAX_NUMBER;
use super::reply::{self, InboxReply};
use super::scripts::{Script, Scripts};
use crate::budget::cost;
use crate::{EventId, Head, InboxPage, InboxQuery, MAX_INBOX_PAGE_BYTES, StoreError, UserId};

/// Events that one script looks at, so that no filter holds up the server.
const LOOKS: usize = 1000;

/// How often a page is begun anew because the inbox has changed meanwhile, before it ends there.
const ATTEMPTS: usize = 4;

/// A page of the inbox. All of it is from one moment.
pub(super) async fn page(
    scripts: &Scripts,
    user: &UserId,
    query: &InboxQuery,
) -> Result<InboxPage, StoreError> {
    // A part that follows after a change would be of another moment.
    for _ in 1..ATTEMPTS {
        if let (page, true) = unchanged_page(scripts, user, query).await? {
            return Ok(page);
        }
    }
    let (page, _) = unchanged_page(scripts, user, query).await?;
    Ok(page)
}

/// A page of the inbox, and whether it is whole: it ends early if the inbox changes between two parts of it.
async fn unchanged_page(
    scripts: &Scripts,
    user: &UserId,
    query: &InboxQuery,
) -> Result<(InboxPage, bool), StoreError> {
    let (mut below, mut left) = (MAX_NUMBER, MAX_INBOX_PAGE_BYTES);
    if let Some(cursor) = query.cursor() {
        below = cursor.seq.min(MAX_NUMBER);
    }
    let mut first: Option<(Head, InboxPage)> = None;
    loop {
        let found = first.as_ref().map_or(0, |(_, page)| page.events.len());
        let mut call = scripts.call(Script::Inbox);
        call.arg(user.as_str())
            .arg(below)
            .arg(query.limit() - found)
            .arg(left)
            .arg(LOOKS)
            .arg(u8::from(query.is_archived_only()))
            .arg(u8::from(query.is_unread_only()))
            .arg(query.event_type().map_or("", |only| only.as_str()))
            .arg(found);
        let part: Option<InboxReply> = scripts.run(Script::Inbox, &call).await?;
        let Some((head, events, next, is_full)) = part else {
            return match query.cursor() {
                Some(_) => Err(StoreError::ForeignCursor),
                None => Ok((InboxPage::empty(), true)),
            };
        };
        let head = reply::head(head);
        if query.cursor().is_some_and(|it| it.epoch != head.epoch) {
            return Err(StoreError::ForeignCursor);
        }
        let (begun, page) = first.get_or_insert_with(|| (head, InboxPage::of(&head)));
        // New events are above this page, and do no harm.
        let state = |head: &Head| (head.epoch, head.revision, head.first_seq);
        if state(begun) != state(&head) {
            page.next = Some(EventId::new(begun.epoch, below));
            return Ok((std::mem::replace(page, InboxPage::empty()), false));
        }
        let events = reply::events(user, head.epoch, events)?;
        left = left.saturating_sub(events.iter().map(cost).sum());
        page.events.extend(events);
        if is_full {
            page.next = page.events.last().map(|event| event.id);
        }
        if is_full || next == 0 {
            return Ok((std::mem::replace(page, InboxPage::empty()), true));
        }
        below = next;
    }
}
