//! `tidings import`: everything in a file goes on in a PostgreSQL database.

use std::collections::BTreeMap;
use std::process::Stdio;

use rusqlite::Connection;
use serde_json::{Value, json};
use tidings::signing::{Secret, Verifier};
use tidings_test_support::Schema;
use tokio::process::Command;

use crate::support::{Home, Server, binary, http, payloads, said_by, soon};
use crate::webhooks::Webhooks;

/// The command that imports the file of a home.
fn command(home: &Home, schema: &Schema) -> Command {
    let mut command = binary();
    command
        .args(["import", "--from"])
        .arg(format!("sqlite:{}", home.database().display()))
        .args(["--to", &schema.url()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs it to its end; gives what it printed, or why it failed.
async fn import(home: &Home, schema: &Schema) -> Result<String, String> {
    let output = soon("the import", command(home, schema).output()).await;
    let output = output.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(stderr)
    }
}

/// What a client sees of these users, of all endpoints, and of the deliveries to them.
async fn seen(server: &Server, users: &[&str], endpoints: &[&str]) -> BTreeMap<String, Value> {
    let mut paths = vec!["/v1/endpoints".to_owned()];
    for user in users {
        for list in [
            "notifications",
            "notifications?unread=true",
            "notifications?archived=true",
            "notifications/unread-count",
            "endpoints",
        ] {
            paths.push(format!("/v1/users/{user}/{list}"));
        }
    }
    for endpoint in endpoints {
        paths.push(format!("/v1/deliveries?endpoint_id={endpoint}"));
    }
    let mut seen = BTreeMap::new();
    for path in paths {
        let mut list = server.get(&path).await;
        if path.starts_with("/v1/deliveries") {
            for delivery in list["data"].as_array_mut().unwrap() {
                let id = delivery["id"].as_str().unwrap();
                let path = format!("/v1/deliveries/{id}/attempts");
                seen.insert(path.clone(), server.get(&path).await);
                // Shown by the clock of the process, which differs by microseconds.
                delivery["next_attempt_at"] = json!(delivery["next_attempt_at"].is_string());
            }
        }
        seen.insert(path, list);
    }
    seen
}

/// When the only delivery to an endpoint is attempted next, in seconds.
async fn next_attempt(server: &Server, endpoint: &str) -> i64 {
    let path = format!("/v1/deliveries?endpoint_id={endpoint}");
    let time = server.get(&path).await["data"][0]["next_attempt_at"].clone();
    let time: jiff::Timestamp = time.as_str().unwrap().parse().unwrap();
    time.as_second()
}

async fn change(server: &Server, path: &str) {
    let response = server.post(path, &json!({})).await;
    assert_eq!(response.status(), 200, "{path}");
}

async fn endpoint(server: &Server, path: &str, body: Value) -> String {
    let response = server.post(path, &body).await;
    assert_eq!(response.status(), 201);
    let created: Value = response.json().await.unwrap();
    created["id"].as_str().unwrap().to_owned()
}

/// Waits until the only delivery to an endpoint has been attempted and is in this state.
async fn attempted(server: &Server, endpoint: &str, state: &str) {
    let path = format!("/v1/deliveries?endpoint_id={endpoint}");
    soon(state, async {
        loop {
            let delivery = server.get(&path).await["data"][0].clone();
            if delivery["state"] == state && delivery["attempts"] == 1 {
                break;
            }
        }
    })
    .await;
}

/// Posts under an idempotency key; gives the response.
async fn repeatable(server: &Server) -> String {
    let request = http().post(server.at("/v1/notifications"));
    let request = request.header("Idempotency-Key", "order-17");
    let body = json!({ "user_id": "anna", "type": "order", "payload": "once" });
    let response = request.json(&body).send().await.unwrap();
    assert_eq!(response.status(), 201);
    response.text().await.unwrap()
}

/// A log with each state of the inbox; gives the ids of its first events.
async fn fill_inbox(server: &Server) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..8 {
        let stored = server.notify("anna", json!(n)).await;
        ids.push(stored["id"].as_str().unwrap().to_owned());
    }
    let of = |id: &str, action: &str| format!("/v1/users/anna/notifications/{id}/{action}");
    let seen_up_to = json!({ "up_to": ids[4] });
    let path = "/v1/users/anna/notifications/seen";
    assert_eq!(server.post(path, &seen_up_to).await.status(), 200);
    let path = "/v1/users/anna/notifications/read-all";
    let up_to = json!({ "up_to": ids[2] });
    assert_eq!(server.post(path, &up_to).await.status(), 200);
    change(server, &of(&ids[1], "unread")).await;
    change(server, &of(&ids[3], "archive")).await;
    change(server, &of(&ids[5], "read")).await;
    for text in ["first", "second"] {
        let body = json!({ "user_id": "anna", "payload": text, "key": "state" });
        assert_eq!(server.post("/v1/notifications", &body).await.status(), 201);
    }
    ids
}

/// Those of the events that [`fill_inbox`] archives, which lists of the inbox skip.
const RUNS_ARE_WHOLE: &str =
    "DO $$ BEGIN ASSERT (SELECT array_agg(ARRAY[first_seq, last_seq] ORDER BY first_seq)
     FROM tidings_notify_archived) = ARRAY[ARRAY[4, 4], ARRAY[9, 9]]::bigint[]; END $$";

#[tokio::test]
async fn everything_in_a_file_goes_on_in_the_database() {
    const BURST: usize = 40;
    let home = Home::new();
    let server = home.start().await;
    let mut delivered = Webhooks::start().await;
    let mut failing = Webhooks::start().await;
    let mut gone = Webhooks::start().await;
    let mut late = Webhooks::start().await;
    failing.reply_with(503);
    gone.reply_with(410);
    late.reply_with(503);

    // Endpoints whose deliveries are delivered, failed, and pending for an hour and for a moment.
    let to = |receiver: &Webhooks, schedule: &[u64]| json!({ "url": receiver.url(), "schedule": schedule, "event_types": ["paid"] });
    let paid = json!({ "user_id": "ben", "type": "paid", "payload": { "text": "a\tb\\n\n\r\u{1f600}\\N" } });
    let endpoints = [
        endpoint(&server, "/v1/endpoints", to(&delivered, &[0])).await,
        endpoint(&server, "/v1/users/ben/endpoints", to(&failing, &[0, 3600])).await,
        endpoint(&server, "/v1/users/ben/endpoints", to(&gone, &[0])).await,
    ];
    let soon_due = endpoint(
        &server,
        "/v1/users/ben/endpoints",
        to(&late, &[0, 1, 1, 1, 1, 1, 1, 1, 1]),
    )
    .await;
    assert_eq!(server.post("/v1/notifications", &paid).await.status(), 201);
    for (endpoint, state) in endpoints.iter().zip(["delivered", "pending", "failed"]) {
        attempted(&server, endpoint, state).await;
    }
    delivered.next().await;
    failing.next().await;
    gone.next().await;
    let first_attempt = late.next().await.id().to_owned();

    let ids = fill_inbox(&server).await;
    let first_reply = repeatable(&server).await;
    let mut screen = server.events("anna", "?since=start").await;
    let (before, _) = screen.until("tidings.caught_up").await;
    assert_eq!(before.len(), 11);

    let users = ["anna", "ben"];
    // Those of the operator get what comes later.
    let of_ben: Vec<&str> = endpoints[1..].iter().map(String::as_str).collect();
    let expected = seen(&server, &users, &of_ben).await;
    let next = next_attempt(&server, &endpoints[1]).await;
    // Accepted, and the server is killed before it has sent all of it.
    let mut burst = Webhooks::start().await;
    let path = "/v1/users/cleo/endpoints";
    endpoint(&server, path, json!({ "url": burst.url() })).await;
    let notifications: Vec<_> = (0..BURST)
        .map(|n| json!({ "user_id": "cleo", "payload": n }))
        .collect();
    let body = json!({ "notifications": notifications });
    let response = server.post("/v1/notifications/batch", &body).await;
    assert_eq!(response.status(), 201);
    server.kill().await;
    late.reply_with(204);
    failing.reply_with(204);

    let schema = Schema::create().await;
    let printed = import(&home, &schema).await.unwrap();
    assert!(printed.starts_with("Imported "), "{printed}");
    schema.execute(RUNS_ARE_WHOLE).await;
    let home = Home::on(&schema.url(), &[]);
    let server = home.start().await;
    assert_eq!(seen(&server, &users, &of_ben).await, expected);
    assert!((next_attempt(&server, &endpoints[1]).await - next).abs() <= 1);

    // The reader continues where it was, and there is no new epoch.
    let cursor = &ids[5];
    let mut screen = server.events_after("anna", "", Some(cursor)).await;
    let (rest, _) = screen.until("tidings.caught_up").await;
    assert_eq!(payloads(&rest), payloads(&before[6..]));
    assert_eq!(repeatable(&server).await, first_reply);
    let after = server.notify("anna", json!("after")).await;
    let epoch = ids[0].split('-').next().unwrap();
    assert_eq!(after["id"], format!("{epoch}-12"));
    assert_eq!(screen.next().await.json()["payload"], "after");
    let mut resumed = server.events_after("anna", "", Some(&ids[0])).await;
    let (rest, _) = resumed.until("tidings.caught_up").await;
    assert_eq!(rest.len(), 11);

    // What was pending is sent, once; what waits for an hour waits.
    assert_eq!(late.next().await.id(), first_attempt);
    delivered_at_last(&server, &soon_due).await;
    let mut sent = BTreeMap::<u64, usize>::new();
    while sent.len() < BURST {
        let webhook = soon("a webhook of the burst", burst.next()).await;
        *sent
            .entry(webhook.json()["data"].as_u64().unwrap())
            .or_default() += 1;
    }
    let list = server
        .get(&format!("/v1/deliveries?endpoint_id={}", endpoints[1]))
        .await;
    assert_eq!(list["data"][0]["attempts"], 1);

    // New rows get new numbers.
    let response = server.post("/v1/notifications", &paid).await;
    assert_eq!(response.status(), 201);
    delivered.next().await;
    let path = "/v1/users/dora/endpoints";
    endpoint(&server, path, json!({ "url": burst.url() })).await;
    server.notify("dora", json!("new")).await;
    loop {
        let webhook = soon("a webhook of a new endpoint", burst.next()).await;
        if webhook.json()["data"] == "new" {
            break;
        }
    }
}

async fn delivered_at_last(server: &Server, endpoint: &str) {
    let path = format!("/v1/deliveries?endpoint_id={endpoint}&state=delivered");
    soon("the last attempt", async {
        while server.get(&path).await["data"][0].is_null() {}
    })
    .await;
}

/// Fills a file with rows that take a while to copy.
fn fill(home: &Home, rows: u32) {
    let connection = Connection::open(home.database()).unwrap();
    let sql = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1)
        INSERT INTO idempotency (key, fingerprint, events, accepted_at)
        SELECT 'key-' || n, zeroblob(32), '[]', ?2 FROM n";
    let now = jiff::Timestamp::now().as_microsecond();
    connection.execute(sql, (rows, now)).unwrap();
}

#[tokio::test]
async fn an_interrupted_import_is_not_taken_for_a_whole_one_and_can_be_repeated() {
    let home = Home::new();
    let server = home.start().await;
    server.notify("anna", json!(1)).await;
    server.stop("-TERM").await;
    fill(&home, 300_000);
    let schema = Schema::create().await;
    let mut importing = command(&home, &schema).spawn().unwrap();
    let begun = schema.execute(
        "DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace
            WHERE relname = 'tidings_import' AND nspname = current_schema())
            LOOP PERFORM pg_sleep(0.002); END LOOP; END $$",
    );
    soon("the begin of the import", begun).await;
    importing.kill().await.unwrap();
    // It is an error if the import has ended.
    schema.execute("SELECT 'tidings_import'::regclass").await;

    let (started, _, stderr) = said_by(&mut Home::on(&schema.url(), &[]).command()).await;
    assert!(!started);
    assert!(
        stderr.contains("an import into the database was not finished: run it again"),
        "{stderr}"
    );

    // Nor can another file take its place unseen.
    let other = Home::new();
    other.start().await.stop("-TERM").await;
    let refused = import(&other, &schema).await.unwrap_err();
    let file = std::fs::canonicalize(home.database()).unwrap();
    let says = format!(
        "tidings: an import of {} into the database was not finished",
        file.display()
    );
    assert!(refused.contains(&says), "{refused}");

    import(&home, &schema).await.unwrap();
    let server = Home::on(&schema.url(), &[]).start().await;
    let list = server.get("/v1/users/anna/notifications").await;
    assert_eq!(payloads(list["data"].as_array().unwrap()), [1]);
    schema
        .execute(
            "DO $$ BEGIN ASSERT (SELECT count(*) FROM tidings_server_request) = 300000; END $$",
        )
        .await;
}

#[tokio::test]
async fn regression_a_server_on_a_file_that_was_imported_warns() {
    let (home, schema) = (Home::new(), Schema::create().await);
    let (_, log) = home.start().await.stop("-TERM").await;
    let warning = "was imported into another database";
    assert!(!log.contains(warning), "{log}");
    import(&home, &schema).await.unwrap();
    let (_, log) = home.start().await.stop("-TERM").await;
    assert!(log.contains(warning), "{log}");
    assert!(log.contains("to=\"postgres://"), "{log}");
    // A copy of the file can still be imported to try it.
    let another = Schema::create().await;
    import(&home, &another).await.unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn regression_an_import_that_cannot_print_its_end_says_that_it_has_ended() {
    let home = Home::new();
    home.start().await.stop("-TERM").await;
    let schema = Schema::create().await;
    let full = std::fs::File::options().write(true).open("/dev/full");
    let importing = command(&home, &schema).stdout(full.unwrap()).spawn();
    let ended = importing.unwrap().wait_with_output();
    let ended = soon("the import", ended).await.unwrap();
    assert!(!ended.status.success());
    let said = String::from_utf8(ended.stderr).unwrap();
    let says = "tidings: cannot write the output: the disk is full; the import has ended\n";
    assert!(said.ends_with(says), "{said}");
}

#[tokio::test]
async fn the_progress_of_a_short_import_ends_at_its_end() {
    let home = Home::new();
    home.start().await.stop("-TERM").await;
    fill(&home, 1000);
    let schema = Schema::create().await;
    let output = soon("the import", command(&home, &schema).output()).await;
    let stderr = String::from_utf8(output.unwrap().stderr).unwrap();
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with("100 % · "), "{stderr}");
}

#[tokio::test]
async fn an_import_is_refused_from_a_file_in_use_a_missing_one_and_one_of_another_version() {
    let home = Home::new();
    let schema = Schema::create().await;
    let refused = import(&home, &schema).await.unwrap_err();
    assert!(
        refused.starts_with("tidings: there is no file "),
        "{refused}"
    );
    assert!(!home.database().exists());

    let server = home.start().await;
    let refused = import(&home, &schema).await.unwrap_err();
    assert!(
        refused.contains("is in use by another process"),
        "{refused}"
    );
    server.stop("-TERM").await;

    let set_version = |version: &str| {
        let connection = Connection::open(home.database()).unwrap();
        let sql = "UPDATE tidings_schema SET version = version + ?1 WHERE component = 'notify'";
        connection.execute(sql, [version]).unwrap();
    };
    set_version("-1");
    let refused = import(&home, &schema).await.unwrap_err();
    assert!(
        refused.contains("the file is of an earlier version"),
        "{refused}"
    );
    set_version("2");
    let refused = import(&home, &schema).await.unwrap_err();
    assert!(
        refused.contains("the file is of a later version"),
        "{refused}"
    );
    set_version("-1");

    std::fs::write(home.path().join("other.db"), "").unwrap();
    let output = binary()
        .args(["import", "--from"])
        .arg(format!("sqlite:{}", home.path().join("other.db").display()))
        .args(["--to", &schema.url()])
        .output();
    let stderr = String::from_utf8(output.await.unwrap().stderr).unwrap();
    assert!(
        stderr.contains("the file has no data of Tidings"),
        "{stderr}"
    );
    // Nothing has happened to the database meanwhile.
    schema
        .execute("DO $$ BEGIN ASSERT to_regclass('tidings_schema') IS NULL; END $$")
        .await;
}

/// A file that exists is not taken for lost.
#[tokio::test]
async fn regression_a_path_that_leads_to_no_file_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let circle = folder.path().join("circle.db");
    std::os::unix::fs::symlink(&circle, &circle).unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    for (from, says) in [
        (
            folder.path(),
            "expected the path of a database file, got the folder",
        ),
        (&circle, "oo many levels of symbolic links"),
        (
            &file.join("tidings.db"),
            "a part of the path is not a folder",
        ),
    ] {
        let from = format!("sqlite:{}", from.display());
        let to = "postgres://127.0.0.1:1/db";
        let mut command = binary();
        let (ok, _, said) = said_by(command.args(["import", "--from", &from, "--to", to])).await;
        assert!(!ok && said.contains(says), "{said}");
        assert!(!said.contains("there is no file"), "{said}");
    }
}

#[tokio::test]
async fn an_import_is_refused_into_a_database_that_has_data_or_a_server() {
    let home = Home::new();
    home.start().await.stop("-TERM").await;
    let schema = Schema::create().await;
    let server = Home::on(&schema.url(), &[]).start().await;
    // It makes deliveries from its start on, or soon after it.
    schema
        .execute(
            "DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM tidings_webhook_leader) LOOP
                PERFORM pg_sleep(0.01); END LOOP; END $$",
        )
        .await;
    let refused = import(&home, &schema).await.unwrap_err();
    assert_eq!(
        refused,
        "tidings: a server uses the database: stop it first\n"
    );
    server.notify("anna", json!(1)).await;
    server.stop("-TERM").await;
    let refused = import(&home, &schema).await.unwrap_err();
    assert_eq!(
        refused,
        "tidings: the database has data of `notify` already: import into an empty database\n"
    );
    // A server that was started and has stored nothing is no obstacle.
    let schema = Schema::create().await;
    Home::on(&schema.url(), &[])
        .start()
        .await
        .stop("-TERM")
        .await;
    import(&home, &schema).await.unwrap();
}

/// Tables of an earlier version may be those of servers that run, and there is no way back.
#[tokio::test]
async fn regression_a_refused_import_leaves_the_tables_of_the_database_as_they_are() {
    const AS_BEFORE: &str = "DO $$ BEGIN
        ASSERT (SELECT version FROM tidings_schema WHERE component = 'tidings_server') = 0;
        ASSERT to_regclass('tidings_server_request') IS NULL;
        END $$";
    let home = Home::new();
    home.start().await.stop("-TERM").await;
    let schema = Schema::create().await;
    let server = Home::on(&schema.url(), &[]).start().await;
    server.notify("anna", json!(1)).await;
    server.stop("-TERM").await;
    schema
        .execute(
            "UPDATE tidings_schema SET version = 0 WHERE component = 'tidings_server';
             DROP TABLE tidings_server_request, tidings_server_turn, tidings_server_probe, tidings_server_api_key;
             DROP FUNCTION tidings_server_claim",
        )
        .await;
    let refused = import(&home, &schema).await.unwrap_err();
    assert!(refused.contains("has data of `notify`"), "{refused}");
    schema.execute(AS_BEFORE).await;
    // Nor is there a way around it for one that is in use, or half of another file.
    schema
        .execute(
            "TRUNCATE tidings_notify_log CASCADE;
             INSERT INTO tidings_webhook_leader (one, instance, until)
             VALUES (true, 'old', extract(epoch FROM clock_timestamp()) * 1000000 + 600000000)",
        )
        .await;
    let refused = import(&home, &schema).await.unwrap_err();
    assert!(refused.contains("a server uses the database"), "{refused}");
    schema.execute(AS_BEFORE).await;
    schema
        .execute(
            "DELETE FROM tidings_webhook_leader;
             CREATE TABLE tidings_import AS SELECT 'other.db' AS file",
        )
        .await;
    let refused = import(&home, &schema).await.unwrap_err();
    assert!(refused.contains("an import of other.db"), "{refused}");
    schema.execute(AS_BEFORE).await;
    // One that passes is brought up to date.
    schema.execute("DROP TABLE tidings_import").await;
    import(&home, &schema).await.unwrap();
}

/// Makes an endpoint by a request that can be repeated; gives the response.
async fn endpoint_once(server: &Server, url: &str) -> Value {
    let request = http().post(server.at("/v1/endpoints"));
    let request = request.header("Idempotency-Key", "endpoint-17");
    let body = json!({ "url": url, "event_types": ["paid"] });
    let response = request.json(&body).send().await.unwrap();
    assert_eq!(response.status(), 201);
    response.json().await.unwrap()
}

#[tokio::test]
async fn secrets_that_are_encrypted_stay_so_and_sign_in_the_database() {
    const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let keys = ["--encryption-key", KEY];
    let home = Home::with(&keys);
    let server = home.start().await;
    let mut receiver = Webhooks::start().await;
    let created = endpoint_once(&server, &receiver.url()).await;
    let secret = created["secret"].as_str().unwrap();
    server.stop("-TERM").await.0.code().unwrap();
    let schema = Schema::create().await;
    import(&home, &schema).await.unwrap();

    let client = tidings_postgres::Config::new(&schema.url()).unwrap();
    let client = client.connect().await.unwrap();
    let rows = "SELECT secrets FROM tidings_webhook_endpoint
        UNION ALL SELECT response FROM tidings_server_request WHERE response IS NOT NULL";
    let rows = client.query(rows, &[]).await.unwrap();
    assert_eq!(rows.len(), 2);
    for row in &rows {
        let stored: String = row.get(0);
        assert!(stored.starts_with("sealed:1:"), "{stored}");
    }
    let server = Home::on(&schema.url(), &keys).start().await;
    assert_eq!(endpoint_once(&server, &receiver.url()).await, created);
    let paid = json!({ "user_id": "anna", "type": "paid", "payload": 1 });
    assert_eq!(server.post("/v1/notifications", &paid).await.status(), 201);
    let secret = Secret::parse(secret).unwrap();
    let webhook = receiver.next().await;
    webhook.verify(&Verifier::new(secret)).unwrap();
}
