//! Listing the inbox.

use rusqlite::{Connection, named_params};

use super::log::{EVENT_COLUMNS, Events, Log, find_log, payload_bytes};
use super::schema::{clamp_seq, key};
use crate::budget::Budget;
use crate::{EventType, InboxPage, InboxQuery, MAX_INBOX_PAGE_BYTES, StoreError, UserId};

pub(super) fn page(
    connection: &Connection,
    user: &UserId,
    query: &InboxQuery,
) -> Result<InboxPage, StoreError> {
    let Some(log) = find_log(connection, user)? else {
        return match query.before {
            Some(_) => Err(StoreError::ForeignCursor),
            None => Ok(InboxPage::empty()),
        };
    };
    let head = log.head;
    let newest = match query.before {
        Some(before) if before.epoch != head.epoch => return Err(StoreError::ForeignCursor),
        Some(before) => head.top_seq.min(before.seq.saturating_sub(1)),
        None => head.top_seq,
    };
    let mut page = InboxPage::of(&head);
    let mut budget = Budget::new(MAX_INBOX_PAGE_BYTES);
    let mut events = Events::new(connection, user, &log)?;
    for stretch in stretches(query, &log, newest) {
        let mut statement = connection.prepare_cached(&stretch.select(query))?;
        // One event more than asked for shows whether there is a next page.
        let wanted = query.limit - page.events.len() + 1;
        let mut rows = statement.query(named_params! {
            ":first": key(log.id, clamp_seq(stretch.first))?,
            ":newest": key(log.id, clamp_seq(stretch.newest))?,
            ":type": query.event_type.as_ref().map(EventType::as_str),
            ":limit": i64::try_from(wanted).unwrap_or(i64::MAX),
        })?;
        while let Some(row) = rows.next()? {
            if page.events.len() == query.limit || !budget.admit(payload_bytes(row)?) {
                page.next = page.events.last().map(|event| event.id);
                return Ok(page);
            }
            page.events.push(events.event(row)?);
        }
    }
    Ok(page)
}

/// A part of the log, and how the wanted events are found in it.
struct Stretch {
    first: u64,
    newest: u64,
    rows: &'static str,
}

/// The statement names the index, because SQLite has no statistics to choose by.
const ALL: &str = "notify_event AS e NOT INDEXED LEFT JOIN notify_state AS s ON s.key = e.key
    WHERE s.archived_at IS NULL";
const NOT_READ: &str = "notify_event AS e NOT INDEXED LEFT JOIN notify_state AS s ON s.key = e.key
    WHERE s.archived_at IS NULL AND s.read_at IS NULL";
const UNREAD_AGAIN: &str =
    "notify_state AS s INDEXED BY notify_state_unread CROSS JOIN notify_event AS e ON e.key = s.key
    WHERE s.is_unread = 1 AND s.archived_at IS NULL";
const ARCHIVED: &str =
    "notify_state AS s INDEXED BY notify_state_archived CROSS JOIN notify_event AS e ON e.key = s.key
    WHERE s.archived_at IS NOT NULL";
const ARCHIVED_UNREAD: &str =
    "notify_state AS s INDEXED BY notify_state_archived CROSS JOIN notify_event AS e ON e.key = s.key
    WHERE s.is_unread = 1 AND s.archived_at IS NOT NULL";

/// Newest first. What is read up to a mark is not looked at for what is unread.
fn stretches(query: &InboxQuery, log: &Log, newest: u64) -> Vec<Stretch> {
    let first = log.head.first_seq;
    let whole = |rows| {
        vec![Stretch {
            first,
            newest,
            rows,
        }]
    };
    match (query.archived_only, query.unread_only) {
        (true, false) => whole(ARCHIVED),
        (true, true) => whole(ARCHIVED_UNREAD),
        (false, false) => whole(ALL),
        (false, true) => vec![
            Stretch {
                first: first.max(log.read_seq + 1),
                newest,
                rows: NOT_READ,
            },
            Stretch {
                first,
                newest: newest.min(log.read_seq),
                rows: UNREAD_AGAIN,
            },
        ],
    }
}

impl Stretch {
    /// Types have no index: it would cost every append a page, and a log is short beside a table.
    fn select(&self, query: &InboxQuery) -> String {
        let filter = match query.event_type {
            Some(_) => "e.type = :type",
            None => ":type IS NULL",
        };
        let order = match self.rows {
            ALL | NOT_READ => "e.key",
            _ => "s.key",
        };
        format!(
            "SELECT {EVENT_COLUMNS} FROM {} AND {order} BETWEEN :first AND :newest AND {filter}
             ORDER BY {order} DESC LIMIT :limit",
            self.rows
        )
    }
}
