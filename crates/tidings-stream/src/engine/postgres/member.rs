//! The consumers of groups.

use std::time::Duration;

use tidings_postgres::Connections;
use tidings_postgres::tokio_postgres::types::Type;

use super::{failure, group};
use crate::engine::{ConsumerKey, GroupKey, time};
use crate::{Error, Member};

const CHECK_IN: &str = "SELECT tidings_stream_check_in($1, $2, $3, $4)";

const FORGET: &str = "SELECT tidings_stream_forget_members()";

const LIST: &str = "SELECT consumer, is_alive, pending FROM tidings_stream_members($1)";

/// Notes that consumers are alive for some time, or, when it is zero, that they have gone.
pub(super) async fn check_in(
    connections: &Connections,
    consumers: &[ConsumerKey],
    ttl: Duration,
) -> Result<(), Error> {
    let streams: Vec<&str> = consumers
        .iter()
        .map(|it| it.group.stream.as_str())
        .collect();
    let groups: Vec<&str> = consumers.iter().map(|it| it.group.group.as_str()).collect();
    let names: Vec<&str> = consumers.iter().map(|it| &*it.consumer).collect();
    let parameters = [
        (&streams as _, Type::TEXT_ARRAY),
        (&groups as _, Type::TEXT_ARRAY),
        (&names as _, Type::TEXT_ARRAY),
        (&time::millis(ttl) as _, Type::INT8),
    ];
    connections.query(CHECK_IN, &parameters).await?;
    Ok(())
}

/// Forgets consumers that are no longer taken to be alive.
pub(super) async fn forget_the_gone(connections: &Connections) -> Result<(), Error> {
    connections.query(FORGET, &[]).await?;
    Ok(())
}

/// The consumers of a group that are alive or hold a claim.
pub(super) async fn list(connections: &Connections, key: &GroupKey) -> Result<Vec<Member>, Error> {
    let group_id = group::find(connections, key).await?;
    let parameters = [(&group_id as _, Type::INT8)];
    let rows = connections.query(LIST, &parameters).await?;
    rows.iter()
        .map(|row| {
            Ok(Member {
                consumer: row.try_get(0).map_err(failure::column)?,
                is_alive: row.try_get(1).map_err(failure::column)?,
                pending: row
                    .try_get::<_, i64>(2)
                    .map_err(failure::column)?
                    .cast_unsigned(),
            })
        })
        .collect()
}
