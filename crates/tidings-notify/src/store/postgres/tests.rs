//! What calls cost in a long log, and beside many logs, in pages that the server looks at.

use tidings_postgres::tokio_postgres::SimpleQueryMessage;
use tidings_postgres::{Client, Config};
use tidings_test_support::Schema;

use super::{PostgresOptions, PostgresStore, changes, log};
use crate::InboxQuery;

/// So many events that were replaced while they were unread, and the one that replaced the last of them.
const REPLACED: &str = "
    INSERT INTO tidings_notify_log (user_id, epoch, line, top_seq, unread, unseen)
        VALUES ('ann', 7, tidings_notify_line(), $1 + 1, 1, 1);
    INSERT INTO tidings_notify_event (log, seq, timestamp, latest_at, stored_at, type, event_key, payload)
        SELECT log.id, seq, 0, 0, 0, 't', 'k', '1'
        FROM tidings_notify_log AS log, generate_series(1, log.top_seq) AS seq;
    INSERT INTO tidings_notify_state (log, seq, is_unread, archived_at)
        SELECT log, seq, true, 0 FROM tidings_notify_event WHERE seq <= $1;
    INSERT INTO tidings_notify_archived (log, first_seq, last_seq)
        SELECT id, 1, $1 FROM tidings_notify_log;
    INSERT INTO tidings_notify_key (log, event_key, seq)
        SELECT id, 'k', top_seq FROM tidings_notify_log";

/// So many logs of a dump, which the transactions of another cluster have changed.
const RESTORED: &str = "
    INSERT INTO tidings_notify_log (user_id, epoch, line, changed)
        SELECT 'user-' || n, 7, tidings_notify_line() - 1,
            (pg_current_xact_id()::text::bigint + 1000000000 + n)::text::xid8
        FROM generate_series(1, $1) AS n";

const TRIM: &str = "SELECT tidings_notify_trim(id, 1, NULL, false, 100) FROM tidings_notify_log";

/// Up to the first event, which changes nothing: it was replaced.
const SEE_FIRST: &str = "SELECT * FROM tidings_notify_change('ann', 'see_up_to', '{7}', '{1}', 1)";

const READ_FIRST: &str =
    "SELECT * FROM tidings_notify_change('ann', 'read_up_to', '{7}', '{1}', 1)";

/// Up to the middle of those that were replaced, which changes nothing either.
const READ_HALF: &str = "SELECT change.* FROM tidings_notify_log AS log, tidings_notify_change(
    'ann', 'read_up_to', '{7}', ARRAY[log.top_seq / 2], 1) AS change";

const READ_ALL: &str = "SELECT * FROM tidings_notify_change('ann', 'read_up_to', '{}', '{}', 1)";

/// A log in a schema of its own.
struct Log {
    client: Client,
    _schema: Schema,
}

impl Log {
    async fn with(rows: &str, count: u64) -> Self {
        let schema = Schema::create().await;
        let config = Config::new(&schema.url()).unwrap();
        let store = PostgresStore::open(config.clone(), PostgresOptions::default());
        drop(store.await.unwrap());
        let client = config.connect().await.unwrap();
        let rows = rows.replace("$1", &count.to_string());
        client.batch_execute(&rows).await.unwrap();
        Self {
            client,
            _schema: schema,
        }
    }

    /// How many pages a statement looks at after another one. Both are rolled back.
    async fn pages_of(&self, earlier: &str, statement: &str) -> u64 {
        let explain = format!("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, SUMMARY OFF) {statement}");
        let mut pages = u64::MAX;
        // The first time, the server also reads what it keeps about tables, and so it does after tables were made, removed or
        // counted elsewhere, which other tests do all the time: the least of many counts is that of the statement. From the sixth time
        // on, it may plan a statement of a function for any parameters, so that only those after it count.
        for time in 0..40 {
            self.client.batch_execute("BEGIN").await.unwrap();
            self.client.batch_execute(earlier).await.unwrap();
            let lines = self.client.simple_query(&explain).await.unwrap();
            self.client.batch_execute("ROLLBACK").await.unwrap();
            let lines = lines.iter().filter_map(|line| match line {
                SimpleQueryMessage::Row(row) => row.get(0),
                _ => None,
            });
            // The first line is about the whole statement.
            let buffers = lines
                .map(str::trim)
                .find(|line| line.starts_with("Buffers:"));
            if time >= 7 {
                pages = pages.min(buffers.map_or(0, looked_at));
            }
        }
        pages
    }
}

/// The pages of a line such as `Buffers: shared hit=12 read=3 dirtied=1`.
fn looked_at(buffers: &str) -> u64 {
    let counts = buffers.split(' ').filter_map(|word| word.split_once('='));
    let looks = counts.filter(|(kind, _)| ["hit", "read"].contains(kind));
    looks.map(|(_, count)| count.parse::<u64>().unwrap()).sum()
}

/// The statement that lists the first page of the inbox.
fn list(query: &InboxQuery) -> String {
    let parameters = ["'ann'", "9223372036854775807", "NULL", "51", "1000000"];
    let statement = log::inbox_statement(query);
    (1..)
        .zip(parameters)
        .fold(statement, |statement, (place, value)| {
            statement.replace(&format!("${place}"), value)
        })
}

/// What a statement costs after another one, beside a thousand events that were replaced, and beside a hundred thousand, before and
/// after the server has counted the rows.
async fn assert_costs_the_same(earlier: &str, statement: &str) {
    assert_costs_the_same_beside(REPLACED, earlier, statement).await;
}

async fn assert_costs_the_same_beside(rows: &str, earlier: &str, statement: &str) {
    let [few, many] = [1_000, 100_000].map(|count| Log::with(rows, count));
    let (few, many) = (few.await, many.await);
    for before in ["", "ANALYZE"] {
        for log in [&few, &many] {
            log.client.batch_execute(before).await.unwrap();
        }
        let few = few.pages_of(earlier, statement).await;
        let many = many.pages_of(earlier, statement).await;
        assert!(few > 0);
        assert!(
            many < 2 * few,
            "{before}: {few} pages, and {many} in the long log"
        );
    }
}

#[tokio::test]
async fn regression_a_step_of_a_cleanup_costs_as_much_in_a_long_log_as_in_a_short_one() {
    assert_costs_the_same("", TRIM).await;
}

#[tokio::test]
async fn regression_read_all_costs_as_much_beside_any_number_of_replaced_events() {
    assert_costs_the_same("", READ_ALL).await;
}

#[tokio::test]
async fn regression_up_to_an_old_event_costs_as_much_beside_any_number_of_replaced_events() {
    assert_costs_the_same("", SEE_FIRST).await;
    assert_costs_the_same("", READ_FIRST).await;
}

#[tokio::test]
async fn regression_what_reading_up_to_an_event_has_passed_is_not_counted_again() {
    assert_costs_the_same(READ_HALF, READ_HALF).await;
}

#[tokio::test]
async fn regression_a_list_of_what_is_unread_costs_as_much_beside_any_number_of_replaced_events() {
    let list = list(&InboxQuery::default().with_unread_only());
    assert_costs_the_same(READ_ALL, &list).await;
}

#[tokio::test]
async fn regression_a_list_costs_as_much_beside_any_number_of_replaced_events() {
    for query in [
        InboxQuery::default(),
        InboxQuery::default().with_unread_only(),
    ] {
        assert_costs_the_same("", &list(&query)).await;
    }
}

#[tokio::test]
async fn regression_a_sweep_costs_as_much_beside_any_number_of_logs_that_another_cluster_has_changed()
 {
    let parameters = ["pg_current_snapshot()::text", "NULL", "'0'", "0", "100"];
    let prepare = format!(
        "DEALLOCATE ALL; PREPARE sweep (text, text, text, bigint, bigint) AS {}",
        changes::CHANGES
    );
    let sweep = format!("EXECUTE sweep ({})", parameters.join(", "));
    for plan in ["force_custom_plan", "force_generic_plan"] {
        let earlier = format!("SET LOCAL plan_cache_mode = {plan}; {prepare}");
        assert_costs_the_same_beside(RESTORED, &earlier, &sweep).await;
    }
}
