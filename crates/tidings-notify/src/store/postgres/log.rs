//! Reading logs, and the inbox, each in one statement and therefore as of one instant.

use tidings_postgres::Connections;
use tidings_postgres::tokio_postgres::Row;
use tidings_postgres::tokio_postgres::types::Type;

use super::schema::{column, epoch, number};
use crate::event::at_microsecond;
use crate::{
    Epoch, Event, EventId, EventKey, EventType, Head, InboxPage, InboxQuery, MAX_INBOX_PAGE_BYTES,
    MAX_PAGE_BYTES, Page, Payload, StoreError, UserId,
};

/// The columns of a head, of a log `l` and its delivered mark `d`.
macro_rules! head {
    () => {
        "l.epoch, l.first_seq, l.top_seq, coalesce(d.seq, 0), l.unread, l.unseen, l.revision"
    };
}
pub(super) use head;

/// The columns of an event `e`, after those of its head.
macro_rules! event {
    () => {
        "e.seq, e.timestamp, e.type, CASE WHEN e.admitted THEN e.payload END, e.event_key,
         CASE WHEN e.read_at IS NOT NULL OR e.is_unread THEN e.read_at
              WHEN e.seq <= l.read_seq THEN (
                  SELECT mark.at FROM tidings_notify_read_mark AS mark
                  WHERE mark.log = l.id AND mark.up_to >= e.seq ORDER BY mark.up_to LIMIT 1)
         END, e.archived_at"
    };
}

macro_rules! delivered {
    () => {
        "LEFT JOIN tidings_notify_delivered AS d ON d.log = l.id"
    };
}
pub(super) use delivered;

/// How many columns a head has.
const HEAD_COLUMNS: usize = 7;

const HEADS: &str = concat!(
    "SELECT ",
    head!(),
    " FROM unnest($1::text[]) WITH ORDINALITY AS asked (user_id, n)
    LEFT JOIN tidings_notify_log AS l ON l.user_id = asked.user_id COLLATE \"C\" ",
    delivered!(),
    " ORDER BY asked.n"
);

/// After the first event, as many as their payloads leave room for.
const READ: &str = concat!(
    "SELECT ",
    head!(),
    ", ",
    event!(),
    " FROM tidings_notify_log AS l ",
    delivered!(),
    " LEFT JOIN LATERAL (
        SELECT page.*, page.place = 1 OR page.bytes <= $4 AS admitted,
            s.read_at, coalesce(s.is_unread, false) AS is_unread, s.archived_at
        FROM (
            SELECT one.*, row_number() OVER up AS place,
                sum(octet_length(one.payload)) OVER up AS bytes
            FROM (
                SELECT event.* FROM tidings_notify_event AS event
                WHERE event.log = l.id AND event.seq > $2 ORDER BY event.seq LIMIT $3
            ) AS one
            WINDOW up AS (ORDER BY one.seq)
        ) AS page
        LEFT JOIN tidings_notify_state AS s ON s.log = page.log AND s.seq = page.seq
    ) AS e ON e.admitted
    WHERE l.user_id = $1 ORDER BY e.seq"
);

const FIND: &str = concat!(
    "SELECT ",
    head!(),
    ", ",
    event!(),
    " FROM tidings_notify_log AS l ",
    delivered!(),
    " JOIN LATERAL (
        SELECT event.*, true AS admitted,
            s.read_at, coalesce(s.is_unread, false) AS is_unread, s.archived_at
        FROM tidings_notify_event AS event
        LEFT JOIN tidings_notify_state AS s ON s.log = event.log AND s.seq = event.seq
        WHERE event.log = l.id AND event.seq = $3
    ) AS e ON true
    WHERE l.user_id = $1 AND l.epoch = $2"
);

pub(super) async fn heads(
    connections: &Connections,
    users: &[UserId],
) -> Result<Vec<Head>, StoreError> {
    let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
    let rows = connections
        .query(HEADS, &[(&users, Type::TEXT_ARRAY)])
        .await?;
    rows.iter()
        .map(|row| Ok(head_at(row, 0)?.unwrap_or(Head::EMPTY)))
        .collect()
}

pub(super) async fn read(
    connections: &Connections,
    user: &UserId,
    after: u64,
    limit: usize,
) -> Result<Page, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let parameters = [
        (&user.as_str() as _, Type::TEXT),
        (&column(after) as _, Type::INT8),
        (&limit as _, Type::INT8),
        (&bytes(MAX_PAGE_BYTES) as _, Type::INT8),
    ];
    let rows = connections.query(READ, &parameters).await?;
    let mut page = Page::empty();
    for row in &rows {
        page.head = head_at(row, 0)?.unwrap_or(Head::EMPTY);
        page.events.extend(event_of(row, user, page.head.epoch)?);
    }
    Ok(page)
}

pub(super) async fn find(
    connections: &Connections,
    user: &UserId,
    id: EventId,
) -> Result<Option<Event>, StoreError> {
    let parameters = [
        (&user.as_str() as _, Type::TEXT),
        (&super::schema::epoch_column(id.epoch) as _, Type::INT8),
        (&column(id.seq) as _, Type::INT8),
    ];
    let rows = connections.query(FIND, &parameters).await?;
    match rows.first() {
        Some(row) => event_of(row, user, id.epoch),
        None => Ok(None),
    }
}

/// The events of a log `l` that are wanted, up to the number $2 and of the type $3, the newest $4.
///
/// What is read up to a mark is not looked at for what is unread.
fn wanted(query: &InboxQuery) -> String {
    let listed = |first: &str, is_unread: bool| {
        format!(
            "SELECT listed.*, NULL::bigint AS archived_at FROM tidings_notify_listed(
                 l.id, {first}, least($2, l.top_seq), $3, {is_unread}, $4) AS listed"
        )
    };
    let states = |condition: &str| {
        format!(
            "(SELECT event.seq, event.timestamp, event.type, event.payload, event.event_key,
                  s.read_at, s.is_unread, s.archived_at
              FROM tidings_notify_state AS s JOIN tidings_notify_event AS event
                  ON event.log = s.log AND event.seq = s.seq
              WHERE s.log = l.id AND event.log = l.id AND event.seq <= $2 AND {condition}
                AND ($3::text IS NULL OR event.type = $3)
              ORDER BY event.seq DESC LIMIT $4)"
        )
    };
    match (query.archived_only, query.unread_only) {
        (false, false) => listed("l.first_seq", false),
        (true, false) => states("s.archived_at IS NOT NULL"),
        (true, true) => states("s.archived_at IS NOT NULL AND s.is_unread"),
        (false, true) => format!(
            "{} UNION ALL {}",
            listed("greatest(l.first_seq, l.read_seq + 1)", true),
            states("s.seq <= l.read_seq AND s.is_unread AND s.archived_at IS NULL")
        ),
    }
}

/// The statement that lists the inbox of the user $1: at most $4 events, with payloads of $5 bytes in all.
pub(super) fn inbox_statement(query: &InboxQuery) -> String {
    format!(
        "SELECT {}, {} FROM tidings_notify_log AS l {}
         LEFT JOIN LATERAL (
             SELECT page.*, page.place = 1 OR (page.place < $4 AND page.bytes <= $5) AS admitted
             FROM (
                 SELECT one.*, row_number() OVER down AS place,
                     sum(octet_length(one.payload)) OVER down AS bytes
                 FROM (SELECT * FROM ({}) AS found ORDER BY seq DESC LIMIT $4) AS one
                 WINDOW down AS (ORDER BY one.seq DESC)
             ) AS page
         ) AS e ON true
         WHERE l.user_id = $1 ORDER BY e.seq DESC",
        head!(),
        event!(),
        delivered!(),
        wanted(query)
    )
}

pub(super) async fn inbox(
    connections: &Connections,
    user: &UserId,
    query: &InboxQuery,
) -> Result<InboxPage, StoreError> {
    let statement = inbox_statement(query);
    let newest = query
        .before
        .map_or(i64::MAX, |before| column(before.seq.saturating_sub(1)));
    let event_type = query.event_type.as_ref().map(EventType::as_str);
    // One event more than asked for shows whether there is a next page.
    let limit = i64::try_from(query.limit)
        .unwrap_or(i64::MAX)
        .saturating_add(1);
    let parameters = [
        (&user.as_str() as _, Type::TEXT),
        (&newest as _, Type::INT8),
        (&event_type as _, Type::TEXT),
        (&limit as _, Type::INT8),
        (&bytes(MAX_INBOX_PAGE_BYTES) as _, Type::INT8),
    ];
    let rows = connections.query(&statement, &parameters).await?;
    let head = rows
        .first()
        .map(|row| head_at(row, 0))
        .transpose()?
        .flatten();
    // No cursor is one of a user without a log, whatever its epoch.
    if let Some(before) = query.before
        && head.as_ref().is_none_or(|head| head.epoch != before.epoch)
    {
        return Err(StoreError::ForeignCursor);
    }
    let head = head.unwrap_or(Head::EMPTY);
    let mut page = InboxPage::of(&head);
    for row in &rows {
        let Some(event) = event_of(row, user, head.epoch)? else {
            page.next = page.events.last().map(|event| event.id);
            break;
        };
        page.events.push(event);
    }
    Ok(page)
}

fn bytes(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// The head in a row, from this column on; an outer join may leave it empty.
pub(super) fn head_at(row: &Row, from: usize) -> Result<Option<Head>, StoreError> {
    let Some(of) = get::<Option<i64>>(row, from)? else {
        return Ok(None);
    };
    let count = |index: usize| get::<i64>(row, from + index).map(number);
    Ok(Some(Head {
        epoch: epoch(of),
        first_seq: count(1)?,
        top_seq: count(2)?,
        delivered_seq: count(3)?,
        unread: count(4)?,
        unseen: count(5)?,
        revision: count(6)?,
    }))
}

/// The event after the head in a row, if the row has one with its payload.
fn event_of(row: &Row, user: &UserId, epoch: Epoch) -> Result<Option<Event>, StoreError> {
    let at = |index: usize| HEAD_COLUMNS + index;
    let Some(payload) = get::<Option<String>>(row, at(3))? else {
        return Ok(None);
    };
    let optional_time = |index| {
        let microsecond = get::<Option<i64>>(row, at(index))?;
        Ok::<_, StoreError>(microsecond.map(at_microsecond))
    };
    let event_key = get::<Option<&str>>(row, at(4))?;
    Ok(Some(Event {
        id: EventId::new(epoch, number(get(row, at(0))?)),
        user: user.clone(),
        event_type: EventType::new(get::<&str>(row, at(2))?).map_err(StoreError::backend)?,
        payload: Payload::from_stored(payload).map_err(StoreError::backend)?,
        timestamp: at_microsecond(get(row, at(1))?),
        read_at: optional_time(5)?,
        archived_at: optional_time(6)?,
        key: event_key
            .map(EventKey::new)
            .transpose()
            .map_err(StoreError::backend)?,
    }))
}

pub(super) fn get<'a, T: tidings_postgres::tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    index: usize,
) -> Result<T, StoreError> {
    row.try_get(index).map_err(StoreError::backend)
}
