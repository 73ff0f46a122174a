//! Databases, and Redis.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use serde_json::json;
use tidings_test_support::{PostgresServer, Proxy, Schema, Tls, Welcome};
use tokio::process::Command;

use super::{assert_finds, examine, of, on, on_file};
use crate::support::{Home, Server, binary, said_by, soon};

/// The bytes of each file in the folder.
fn files(folder: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name(), std::fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn the_size_of_a_file_in_use_has_its_write_ahead_log() {
    let home = Home::new();
    let _server = home.start().await;
    let (_, findings) = examine(&mut on_file(&home.database())).await;
    assert_finds(&findings, "store", "ok", "KiB of its write-ahead log");
}

#[tokio::test]
async fn a_file_is_looked_at_and_stays_as_it_is() {
    let home = Home::new();
    home.start().await.stop("-TERM").await;
    let folder = home.path().join("copy # 100%");
    std::fs::create_dir(&folder).unwrap();
    let copy = folder.join("tidings.db");
    rusqlite::Connection::open(home.database())
        .unwrap()
        .execute("VACUUM INTO ?1", [copy.to_str().unwrap()])
        .unwrap();
    let before = files(&folder);
    let mut command = binary();
    command
        .current_dir(&folder)
        .args(["doctor", "--dev", "--database", "sqlite:tidings.db"]);
    let (ok, findings) = examine(&mut command).await;
    assert!(ok, "{findings:?}");
    assert_finds(&findings, "store", "ok", "whole (quick_check)");
    assert_finds(&findings, "store", "warning", "run chmod 600");
    assert_finds(&findings, "clock", "ok", "this machine");
    assert!(files(&folder) == before);

    let set_version = |statement: &str| {
        rusqlite::Connection::open(&copy)
            .unwrap()
            .execute_batch(statement)
            .unwrap();
    };
    for component in ["api_keys", "idempotency", "notify", "stream", "webhooks"] {
        let change = |by| {
            format!(
                "UPDATE tidings_schema SET version = version {by} WHERE component = '{component}'"
            )
        };
        set_version(&change("+ 1"));
        let (_, findings) = examine(&mut on_file(&copy)).await;
        let newer =
            format!("the tables of `{component}` are of a newer version of Tidings (version ");
        assert_finds(&findings, "store", "error", &newer);
        set_version(&change("- 1"));
    }
    set_version(
        "CREATE TABLE imported (\"to\" TEXT NOT NULL, at TEXT NOT NULL) STRICT;
         INSERT INTO imported VALUES ('postgres://host/db', 'x');",
    );
    let (ok, findings) = examine(&mut on_file(&copy)).await;
    assert!(ok);
    assert_finds(
        &findings,
        "store",
        "warning",
        "imported into postgres://host/db",
    );
    let future = std::time::SystemTime::now() + std::time::Duration::from_secs(3600);
    std::fs::File::options()
        .write(true)
        .open(&copy)
        .unwrap()
        .set_modified(future)
        .unwrap();
    let (_, findings) = examine(&mut on_file(&copy)).await;
    assert_finds(&findings, "clock", "warning", "was set back");
}

#[tokio::test]
async fn a_file_that_a_server_uses_is_read_beside_it() {
    let home = Home::new();
    let server = home.start().await;
    server.notify("anna", json!(1)).await;
    let (ok, findings) = examine(&mut on_file(&home.database())).await;
    assert!(ok, "{findings:?}");
    let says = format!("process {} uses", server.process_id());
    assert_finds(&findings, "store", "ok", &says);
    assert_finds(&findings, "store", "ok", "whole");
    server.notify("anna", json!(2)).await;
    let (_, said) = server.stop("-TERM").await;
    assert!(!said.contains("WARN"), "{said}");
}

#[tokio::test]
async fn secrets_that_cannot_be_decrypted_are_an_error() {
    const KEYS: [&str; 2] = [
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "EEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEE=",
    ];
    let home = Home::new();
    let file = home.database();
    let server = home.start().await;
    let body = json!({ "url": "http://127.0.0.1:9/" });
    assert_eq!(server.post("/v1/endpoints", &body).await.status(), 201);
    server.stop("-TERM").await.0.code().unwrap();
    let mut with_key = on_file(&file);
    let (ok, findings) = examine(with_key.env("TIDINGS_ENCRYPTION_KEY", KEYS[0])).await;
    assert!(ok, "{findings:?}");
    let says = "the secrets of 1 endpoint are stored without encryption: a server encrypts them";
    assert_finds(&findings, "keys", "ok", says);
    assert_eq!(of(&examine(&mut on_file(&file)).await.1, "keys"), []);

    let home = Home::new();
    let file = home.database();
    let mut command = home.command();
    command.env("TIDINGS_ENCRYPTION_KEY", KEYS[0]);
    let server = Server::of(command).await;
    for _ in 0..2 {
        assert_eq!(server.post("/v1/endpoints", &body).await.status(), 201);
    }
    // Beside the server, and without it.
    let mut server = Some(server);
    for _ in 0..2 {
        let mut right = on_file(&file);
        let both = format!("{},{}", KEYS[1], KEYS[0]);
        let (ok, findings) = examine(right.env("TIDINGS_ENCRYPTION_KEY", both)).await;
        assert!(ok, "{findings:?}");
        let says = "the secrets of 2 endpoints can be decrypted";
        assert_finds(&findings, "keys", "ok", says);
        for key in ["", KEYS[1]] {
            let mut lost = on_file(&file);
            if !key.is_empty() {
                lost.env("TIDINGS_ENCRYPTION_KEY", key);
            }
            let (ok, findings) = examine(&mut lost).await;
            assert!(!ok);
            let says = "the secrets of 2 endpoints cannot be decrypted, so all their webhooks fail: encrypted with \
                        the key ";
            assert_finds(&findings, "keys", "error", says);
            assert_finds(
                &findings,
                "keys",
                "error",
                "which is not configured (--encryption-key)",
            );
        }
        if let Some(server) = server.take() {
            server.stop("-TERM").await.0.code().unwrap();
        }
    }
}

/// As root, nothing is forbidden: the doctor runs as another user then.
fn on_file_as_user(home: &Home, file: &Path) -> Command {
    let command = on_file(file);
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return command;
    }
    let doctor = home.path().join("tidings");
    if !doctor.exists() {
        // Not by this process: a child that another thread starts meanwhile would inherit the open file, and what is open
        // for writing cannot be run.
        let mut install = std::process::Command::new("install");
        install.args(["-m", "755", env!("CARGO_BIN_EXE_tidings")]);
        assert!(install.arg(&doctor).status().unwrap().success());
    }
    let mut as_user = Command::new(doctor);
    as_user.args(command.as_std().get_args());
    as_user.uid(65534).gid(65534).env_clear();
    as_user
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_file_or_folder_that_this_user_may_not_write_is_an_error() {
    let home = Home::new();
    let file = home.database();
    home.start().await.stop("-TERM").await.0.code().unwrap();
    let missing = home.path().join("missing.db");
    for (of_folder, of_file, what, may_make) in [
        (0o777, 0o444, "the file", true),
        (0o555, 0o666, "its folder", false),
    ] {
        set_mode(&file, of_file);
        set_mode(home.path(), of_folder);
        let (ok, findings) = examine(&mut on_file_as_user(&home, &file)).await;
        assert!(!ok, "{what}");
        let says = format!("this user cannot write {what}: permission denied");
        assert_finds(&findings, "store", "error", &says);
        let (ok, findings) = examine(&mut on_file_as_user(&home, &missing)).await;
        assert_eq!(ok, may_make, "{findings:?}");
        if !may_make {
            assert_finds(&findings, "store", "error", &says);
        }
    }
    // So that it can be removed.
    set_mode(home.path(), 0o777);
}

/// A server keeps the log and the lock beside the file itself.
#[tokio::test]
async fn regression_a_file_is_looked_at_where_a_link_leads_to() {
    let home = Home::new();
    let links = home.path().join("links");
    std::fs::create_dir(&links).unwrap();
    let link = links.join("linked.db");
    std::os::unix::fs::symlink("../tidings.db", &link).unwrap();
    let (ok, findings) = examine(&mut on_file(&link)).await;
    assert!(ok, "{findings:?}");
    let folder = std::fs::canonicalize(home.path()).unwrap();
    let file = folder.join("tidings.db");
    let says = format!("{} does not exist yet", file.display());
    assert_finds(&findings, "store", "ok", &says);

    // All that is stored is in the log.
    let server = home.start().await;
    let body = json!({ "url": "http://127.0.0.1:9/" });
    assert_eq!(server.post("/v1/endpoints", &body).await.status(), 201);
    let (ok, findings) = examine(&mut on_file(&link)).await;
    assert!(ok, "{findings:?}");
    assert_finds(
        &findings,
        "store",
        "ok",
        "KiB of its write-ahead log, whole",
    );
    let says = format!("process {} uses", server.process_id());
    assert_finds(&findings, "store", "ok", &says);
    server.stop("-TERM").await.0.code().unwrap();

    // What this user may not write beside a link is of no use to a server.
    for entry in std::fs::read_dir(home.path()).unwrap() {
        set_mode(&entry.unwrap().path(), 0o666);
    }
    set_mode(home.path(), 0o777);
    set_mode(&links, 0o555);
    let (ok, findings) = examine(&mut on_file_as_user(&home, &link)).await;
    assert!(ok, "{findings:?}");

    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("../none/tidings.db", &link).unwrap();
    let (ok, findings) = examine(&mut on_file(&link)).await;
    assert!(!ok);
    assert_finds(&findings, "store", "error", "its folder does not exist");
    set_mode(&links, 0o777);
}

#[tokio::test]
async fn files_that_are_no_database_of_ours_are_errors() {
    let home = Home::new();
    let text = home.path().join("text.db");
    std::fs::write(&text, "x".repeat(4096)).unwrap();
    let other = home.path().join("other.db");
    let connection = rusqlite::Connection::open(&other).unwrap();
    connection.execute_batch("CREATE TABLE t (n)").unwrap();
    for (path, says) in [
        (text.as_path(), "is not a SQLite database"),
        (&other, "is a database of another program"),
        (home.path(), "is not a file"),
        (&home.path().join("none/a.db"), "its folder does not exist"),
    ] {
        let (ok, findings) = examine(&mut on_file(path)).await;
        assert!(!ok, "{}", path.display());
        assert_finds(&findings, "store", "error", says);
        assert!(!format!("{findings:?}").contains("chmod"), "{findings:?}");
    }
}

#[tokio::test]
async fn a_postgresql_is_looked_at_and_its_clock_is_compared() {
    let schema = Schema::create().await;
    let (ok, findings) = examine(&mut on(&schema.url())).await;
    assert!(ok, "{findings:?}");
    assert_finds(&findings, "store", "ok", "without tables");
    assert_finds(&findings, "clock", "ok", "the clock of the database agrees");
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()";
    let made: i64 = schema
        .client()
        .await
        .query_one(tables, &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(made, 0);

    let home = Home::on(&schema.url(), &[]);
    let server = home.start().await;
    let (ok, findings) = examine(&mut on(&schema.url())).await;
    assert!(ok, "{findings:?}");
    assert_finds(&findings, "store", "ok", ": PostgreSQL 1");
    server.stop("-TERM").await;
    for component in ["notify", "presence", "server", "stream", "webhooks"] {
        let component = format!("tidings_{component}");
        let change = |by| {
            format!(
                "UPDATE tidings_schema SET version = version {by} WHERE component = '{component}'"
            )
        };
        schema.execute(&change("+ 1")).await;
        let (_, findings) = examine(&mut on(&schema.url())).await;
        let newer =
            format!("the tables of `{component}` are of a newer version of Tidings (version ");
        assert_finds(&findings, "store", "error", &newer);
        schema.execute(&change("- 1")).await;
    }
}

#[tokio::test]
async fn a_postgresql_on_another_machine_without_tls_is_warned_of() {
    let schema = Schema::create().await;
    // It leads to this machine, and is no address of loopback.
    let elsewhere = schema.url().replace("127.0.0.1", "0.0.0.0");
    for (url, is_warned_of) in [(schema.url(), false), (elsewhere, true)] {
        let (ok, findings) = examine(&mut on(&url)).await;
        assert!(ok, "{findings:?}");
        let warnings = of(&findings, "store").into_iter();
        let warnings = warnings.filter(|(status, _)| *status == "warning");
        let warnings: String = warnings.map(|(_, message)| message).collect();
        let home = Home::on(&url, &[]);
        let (_, log) = home.start().await.stop("-TERM").await;
        for said in [warnings, log] {
            let warning = "the connection to PostgreSQL at 0.0.0.0 has no TLS";
            assert_eq!(said.contains(warning), is_warned_of, "{url}: {said}");
        }
    }
}

#[tokio::test]
async fn the_certificate_of_an_authority_is_called_so() {
    let home = Home::new();
    let schema = Schema::create().await;
    let (authority, acceptor) = Tls::Authority.acceptor().unwrap();
    let trusted = home.path().join("authority.pem");
    std::fs::write(&trusted, authority.pem()).unwrap();
    let says = "is that of an authority itself, as `openssl req -x509` makes it: let the authority sign another one for \
                the server, and trust the authority (for PostgreSQL, as `sslrootcert`)";

    let welcome = Welcome::TlsOnRequest(acceptor.clone());
    let proxy = Proxy::welcoming(&schema.url(), welcome).await.unwrap();
    let url = format!(
        "{}&sslmode=verify-full&sslrootcert={}",
        proxy.url(),
        trusted.display()
    );
    let (_, findings) = examine(&mut on(&url)).await;
    assert_finds(&findings, "store", "error", says);
    let (_, _, said) = said_by(&mut Home::on(&url, &[]).command()).await;
    assert!(said.contains(says), "{said}");

    let redis = std::env::var("REDIS_URL").expect("REDIS_URL is set; scripts/services does so");
    let proxy = Proxy::welcoming(&redis, Welcome::Tls(acceptor))
        .await
        .unwrap();
    let mut command = on("postgres://127.0.0.1:1/db");
    let url = proxy.url().replacen("redis:", "rediss:", 1);
    command.env("SSL_CERT_FILE", &trusted);
    let (_, findings) = examine(command.args(["--redis", &url])).await;
    assert_finds(&findings, "redis", "error", says);
}

#[tokio::test]
async fn settings_of_postgresql_that_lose_commits_in_a_crash_are_named() {
    let database = PostgresServer::start().unwrap();
    let store = async || of_store(&examine(&mut on(&database.url())).await.1);
    assert!(!store().await.contains("a crash"));
    for setting in ["full_page_writes", "synchronous_commit"] {
        let set = format!("ALTER SYSTEM SET {setting} = off");
        database.execute(&set).unwrap();
    }
    database.execute("SELECT pg_reload_conf()").unwrap();
    let says = "undo or damage: full_page_writes, synchronous_commit = off";
    soon("the settings", async {
        while !store().await.contains(says) {}
    })
    .await;
}

/// What it says of the database, all together.
fn of_store(findings: &[serde_json::Value]) -> String {
    let said = of(findings, "store").into_iter();
    said.map(|(_, message)| message).collect()
}

#[tokio::test]
async fn a_redis_on_another_machine_without_tls_is_warned_of() {
    let schema = Schema::create().await;
    // The second is not connected to: what the URL says is enough.
    for (url, host) in [
        ("redis://127.0.0.1:1/", None),
        ("redis://localhost:1/", None),
        ("redis://[::1]:1/", None),
        ("redis+unix:///none", None),
        ("rediss://redis.invalid:1/", None),
        ("redis://:hunter2@redis.invalid:1/", Some("redis.invalid")),
    ] {
        let mut command = on(&schema.url());
        let (_, findings) = examine(command.args(["--redis", url])).await;
        let said: String = (of(&findings, "redis").into_iter())
            .filter(|(status, _)| *status == "warning")
            .map(|(_, message)| message)
            .collect();
        let home = Home::on(&schema.url(), &["--redis", url]);
        let (_, log) = home.start().await.stop("-TERM").await;
        for said in [said, log] {
            let warning = format!(
                "the connection to Redis at {} has no TLS",
                host.unwrap_or_default()
            );
            assert_eq!(said.contains(&warning), host.is_some(), "{url}: {said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}

#[tokio::test]
async fn a_redis_server_is_asked() {
    let redis = std::env::var("REDIS_URL").expect("REDIS_URL is set; scripts/services does so");
    for (url, status, says) in [
        (redis.as_str(), "ok", "replies"),
        (
            "redis://127.0.0.1:1/",
            "warning",
            "a server starts without it",
        ),
    ] {
        let mut command = on("postgres://127.0.0.1:1/db");
        let (_, findings) = examine(command.args(["--redis", url])).await;
        assert_finds(&findings, "redis", status, says);
    }
}

#[tokio::test]
async fn regression_a_file_that_never_was_a_database_is_called_as_a_server_calls_it() {
    let home = Home::new();
    for (name, text) in [("long", "some text\n".repeat(1000)), ("short", "x".into())] {
        let path = home.path().join(name);
        std::fs::write(&path, text).unwrap();
        let (ok, findings) = examine(&mut on_file(&path)).await;
        assert!(!ok, "{findings:?}");
        let says = format!("the file {} is not a SQLite database", path.display());
        assert_finds(&findings, "store", "error", &says);
        let all = format!("{findings:?}");
        assert!(!all.contains("damaged"), "{all}");
    }
}
