//! Dead letters that two processes bring back at the same time.

use std::io::Write;
use std::sync::Arc;

use tidings_stream::engine::Engine;
use tidings_stream::{NewMessage, Redrive, ServiceConfig, Streams};

use crate::children::{Parent, say, tests_with_children};
use crate::database::{name, numbered};

/// Enough for many claims of each process.
const LETTERS: u64 = 5_000;

tests_with_children!(
    two_processes_bring_each_letter_back_once,
    redrive_twice,
    redrive_on_command
);

/// Two processes share the letters: together they bring back all of them, and each one once.
async fn redrive_twice(parent: &Parent) {
    let engine = parent.open().await;
    let letter = |message: NewMessage| message.with_header("x-dlq-stream", "app.default.s");
    let letters = numbered(LETTERS).into_iter().map(letter).collect();
    let appended = engine.append(&name("s.dead"), letters, None).await;
    appended.unwrap();
    drop(engine);

    let mut children = [parent.start(), parent.start()];
    for (_, lines) in &mut children {
        said(lines, "ready");
    }
    for (child, _) in &mut children {
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    }
    let moved = children.map(|(mut child, mut lines)| {
        let moved: u64 = said(&mut lines, "moved ").parse().unwrap();
        assert!(child.wait().unwrap().success());
        moved
    });
    assert_eq!(moved[0] + moved[1], LETTERS);
    assert!(moved.iter().all(|moved| *moved > 0), "{moved:?}");

    let streams = Streams::new(parent.open().await, ServiceConfig::default());
    let mut brought_back: Vec<u64> = Vec::new();
    let mut after = None;
    loop {
        let page = streams.read("s", after, 1000).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        let number = |payload: &[u8]| {
            let digits = std::str::from_utf8(payload).unwrap();
            digits.parse::<u64>().unwrap()
        };
        brought_back.extend(page.iter().map(|message| number(&message.payload)));
    }
    brought_back.sort_unstable();
    assert!(brought_back.into_iter().eq(1..=LETTERS));
}

/// The rest of the next line that begins in this way.
fn said(lines: &mut impl Iterator<Item = String>, start: &str) -> String {
    let said = lines.find_map(|line| line.strip_prefix(start).map(str::to_owned));
    said.unwrap()
}

/// Says when it is ready and what it has moved.
async fn redrive_on_command(engine: Arc<dyn Engine>) {
    let streams = Streams::new(engine, ServiceConfig::default());
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
