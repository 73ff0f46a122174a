//! Changing the inbox.

use jiff::Timestamp;
use tidings_postgres::Connections;
use tidings_postgres::tokio_postgres::types::Type;

use super::log::get;
use super::schema::{column, epoch, epoch_column, number};
use crate::change::{Changed, InboxAction, InboxChange, InboxUpdate};
use crate::{EventId, StoreError, UserId};

const CHANGE: &str = "SELECT changed, seqs, revision, unread, unseen, epoch, top_seq
    FROM tidings_notify_change($1, $2, $3, $4, $5)";

pub(super) async fn change(
    connections: &Connections,
    user: &UserId,
    action: &InboxAction,
    at: Timestamp,
) -> Result<InboxUpdate, StoreError> {
    let (name, ids): (&str, &[EventId]) = match action {
        InboxAction::Read(ids) => ("read", ids),
        InboxAction::Unread(ids) => ("unread", ids),
        InboxAction::Archive(ids) => ("archive", ids),
        InboxAction::Unarchive(ids) => ("unarchive", ids),
        InboxAction::ReadUpTo(id) => ("read_up_to", std::slice::from_ref(id)),
        InboxAction::ReadAll => ("read_up_to", &[]),
        InboxAction::SeeUpTo(id) => ("see_up_to", std::slice::from_ref(id)),
        InboxAction::SeeAll => ("see_up_to", &[]),
    };
    let epochs: Vec<i64> = ids.iter().map(|id| epoch_column(id.epoch)).collect();
    let seqs: Vec<i64> = ids.iter().map(|id| column(id.seq)).collect();
    let parameters = [
        (&user.as_str() as _, Type::TEXT),
        (&name as _, Type::TEXT),
        (&epochs as _, Type::INT8_ARRAY),
        (&seqs as _, Type::INT8_ARRAY),
        (&at.as_microsecond() as _, Type::INT8),
    ];
    let rows = connections.query(CHANGE, &parameters).await?;
    let Some(row) = rows.first() else {
        return Ok(InboxUpdate::nothing());
    };
    let epoch = epoch(get(row, 5)?);
    let changed = get::<Vec<i64>>(row, 1)?;
    let ids: Vec<_> = changed
        .into_iter()
        .map(|seq| EventId::new(epoch, number(seq)))
        .collect();
    let up_to = |what: fn(EventId) -> Changed| {
        // An id of another log changes nothing.
        ids.first().copied().map_or(Changed::Read([].into()), what)
    };
    let what = match action {
        InboxAction::ReadUpTo(_) | InboxAction::ReadAll => up_to(Changed::ReadUpTo),
        InboxAction::SeeUpTo(_) | InboxAction::SeeAll => up_to(Changed::SeenUpTo),
        InboxAction::Read(_) => Changed::Read(ids.into()),
        InboxAction::Unread(_) => Changed::Unread(ids.into()),
        InboxAction::Archive(_) => Changed::Archived(ids.into()),
        InboxAction::Unarchive(_) => Changed::Unarchived(ids.into()),
    };
    let count = |index| get::<i64>(row, index).map(number);
    Ok(InboxUpdate {
        changed: count(0)?,
        revision: count(2)?,
        change: InboxChange {
            what,
            unread: count(3)?,
            unseen: count(4)?,
            cursor: EventId::new(epoch, count(6)?),
        },
    })
}
