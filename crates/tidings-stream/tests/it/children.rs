//! Processes that have a part in a test. Each is this test binary again, which a variable shows where the
//! streams are.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use tidings_stream::engine::Engine;
use tokio::runtime::Runtime;

use crate::place::{Place, open};

/// Has the place of the streams in a child.
const PLACE: &str = "TIDINGS_STREAM_TEST_PLACE";

/// Makes a test for each engine that outlives a process: what it does, and what its children do.
macro_rules! tests_with_children {
    ($name:ident, $parent:ident, $child:ident) => {
        mod $name {
            use crate::children::run;
            use crate::place::Place;

            #[test]
            fn sqlite() {
                let test = concat!(module_path!(), "::sqlite");
                run(
                    test,
                    async || Place::sqlite(),
                    super::$parent,
                    super::$child,
                );
            }

            #[test]
            fn postgres() {
                let test = concat!(module_path!(), "::postgres");
                run(test, Place::postgres, super::$parent, super::$child);
            }

            #[test]
            fn redis() {
                let test = concat!(module_path!(), "::redis");
                run(test, async || Place::redis(), super::$parent, super::$child);
            }
        }
    };
}
pub(crate) use tests_with_children;

/// Runs the part of this process in a test.
pub(crate) fn run(
    test: &str,
    place: impl AsyncFnOnce() -> Place,
    parent: impl AsyncFnOnce(&Parent),
    child: impl AsyncFnOnce(Arc<dyn Engine>),
) {
    let (_crate, test) = test.split_once("::").unwrap();
    Runtime::new().unwrap().block_on(async {
        if let Ok(place) = std::env::var(PLACE) {
            return child(open(&place).await).await;
        }
        let place = place().await;
        let test = test.to_owned();
        parent(&Parent { test, place }).await;
    });
}

/// The process that starts the others.
pub(crate) struct Parent {
    test: String,
    place: Place,
}

impl Parent {
    pub(crate) async fn open(&self) -> Arc<dyn Engine> {
        open(self.place.text()).await
    }

    /// Starts a child, whose output is what it [says](say), and a few lines of the test harness. It reads
    /// until the output ends.
    pub(crate) fn start(&self) -> (Child, impl Iterator<Item = String> + use<>) {
        start(&self.test, PLACE, self.place.text())
    }
}

/// Starts a process that runs a test of this binary, with a variable set. See [`Parent::start`].
pub(crate) fn start(
    test: &str,
    variable: &str,
    value: &str,
) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(variable, value)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines.map(Result::unwrap))
}

/// Has a child say something to its parent. It ends with the parent.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // The harness may have begun a line.
    let said = writeln!(out, "\n{line}").and_then(|()| out.flush());
    if said.is_err() {
        std::process::exit(1);
    }
}
