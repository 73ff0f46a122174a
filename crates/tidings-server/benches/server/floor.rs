//! SQLite alone, writing what the server must write for a webhook.

use std::collections::HashSet;
use std::path::Path;

use rusqlite::{Connection, Params, Transaction, params};
use tidings_bench::number;
use tokio::time::Instant;

use crate::load::POSTERS;
use crate::process::cpu_of_this_thread;
use crate::raw::PRAGMAS;
use crate::webhooks::type_of;

/// Webhooks of one commit, as the server makes them: while a commit waits for the disk, half of the posters post again.
const EACH: usize = POSTERS / 2;

/// Any time, in microseconds.
const NOW: i64 = 1_800_000_000_000_000;

const PAYLOAD: &str = r#"{"title":"An order was paid","body":"Three apples, 4.20","url":"https://shop.example/orders/17"}"#;

struct User {
    name: String,
    event_type: String,
    /// The endpoint that gets all events.
    endpoint: i64,
}

/// What a webhook takes, in microseconds.
pub(crate) struct Alone {
    /// Processor time.
    pub(crate) cpu: f64,
    /// By the clock, with what the disk takes.
    pub(crate) time: f64,
}

/// Writes so many webhooks into the file of a server that has ended, and has made the endpoints: one to each user in
/// turn, by the server's statements, without its checks and its reads. A commit has three steps: events that are accepted,
/// the deliveries of those of the commit before, and the outcomes of those before these. What is written once a commit is
/// left out.
pub(crate) fn webhooks(file: &Path, users: usize, count: usize) -> Alone {
    let mut connection = Connection::open(file).unwrap();
    connection.execute_batch(PRAGMAS).unwrap();
    let users = read_users(&connection, users);
    let mut with_outcome = HashSet::new();
    let (began, before) = (Instant::now(), cpu_of_this_thread());
    for first in (0..count + 2 * EACH).step_by(EACH) {
        let of_commit = |earlier: usize| {
            let first = first.checked_sub(earlier * EACH);
            first.map_or(0..0, |it| it.min(count)..(it + EACH).min(count))
        };
        let writing = Writing(connection.transaction().unwrap());
        for n in of_commit(0) {
            writing.accept(n, n / users.len(), &users[n % users.len()]);
        }
        for n in of_commit(1) {
            writing.deliver(n, n / users.len(), &users[n % users.len()]);
        }
        for n in of_commit(2) {
            let endpoint = users[n % users.len()].endpoint;
            writing.end(n, endpoint, with_outcome.insert(endpoint));
        }
        writing.0.commit().unwrap();
    }
    let of_each = |seconds: f64| seconds * 1e6 / number(count);
    Alone {
        cpu: of_each(cpu_of_this_thread() - before),
        time: of_each(began.elapsed().as_secs_f64()),
    }
}

fn read_users(connection: &Connection, count: usize) -> Vec<User> {
    let find = "SELECT endpoint FROM webhook_endpoint
        WHERE user = ?1 OR event_types = json_array(?2)";
    let mut find = connection.prepare(find).unwrap();
    let user = |n| {
        let (name, event_type) = (format!("user{n}"), type_of(n));
        let found = find.query_row([&name, &event_type], |row| row.get(0));
        User {
            endpoint: found.unwrap(),
            name,
            event_type,
        }
    };
    (0..count).map(user).collect()
}

struct Writing<'a>(Transaction<'a>);

impl Writing<'_> {
    fn write(&self, statement: &str, parameters: impl Params) -> usize {
        let mut statement = self.0.prepare_cached(statement).unwrap();
        statement.execute(parameters).unwrap()
    }

    /// The log of the user with its counts, the event in it, and the message for the fan-out.
    fn accept(&self, n: usize, seq: usize, user: &User) {
        let begin = "INSERT INTO notify_log
            (user, epoch, top_seq, unread, unseen, latest_at, stored_at, changed)
            VALUES (?1, 1, 1, 1, 1, ?2, ?2, ?3)";
        let count = "UPDATE notify_log SET top_seq = top_seq + 1, unread = unread + 1,
            unseen = unseen + 1, latest_at = ?2, stored_at = ?2, changed = ?3 WHERE user = ?1";
        let log = if seq == 0 { begin } else { count };
        self.write(log, params![user.name, NOW, n + 1]);
        let append = "INSERT INTO notify_event
            (key, timestamp, latest_at, stored_at, type, payload)
            VALUES ((SELECT id FROM notify_log WHERE user = ?1) << 32 | ?2, ?3, ?3, ?3, ?4, ?5)";
        let event = params![user.name, seq + 1, NOW, user.event_type, PAYLOAD];
        self.write(append, event);
        let announce =
            "INSERT INTO stream_message VALUES (1 << 40 | ?1, ?2, NULL, CAST(?3 AS BLOB))";
        self.write(announce, params![n, NOW, PAYLOAD]);
    }

    /// The event for webhooks, the delivery, the lane of a new endpoint, and the end of the message.
    fn deliver(&self, n: usize, seq: usize, user: &User) {
        let keep = "INSERT INTO webhook_event VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?5, 1)";
        let id = event_id(user, seq);
        let event = params![n + 1, id, user.name, user.event_type, NOW, PAYLOAD];
        self.write(keep, event);
        let deliver = "INSERT INTO webhook_delivery (event, endpoint, state, due_at, created_at)
            VALUES (?1, ?2, 0, ?3, ?3)";
        self.write(deliver, params![n + 1, user.endpoint, NOW]);
        let lease = "INSERT INTO webhook_lane (endpoint, next_due, owner, free_at)
            VALUES (?1, ?2, 'this', ?2) ON CONFLICT DO NOTHING";
        self.write(lease, params![user.endpoint, NOW]);
        self.write("DELETE FROM stream_message WHERE key = 1 << 40 | ?1", [n]);
    }

    /// The delivery's end, its attempt, and the health of the endpoint.
    fn end(&self, n: usize, endpoint: i64, is_first: bool) {
        let end = "UPDATE webhook_delivery SET attempts = 1, tries = 1, due_at = NULL, state = 1,
            finished_at = ?2 WHERE delivery = ?1";
        self.write(end, params![n + 1, NOW]);
        let attempt = "INSERT INTO webhook_attempt VALUES (?1, 1, ?2, 500, 204, NULL, '')";
        self.write(attempt, params![n + 1, NOW]);
        let begin = "INSERT INTO webhook_health VALUES (?1, ?2, NULL, NULL, 1, 1, 0, 0, 0)";
        let count = "UPDATE webhook_health SET last_success_at = ?2, succeeded = succeeded + 1
            WHERE endpoint = ?1";
        self.write(if is_first { begin } else { count }, params![endpoint, NOW]);
    }
}

/// As of an event of a log, which has a random number.
fn event_id(user: &User, seq: usize) -> String {
    let log = user
        .name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("{log:016x}-{}", seq + 1)
}
