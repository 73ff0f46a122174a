//! `cargo run -p tidings-group-commit --example batches`
//!
//! Ten thousand callers share a log on disk, which takes as long for many lines as for one: their lines are written in a
//! few batches, and each caller waits for its own.

#![allow(clippy::print_stdout, reason = "an example prints what happens")]

use std::error::Error;
use std::io::Write;

use tidings_group_commit::{Request, queue};
use tokio::task::JoinSet;

#[derive(Debug)]
struct Line(String);

impl Request for Line {
    fn items(&self) -> usize {
        1
    }

    fn bytes(&self) -> usize {
        self.0.len()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (queue, mut calls) = queue::<Line, u64>();
    let mut log = tempfile::tempfile()?;
    let writing = tokio::spawn(async move {
        let mut batches = 0;
        while calls.wait().await {
            while let Some(batch) = calls.next_batch() {
                batches += 1;
                let lines: Vec<_> = batch.iter().map(|call| &*call.request.0).collect();
                log.write_all(lines.concat().as_bytes())?;
                log.sync_data()?;
                for call in batch {
                    call.reply(batches);
                }
            }
        }
        Ok::<_, std::io::Error>(batches)
    });

    let mut callers = JoinSet::new();
    for number in 0..10_000 {
        let queue = queue.clone();
        callers.spawn(async move { queue.call(Line(format!("line {number}\n"))).await });
    }
    while let Some(written) = callers.join_next().await {
        // The number of the batch that has the line.
        written??;
    }
    drop(queue);
    println!("10000 durable lines in {} batches", writing.await??);
    Ok(())
}
