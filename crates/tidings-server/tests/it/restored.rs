//! After a copy of the database is put back, nothing that comes then is taken for what is gone.

use std::path::Path;

use serde_json::json;
use tidings_test_support::PostgresServer;

use crate::support::{Home, Server, payloads};
use crate::webhooks::Webhooks;

/// Sends events one after another, and returns the id of the last.
async fn notify(server: &Server, range: std::ops::Range<u32>) -> String {
    let mut last = String::new();
    for number in range {
        let sent = server.notify("anna", json!(number)).await;
        sent["id"].as_str().unwrap().clone_into(&mut last);
    }
    last
}

async fn webhook_ids(webhooks: &mut Webhooks, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(webhooks.next().await.id().to_owned());
    }
    ids
}

/// The log goes on from the place of the copy, past that of the lost events.
async fn what_comes_after_a_copy_was_put_back_is_not_taken_for_what_is_gone(
    home: &Home,
    make_copy: impl AsyncFn(),
    put_back: impl AsyncFn(),
) {
    let mut webhooks = Webhooks::start().await;
    let server = home.start().await;
    let endpoint = json!({ "url": webhooks.url() });
    assert_eq!(server.post("/v1/endpoints", &endpoint).await.status(), 201);
    let kept = notify(&server, 0..3).await;
    webhook_ids(&mut webhooks, 3).await;
    make_copy().await;
    let lost = notify(&server, 3..6).await;
    let lost_webhooks = webhook_ids(&mut webhooks, 3).await;
    server.kill().await;
    put_back().await;

    let server = home.start().await;
    let newest = notify(&server, 10..20).await;
    // Another start is not another copy.
    server.kill().await;
    let server = home.start().await;
    let again = notify(&server, 20..21).await;
    assert_eq!(newest.split('-').next(), again.split('-').next());

    for (cursor, seen) in [(&lost, 6), (&kept, 3)] {
        let mut events = server.events_after("anna", "", Some(cursor)).await;
        let (before, gap) = events.until("tidings.gap").await;
        assert_eq!(before, Vec::<serde_json::Value>::new());
        assert_eq!(gap.json()["reason"], "unknown_epoch");
        let (notifications, _) = events.until("tidings.caught_up").await;
        let new: Vec<_> = (10..21).map(|number| json!(number)).collect();
        assert!(payloads(&notifications).ends_with(&new), "{seen} were seen");
    }
    for id in webhook_ids(&mut webhooks, 11).await {
        assert!(!lost_webhooks.contains(&id), "{id} is of two events");
    }
}

fn copy_into(copy: &Path, database: &Path) {
    let connection = rusqlite::Connection::open(database).unwrap();
    let into = connection.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]);
    into.unwrap();
}

/// As the documentation says.
fn copy_over(copy: &Path, database: &Path) {
    for end in ["-wal", "-shm"] {
        let mut beside = database.as_os_str().to_owned();
        beside.push(end);
        std::fs::remove_file(beside).unwrap();
    }
    std::fs::copy(copy, database).unwrap();
}

#[tokio::test]
async fn what_comes_after_a_copy_was_put_back_is_not_taken_for_what_is_gone_on_sqlite() {
    let home = Home::new();
    let copy = home.path().join("backup.db");
    let make_copy = async || copy_into(&copy, &home.database());
    let put_back = async || copy_over(&copy, &home.database());
    what_comes_after_a_copy_was_put_back_is_not_taken_for_what_is_gone(&home, make_copy, put_back)
        .await;
}

#[tokio::test]
async fn what_comes_after_a_copy_is_brought_to_another_place_is_not_taken_for_what_is_gone() {
    let home = Home::new();
    let copy = home.path().join("backup.db");
    let make_copy = async || copy_into(&copy, &home.database());
    let put_back = async || {
        copy_over(&copy, &home.database());
        std::fs::remove_file(home.database().with_extension("db.lock")).unwrap();
    };
    what_comes_after_a_copy_was_put_back_is_not_taken_for_what_is_gone(&home, make_copy, put_back)
        .await;
}

#[tokio::test]
async fn what_comes_after_a_dump_was_put_back_is_not_taken_for_what_is_gone_on_postgres() {
    let postgres = PostgresServer::start().unwrap();
    let home = Home::on(&postgres.url(), &["--lease", "2s"]);
    let make_copy = async || postgres.dump("backup").unwrap();
    let put_back = async || postgres.restore("backup").unwrap();
    what_comes_after_a_copy_was_put_back_is_not_taken_for_what_is_gone(&home, make_copy, put_back)
        .await;
}
