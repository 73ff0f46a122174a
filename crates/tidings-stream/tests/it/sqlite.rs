//! What only the SQLite engine promises.

use std::time::Duration;

use tidings_sqlite::{Database, Options};
use tidings_stream::sqlite::{SqliteEngine, publish_in};
use tidings_stream::{Error, NewMessage, ServiceConfig, StartFrom, Streams, SubscribeOptions};
use tokio::sync::mpsc;

fn open_database(folder: &tempfile::TempDir) -> Database {
    Database::open(folder.path().join("test.db"), &Options::default()).unwrap()
}

#[tokio::test]
async fn a_message_of_the_callers_transaction_exists_once_it_commits() {
    let folder = tempfile::tempdir().unwrap();
    let database = open_database(&folder);
    let engine = SqliteEngine::open(database.clone()).await.unwrap();
    let streams = Streams::new(engine, ServiceConfig::default());
    let (sender, mut seen) = mpsc::channel(8);
    let options = SubscribeOptions::default()
        .with_start(StartFrom::Earliest)
        .with_poll_interval(Duration::from_secs(3600));
    let consumer = streams
        .subscribe("orders", "group", options, move |message| {
            let sender = sender.clone();
            async move { Ok(sender.send(message).await?) }
        })
        .await
        .unwrap();

    let name = streams.name("orders").unwrap();
    let publish = |body: &'static str, commit: bool| {
        let name = name.clone();
        database.write(move |tx| {
            let ids = publish_in(tx, &name, &[NewMessage::new(body)])?;
            if commit { Ok(ids) } else { Err(Error::Closed) }
        })
    };
    publish("never", false).await.unwrap_err();
    let ids = publish("once", true).await.unwrap();
    streams.wake(&name);
    let message = seen.recv().await.unwrap();
    assert_eq!(message.payload, "once");
    assert_eq!(vec![message.id], ids);
    assert_eq!(consumer.close().await.abandoned, 0);
    assert!(seen.recv().await.is_none());
}
