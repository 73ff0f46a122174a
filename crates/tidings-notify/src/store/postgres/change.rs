//! Changing the inbox.

use jiff::Timestamp;
use tidings_postgres::Connections;
use tidings_postgres::tokio_postgres::types::Type;
use tokio::time::sleep_until;

use super::log::get;
use super::patience::Patience;
use super::schema::{column, epoch, epoch_column, number};
use crate::change::{InboxAction, InboxChange, InboxUpdate};
use crate::{EventId, StoreError, UserId};

/// No row when the user has no log, and a row without values when another transaction holds it.
const CHANGE: &str = "
    WITH free AS MATERIALIZED (
        SELECT log.user_id FROM tidings_notify_log AS log WHERE log.user_id = $1
        FOR NO KEY UPDATE SKIP LOCKED
    )
    SELECT change.changed, change.seqs, change.revision, change.unread, change.unseen,
        change.epoch, change.top_seq
    FROM tidings_notify_log AS log
    LEFT JOIN free ON true
    LEFT JOIN LATERAL tidings_notify_change(free.user_id, $2, $3, $4, $5) AS change ON true
    WHERE log.user_id = $1";

pub(super) async fn change(
    connections: &Connections,
    mut patience: Patience,
    user: &UserId,
    action: &InboxAction,
    at: Timestamp,
) -> Result<InboxUpdate, StoreError> {
    let (name, ids) = action.name_and_ids();
    let epochs: Vec<i64> = ids.iter().map(|id| epoch_column(id.epoch)).collect();
    let seqs: Vec<i64> = ids.iter().map(|id| column(id.seq)).collect();
    let parameters = [
        (&user.as_str() as _, Type::TEXT),
        (&name as _, Type::TEXT),
        (&epochs as _, Type::INT8_ARRAY),
        (&seqs as _, Type::INT8_ARRAY),
        (&at.as_microsecond() as _, Type::INT8),
    ];
    let row = loop {
        let mut rows = connections.query(CHANGE, &parameters).await?;
        let Some(row) = rows.pop() else {
            return Ok(InboxUpdate::nothing());
        };
        if get::<Option<i64>>(&row, 0)?.is_some() {
            break row;
        }
        sleep_until(patience.again_at()?).await;
    };
    let row = &row;
    let epoch = epoch(get(row, 5)?);
    let changed = get::<Vec<i64>>(row, 1)?;
    let ids: Vec<_> = changed
        .into_iter()
        .map(|seq| EventId::new(epoch, number(seq)))
        .collect();
    let count = |index| get::<i64>(row, index).map(number);
    Ok(InboxUpdate {
        changed: count(0)?,
        revision: count(2)?,
        change: InboxChange {
            what: action.changed(ids),
            unread: count(3)?,
            unseen: count(4)?,
            cursor: EventId::new(epoch, count(6)?),
        },
    })
}
