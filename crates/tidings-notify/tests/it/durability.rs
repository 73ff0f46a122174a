//! What was accepted survives the death of the process.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use tidings_notify::sqlite::{SqliteOptions, SqliteStore};
use tidings_notify::{EventId, InboxAction, Store};
use tidings_sqlite::{Database, Options};

use crate::support::{ann, draft, number};

const CHILD: &str = "TIDINGS_NOTIFY_TEST_CHILD";

/// Appends and marks as read until it is killed, and says so after each `Ok`.
#[expect(clippy::print_stdout, reason = "the parent reads what was accepted")]
async fn accept_until_killed(path: &str) {
    let database = Database::open(path, &Options::default()).unwrap();
    let store = SqliteStore::open(database, SqliteOptions::default())
        .await
        .unwrap();
    for number in 0.. {
        let events = store.append(vec![draft(number)]).await.unwrap();
        if number % 3 == 0 {
            let scope = InboxAction::ReadUpTo(events[0].id);
            store
                .change(&ann(), &scope, jiff::Timestamp::now())
                .await
                .unwrap();
            println!("accepted {} read", events[0].id);
        } else {
            println!("accepted {} unread", events[0].id);
        }
    }
}

#[tokio::test]
async fn what_was_accepted_survives_a_killed_process() {
    // The child is this test binary, with the path of the parent's file in a variable.
    if let Ok(path) = std::env::var(CHILD) {
        accept_until_killed(&path).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify.db");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "durability::what_was_accepted_survives_a_killed_process",
            "--nocapture",
        ])
        .env(CHILD, &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut accepted: Vec<(EventId, bool)> = Vec::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut parse = |line: String| {
        let (_, words) = line.split_once("accepted ")?;
        let (id, state) = words.split_once(' ')?;
        Some((id.parse().ok()?, state == "read"))
    };
    while accepted.len() < 100 {
        accepted.extend(parse(lines.next().unwrap().unwrap()));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What the child had said before it died counts as well; its last line may be torn.
    accepted.extend(lines.map_while(Result::ok).filter_map(&mut parse));

    let database = Database::open(&path, &Options::default()).unwrap();
    let store = SqliteStore::open(database, SqliteOptions::default())
        .await
        .unwrap();
    let events = store.read(&ann(), 0, usize::MAX).await.unwrap().events;
    assert!(events.len() >= accepted.len());
    for (event, (id, _)) in events.iter().zip(&accepted) {
        assert_eq!(event.id, *id);
        assert_eq!(number(event) + 1, id.seq);
    }
    let (last_read, _) = accepted.iter().rfind(|(_, is_read)| *is_read).unwrap();
    let is_unread = |event: &&tidings_notify::Event| event.read_at.is_none();
    assert!(
        events
            .iter()
            .filter(is_unread)
            .all(|event| event.id.seq > last_read.seq)
    );
    let head = store.head(&ann()).await.unwrap();
    assert_eq!(head.unread, events.iter().filter(is_unread).count() as u64);
    assert_eq!(head.top_seq, events.len() as u64);
}
