//! A role on a managed service, which may not call everything.

use tidings_notify::Store;
use tidings_notify::postgres::{Config, PostgresOptions, PostgresStore};
use tidings_test_support::PostgresServer;

use crate::support::{ann, draft};

/// A log keeps its epoch, whichever way the role may ask for the timeline, and begins another one when it can
/// be asked for no longer.
#[tokio::test]
async fn a_role_that_may_not_ask_for_the_timeline_appends_all_the_same() {
    let server = PostgresServer::start().unwrap();
    let role = "CREATE ROLE guest LOGIN; GRANT CREATE ON DATABASE postgres TO guest;
        CREATE SCHEMA guest AUTHORIZATION guest;";
    server.execute(role).unwrap();
    let url = server.url().replace("//postgres@", "//guest@");
    let config = Config::new(&url).unwrap();
    let store = PostgresStore::open(config, PostgresOptions::default());
    let store = store.await.unwrap();
    let first = store.append(vec![draft(1)]).await.unwrap();
    let line = || {
        let line = "SET ROLE guest; SET search_path = guest; SELECT tidings_notify_line()";
        server.execute(line).unwrap()
    };
    let (known, mut before) = (line(), first[0].id.epoch);
    for forbidden in [
        "pg_walfile_name(pg_lsn)",
        "pg_control_checkpoint()",
        "pg_control_system()",
    ] {
        let revoke = format!("REVOKE EXECUTE ON FUNCTION {forbidden} FROM PUBLIC");
        server.execute(&revoke).unwrap();
        let is_known = forbidden.contains("walfile");
        assert_eq!(line() == known, is_known);
        let next = store.append(vec![draft(2)]).await.unwrap();
        assert_eq!(next[0].id.epoch == before, is_known);
        before = next[0].id.epoch;
    }
    let page = store.read(&ann(), 0, 10).await.unwrap();
    assert_eq!(page.events.len(), 4);
}
