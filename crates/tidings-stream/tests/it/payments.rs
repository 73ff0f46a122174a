//! The example that makes each payment once, killed again and again.

use std::path::Path;

use tidings_sqlite::{Database, Options};
use tidings_stream::Error;
use tokio::runtime::Runtime;

use crate::children::start;

#[path = "../../examples/payments.rs"]
#[expect(dead_code, reason = "the test calls what main calls")]
mod example;

/// Has the file of the example in a child.
const FILE: &str = "TIDINGS_STREAM_PAYMENTS_FILE";

#[test]
fn each_payment_is_made_once_over_kills() {
    let runtime = Runtime::new().unwrap();
    let pay = |path: &str| runtime.block_on(example::run(Path::new(path))).unwrap();
    if let Ok(path) = std::env::var(FILE) {
        pay(&path);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("payments.db");
    let path = path.to_str().unwrap();
    let mut paid = 0;
    for round in 0..6 {
        let test = "payments::each_payment_is_made_once_over_kills";
        let (mut child, lines) = start(test, FILE, path);
        // Death comes after a number of lines, not after a time.
        let lines = lines.filter(|line| line.contains("paid "));
        for (number, _) in (0..).zip(lines) {
            paid += 1;
            if number == 5 + round {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
    }
    assert!((30..example::PAYMENTS).contains(&paid), "{paid}");
    assert_eq!(pay(path), (1..=example::PAYMENTS).sum::<i64>());
    let receipts = runtime.block_on(async {
        let database = Database::open(path, &Options::default()).unwrap();
        let receipts = "SELECT count(*), count(DISTINCT payload) FROM stream_message
            WHERE CAST(payload AS TEXT) LIKE 'paid %'";
        let reading = database.read(move |connection| {
            let counts = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            Ok::<(i64, i64), Error>(connection.query_row(receipts, [], counts)?)
        });
        reading.await.unwrap()
    });
    assert_eq!(receipts, (example::PAYMENTS, example::PAYMENTS));
}
