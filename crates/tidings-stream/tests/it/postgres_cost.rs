//! That neither the length of a history nor an old snapshot costs anything, counted in the pages that
//! the server touches.

use std::sync::Arc;
use std::time::Duration;

use tidings_stream::engine::{
    ClaimOptions, ConsumerKey, Engine, GroupKey, Outcome, Receipt, Settlement,
};
use tidings_stream::postgres::{PostgresEngine, tokio_postgres};
use tidings_stream::{NewMessage, Retention, StartFrom};

use crate::database::{NEVER, Schema, key, numbered};

/// An engine, with a connection of its own to count on.
struct Counted {
    schema: Schema,
    engine: PostgresEngine,
    client: tokio_postgres::Client,
    key: GroupKey,
}

impl Counted {
    async fn new() -> Self {
        let schema = Schema::create().await;
        let engine = schema.engine().await;
        let key = key("s", "g");
        engine.open_group(&key, StartFrom::Earliest).await.unwrap();
        Self {
            client: schema.client().await,
            schema,
            engine,
            key,
        }
    }

    async fn publish(&self, count: u64) {
        for _ in 0..count / 1000 {
            self.append(1000).await;
        }
        self.append(count % 1000).await;
    }

    async fn append(&self, count: u64) {
        let appending = self.engine.append(&self.key.stream, numbered(count), None);
        appending.await.unwrap();
    }

    /// Claims and acknowledges, and returns how many messages that was.
    async fn work(&self, max: usize) -> usize {
        self.end_all(max, NEVER, &Outcome::Acknowledged).await
    }

    /// Claims, ends the claims, and returns how many messages that was.
    async fn end_all(&self, max: usize, visibility: Duration, outcome: &Outcome) -> usize {
        let consumer = ConsumerKey {
            group: self.key.clone(),
            consumer: "c".into(),
        };
        let claimed = self
            .engine
            .claim(&consumer, max, visibility.into())
            .await
            .unwrap()
            .messages;
        let settlements: Arc<[Settlement]> = claimed
            .iter()
            .map(|it| Settlement {
                receipt: it.receipt,
                outcome: outcome.clone(),
            })
            .collect();
        self.engine
            .settle(&self.key, settlements)
            .await
            .unwrap()
            .len()
    }

    /// A session that keeps seeing what there is now.
    async fn hold_a_snapshot(&self) -> tokio_postgres::Client {
        let holder = self.schema.client().await;
        let hold = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM tidings_stream";
        holder.batch_execute(hold).await.unwrap();
        holder
    }

    /// The pages that a call touches after another; what they do is undone.
    async fn pages(&self, first: Option<&str>, call: &str) -> u64 {
        let mut pages = u64::MAX;
        // The first calls of a session also read the catalogue, and so do those after tables were made or removed
        // elsewhere, which other tests do.
        for _ in 0..8 {
            self.client.batch_execute("BEGIN").await.unwrap();
            if let Some(first) = first {
                let first = format!("SELECT * FROM {first}");
                self.client.batch_execute(&first).await.unwrap();
            }
            let explain = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM {call}");
            let row = self.client.query_one(&explain, &[]).await.unwrap();
            self.client.batch_execute("ROLLBACK").await.unwrap();
            let plan: Json = row.get(0);
            let count = |kind: &str| plan.0[0]["Plan"][kind].as_u64().unwrap();
            pages = pages.min(count("Shared Hit Blocks") + count("Shared Read Blocks"));
        }
        pages
    }

    /// What each call costs: a claim that finds nothing, the question whether there is something, and,
    /// with a message to claim, publishing another, the claim, and its end.
    async fn costs(&self) -> [u64; 5] {
        let name = self.key.stream.as_str();
        let claim = format!(
            "tidings_stream_claim('{name}', 'g', 2, 'c', 10, 1000, 1000000, 32768, false, NULL)"
        );
        let ready = format!("tidings_stream_ready('{{{name}}}', '{{g}}')");
        let append = format!(
            "tidings_stream_append('{name}', NULL, NULL, false, '{{a}}', '{{NULL}}', '{{1}}', NULL, NULL)"
        );
        let idle = [
            self.pages(None, &claim).await,
            self.pages(None, &ready).await,
        ];
        let appending = self.engine.append(&self.key.stream, numbered(1), None);
        let id = appending.await.unwrap()[0];
        let settle = format!(
            "tidings_stream_settle(
                '{name}', 'g', '{{2}}', '{{{id}}}', '{{a}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}')"
        );
        let busy = [
            self.pages(None, &append).await,
            self.pages(None, &claim).await,
            self.pages(Some(&claim), &settle).await,
        ];
        assert_eq!(self.work(10).await, 1);
        [idle[0], idle[1], busy[0], busy[1], busy[2]]
    }
}

/// What a call returns while it holds a lock fits into the buffers of a connection: a client that is stopped
/// in the middle of receiving it holds up no other.
#[tokio::test]
async fn regression_what_is_returned_under_a_lock_is_small() {
    let counted = Counted::new().await;
    let name = counted.key.stream.as_str();
    let size = async |call: &str| -> i32 {
        let size = format!("SELECT pg_column_size(returned.*) FROM {call} AS returned");
        counted.client.query_one(&size, &[]).await.unwrap().get(0)
    };
    // A large batch that is published again.
    let keys = |every: u32| {
        format!(
            "(SELECT array_agg((n * {every})::text ORDER BY n) FROM generate_series(1, 20000) n)"
        )
    };
    // All of these keys are new, every other one of those, and then none.
    for every in [2, 1, 1] {
        let append = format!(
            "tidings_stream_append('{name}', NULL, NULL, NULL, array_fill('a'::bytea, '{{20000}}'),
                array_fill(NULL::bytea, '{{20000}}'),
                (SELECT array_agg(n) FROM generate_series(1, 20000) n), {},
                array_fill(3600000::bigint, '{{20000}}'))",
            keys(every)
        );
        let appended = size(&append).await;
        assert!(appended < 1000, "{appended}");
    }
    // Messages that have failed, with all that their handlers have said.
    let consumer = ConsumerKey {
        group: counted.key.clone(),
        consumer: "c".into(),
    };
    let claimed = counted
        .engine
        .claim(&consumer, 1000, NEVER.into())
        .await
        .unwrap();
    let settlements = claimed.messages.iter().map(|it| Settlement {
        receipt: it.receipt,
        outcome: Outcome::Retry {
            delay: Duration::ZERO,
            error: Some("it failed ".repeat(100)),
        },
    });
    let settled = counted.engine.settle(&counted.key, settlements.collect());
    assert_eq!(settled.await.unwrap().len(), 1000);
    let claim = format!(
        "tidings_stream_claim('{name}', 'g', 2, 'c', 1000, 1000, 1000000, 32768, false, NULL)"
    );
    let claimed = size(&claim).await;
    assert!((1000..32 << 10).contains(&claimed), "{claimed}");
    // Content that is large has to be asked for, also where its first message is gone.
    let other = key("t", "g");
    let opening = counted.engine.open_group(&other, StartFrom::Earliest);
    opening.await.unwrap();
    let large = vec![NewMessage::new(vec![1; 40 << 10]); 3];
    let appending = counted.engine.append(&other.stream, large, None);
    appending.await.unwrap();
    let remove = "DELETE FROM tidings_stream_message m USING tidings_stream s
        WHERE m.stream_id = s.stream_id AND s.name = 'app.default.t' AND number = 1";
    assert_eq!(counted.client.execute(remove, &[]).await.unwrap(), 1);
    let name = other.stream.as_str();
    let claim = format!(
        "tidings_stream_claim('{name}', 'g', 2, 'c', 1000, 1000, 1000000, {}, false, NULL)",
        64 << 10
    );
    let claimed = size(&claim).await;
    assert!(claimed < 1000, "{claimed}");
}

/// A column of JSON.
struct Json(serde_json::Value);

impl<'a> tokio_postgres::types::FromSql<'a> for Json {
    fn from_sql(
        _: &tokio_postgres::types::Type,
        raw: &'a [u8],
    ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(serde_json::from_slice(raw)?))
    }

    fn accepts(kind: &tokio_postgres::types::Type) -> bool {
        *kind == tokio_postgres::types::Type::JSON
    }
}

/// An index of many messages is a level or two deeper, and each look at it touches as many pages more. What
/// has ended within the last milliseconds may be gone through.
fn assert_flat<const N: usize>(before: [u64; N], after: [u64; N]) {
    let is_flat = before
        .iter()
        .zip(&after)
        .all(|(before, after)| *after <= before * 2 + 10);
    assert!(is_flat, "{before:?} grew to {after:?}");
}

#[tokio::test]
async fn regression_a_long_history_costs_as_much_as_a_short_one() {
    let counted = Counted::new().await;
    counted.publish(10).await;
    assert_eq!(counted.work(10).await, 10);
    let short = counted.costs().await;
    counted.publish(200_000).await;
    while counted.work(1000).await > 0 {}
    let long = counted.costs().await;
    assert_flat(short, long);
    drop(counted.schema);
}

/// What waits for its ordering key costs neither a claim nor the end of the message that has the key.
#[tokio::test]
async fn a_long_backlog_behind_a_key_costs_as_much_as_a_short_one() {
    let counted = Counted::new().await;
    let name = counted.key.stream.as_str();
    let publish = async |key: &str, count: usize| {
        let message = NewMessage::new("").with_ordering_key(key);
        let appending = counted
            .engine
            .append(&counted.key.stream, vec![message; count], None);
        appending.await.unwrap();
    };
    let consumer = ConsumerKey {
        group: counted.key.clone(),
        consumer: "c".into(),
    };
    let options = ClaimOptions {
        in_key_order: true,
        ..NEVER.into()
    };
    let mut first = None;
    let mut costs = Vec::new();
    for behind in [10, 20_000] {
        publish("a", behind).await;
        loop {
            let claimed = counted.engine.claim(&consumer, 10, options).await.unwrap();
            first = claimed.messages.first().map(|it| it.receipt).or(first);
            if claimed.next_due != Some(Duration::ZERO) {
                break;
            }
        }
        publish("b", 1).await;
        let claim = format!(
            "tidings_stream_claim('{name}', 'g', 2, 'd', 10, 1000, 1000000, 32768, true, 100)"
        );
        let Receipt { id, claim: number } = first.unwrap();
        let settle = format!(
            "tidings_stream_settle(
                '{name}', 'g', '{{{number}}}', '{{{id}}}', '{{a}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}')"
        );
        let idle = counted
            .pages(Some(&claim), &claim.replace("2, 'd'", "4, 'd'"))
            .await;
        costs.push([
            counted.pages(None, &claim).await,
            idle,
            counted.pages(None, &settle).await,
        ]);
        // The message of the other key is left.
        let left = counted
            .engine
            .claim(&consumer, 10, options)
            .await
            .unwrap()
            .messages;
        assert_eq!(left.len(), 1);
        let outcome = Outcome::Acknowledged;
        let receipt = left[0].receipt;
        let settlements = Arc::from([Settlement { receipt, outcome }]);
        counted
            .engine
            .settle(&counted.key, settlements)
            .await
            .unwrap();
    }
    assert_flat(costs[0], costs[1]);
}

/// While a session holds an old snapshot, no version of any row goes away: rows that every call updates
/// would cost every call more.
#[tokio::test]
async fn regression_an_old_snapshot_slows_no_caller_down() {
    an_old_snapshot_slows_no_caller_down(None, false).await;
}

/// The same where publishing trims, which writes the row of the stream.
#[tokio::test]
async fn regression_an_old_snapshot_slows_no_caller_down_where_publishing_trims() {
    an_old_snapshot_slows_no_caller_down(Some(5000), false).await;
}

/// The same where each message is handled twice: what has waited and come again is gone.
#[tokio::test]
async fn regression_an_old_snapshot_slows_no_caller_down_where_messages_come_again() {
    an_old_snapshot_slows_no_caller_down(Some(5000), true).await;
}

/// What has been settled in time costs the polls after that time nothing.
#[tokio::test]
async fn regression_an_old_snapshot_slows_no_poll_down_after_claims_would_have_expired() {
    let counted = Counted::new().await;
    let visibility = Duration::from_secs(10);
    let error = Some("not now".to_owned());
    let again = Outcome::Retry {
        delay: Duration::ZERO,
        error,
    };
    let handle_twice = async || {
        counted.append(1).await;
        assert_eq!(counted.end_all(1, visibility, &again).await, 1);
        let acknowledged = counted.end_all(1, visibility, &Outcome::Acknowledged);
        assert_eq!(acknowledged.await, 1);
    };
    handle_twice().await;
    let before = counted.costs().await;
    let holder = counted.hold_a_snapshot().await;
    for _ in 0..1000 {
        handle_twice().await;
    }
    tokio::time::sleep(visibility).await;
    assert_eq!(counted.work(1).await, 0);
    let after = counted.costs().await;
    assert_flat(before, after);
    holder.batch_execute("COMMIT").await.unwrap();
}

async fn an_old_snapshot_slows_no_caller_down(max_len: Option<u64>, is_retried: bool) {
    let counted = Counted::new().await;
    if let Some(max_len) = max_len {
        let bounded = Retention::default().with_max_len(max_len);
        let stream = &counted.key.stream;
        counted.engine.set_retention(stream, bounded).await.unwrap();
        counted.publish(max_len).await;
        while counted.work(1000).await > 0 {}
    }
    counted.publish(10).await;
    assert_eq!(counted.work(10).await, 10);
    let before = counted.costs().await;
    let holder = counted.hold_a_snapshot().await;
    for _ in 0..3000 {
        counted.append(1).await;
        if is_retried {
            let error = Some("not now".to_owned());
            let again = Outcome::Retry {
                delay: Duration::ZERO,
                error,
            };
            assert_eq!(counted.end_all(10, NEVER, &again).await, 1);
        }
        assert_eq!(counted.work(10).await, 1);
    }
    let after = counted.costs().await;
    assert_flat(before, after);
    holder.batch_execute("COMMIT").await.unwrap();
    let kept = counted.engine.stats(&counted.key.stream).await.unwrap();
    // It trims some at a time.
    let is_bounded = max_len.is_none_or(|max| kept.messages <= max + max / 100 + 1);
    assert!(is_bounded, "{} are kept", kept.messages);
}

/// What has expired and is kept for a group is not gone through with each publish.
#[tokio::test]
async fn regression_what_a_slow_group_keeps_costs_a_publisher_nothing() {
    let counted = Counted::new().await;
    let stream = &counted.key.stream;
    counted.publish(10).await;
    let aged = Retention::default().with_max_age(Duration::from_millis(1));
    counted.engine.set_retention(stream, aged).await.unwrap();
    let append = format!(
        "tidings_stream_append('{}', NULL, NULL, NULL, '{{a}}', '{{NULL}}', '{{1}}', NULL, NULL)",
        stream.as_str()
    );
    // What is published grows older than the limit, by the clock of the server.
    let aging = Duration::from_millis(5);
    tokio::time::sleep(aging).await;
    let before = counted.pages(None, &append).await;
    counted.publish(20_000).await;
    tokio::time::sleep(aging).await;
    let after = counted.pages(None, &append).await;
    assert!(after <= before * 2, "{before} grew to {after}");
    assert_eq!(counted.engine.stats(stream).await.unwrap().messages, 20_010);
}

/// Listing by a prefix does not go through the streams behind it.
#[tokio::test]
async fn regression_a_list_costs_what_it_returns() {
    let counted = Counted::new().await;
    let prefix = counted.key.stream.as_str();
    let list = format!("tidings_stream_list('{prefix}')");
    let before = counted.pages(None, &list).await;
    let others = "INSERT INTO tidings_stream (name)
        SELECT 'z' || n FROM generate_series(1, 20000) AS n";
    counted.client.batch_execute(others).await.unwrap();
    let after = counted.pages(None, &list).await;
    assert!(after <= before * 2, "{before} grew to {after}");
    assert_eq!(counted.engine.list(prefix).await.unwrap().len(), 1);
}
