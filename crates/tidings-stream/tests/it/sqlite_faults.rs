//! What happens to the file.

use std::time::Duration;

use tidings_stream::engine::ConsumerKey;
use tidings_stream::{Error, NewMessage, StartFrom};
use tidings_test_support::{Fault, SmallDisk};
use tokio::runtime::Runtime;

use crate::children::{say, start};
use crate::database::{NEVER, key, numbered, until};
use crate::faults::{SqliteOutage, fault_tests, sqlite as open};

fault_tests! { SqliteOutage, open;
    a_store_that_stops_for_longer_than_a_claim_lasts_loses_nothing
    a_store_that_runs_full_loses_nothing
    an_acknowledgement_outlives_every_fault(&[Fault::Freeze, Fault::Fill])
    a_full_store_fails_publishing_by_name_and_loses_no_acknowledgement(false)
}

/// Has the path of the file in a child.
const PATH: &str = "TIDINGS_STREAM_TEST_FULL_DISK";

const CLAIMED: u64 = 500;

fn consumer() -> ConsumerKey {
    ConsumerKey {
        group: key("s", "g"),
        consumer: "one".into(),
    }
}

/// To note that the claims of a killed process have ended takes room.
#[test]
fn a_process_that_was_killed_with_open_claims_opens_again_on_a_full_disk() {
    let runtime = Runtime::new().unwrap();
    if let Ok(path) = std::env::var(PATH) {
        return runtime.block_on(claim_and_fill(&path));
    }
    let disk = SmallDisk::mount(16 << 20).unwrap();
    let path = disk.path().join("test.db").display().to_string();
    let test =
        "sqlite_faults::a_process_that_was_killed_with_open_claims_opens_again_on_a_full_disk";
    let (mut child, mut said) = start(test, PATH, &path);
    assert!(said.any(|line| line == "claimed"));
    disk.fill().unwrap();
    // The child goes on.
    drop(child.stdin.take());
    assert!(said.any(|line| line == "full"));
    child.kill().unwrap();
    child.wait().unwrap();

    runtime.block_on(async {
        // Also a second time.
        drop(open(&path).await.unwrap());
        let engine = open(&path).await.unwrap();
        let stream = key("s", "g").stream;
        assert_eq!(engine.read(&stream, None, 1).await.unwrap().len(), 1);
        disk.make_room().unwrap();
        let mut again = 0;
        until(async || {
            let one = consumer();
            let claimed = engine
                .claim(&one, 1000, NEVER.into())
                .await
                .unwrap()
                .messages;
            let claimed = claimed
                .iter()
                .filter(|it| it.message.id.as_u64() <= CLAIMED);
            again += claimed
                .inspect(|it| assert_eq!(it.message.attempt, 2))
                .count() as u64;
            again == CLAIMED
        })
        .await;
    });
}

/// Claims messages, and publishes others until the disk has no room for one, and never ends by itself.
async fn claim_and_fill(path: &str) {
    let engine = open(path).await.unwrap();
    let group = key("s", "g");
    engine
        .open_group(&group, StartFrom::Earliest)
        .await
        .unwrap();
    let append = async |messages| engine.append(&group.stream, messages, None).await;
    append(numbered(CLAIMED)).await.unwrap();
    let visibility = Duration::from_secs(1).into();
    let claimed = engine.claim(&consumer(), 1000, visibility).await.unwrap();
    assert_eq!(claimed.messages.len() as u64, CLAIMED);
    say("claimed");
    // Until the disk is full.
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let full = loop {
        if let Err(error) = append(vec![NewMessage::new("")]).await {
            break error;
        }
    };
    assert!(matches!(full, Error::Full(_)), "{full:?}");
    say("full");
    std::future::pending::<()>().await;
}
