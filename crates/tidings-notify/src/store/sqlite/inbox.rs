//! Listing the inbox.

use rusqlite::{Connection, named_params};

use super::log::{EVENT_COLUMNS, Log, event, find_log, payload_bytes};
use super::schema::{clamp_seq, key};
use crate::budget::Budget;
use crate::{InboxPage, InboxQuery, MAX_INBOX_PAGE_BYTES, StoreError, UserId};

pub(super) fn page(
    connection: &Connection,
    user: &UserId,
    query: &InboxQuery,
) -> Result<InboxPage, StoreError> {
    let Some(Log { id, head }) = find_log(connection, user)? else {
        return match query.before {
            Some(_) => Err(StoreError::ForeignCursor),
            None => Ok(InboxPage::empty()),
        };
    };
    let newest = match query.before {
        Some(before) if before.epoch != head.epoch => return Err(StoreError::ForeignCursor),
        Some(before) => head.top_seq.min(before.seq.saturating_sub(1)),
        None => head.top_seq,
    };
    let mut page = InboxPage {
        events: Vec::new(),
        next: None,
        unread: head.unread,
        cursor: head.top(),
    };
    let mut statement = connection.prepare_cached(&select(query))?;
    // One event more than asked for tells whether there is a next page.
    let wanted = i64::try_from(query.limit)
        .unwrap_or(i64::MAX)
        .saturating_add(1);
    let mut rows = statement.query(named_params! {
        ":first": key(id, clamp_seq(head.first_seq))?,
        ":newest": key(id, clamp_seq(newest))?,
        ":type": query.event_type.as_ref().map(crate::EventType::as_str),
        ":limit": wanted,
    })?;
    let mut budget = Budget::new(MAX_INBOX_PAGE_BYTES);
    while let Some(row) = rows.next()? {
        if page.events.len() == query.limit || !budget.admit(payload_bytes(row)?) {
            page.next = page.events.last().map(|event| event.id);
            break;
        }
        page.events.push(event(row, user, head.epoch)?);
    }
    Ok(page)
}

/// Unread events have an index; SQLite is told when to use it, as it has no statistics to choose by.
/// Types have none: it would cost every append a page, and a log is short beside a table.
fn select(query: &InboxQuery) -> String {
    let (index, filter) = match (query.unread_only, query.event_type.is_some()) {
        (false, false) => ("NOT INDEXED", ":type IS NULL"),
        (false, true) => ("NOT INDEXED", "type = :type"),
        (true, false) => (
            "INDEXED BY notify_event_unread",
            "read_at IS NULL AND :type IS NULL",
        ),
        (true, true) => (
            "INDEXED BY notify_event_unread",
            "read_at IS NULL AND type = :type",
        ),
    };
    format!(
        "SELECT {EVENT_COLUMNS} FROM notify_event {index}
         WHERE key BETWEEN :first AND :newest AND {filter} ORDER BY key DESC LIMIT :limit"
    )
}
