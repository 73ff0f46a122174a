//! Settling messages in transactions of their handlers, on the engines that can.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tidings_sqlite::{Database, Options};
use tidings_stream::engine::{ConsumerKey, Engine, Outcome, Receipt, Settlement};
use tidings_stream::sqlite::SqliteEngine;
use tidings_stream::{
    BatchError, Consumer, ConsumerStats, Error, HandlerError, Message, MessageId, NewMessage,
    RetryDelay, ServiceConfig, StartFrom, Streams, SubscribeOptions, postgres,
};
use tokio::sync::{Notify, mpsc};

use crate::database::{NEVER, Schema, from_start, key, next, numbered, recorder, soon, until};
use crate::effects::{Effects, End, Failed};

/// Streams with a table for effects beside them.
struct Place {
    streams: Streams,
    engine: Arc<dyn Engine>,
    effects: Effects,
    schema: Option<Schema>,
    _folder: Option<TempDir>,
}

async fn on_sqlite() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path().join("test.db"), &Options::default()).unwrap();
    let engine = Arc::new(SqliteEngine::open(database.clone()).await.unwrap());
    let effects = Effects::Sqlite(database);
    Place::new(engine, effects, None, Some(folder)).await
}

async fn on_postgres() -> Place {
    let schema = Schema::create().await;
    let effects = Effects::Postgres(schema.url());
    Place::new(Arc::new(schema.engine().await), effects, Some(schema), None).await
}

impl Place {
    async fn new(
        engine: Arc<dyn Engine>,
        effects: Effects,
        schema: Option<Schema>,
        folder: Option<TempDir>,
    ) -> Self {
        effects.create().await;
        Self {
            streams: Streams::new(Arc::clone(&engine), ServiceConfig::default()),
            engine,
            effects,
            schema,
            _folder: folder,
        }
    }

    /// Starts a consumer whose handler applies the effect of each message and then does `then`.
    async fn subscribe<F>(
        &self,
        options: SubscribeOptions,
        handler: impl Fn(Effects, Message) -> F + Send + Sync + 'static,
    ) -> Consumer
    where
        F: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let effects = self.effects.clone();
        let handler = move |message: Message| handler(effects.clone(), message);
        let subscribed = self.streams.subscribe("s", "g", options, handler).await;
        subscribed.unwrap()
    }

    async fn pending(&self) -> u64 {
        self.streams.stats("s").await.unwrap().groups[0].pending
    }
}

fn acknowledged(messages: u64) -> ConsumerStats {
    let mut stats = ConsumerStats::default();
    stats.acknowledged = messages;
    stats
}

fn at_once() -> SubscribeOptions {
    from_start().with_retry_delay(RetryDelay::fixed(Duration::ZERO))
}

macro_rules! on_both_engines {
    ($($test:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::on_sqlite().await).await;
            })*
        }
        mod on_postgres {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::on_postgres().await).await;
            })*
        }
    };
}

on_both_engines! {
    an_effect_and_its_acknowledgement_are_committed_together
    a_rolled_back_transaction_brings_its_message_again
    a_committed_transaction_holds_whatever_its_handler_does_then
    a_message_whose_transactions_all_fail_dies
    a_batch_settles_a_part_in_a_transaction
    a_lost_claim_is_refused
    a_handler_may_go_on_after_its_transaction
    a_transaction_lets_the_next_message_of_its_key_come
    a_pulled_message_is_settled_in_a_transaction
    only_what_a_handler_has_can_be_settled
}

async fn an_effect_and_its_acknowledgement_are_committed_together(place: Place) {
    let options = from_start().with_concurrency(4);
    let consumer = place
        .subscribe(options, |effects, message| async move {
            effects.apply(0, &message, End::Commit).await?;
            Ok(())
        })
        .await;
    place
        .streams
        .publish_batch("s", numbered(50))
        .await
        .unwrap();
    until(async || consumer.stats().acknowledged == 50).await;
    assert_eq!(consumer.stats(), acknowledged(50));
    assert_eq!(place.pending().await, 0);
    let effects = place.effects.all().await;
    assert!(effects.values().all(|attempt| *attempt == 1));
    assert_eq!(effects.len(), 50);
    let report = consumer.close().await;
    assert_eq!(report.abandoned, 0);
}

/// Also when the handler takes it for a success, and on a second attempt, which is settled in another way.
async fn a_rolled_back_transaction_brings_its_message_again(place: Place) {
    let consumer = place
        .subscribe(at_once(), |effects, message| async move {
            let end = if message.attempt < 3 {
                End::Rollback
            } else {
                End::Commit
            };
            effects.apply(0, &message, end).await?;
            Ok(())
        })
        .await;
    place.streams.publish_batch("s", numbered(5)).await.unwrap();
    until(async || consumer.stats().acknowledged == 5).await;
    let mut expected = acknowledged(5);
    expected.retried = 10;
    assert_eq!(consumer.stats(), expected);
    let effects = place.effects.all().await;
    assert_eq!(effects.into_values().collect::<Vec<_>>(), [3; 5]);
    consumer.close().await;
}

async fn a_committed_transaction_holds_whatever_its_handler_does_then(place: Place) {
    let options = at_once()
        .with_max_retries(0)
        .with_handler_timeout(Duration::from_secs(2));
    let consumer = place
        .subscribe(options, |effects, message| async move {
            effects.apply(0, &message, End::Commit).await?;
            match &*message.payload {
                b"1" => Err(HandlerError::retry("again")),
                b"2" => Err(HandlerError::skip_retry("never")),
                b"3" => panic!("the handler panics"),
                _ => std::future::pending().await,
            }
        })
        .await;
    place.streams.publish_batch("s", numbered(4)).await.unwrap();
    until(async || consumer.stats().acknowledged == 4).await;
    assert_eq!(consumer.stats(), acknowledged(4));
    assert_eq!(place.streams.stats("s.dead").await.unwrap().messages, 0);
    assert_eq!(place.pending().await, 0);
    consumer.close().await;
}

async fn a_message_whose_transactions_all_fail_dies(place: Place) {
    let options = at_once().with_max_retries(1);
    let consumer = place
        .subscribe(options, |effects, message| async move {
            effects.apply(0, &message, End::Rollback).await?;
            Ok(())
        })
        .await;
    place.streams.publish_batch("s", numbered(1)).await.unwrap();
    until(async || consumer.stats().dead_lettered == 1).await;
    assert_eq!(consumer.stats().retried, 1);
    let letter = place
        .streams
        .read("s.dead", None, 1)
        .await
        .unwrap()
        .remove(0);
    let error = &letter.headers[tidings_stream::dead_letter::ERROR];
    assert_eq!(error, "the transaction of the handler was not committed");
    assert!(place.effects.all().await.is_empty());
    consumer.close().await;
}

async fn a_batch_settles_a_part_in_a_transaction(place: Place) {
    let effects = place.effects.clone();
    let handler = move |messages: Vec<Message>| {
        let effects = effects.clone();
        async move {
            let mut failed = BatchError::none();
            for message in messages {
                match message.id.as_u64() % 3 {
                    0 => effects.apply(0, &message, End::Commit).await?,
                    1 if message.attempt == 1 => {
                        failed.push(message.id, HandlerError::retry("again"));
                    }
                    _ => {}
                }
            }
            failed.into_result()
        }
    };
    place
        .streams
        .publish_batch("s", numbered(30))
        .await
        .unwrap();
    let consumer = place.streams.subscribe_batch("s", "g", at_once(), handler);
    let consumer = consumer.await.unwrap();
    until(async || consumer.stats().acknowledged == 30).await;
    let mut expected = acknowledged(30);
    expected.retried = 10;
    assert_eq!(consumer.stats(), expected);
    assert_eq!(place.effects.all().await.len(), 10);
    consumer.close().await;
}

/// On the first attempt and on a later one, which are settled in different ways.
async fn a_lost_claim_is_refused(place: Place) {
    let (sender, mut applied) = mpsc::channel(8);
    let engine = Arc::clone(&place.engine);
    let consumer = place
        .subscribe(at_once(), move |effects, message| {
            let (engine, sender) = (Arc::clone(&engine), sender.clone());
            let lost_at = if message.payload == "1" { 1 } else { 2 };
            async move {
                match message.attempt.cmp(&lost_at) {
                    Ordering::Less => return Err(HandlerError::retry("again")),
                    Ordering::Equal => {
                        let taken = take_over(&*engine, &message).await;
                        let refused = effects.apply(0, &message, End::Commit).await;
                        let refused = refused.unwrap_err();
                        assert!(
                            matches!(refused, Failed::Streams(Error::ClaimLost)),
                            "{refused:?}"
                        );
                        give_back(&*engine, taken).await;
                    }
                    Ordering::Greater => {
                        effects.apply(0, &message, End::Commit).await?;
                        sender.send(message.attempt).await?;
                    }
                }
                Ok(())
            }
        })
        .await;
    for (number, attempt) in [("1", 2), ("2", 3)] {
        place
            .streams
            .publish("s", NewMessage::new(number))
            .await
            .unwrap();
        assert_eq!(soon(applied.recv()).await, Some(attempt));
    }
    until(async || consumer.stats().acknowledged == 2).await;
    let mut expected = acknowledged(2);
    (expected.retried, expected.stale) = (1, 2);
    assert_eq!(consumer.stats(), expected);
    let effects = place.effects.all().await;
    assert_eq!(effects.into_values().collect::<Vec<_>>(), [2, 3]);
    consumer.close().await;
}

/// Lets another consumer have a message, with the same attempt.
async fn take_over(engine: &dyn Engine, message: &Message) -> Receipt {
    let group = key("s", "g");
    let before = MessageId::from_u64(message.id.as_u64() - 1);
    engine.seek(&group, StartFrom::After(before)).await.unwrap();
    let consumer = "other".into();
    let other = ConsumerKey { group, consumer };
    let mut taken = None;
    for _ in 0..message.attempt {
        if let Some(taken) = taken.take() {
            give_back(engine, taken).await;
        }
        let claimed = engine
            .claim(&other, 1, NEVER.into())
            .await
            .unwrap()
            .messages;
        taken = claimed.first().map(|it| it.receipt);
    }
    taken.unwrap()
}

async fn give_back(engine: &dyn Engine, receipt: Receipt) {
    let outcome = Outcome::Retry {
        delay: Duration::ZERO,
        error: None,
    };
    let settlement = Arc::from([Settlement { receipt, outcome }]);
    let settled = engine.settle(&key("s", "g"), settlement).await;
    assert_eq!(settled.unwrap(), [true]);
}

/// Its claims cannot be extended any more, and need not.
async fn a_handler_may_go_on_after_its_transaction(place: Place) {
    goes_on_after_its_transaction(place, |_| async { Ok(()) }).await;
}

/// Its claims are gone, and none of them can expire.
#[tokio::test]
async fn a_handler_goes_on_after_its_transaction_while_sqlite_does_not_reply() {
    goes_on_after_its_transaction(on_sqlite().await, |effects| async move {
        let Effects::Sqlite(database) = effects else {
            panic!("it is on SQLite");
        };
        let (release, held) = std::sync::mpsc::channel::<()>();
        let holding = database.write(move |_| Ok::<_, Error>(held.recv().is_err()));
        let waiting = async {
            tokio::time::sleep(VISIBILITY * 2).await;
            drop(release);
        };
        assert!(tokio::join!(holding, waiting).0?);
        Ok(())
    })
    .await;
}

const VISIBILITY: Duration = Duration::from_secs(1);

/// A handler does something after the claim of its message would have expired, which its transaction has
/// settled.
async fn goes_on_after_its_transaction<F>(
    place: Place,
    then: impl Fn(Effects) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = Result<(), HandlerError>> + Send + 'static,
{
    let (done, mut ended) = mpsc::channel(1);
    let options = at_once()
        .with_visibility_timeout(VISIBILITY)
        .with_handler_timeout(VISIBILITY * 100);
    let consumer = place
        .subscribe(options, move |effects, message| {
            let (done, then) = (done.clone(), then.clone());
            async move {
                effects.apply(0, &message, End::Commit).await?;
                // Its claim was to be extended meanwhile.
                tokio::time::sleep(VISIBILITY * 3 / 2).await;
                then(effects).await?;
                Ok(done.send(message.attempt).await?)
            }
        })
        .await;
    place
        .streams
        .publish("s", NewMessage::new(""))
        .await
        .unwrap();
    assert_eq!(soon(ended.recv()).await, Some(1));
    until(async || consumer.stats() == acknowledged(1)).await;
    consumer.close().await;
}

/// Without a poll, and to a member that has found nothing to claim before. The receipt of the first
/// message is stale by then, so that it frees the key no more.
async fn a_transaction_lets_the_next_message_of_its_key_come(place: Place) {
    let (report, mut begun) = mpsc::channel(1);
    let go_on = Arc::new(Notify::new());
    let options = from_start().with_key_order().with_visibility_timeout(NEVER);
    let subscribe = || {
        let (report, go_on) = (report.clone(), Arc::clone(&go_on));
        place.subscribe(options.clone(), move |effects, message| {
            let (report, go_on) = (report.clone(), Arc::clone(&go_on));
            async move {
                if message.payload == "first" {
                    report.send(()).await?;
                    go_on.notified().await;
                    effects.apply(0, &message, End::Commit).await?;
                }
                Ok(())
            }
        })
    };
    let publish = async |payload: &str, key: &str| {
        let message = NewMessage::new(payload.to_owned()).with_ordering_key(key);
        place.streams.publish("s", message).await.unwrap();
    };
    publish("first", "a").await;
    let busy = subscribe().await;
    soon(begun.recv()).await.unwrap();
    publish("next", "a").await;
    let free = subscribe().await;
    publish("other", "b").await;
    until(async || free.stats() == acknowledged(1)).await;
    busy.pause();
    go_on.notify_one();
    until(async || free.stats() == acknowledged(2)).await;
    until(async || busy.stats() == acknowledged(1)).await;
    busy.close().await;
    free.close().await;
}

async fn a_pulled_message_is_settled_in_a_transaction(place: Place) {
    let publishing = place.streams.publish_batch("s", numbered(3));
    publishing.await.unwrap();
    let mut messages = place.streams.pull("s", "g", at_once()).await.unwrap();
    for (attempt, end) in [
        (1, End::Commit),
        (1, End::Commit),
        (1, End::Rollback),
        (2, End::Commit),
    ] {
        let pulled = soon(messages.next()).await.unwrap();
        assert_eq!(pulled.message.attempt, attempt);
        let applied = place.effects.apply(0, &pulled.message, end).await;
        applied.unwrap();
        if pulled.message.id.as_u64() == 1 {
            drop(pulled);
        } else {
            pulled.acknowledge().unwrap();
        }
    }
    let consumer = messages.consumer();
    until(async || consumer.stats().acknowledged == 3).await;
    let mut expected = acknowledged(3);
    expected.retried = 1;
    assert_eq!(consumer.stats(), expected);
    consumer.close().await;
}

async fn only_what_a_handler_has_can_be_settled(place: Place) {
    let (recorder, mut seen) = recorder();
    place
        .streams
        .publish("s", NewMessage::new(""))
        .await
        .unwrap();
    let read = place.streams.read("s", None, 1).await.unwrap().remove(0);
    let subscribed = place
        .streams
        .subscribe("s", "g", from_start(), recorder)
        .await;
    let consumer = subscribed.unwrap();
    let handled = next(&mut seen).await.unwrap();
    // They are equal all the same, but for the attempt.
    assert_eq!((&read.payload, read.id), (&handled.payload, handled.id));
    until(async || consumer.stats().acknowledged == 1).await;
    let refuse = async |message: &Message| match place.effects.apply(0, message, End::Commit).await
    {
        Err(Failed::Streams(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(
        refuse(&read).await,
        Error::InvalidOption {
            field: "message",
            ..
        }
    ));
    assert!(matches!(refuse(&handled).await, Error::ClaimLost));
    consumer.close().await;
    assert!(place.streams.delete_group("s", "g").await.unwrap());
    assert!(matches!(refuse(&handled).await, Error::UnknownGroup));
    assert!(place.effects.all().await.is_empty());
}

/// What the transaction was set to still holds after settling, and it must be one that sees what others
/// have committed.
#[tokio::test]
async fn the_settings_of_a_transaction_on_postgres_stay_as_they_were() {
    let place = on_postgres().await;
    let schema = place.schema.as_ref().unwrap();
    let (sender, mut seen) = mpsc::channel(1);
    let hold = move |_, message: Message| {
        let sender = sender.clone();
        async move {
            sender.send(message).await?;
            std::future::pending().await
        }
    };
    let options = from_start().with_shutdown_timeout(Duration::ZERO);
    let consumer = place.subscribe(options, hold).await;
    place
        .streams
        .publish("s", NewMessage::new(""))
        .await
        .unwrap();
    let message = soon(seen.recv()).await.unwrap();
    let mut client = schema.client().await;
    let transaction = client.transaction().await.unwrap();
    let set = "SET LOCAL synchronous_commit = 'local'; SET LOCAL lock_timeout = '7s'";
    transaction.batch_execute(set).await.unwrap();
    postgres::settle_in(&transaction, &message).await.unwrap();
    for (setting, value) in [("synchronous_commit", "local"), ("lock_timeout", "7s")] {
        let row = transaction
            .query_one(&format!("SHOW {setting}"), &[])
            .await
            .unwrap();
        assert_eq!(row.get::<_, &str>(0), value);
    }
    transaction.rollback().await.unwrap();

    let set = "BEGIN ISOLATION LEVEL REPEATABLE READ";
    client.batch_execute(set).await.unwrap();
    let refused = postgres::settle_in(&client, &message).await.unwrap_err();
    assert!(matches!(refused, Error::Backend(_)), "{refused:?}");
    client.batch_execute("ROLLBACK").await.unwrap();
    consumer.close().await;
}
