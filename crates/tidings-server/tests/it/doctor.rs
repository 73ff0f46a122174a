//! `tidings doctor`: what is wrong with settings, database, machine and a running server.

mod server;
mod settings;
mod storage;

use std::path::Path;

use serde_json::Value;
use tokio::process::Command;

use crate::support::{Home, binary, said_by};

/// Runs the doctor on settings of this machine; gives whether it found no error, and its findings.
async fn examine(command: &mut Command) -> (bool, Vec<Value>) {
    let (ok, shown, said) = said_by(command.arg("--json")).await;
    let findings: Vec<Value> = shown
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let has_error = findings.iter().any(|it| it["status"] == "error");
    assert_eq!(ok, !has_error, "{shown} {said}");
    assert_eq!(said.contains("found an error"), has_error, "{said}");
    (ok, findings)
}

fn on(database: &str) -> Command {
    let mut command = binary();
    command.args([
        "doctor",
        "--dev",
        "--listen",
        "127.0.0.1:0",
        "--database",
        database,
    ]);
    command
}

fn on_file(path: &Path) -> Command {
    on(&format!("sqlite:{}", path.display()))
}

/// Asks a server alone.
fn at(url: &str) -> Command {
    let mut command = binary();
    command.args(["doctor", "--url", url]);
    command
}

/// The findings of a check: the status of each, and its message.
fn of<'a>(findings: &'a [Value], check: &str) -> Vec<(&'a str, &'a str)> {
    let of_check = findings.iter().filter(|it| it["check"] == check);
    let text = |value: &'a Value| value.as_str().unwrap_or_default();
    of_check
        .map(|it| (text(&it["status"]), text(&it["message"])))
        .collect()
}

#[track_caller]
fn assert_finds(findings: &[Value], check: &str, status: &str, says: &str) {
    let found = of(findings, check);
    let is_there = found.iter().any(|it| it.0 == status && it.1.contains(says));
    assert!(is_there, "{check} {status} {says}: {found:?}");
}

#[tokio::test]
async fn each_check_is_one_line_and_nothing_is_made() {
    let home = Home::new();
    let (ok, shown, said) = said_by(&mut on_file(&home.database())).await;
    assert!(ok, "{shown} {said}");
    for check in ["settings", "listen", "descriptors", "store"] {
        let prefix = format!("ok       {check:<12} ");
        assert!(
            shown.lines().any(|line| line.starts_with(&prefix)),
            "{check}: {shown}"
        );
    }
    assert!(shown.contains("tidings.db does not exist yet"), "{shown}");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}
