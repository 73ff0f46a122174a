//! Random histories of the inbox that are cut off by kills, of the process that writes and of its server, and
//! continue from what is stored. The writer is this test binary again; a variable says where it continues.

use std::io::{BufRead, BufReader, Lines, Read};
use std::panic::AssertUnwindSafe;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config as Cases, RngAlgorithm, TestRng, TestRunner};
use tidings_notify::Store;
use tidings_notify::postgres::{Config, PostgresOptions, PostgresStore};
use tidings_notify::redis::RedisOptions;
use tidings_notify::sqlite::{SqliteOptions, SqliteStore};
use tidings_sqlite::{Database, Options};
use tidings_test_support::{PostgresServer, RedisServer};

use crate::database::{PATIENT, Schema};
use crate::inbox_histories::{Step, USERS, World, steps_of_length};

const CHILD: &str = "TIDINGS_NOTIFY_HISTORY";

const STEPS: usize = 60;

/// How many trims at most a crash is expected to undo.
const MOST_UNDONE: usize = 4;

/// What is killed beside the process that writes.
trait Victim {
    /// Kills the server, if there is one, and starts it again.
    async fn kill(&mut self);
}

/// A file has no server.
impl Victim for () {
    async fn kill(&mut self) {}
}

impl Victim for PostgresServer {
    async fn kill(&mut self) {
        self.crash().unwrap();
        self.start_again().unwrap();
    }
}

impl Victim for RedisServer {
    async fn kill(&mut self) {
        self.stop().unwrap();
        self.start_again().await.unwrap();
    }
}

async fn open_sqlite(path: &str) -> Arc<dyn Store> {
    let options = Options::default();
    let mut opened = Database::open(path, &options);
    // The last process may still be closing the file.
    while opened.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
        opened = Database::open(path, &options);
    }
    Arc::new(
        SqliteStore::open(opened.unwrap(), SqliteOptions::default())
            .await
            .unwrap(),
    )
}

#[tokio::test]
async fn the_inbox_on_sqlite_survives_kills() {
    go_on_if_child(open_sqlite).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify.db");
    let name = "killed_histories::the_inbox_on_sqlite_survives_kills";
    survive(name, path.to_str().unwrap(), open_sqlite, (), 3).await;
}

async fn open_postgres(url: &str) -> Arc<dyn Store> {
    let config = Config::new(url).unwrap().with_reply_limit(PATIENT);
    let store = PostgresStore::open(config, PostgresOptions::default());
    Arc::new(store.await.unwrap())
}

#[tokio::test]
async fn the_inbox_on_postgres_survives_kills() {
    go_on_if_child(open_postgres).await;
    let server = PostgresServer::start().unwrap();
    let schema = Schema::create_on(&server.url()).await;
    let name = "killed_histories::the_inbox_on_postgres_survives_kills";
    survive(name, &schema.url(), open_postgres, server, 1).await;
    // It is gone with its server.
    std::mem::forget(schema);
}

async fn open_redis(url: &str) -> Arc<dyn Store> {
    let options = RedisOptions::default().with_durable_server();
    Arc::new(crate::redis::open_at(url, options).await)
}

#[tokio::test]
async fn the_inbox_on_redis_survives_kills() {
    go_on_if_child(open_redis).await;
    let server = RedisServer::start_durable().await.unwrap();
    let url = server.url();
    let name = "killed_histories::the_inbox_on_redis_survives_kills";
    survive(name, &url, open_redis, server, 3).await;
}

/// The steps of a history, which follow from its number.
fn history(number: u64) -> Vec<Step> {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Cases::default(), random);
    let steps = steps_of_length(STEPS).new_tree(&mut runner).unwrap();
    steps.current()
}

/// In a child, takes the steps that are left and says so after each. Otherwise does nothing.
#[expect(clippy::print_stdout, reason = "the parent reads how far it is")]
async fn go_on_if_child(open: impl AsyncFn(&str) -> Arc<dyn Store>) {
    let Ok(words) = std::env::var(CHILD) else {
        return;
    };
    // Its input ends with the process that has started it.
    std::thread::spawn(|| {
        let _ended = std::io::stdin().read(&mut [0]);
        std::process::exit(1);
    });
    let words: Vec<_> = words.splitn(3, ' ').collect();
    let (number, from): (u64, usize) = (words[0].parse().unwrap(), words[1].parse().unwrap());
    let (first, second) = (open(words[2]).await, open(words[2]).await);
    let mut world = World::new(&*first, &*second, number);
    let steps = history(number);
    world.resume(&steps[..from]).await;
    for (taken, step) in steps.iter().enumerate().skip(from) {
        world.take(step).await;
        println!("taken {}", taken + 1);
    }
    std::future::pending::<()>().await;
}

struct Writer {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Writer {
    fn start(test: &str, number: u64, from: usize, place: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(CHILD, format!("{number} {from} {place}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Read only if it ends by itself.
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// How many steps have been taken after the next one; nothing once it has ended.
    fn next(&mut self) -> Option<usize> {
        let mut lines = self.lines.by_ref().map_while(Result::ok);
        // The last line of one that was killed may be torn: it has its own newline at the end of the text.
        lines.find_map(|line| line.split_once("taken ")?.1.parse().ok())
    }
}

async fn survive(
    test: &str,
    place: &str,
    open: impl AsyncFn(&str) -> Arc<dyn Store>,
    mut server: impl Victim,
    histories: usize,
) {
    for _ in 0..histories {
        let number = fastrand::u64(..);
        let steps = history(number);
        let mut from = 0;
        while from < STEPS {
            let mut writer = Writer::start(test, number, from, place);
            let until = (from + fastrand::usize(1..12)).min(STEPS);
            let mut taken = from;
            while taken < until {
                let Some(next) = writer.next() else {
                    let mut why = String::new();
                    let errors = writer.child.stderr.as_mut().unwrap();
                    errors.read_to_string(&mut why).unwrap();
                    panic!("history {number} ends after {taken}: {why}");
                };
                taken = next;
            }
            if fastrand::u8(..) < 100 {
                server.kill().await;
            }
            writer.child.kill().unwrap();
            writer.child.wait().unwrap();
            while let Some(more) = writer.next() {
                taken = more;
            }
            let (first, second) = (open(place).await, open(place).await);
            from = find(&steps, taken, &*first, &*second, number).await;
            first.close().await;
            second.close().await;
        }
    }
}

/// How many steps the store has taken, when so many were acknowledged: these, or one more. If both fit, the
/// effect of the last step cannot be seen yet, such as a mark above all that is listed, and it is taken again.
/// A trim does not wait for the disk, so a crash may undo it, unless a later step has written something.
async fn find(
    steps: &[Step],
    acknowledged: usize,
    first: &dyn Store,
    second: &dyn Store,
    number: u64,
) -> usize {
    let fits = async |taken: usize| {
        let mut world = World::new(first, second, number);
        world.resume(&steps[..taken]).await;
        for user in 0..USERS {
            world.check(user, user % 2 == 0).await;
        }
    };
    let most = (acknowledged + 1).min(steps.len());
    let undone = (0..acknowledged).filter(|&taken| steps[taken].is_trim());
    let undone = undone.rev().take(MOST_UNDONE);
    for taken in (acknowledged..=most).chain(undone) {
        let checked = AssertUnwindSafe(fits(taken)).catch_unwind();
        if checked.await.is_ok() {
            return taken;
        }
    }
    // One was cut off between two logs.
    let taken = if steps[most - 1].is_trim() {
        most
    } else {
        acknowledged
    };
    let is_trim = steps[..taken].last().is_some_and(Step::is_trim);
    assert!(is_trim, "history {number}, step {acknowledged}");
    first.cleanup(Timestamp::now()).await.unwrap();
    fits(taken).await;
    taken
}
