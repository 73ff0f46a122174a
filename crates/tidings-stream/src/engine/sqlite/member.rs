//! The consumers of groups.

use rusqlite::{Connection, Transaction, params};

use super::lease::Lease;
use super::{clock, group};
use crate::engine::{ConsumerKey, GroupKey};
use crate::{Error, Member, Result};

/// Notes that consumers are alive for some time, or, when it is zero, that they have gone.
pub(super) fn check_in(
    transaction: &Transaction<'_>,
    consumers: &[ConsumerKey],
    ttl: i64,
) -> Result<()> {
    let expires = clock::now().saturating_add(ttl);
    for ConsumerKey { group, consumer } in consumers {
        let Some(group) = group::find(transaction, group)? else {
            continue;
        };
        if ttl == 0 {
            transaction
                .prepare_cached("DELETE FROM stream_member WHERE group_id = ?1 AND consumer = ?2")?
                .execute(params![group.group_id, consumer])?;
        } else {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO stream_member VALUES (?1, ?2, ?3)")?
                .execute(params![group.group_id, consumer, expires])?;
        }
    }
    Ok(())
}

/// Forgets consumers that are no longer taken to be alive.
pub(super) fn forget_the_gone(transaction: &Transaction<'_>) -> Result<()> {
    transaction.execute(
        "DELETE FROM stream_member WHERE expires <= ?1",
        [clock::now()],
    )?;
    Ok(())
}

/// The consumers of a group that are alive or hold a claim.
pub(super) fn list(connection: &Connection, key: &GroupKey) -> Result<Vec<Member>> {
    let group = group::find(connection, key)?.ok_or(Error::UnknownGroup)?;
    let mut members: Vec<Member> = connection
        .prepare_cached(
            "SELECT name, max(is_alive), sum(pending) FROM (
                 SELECT consumer AS name, 1 AS is_alive, 0 AS pending FROM stream_member
                 WHERE group_id = ?1 AND expires > ?2
                 UNION ALL
                 SELECT ifnull(consumer, ''), 0, 1 FROM stream_retry
                 WHERE group_id = ?1 AND claim IS NOT NULL
                 UNION ALL
                 SELECT consumer, 0, 0 FROM stream_lease WHERE group_id = ?1)
             GROUP BY name ORDER BY name",
        )?
        .query_map([group.group_id, clock::now()], |row| {
            Ok(Member {
                consumer: row.get(0)?,
                is_alive: row.get(1)?,
                pending: row.get::<_, i64>(2)?.cast_unsigned(),
            })
        })?
        .collect::<Result<_, _>>()?;
    for lease in Lease::select(connection, "group_id = ?1", [group.group_id])? {
        if let Ok(index) = members.binary_search_by(|member| member.consumer.cmp(&lease.consumer))
            && let Some(member) = members.get_mut(index)
        {
            member.pending += lease.messages.open_count() as u64;
        }
    }
    Ok(members)
}
