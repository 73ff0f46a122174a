//! What a killed process leaves behind.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tidings_test_support::Reply;
use tidings_webhooks::DeliveryState;

use crate::support::{App, receiver_of, schedule, start};

/// The variable that says to the child where the file is, and which event is its first.
const CHILD: &str = "TIDINGS_WEBHOOKS_TEST_CHILD";
const FIRST: &str = "TIDINGS_WEBHOOKS_TEST_FIRST";

const ROUNDS: usize = 6;

#[test]
fn nothing_that_a_killed_process_has_accepted_is_lost() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Ok(file) = std::env::var(CHILD) {
        runtime.block_on(accept_until_killed(Path::new(&file)));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.db");
    let receiver = runtime.block_on(async { receiver_of(Reply::ok()).await });
    let endpoint = runtime.block_on(async {
        let app = open(&file).await;
        let endpoint = app.endpoint(receiver.url("/")).await;
        app.stop().await;
        endpoint
    });
    let mut accepted = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut child = spawn_child(&file, round * 1000);
        // Death comes after a number of events, not after a time.
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let numbers = lines.map_while(Result::ok).filter_map(|line| {
            let number = line.strip_prefix("accepted ")?;
            number.parse::<usize>().ok()
        });
        accepted.extend(numbers.take(15 + round * 11));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    runtime.block_on(async {
        // The leases of the dead last an hour, and still nothing waits for them.
        let app = open(&file).await;
        let accepted: BTreeSet<_> = accepted.iter().map(|it| format!("event-{it}")).collect();
        // A child has accepted more than it could report before its death, so a number does not do.
        let mut count = accepted.len();
        let delivered = loop {
            let delivered = app.until(endpoint, DeliveryState::Delivered, count).await;
            let ids: BTreeSet<_> = delivered.iter().map(|it| it.event_id.clone()).collect();
            if accepted.is_subset(&ids) {
                break delivered;
            }
            count = delivered.len() + 1;
        };
        let mut times: BTreeMap<String, u32> = BTreeMap::new();
        for request in receiver.requests() {
            let id = request.header("webhook-id").unwrap().to_owned();
            *times.entry(id).or_default() += 1;
        }
        assert!(accepted.len() > 100);
        for id in accepted {
            assert!(times.contains_key(&id), "{id} was lost");
            assert_eq!(delivered.iter().filter(|it| it.event_id == id).count(), 1);
        }
        // At most what was under way at a death came again.
        let again = times.values().filter(|times| **times > 1).count();
        assert!(again <= ROUNDS * 64, "{again} events came again");
        app.stop().await;
    });
}

async fn open(file: &Path) -> App {
    let options = schedule(&[0, 100, 100, 100]).with_lease(Duration::from_secs(3600));
    start(file, options, |store| store).await
}

async fn accept_until_killed(file: &Path) -> ! {
    let app = open(file).await;
    let mut number = std::env::var(FIRST).unwrap().parse().unwrap();
    loop {
        app.accept(number..number + 1).await;
        println!("\naccepted {number}");
        std::io::stdout().flush().unwrap();
        number += 1;
    }
}

fn spawn_child(file: &Path, first: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "kill::nothing_that_a_killed_process_has_accepted_is_lost",
            "--nocapture",
        ])
        .env(CHILD, file)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}
