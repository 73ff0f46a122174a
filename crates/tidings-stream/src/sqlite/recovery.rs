//! What an engine that is alone on its file does with the claims of earlier runs.

use rusqlite::Transaction;

use super::clock;
use super::lease::{LEASE_COLUMNS, Lease};
use crate::Error;

/// Ends every claim, since nobody is left to settle it, and lets no message wait longer than it was
/// told to, wherever the clock stands now.
pub(super) fn bring_back_claims(transaction: &Transaction<'_>) -> Result<(), Error> {
    let now = clock::now();
    let leases: Vec<Lease> = transaction
        .prepare(&format!("SELECT {LEASE_COLUMNS} FROM stream_lease"))?
        .query_map([], Lease::read)?
        .collect::<Result<_, _>>()?;
    for lease in leases {
        lease.explode(transaction, now)?;
    }
    let recovered = transaction.execute(
        "UPDATE stream_retry SET claim = NULL, consumer = NULL, since = ?1, due = ?1, delay = 0
         WHERE claim IS NOT NULL",
        [now],
    )?;
    transaction.execute(
        "UPDATE stream_retry SET due = ?1 + delay WHERE due > ?1 + delay",
        [now],
    )?;
    if recovered > 0 {
        tracing::info!(
            messages = recovered,
            "messages that an earlier run had claimed come again"
        );
    }
    Ok(())
}
