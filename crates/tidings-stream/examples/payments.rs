//! `cargo run -p tidings-stream --features sqlite --example payments -- payments.db`: a hundred payments,
//! each made exactly once. Kill it at any moment, as hard as you like, and start it again: it continues, and
//! the balance is right in the end.

#![allow(clippy::print_stdout, reason = "an example prints what happens")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidings_sqlite::{Database, Options};
use tidings_stream::sqlite::{SqliteEngine, publish_in, settle_in};
use tidings_stream::{
    Error, HandlerError, Message, NewMessage, ServiceConfig, StartFrom, Streams, SubscribeOptions,
};

/// How many payments there are: of 1, of 2, and so on.
pub(crate) const PAYMENTS: i64 = 100;

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args()
        .nth(1)
        .ok_or("expected the path of a file")?;
    println!("balance {}", run(Path::new(&path)).await?);
    Ok(())
}

/// Makes what is left of the payments, and returns the balance after them.
pub(crate) async fn run(path: &Path) -> Result<i64, Box<dyn std::error::Error>> {
    let database = Database::open(path, &Options::default())?;
    let engine = SqliteEngine::open(database.clone()).await?;
    let streams = Streams::new(Arc::new(engine), ServiceConfig::default());
    let receipts = streams.name("receipts")?;
    let accounts = "
        CREATE TABLE IF NOT EXISTS account (name TEXT PRIMARY KEY, balance INTEGER NOT NULL) STRICT;
        INSERT OR IGNORE INTO account VALUES ('shop', 0);";
    let make = database.write(|transaction| Ok::<_, Error>(transaction.execute_batch(accounts)?));
    make.await?;

    // Publishing them again after a kill is harmless: they have keys.
    let day = Duration::from_secs(24 * 60 * 60);
    let payment =
        |amount: i64| NewMessage::new(amount.to_string()).with_publish_key(amount.to_string(), day);
    let payments = (1..=PAYMENTS).map(payment).collect();
    streams.publish_batch("payments", payments).await?;

    // The balance, the receipt and the acknowledgement are one commit.
    let pay = {
        let database = database.clone();
        move |payment: Message| {
            let (database, receipts) = (database.clone(), receipts.clone());
            async move {
                let amount: i64 = std::str::from_utf8(&payment.payload)?.parse()?;
                let paying = database.write(move |transaction| {
                    let pay = "UPDATE account SET balance = balance + ?1 WHERE name = 'shop'";
                    transaction.execute(pay, [amount])?;
                    let receipt = NewMessage::new(format!("paid {amount}"));
                    publish_in(transaction, &receipts, &[receipt])?;
                    settle_in(transaction, &payment)
                });
                paying.await?;
                println!("paid {amount}");
                Ok::<(), HandlerError>(())
            }
        }
    };
    let options = SubscribeOptions::default()
        .with_start(StartFrom::Earliest)
        .with_concurrency(4);
    let consumer = streams.subscribe("payments", "bank", options, pay).await?;
    while streams
        .stats("payments")
        .await?
        .groups
        .iter()
        .any(|group| group.lag + group.pending > 0)
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    consumer.close().await;
    streams.close().await;

    let balance = "SELECT balance FROM account WHERE name = 'shop'";
    let balance = database.read(move |connection| {
        Ok::<i64, Error>(connection.query_row(balance, [], |row| row.get(0))?)
    });
    let balance = balance.await?;
    database.close().await;
    Ok(balance)
}
