//! Listing the logs that changed.
//!
//! A transaction is seen when it commits, and not in the order of its number. So a mark is a snapshot:
//! it says which transactions were seen. What changed since is what is in the present snapshot and
//! not in that one, so nothing is missed and nothing is listed again, however long another transaction
//! stays open.

use std::fmt::{self, Display};

use tidings_postgres::Connections;
use tidings_postgres::tokio_postgres::types::Type;

use super::log::{delivered, get, head, head_at};
use crate::{ChangeMark, Changes, LogChange, StoreError, UserId};

/// What a mark says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    /// Where the logs are written: elsewhere, a snapshot means something else.
    line: i32,
    seen: Snapshot,
    /// Where a list was cut, and the snapshot that it is of.
    cut: Option<Cut>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Cut {
    within: Snapshot,
    changed: u64,
    log: i64,
}

/// A snapshot as the server writes it: `xmin:xmax:xip,xip…`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Snapshot(String);

impl Snapshot {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let bounds = [parts.next()?, parts.next()?];
        let running = parts.next()?;
        let are_numbers = bounds
            .into_iter()
            .chain(running.split(',').filter(|_| !running.is_empty()))
            .all(|number| number.parse::<u64>().is_ok());
        (are_numbers && parts.next().is_none()).then(|| Self(text.to_owned()))
    }

    /// The first transaction that had not begun.
    fn end(&self) -> u64 {
        let end = self.0.split(':').nth(1);
        end.and_then(|end| end.parse().ok()).unwrap_or(0)
    }
}

impl Mark {
    fn parse(mark: &ChangeMark) -> Option<Self> {
        let text = std::str::from_utf8(mark.as_bytes()).ok()?;
        let mut parts = text.split(' ');
        let line = parts.next()?.parse().ok()?;
        let seen = Snapshot::parse(parts.next()?)?;
        let cut = match parts.next() {
            None => None,
            Some(within) => Some(Cut {
                within: Snapshot::parse(within)?,
                changed: parts.next()?.parse().ok()?,
                log: parts.next()?.parse().ok()?,
            }),
        };
        Some(Self { line, seen, cut })
    }
}

impl Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.line, self.seen.0)?;
        if let Some(Cut {
            within,
            changed,
            log,
        }) = &self.cut
        {
            write!(f, " {} {changed} {log}", within.0)?;
        }
        Ok(())
    }
}

impl From<&Mark> for ChangeMark {
    fn from(mark: &Mark) -> Self {
        Self::from_bytes(mark.to_string().into_bytes())
    }
}

const MARK: &str = "SELECT tidings_notify_line(), pg_current_snapshot()::text";

/// Transactions that were not seen are those that had not begun, and those that were running. The logs of a restored dump
/// have the numbers that the transactions had in their old cluster: the new one looks at none that it has not reached.
pub(super) const CHANGES: &str = concat!(
    "SELECT present.line, present.snapshot::text, l.user_id, l.changed::text, l.id, ",
    head!(),
    " FROM (SELECT tidings_notify_line() AS line, pg_current_snapshot() AS snapshot) AS present
    LEFT JOIN LATERAL (
        SELECT later.* FROM (
            SELECT log.* FROM tidings_notify_log AS log
            WHERE log.changed >= pg_snapshot_xmax($1::text::pg_snapshot)
            AND log.changed < pg_snapshot_xmax(coalesce($2::text::pg_snapshot, present.snapshot))
            UNION ALL
            SELECT log.* FROM tidings_notify_log AS log
            WHERE log.changed = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
        ) AS later
        WHERE pg_visible_in_snapshot(
                later.changed, coalesce($2::text::pg_snapshot, present.snapshot))
            AND (later.changed, later.id) > ($3::text::xid8, $4::bigint)
        ORDER BY later.changed, later.id LIMIT $5
    ) AS l ON true ",
    delivered!(),
    " ORDER BY l.changed, l.id"
);

pub(super) async fn mark(connections: &Connections) -> Result<ChangeMark, StoreError> {
    let row = connections.row(MARK, &[]).await?;
    let mark = Mark {
        line: get(&row, 0)?,
        seen: snapshot(get(&row, 1)?)?,
        cut: None,
    };
    Ok((&mark).into())
}

pub(super) async fn changes(
    connections: &Connections,
    after: &ChangeMark,
    limit: usize,
) -> Result<Changes, StoreError> {
    let rewound = async || {
        Ok(Changes {
            mark: mark(connections).await?,
            logs: Vec::new(),
            more: false,
            rewound: true,
        })
    };
    let Some(after) = Mark::parse(after) else {
        return rewound().await;
    };
    let within = after.cut.as_ref().map(|cut| cut.within.0.as_str());
    let changed = after.cut.as_ref().map_or(0, |cut| cut.changed).to_string();
    let log = after.cut.as_ref().map_or(0, |cut| cut.log);
    let limit = i64::try_from(limit.max(1)).unwrap_or(i64::MAX);
    let parameters = [
        (&after.seen.0 as _, Type::TEXT),
        (&within as _, Type::TEXT),
        (&changed as _, Type::TEXT),
        (&log as _, Type::INT8),
        (&limit as _, Type::INT8),
    ];
    let rows = connections.query(CHANGES, &parameters).await?;
    let Some(first) = rows.first() else {
        return Err(StoreError::backend("the database returned no row"));
    };
    let (line, present) = (get::<i32>(first, 0)?, snapshot(get(first, 1)?)?);
    if line != after.line || present.end() < after.seen.end() {
        return rewound().await;
    }
    let within = after.cut.map_or(present, |cut| cut.within);
    let mut logs = Vec::new();
    let mut last = None;
    for row in &rows {
        let Some(head) = head_at(row, 5)? else { break };
        let user = get::<&str>(row, 2)?;
        logs.push(LogChange {
            user: UserId::new(user).map_err(StoreError::backend)?,
            head,
        });
        last = Some((get::<&str>(row, 3)?, get::<i64>(row, 4)?));
    }
    let is_cut = i64::try_from(logs.len()).is_ok_and(|listed| listed >= limit);
    let next = match last.filter(|_| is_cut) {
        Some((changed, log)) => Mark {
            line,
            seen: after.seen,
            cut: Some(Cut {
                within,
                changed: changed.parse().map_err(StoreError::backend)?,
                log,
            }),
        },
        None => Mark {
            line,
            seen: within,
            cut: None,
        },
    };
    Ok(Changes {
        mark: (&next).into(),
        logs,
        more: is_cut,
        rewound: false,
    })
}

fn snapshot(text: &str) -> Result<Snapshot, StoreError> {
    Snapshot::parse(text).ok_or_else(|| StoreError::backend("the database wrote no snapshot"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_back_as_written_and_nothing_else_is_one() {
        for text in [
            "1 100:100:",
            "1 100:105:100,103",
            "-3 1:2: 100:105:100,103 104 17",
        ] {
            let mark = ChangeMark::from_bytes(text.as_bytes().to_vec());
            let parsed = Mark::parse(&mark).unwrap();
            assert_eq!(ChangeMark::from(&parsed), mark);
        }
        for text in [
            "",
            "1",
            "1 100",
            "1 100:x:",
            "x 1:1:",
            "1 1:1: 1:1:",
            "1 1:1:,",
        ] {
            let mark = ChangeMark::from_bytes(text.as_bytes().to_vec());
            assert_eq!(Mark::parse(&mark), None, "{text:?}");
        }
    }
}
