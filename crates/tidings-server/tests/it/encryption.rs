//! Secrets of endpoints in the database of a server.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;

use rusqlite::types::ValueRef;
use serde_json::{Value, json};

use crate::support::{Home, Server, binary, http, said_by, soon};

const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const NEW_KEY: &str = "EEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEEE=";

fn with_keys(keys: &str) -> Home {
    Home::with(&["--encryption-key", keys, "--log", "debug"])
}

/// Makes an endpoint by a request that can be repeated; gives the response.
async fn create(server: &Server) -> (u16, Value) {
    once(
        server,
        "/v1/endpoints",
        json!({ "url": "https://example.com/" }),
    )
    .await
}

/// Makes an API key by a request that can be repeated; gives the response.
async fn make_key(server: &Server) -> (u16, Value) {
    once(
        server,
        "/v1/keys",
        json!({ "name": "one", "scopes": ["read"] }),
    )
    .await
}

async fn once(server: &Server, path: &str, body: Value) -> (u16, Value) {
    let request = http().post(server.at(path));
    let request = request.header("Idempotency-Key", format!("once{path}"));
    let response = request.json(&body).send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap())
}

/// Whether a text is in a value of a row of any table.
pub(crate) fn is_in_a_row(database: &Path, text: &str) -> bool {
    let database = rusqlite::Connection::open(database).unwrap();
    let mut tables = database
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")
        .unwrap();
    let tables = tables.query_map([], |row| row.get::<_, String>(0)).unwrap();
    tables.map(Result::unwrap).any(|table| {
        let mut rows = database.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = rows.column_count();
        let mut rows = rows.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            for column in 0..columns {
                let value = row.get_ref(column).unwrap();
                let (ValueRef::Text(bytes) | ValueRef::Blob(bytes)) = value else {
                    continue;
                };
                if String::from_utf8_lossy(bytes).contains(text) {
                    return true;
                }
            }
        }
        false
    })
}

#[tokio::test]
async fn no_plain_secret_is_in_the_database_or_the_log_and_a_repeat_has_it() {
    let home = with_keys(KEY);
    let server = home.start().await;
    let (status, created) = create(&server).await;
    assert_eq!(status, 201);
    let id = created["id"].as_str().unwrap();
    let rotate = server.at(&format!("/v1/endpoints/{id}/secret/rotate"));
    let rotate = http().post(rotate).header("Idempotency-Key", "rotate");
    let rotated = rotate.json(&json!({})).send().await.unwrap();
    let rotated: Value = rotated.json().await.unwrap();
    let (_, log) = server.stop("-TERM").await;
    for document in [&created, &rotated] {
        let secret = document["secret"].as_str().unwrap();
        let plain = secret.strip_prefix("whsec_").unwrap();
        assert!(!log.contains(plain) && !log.contains(&KEY[..43]), "{log}");
        assert!(!is_in_a_row(&home.database(), plain));
    }
    assert!(is_in_a_row(&home.database(), "sealed:1:"));

    let server = home.start().await;
    let (status, repeated) = create(&server).await;
    assert_eq!((status, &repeated), (201, &created));
}

#[tokio::test]
async fn the_secret_of_a_removed_endpoint_is_gone() {
    let home = Home::new();
    let server = home.start().await;
    let body = json!({ "url": "https://example.com/" });
    let created = server.post("/v1/endpoints", &body).await;
    let created: Value = created.json().await.unwrap();
    let plain = &created["secret"].as_str().unwrap()["whsec_".len()..];
    assert!(is_in_a_row(&home.database(), plain));
    let one = server.at(&format!(
        "/v1/endpoints/{}",
        created["id"].as_str().unwrap()
    ));
    let removed = http().delete(one).send().await.unwrap();
    assert_eq!(removed.status(), 204);
    assert!(!is_in_a_row(&home.database(), plain));
}

/// Without a key, what was stored as it is stays in the rows: the search above finds what there is.
#[tokio::test]
async fn without_a_key_secrets_are_stored_as_they_are() {
    let home = Home::new();
    let server = home.start().await;
    let (_, created) = create(&server).await;
    let plain = created["secret"].as_str().unwrap()[6..].to_owned();
    server.stop("-TERM").await.0.code().unwrap();
    assert!(is_in_a_row(&home.database(), &plain));
}

#[tokio::test]
async fn regression_a_response_that_was_kept_before_the_first_key_is_encrypted_at_the_next_start() {
    let home = Home::new();
    let server = home.start().await;
    let (_, created) = create(&server).await;
    let rotate = format!(
        "/v1/endpoints/{}/secret/rotate",
        created["id"].as_str().unwrap()
    );
    let rotate = async |server: &Server| {
        let request = http()
            .post(server.at(&rotate))
            .header("Idempotency-Key", "rotate");
        let response = request.json(&json!({})).send().await.unwrap();
        response.json::<Value>().await.unwrap()
    };
    let rotated = rotate(&server).await;
    server.stop("-TERM").await.0.code().unwrap();
    let plain = |document: &Value| document["secret"].as_str().unwrap()[6..].to_owned();
    for document in [&created, &rotated] {
        assert!(is_in_a_row(&home.database(), &plain(document)));
    }
    let mut before = forms(&home.database());
    // The second start replaces the key, so that the first can go.
    let both = format!("{NEW_KEY},{KEY}");
    for (keys, changes) in [(KEY, true), (&both, true), (NEW_KEY, false)] {
        let mut command = home.command();
        command.env("TIDINGS_ENCRYPTION_KEY", keys);
        let server = Server::of(command).await;
        assert_eq!(create(&server).await.1, created, "{keys}");
        assert_eq!(rotate(&server).await, rotated, "{keys}");
        let now = soon("the encryption", async {
            loop {
                let now = forms(&home.database());
                let is_sealed = now.len() == 1 && now.iter().all(|it| it.starts_with("sealed:1:"));
                if is_sealed && (now != before) == changes {
                    return now;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        });
        before = now.await;
        server.stop("-TERM").await.0.code().unwrap();
    }
    for document in [&created, &rotated] {
        assert!(!is_in_a_row(&home.database(), &plain(document)));
    }
}

/// How the kept responses begin: with the id of the key that encrypts them.
fn forms(database: &Path) -> BTreeSet<String> {
    let database = rusqlite::Connection::open(database).unwrap();
    let select = "SELECT substr(response, 1, 17) FROM idempotency WHERE response IS NOT NULL";
    let mut select = database.prepare(select).unwrap();
    let rows = select.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

#[tokio::test]
async fn a_lost_key_leaves_the_endpoints_usable() {
    let home = with_keys(KEY);
    let server = home.start().await;
    let (_, created) = create(&server).await;
    assert_eq!(make_key(&server).await.0, 201);
    server.stop("-TERM").await.0.code().unwrap();

    let other = Home::at(home.path());
    let mut command = other.command();
    command.env("TIDINGS_ENCRYPTION_KEY", NEW_KEY);
    let server = Server::of(command).await;
    let path = format!("/v1/endpoints/{}", created["id"].as_str().unwrap());
    let shown = server.get(&path).await;
    assert_eq!(shown["url"], created["url"]);
    let renamed = json!({ "description": "renamed" });
    assert_eq!(
        server.patch(&path, &renamed).await["description"],
        "renamed"
    );
    // The kept responses are lost with the key.
    for (status, refused) in [create(&server).await, make_key(&server).await] {
        assert_eq!(status, 409, "{refused}");
        assert_eq!(refused["error"]["code"], "response_unreadable");
        assert_eq!(refused["error"]["field"], "Idempotency-Key");
        let message = refused["error"]["message"].as_str().unwrap();
        assert!(message.contains("--encryption-key"), "{message}");
    }
    assert_eq!(
        server.get("/v1/endpoints").await["data"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let rotate = format!("{path}/secret/rotate");
    let rotated = server.post(&rotate, &json!({})).await;
    assert_eq!(rotated.status(), 200);
    let warning = "cannot be decrypted with the configured keys";
    let (_, log) = server.stop("-TERM").await;
    assert!(log.contains(warning), "{log}");

    // Also without any key; after the rotation it is the new one that lacks.
    let server = other.start().await;
    for _ in 0..10 {
        server.get(&path).await;
    }
    let (_, log) = server.stop("-TERM").await;
    assert!(log.contains(warning), "{log}");
}

#[tokio::test]
async fn a_key_that_is_none_is_refused_without_being_shown_and_a_server_without_one_warns() {
    let folder = tempfile::tempdir().unwrap();
    let serve = |key: Option<&str>| {
        let mut command = binary();
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--api-key"])
            .arg("0123456789abcdef")
            .args([
                "--database",
                &format!("sqlite:{}/a.db", folder.path().display()),
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(key) = key {
            command.env("TIDINGS_ENCRYPTION_KEY", key);
        }
        command
    };
    for (key, says) in [
        ("hidden", "expected 32 random bytes in base64"),
        ("", "expected a value, got an empty text"),
        (
            &format!("{KEY},hidden"),
            "expected 32 random bytes in base64",
        ),
    ] {
        let (started, _, text) = said_by(&mut serve(Some(key))).await;
        assert!(!started, "{key}");
        assert!(text.contains(says), "{text}");
        assert!(!text.contains("hidden") && !text.contains("AAAA"), "{text}");
    }
    for (key, warnings) in [(None, 1), (Some(KEY), 0)] {
        let server = Server::of(serve(key)).await;
        let (_, log) = server.stop("-TERM").await;
        assert_eq!(
            log.matches("TIDINGS_ENCRYPTION_KEY").count(),
            warnings,
            "{log}"
        );
    }
}
