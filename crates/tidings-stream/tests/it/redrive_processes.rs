//! Dead letters that two processes bring back at the same time.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use tidings_stream::{NewMessage, Redrive, ServiceConfig, Streams};
use tokio::runtime::Runtime;

use crate::database::{name, numbered};
use crate::place::{Place, open};

/// Tells the child where the streams are.
const CHILD: &str = "TIDINGS_STREAM_TEST_REDRIVE";

/// Enough for many claims of each process.
const LETTERS: u64 = 5_000;

#[test]
fn sqlite_brings_each_letter_back_once() {
    redrive_twice(
        "redrive_processes::sqlite_brings_each_letter_back_once",
        |_| Place::sqlite(),
    );
}

#[test]
fn postgres_brings_each_letter_back_once() {
    redrive_twice(
        "redrive_processes::postgres_brings_each_letter_back_once",
        |runtime| runtime.block_on(Place::postgres()),
    );
}

#[test]
fn redis_brings_each_letter_back_once() {
    redrive_twice(
        "redrive_processes::redis_brings_each_letter_back_once",
        |_| Place::redis(),
    );
}

/// Two processes share the letters: together they bring back all of them, and each one once.
fn redrive_twice(test: &str, make: impl FnOnce(&Runtime) -> Place) {
    let runtime = Runtime::new().unwrap();
    if let Ok(place) = std::env::var(CHILD) {
        runtime.block_on(redrive_when_told(&place));
        return;
    }
    let place = make(&runtime);
    runtime.block_on(async {
        let engine = open(place.text()).await;
        let letter = |message: NewMessage| message.with_header("x-dlq-stream", "app.default.s");
        let letters = numbered(LETTERS).into_iter().map(letter).collect();
        let appended = engine.append(&name("s.dead"), letters, None).await;
        appended.unwrap();
    });
    let mut children = [
        spawn_child(test, place.text()),
        spawn_child(test, place.text()),
    ];
    let mut output = children
        .each_mut()
        .map(|child| BufReader::new(child.stdout.take().unwrap()).lines());
    let mut said = |index: usize, start: &str| {
        let mut lines = output[index].by_ref().map(Result::unwrap);
        lines.find_map(|line| line.strip_prefix(start).map(str::to_owned))
    };
    for index in [0, 1] {
        said(index, "ready").unwrap();
    }
    for child in &mut children {
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    }
    let moved = [0, 1].map(|index| said(index, "moved ").unwrap().parse::<u64>().unwrap());
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(moved[0] + moved[1], LETTERS);
    assert!(moved.iter().all(|moved| *moved > 0), "{moved:?}");
    let mut brought_back = runtime.block_on(async {
        let streams = Streams::new(open(place.text()).await, ServiceConfig::default());
        let mut numbers: Vec<u64> = Vec::new();
        let mut after = None;
        loop {
            let page = streams.read("s", after, 1000).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            let number = |payload: &[u8]| {
                let digits = std::str::from_utf8(payload).unwrap();
                digits.parse::<u64>().unwrap()
            };
            numbers.extend(page.iter().map(|message| number(&message.payload)));
        }
        numbers
    });
    brought_back.sort_unstable();
    assert!(brought_back.into_iter().eq(1..=LETTERS));
}

fn spawn_child(test: &str, place: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, place)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Says on the standard output when it is ready and what it has moved.
async fn redrive_when_told(place: &str) {
    let streams = Streams::new(open(place).await, ServiceConfig::default());
    let say = |line: &str| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n{line}").unwrap();
    };
    // Each has its part in it, also if one of them is then faster than the other.
    let one = Redrive::default().with_limit(1);
    let first = streams.redrive("s.dead", one).await.unwrap();
    say("ready");
    // Its input ends with the process that has started it.
    if std::io::stdin().read_line(&mut String::new()).unwrap() == 0 {
        return;
    }
    let redriven = streams.redrive("s.dead", Redrive::default()).await.unwrap();
    say(&format!("moved {}", first.moved + redriven.moved));
}
