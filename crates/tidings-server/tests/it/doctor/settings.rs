//! Settings, and the machine.

use serde_json::{Value, json};
use tokio::process::Command;

use super::{assert_finds, examine, on, on_file};
use crate::support::{Home, binary, said_by, soon};

#[tokio::test]
async fn settings_have_their_origin_and_hide_secrets() {
    let home = Home::new();
    let file = home.path().join("tidings.toml");
    std::fs::write(
        &file,
        "max-streams = 7\njwt-secret = \"hunter2-hunter2-hunter2-hunter2-hunter2\"\n",
    )
    .unwrap();
    let mut command = on("postgres://anna:hunter2@127.0.0.1:1/db");
    command
        .arg(format!("--config={}", file.display()))
        .env("TIDINGS_API_KEY", "hunter2-hunter2-hunter2")
        .env("TIDINGS_MAX_ENDPOINTS", "9")
        .env("TIDINGS_RETENTON", "1d");
    let (ok, findings) = examine(&mut command).await;
    assert!(!ok);
    let everything = format!("{findings:?}");
    assert!(!everything.contains("hunter2"), "{everything}");
    let setting = |name: &str| {
        let found = findings.iter().find(|it| it["name"] == name).unwrap();
        (found["value"].clone(), found["origin"].clone())
    };
    assert_eq!(setting("max-streams"), (json!("7"), json!("file")));
    assert_eq!(setting("max-endpoints"), (json!("9"), json!("environment")));
    assert_eq!(setting("retention"), (json!("90d"), json!("default")));
    let database = json!("postgres://127.0.0.1:1/db");
    assert_eq!(setting("database"), (database, json!("command_line")));
    assert_eq!(
        setting("api-key"),
        (json!("[hidden]"), json!("environment"))
    );
    assert_eq!(setting("jwt-secret"), (json!("[hidden]"), json!("file")));
    assert_finds(&findings, "settings", "warning", "TIDINGS_RETENTON");
    assert_finds(&findings, "keys", "ok", "secret of tokens");
    assert_finds(&findings, "store", "error", "no server listens");
}

#[tokio::test]
async fn regression_a_file_that_can_be_read_once_is_read_once() {
    let home = Home::new();
    let pipe = home.path().join("tidings.toml");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let config = format!("--config={}", pipe.display());
    let writing = tokio::task::spawn_blocking(move || std::fs::write(pipe, "max-streams = 7\n"));
    let mut command = binary();
    command.args(["doctor", "--dev", &config]);
    let (_, findings) = soon("an examination", examine(&mut command)).await;
    writing.await.unwrap().unwrap();
    let found = findings.iter().find(|it| it["name"] == "max-streams");
    let found = found.unwrap();
    assert_eq!(
        (&found["value"], &found["origin"]),
        (&json!("7"), &json!("file"))
    );
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_findings() {
    let home = Home::new();
    let file = home.path().join("tidings.toml");
    let config = format!("--config={}", file.display());
    for (text, says) in [
        ("max-streams = 0", "line 1: invalid value"),
        ("url = \"http://a\"", "line 1: unknown setting `url`"),
        ("json = true", "line 1: unknown setting `json`"),
    ] {
        std::fs::write(&file, text).unwrap();
        let (ok, findings) = examine(binary().args(["doctor", "--dev", &config])).await;
        assert!(!ok && findings.len() == 1);
        assert_finds(&findings, "settings", "error", says);
    }
    let mut command = binary();
    command
        .args(["doctor", "--dev"])
        .env("TIDINGS_MAX_STREAMS", "0");
    let (ok, findings) = examine(&mut command).await;
    assert!(!ok && findings.len() == 1);
    assert_finds(&findings, "settings", "error", "--max-streams");
    // They do not fit together, and everything else is looked at.
    let database = format!("sqlite:{}", home.database().display());
    let mut command = binary();
    command.args(["doctor", "--database", &database]);
    let (ok, findings) = examine(&mut command).await;
    assert!(!ok);
    assert_finds(
        &findings,
        "settings",
        "error",
        "--api-key: expected at least one",
    );
    assert_finds(&findings, "store", "ok", "does not exist yet");
    let mut command = binary();
    command
        .args([
            "doctor",
            "--listen",
            "192.0.2.1:80",
            "--api-key",
            "0123456789abcdef",
        ])
        .args(["--database", &database, "--jwt-public-key"])
        .arg(&file);
    let (_, findings) = examine(&mut command).await;
    assert_finds(
        &findings,
        "listen",
        "error",
        "this machine does not have this address",
    );
    assert_finds(&findings, "keys", "error", "--jwt-public-key");
    assert_finds(&findings, "keys", "warning", "without encryption");
}

#[tokio::test]
async fn a_key_set_is_loaded() {
    let home = Home::new();
    let file = home.path().join("keys.json");
    let source = file.to_str().unwrap();
    let with = |source: &str| {
        let mut command = on_file(&home.database());
        command.args(["--jwt-jwks", source]);
        command
    };
    let (ok, findings) = examine(&mut with(source)).await;
    assert!(!ok);
    assert_finds(
        &findings,
        "keys",
        "error",
        "--jwt-jwks: cannot load the keys",
    );
    std::fs::write(&file, "{}").unwrap();
    let (ok, findings) = examine(&mut with(source)).await;
    assert!(!ok);
    assert_finds(&findings, "keys", "error", source);
    // The Ed25519 key of RFC 8037.
    let set = json!({ "keys": [{
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    }] });
    std::fs::write(&file, set.to_string()).unwrap();
    let (ok, findings) = examine(&mut with(source)).await;
    assert!(ok, "{findings:?}");
    assert_finds(&findings, "keys", "ok", ": 1 key of tokens");

    let (ok, findings) = examine(&mut with("http://127.0.0.1:1/keys")).await;
    assert!(ok, "{findings:?}");
    assert_finds(&findings, "keys", "warning", "loads them later");
}

#[tokio::test]
async fn a_limit_of_open_files_that_is_too_low_is_a_warning() {
    let home = Home::new();
    let mut limited = Command::new("bash");
    let doctor = env!("CARGO_BIN_EXE_tidings");
    let script =
        "ulimit -n 1024; exec \"$0\" doctor --dev --listen 127.0.0.1:0 --database \"$1\" --json";
    limited
        .args(["-c", script, doctor])
        .arg(format!("sqlite:{}", home.database().display()));
    let (ok, shown, _) = said_by(&mut limited).await;
    assert!(ok);
    let line = shown
        .lines()
        .find(|line| line.contains("descriptors"))
        .unwrap();
    let finding: Value = serde_json::from_str(line).unwrap();
    assert_eq!(finding["status"], "warning");
    let message = finding["message"].as_str().unwrap();
    assert!(
        message.contains("1024 are allowed (ulimit -Hn)"),
        "{message}"
    );
}
