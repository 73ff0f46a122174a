//! What is asked.

use std::collections::HashSet;

use tidings_postgres::Database;
use tidings_postgres::tokio_postgres::Row;
use tidings_postgres::tokio_postgres::types::{ToSql, Type};

use super::{failure, writing};
use crate::presence::{Mark, PresenceError, Transition, Transitions};
use crate::{RoutingInfo, UserId};

/// Most users in one statement.
const CHUNK: usize = 1000;

const ONLINE: &str = "
    SELECT DISTINCT user_id
    FROM tidings_presence_user JOIN tidings_presence_lease USING (lease_id)
    WHERE user_id = ANY ($1) AND ends_at > clock_timestamp()";

const LOCATE: &str = "
    SELECT DISTINCT routing
    FROM tidings_presence_user JOIN tidings_presence_lease USING (lease_id)
    WHERE user_id = $1 AND ends_at > clock_timestamp()";

/// A row without a transition says that there is none.
const TRANSITIONS: &str = "
    SELECT log.epoch, log.number, page.number, page.user_id, page.is_online
    FROM tidings_presence_log log LEFT JOIN LATERAL (
        SELECT * FROM tidings_presence_transition t
        WHERE t.number > $2 AND log.epoch = $1 ORDER BY t.number LIMIT $3
    ) page ON true
    ORDER BY page.number";

const BEGIN_LOG: &str = "SELECT tidings_presence_lock()";

async fn query(
    database: &Database,
    statement: &str,
    parameters: &[(&(dyn ToSql + Sync), Type)],
) -> Result<Vec<Row>, PresenceError> {
    database
        .run(|client| async move { client.query_typed(statement, parameters).await })
        .await
        .map_err(PresenceError::backend)
}

pub(super) async fn online_users(
    database: &Database,
    users: &[UserId],
) -> Result<Vec<UserId>, PresenceError> {
    let mut online: HashSet<String> = HashSet::new();
    for chunk in users.chunks(CHUNK) {
        let names: Vec<&str> = chunk.iter().map(UserId::as_str).collect();
        for row in query(database, ONLINE, &[(&names, Type::TEXT_ARRAY)]).await? {
            online.insert(failure::column(&row, 0)?);
        }
    }
    let is_online = |user: &&UserId| online.contains(user.as_str());
    Ok(users.iter().filter(is_online).cloned().collect())
}

pub(super) async fn locate(
    database: &Database,
    user: &UserId,
) -> Result<Vec<RoutingInfo>, PresenceError> {
    let rows = query(database, LOCATE, &[(&user.as_str(), Type::TEXT)]).await?;
    if rows.is_empty() {
        return Err(PresenceError::NotFound);
    }
    let place = |row: &Row| {
        let routing: &str = failure::column(row, 0)?;
        serde_json::from_str(routing).map_err(PresenceError::backend)
    };
    rows.iter().map(place).collect()
}

pub(super) async fn transitions(
    database: &Database,
    kept: i64,
    after: Option<Mark>,
    limit: usize,
) -> Result<Transitions, PresenceError> {
    let has_ended = writing::reap(database, kept).await?;
    // Nothing comes after the largest number, so that a question without a mark gets no transition.
    let from = after.map_or(i64::MAX, |mark| mark.number.cast_signed());
    let epoch = after.map_or(0, |mark| mark.epoch.cast_signed());
    let limit = i64::try_from(limit.max(1)).unwrap_or(i64::MAX);
    let mut rows = Vec::new();
    // A log that was lost begins anew.
    for _ in 0..2 {
        rows = query(
            database,
            TRANSITIONS,
            &[
                (&epoch, Type::INT8),
                (&from, Type::INT8),
                (&limit, Type::INT8),
            ],
        )
        .await?;
        if !rows.is_empty() {
            break;
        }
        query(database, BEGIN_LOG, &[]).await?;
    }
    let log = rows.first().ok_or_else(failure::unexpected)?;
    let number = |row: &Row, at| failure::column(row, at).map(i64::cast_unsigned);
    let (epoch, last) = (number(log, 0)?, number(log, 1)?);
    let first: Option<i64> = failure::column(log, 2)?;
    let page: Vec<Transition> = match first {
        None => Vec::new(),
        Some(_) => rows.iter().map(transition).collect::<Result<_, _>>()?,
    };
    let first = first.map(i64::cast_unsigned);
    let mut page = Transitions::page(after, epoch, last, first, page);
    page.has_more |= has_ended;
    Ok(page)
}

fn transition(row: &Row) -> Result<Transition, PresenceError> {
    let user: &str = failure::column(row, 3)?;
    Ok(Transition {
        user: UserId::new(user).map_err(PresenceError::backend)?,
        is_online: failure::column(row, 4)?,
    })
}
