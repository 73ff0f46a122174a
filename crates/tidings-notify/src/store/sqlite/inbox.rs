//! Listing the inbox.

use rusqlite::{Connection, Row, named_params};

use super::archived;
use super::log::{EVENT_COLUMNS, Events, Log, STATE_COLUMNS, find_log, payload_bytes};
use super::schema::{clamp_seq, key};
use super::state::State;
use crate::budget::Budget;
use crate::{EventType, InboxPage, InboxQuery, MAX_INBOX_PAGE_BYTES, StoreError, UserId};

/// How many archived events in a row are passed one by one before their run is skipped: at first, and at most, where
/// runs are too short to be worth looking for.
const PASSED_BY_ROW: [i64; 2] = [16, 1024];

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
    let mut patience = PASSED_BY_ROW[0];
    for stretch in stretches(query, &log, newest) {
        let mut statement = connection.prepare_cached(&stretch.select(query))?;
        let mut newest = Some(key(log.id, clamp_seq(stretch.newest))?);
        while let Some(up_to) = newest.take() {
            let mut rows = statement.query(named_params! {
                ":first": key(log.id, clamp_seq(stretch.first))?,
                ":newest": up_to,
                ":type": query.event_type.as_ref().map(EventType::as_str),
            })?;
            let mut passed = 0;
            while let Some(row) = rows.next()? {
                if stretch.meets_archived(row)? {
                    passed += 1;
                    if passed < patience {
                        continue;
                    }
                    let event: i64 = row.get(0)?;
                    let below = archived::below(connection, event)?;
                    let [least, most] = PASSED_BY_ROW;
                    let is_short = event - below < patience;
                    patience = if is_short {
                        most.min(2 * patience)
                    } else {
                        least
                    };
                    newest = Some(below);
                    break;
                }
                passed = 0;
                // One event more than asked for shows whether there is a next page.
                if page.events.len() == query.limit || !budget.admit(payload_bytes(row)?) {
                    page.next = page.events.last().map(|event| event.id);
                    return Ok(page);
                }
                page.events.push(events.event(row)?);
            }
        }
    }
    Ok(page)
}

/// A part of the log, and how the wanted events are found in it.
struct Stretch {
    first: u64,
    newest: u64,
    tables: &'static str,
    condition: &'static str,
}

/// The statements name the index, because SQLite has no statistics to choose by.
const EVENTS: &str = "notify_event AS e NOT INDEXED LEFT JOIN notify_state AS s ON s.key = e.key";
const UNREAD_AGAIN: &str = "notify_state AS s INDEXED BY notify_state_unread CROSS JOIN notify_event AS e ON e.key = s.key";
const ARCHIVED: &str = "notify_state AS s INDEXED BY notify_state_archived CROSS JOIN notify_event AS e ON e.key = s.key";

/// Newest first. What is read up to a mark is not looked at for what is unread.
fn stretches(query: &InboxQuery, log: &Log, newest: u64) -> Vec<Stretch> {
    let first = log.head.first_seq;
    let whole = |tables, condition| {
        vec![Stretch {
            first,
            newest,
            tables,
            condition,
        }]
    };
    match (query.archived_only, query.unread_only) {
        (true, false) => whole(ARCHIVED, "s.archived_at IS NOT NULL"),
        (true, true) => whole(ARCHIVED, "s.archived_at IS NOT NULL AND s.is_unread = 1"),
        (false, false) => whole(EVENTS, "TRUE"),
        (false, true) => vec![
            Stretch {
                first: first.max(log.read_seq + 1),
                newest,
                tables: EVENTS,
                condition: "s.read_at IS NULL",
            },
            Stretch {
                first,
                newest: newest.min(log.read_seq),
                tables: UNREAD_AGAIN,
                condition: "s.is_unread = 1 AND s.archived_at IS NULL",
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
        let condition = self.condition;
        let (order, wanted) = match self.tables {
            // Those that are archived are met, whatever they are.
            EVENTS => (
                "e.key",
                format!("(s.archived_at IS NOT NULL OR ({condition} AND {filter}))"),
            ),
            _ => ("s.key", format!("{condition} AND {filter}")),
        };
        format!(
            "SELECT {EVENT_COLUMNS} FROM {} WHERE {wanted} AND {order} BETWEEN :first AND :newest
             ORDER BY {order} DESC",
            self.tables
        )
    }

    /// Whether a row is of an archived event that is not wanted: the list continues below it, or below its run.
    fn meets_archived(&self, row: &Row<'_>) -> Result<bool, StoreError> {
        Ok(self.tables == EVENTS && State::from_row(row, STATE_COLUMNS)?.archived_at.is_some())
    }
}
