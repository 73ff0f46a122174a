//! Processes that work on the same streams and are killed. Each is this test binary again, which a variable
//! says where the streams are.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::Instant;

use super::history::History;
use super::record::{Event, Record};
use super::{IMPATIENT, Open, open_at_last, seconds};

/// The URL at which a child opens its streams.
const URL: &str = "TIDINGS_STREAM_HISTORY_URL";

/// The file in which a child keeps its record. Its name is the number of the child, from 1.
const RECORD: &str = "TIDINGS_STREAM_HISTORY_RECORD";

/// How many there are at a time.
const COUNT: usize = 2;

/// The children of one test.
pub(super) struct Children {
    test: &'static str,
    url: String,
    records: TempDir,
}

impl Children {
    /// Children that run the test of this name, which must call [`work_if_child`] first.
    pub(super) fn new(test: &'static str, url: &str) -> Self {
        Self {
            test,
            url: url.to_owned(),
            records: tempfile::tempdir().unwrap(),
        }
    }

    /// Starts children and kills them, for as long as histories last.
    pub(super) async fn kill_again_and_again(&self) {
        let begun = Instant::now();
        let mut running: Vec<Running> = Vec::new();
        while begun.elapsed() < seconds() {
            while running.len() < COUNT {
                running.push(self.start());
            }
            let life = Duration::from_millis(fastrand::u64(300..1500));
            tokio::time::sleep(life).await;
            drop(running.swap_remove(fastrand::usize(..COUNT)));
        }
    }

    fn start(&self) -> Running {
        let number = self.paths().count() + 1;
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", self.test, "--nocapture"])
            .env(URL, &self.url)
            .env(RECORD, self.records.path().join(number.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // So that the next one gets another number.
        let record = self.records.path().join(format!("{number}.started"));
        std::fs::write(record, "").unwrap();
        Running(child)
    }

    fn paths(&self) -> impl Iterator<Item = PathBuf> {
        let entries = std::fs::read_dir(self.records.path()).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|it| it == "started"))
    }

    /// What all of them have done.
    pub(super) fn events(&self) -> Vec<Event> {
        let records = self.paths().map(|path| path.with_extension(""));
        let events: Vec<Event> = records.flat_map(|path| Record::read(&path)).collect();
        let has = |is_wanted: fn(&Event) -> bool| events.iter().any(is_wanted);
        assert!(
            has(|event| matches!(event, Event::Accepted(..))),
            "children publish"
        );
        assert!(
            has(|event| matches!(event, Event::Succeeded(..))),
            "children handle"
        );
        events
    }
}

/// A child, which is killed when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// In a child, works until it is killed. Otherwise does nothing.
pub(super) async fn work_if_child(open: Open) {
    let (Ok(url), Ok(path)) = (std::env::var(URL), std::env::var(RECORD)) else {
        return;
    };
    // Its input ends with the process that has started it.
    std::thread::spawn(|| {
        let _ended = std::io::stdin().read(&mut [0]);
        std::process::exit(1);
    });
    let path = Path::new(&path);
    let number: u64 = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let history = History::new(Record::in_file(path), number << 32);
    let opened = open_at_last(open, &url, IMPATIENT).await;
    let never = AtomicBool::new(false);
    Arc::new(history).work(&opened, &never).await;
}
