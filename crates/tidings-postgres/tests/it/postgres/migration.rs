use futures_util::future::join_all;
use tidings_postgres::tokio_postgres::error::SqlState;
use tidings_postgres::{Database, Error};
use tidings_test_support::soon;

use super::support::{database, execute, number, schema};

const FIRST: &str = "CREATE TABLE item (n bigint NOT NULL); INSERT INTO item VALUES (1)";
const SECOND: &str = "INSERT INTO item VALUES (10)";
const BROKEN: &str = "INSERT INTO item VALUES (100); INSERT INTO nowhere VALUES (1)";
const SUM: &str = "SELECT sum(n)::bigint FROM item";
const VERSION: &str = "SELECT version::bigint FROM tidings_schema WHERE component = 'test'";

async fn migrate(database: &Database, steps: &[&str]) -> Result<(), Error> {
    soon("a migration", database.migrate("test", steps)).await
}

#[tokio::test]
async fn each_step_runs_once() {
    let database = database(&schema("once").await);
    for steps in [&[FIRST][..], &[FIRST], &[FIRST, SECOND], &[FIRST, SECOND]] {
        migrate(&database, steps).await.unwrap();
        let expected = if steps.len() == 1 { 1 } else { 11 };
        assert_eq!(number(&database, SUM).await, expected);
    }
    // Another component has steps of its own.
    let other = database.migrate("other", &[SECOND]).await;
    other.unwrap();
    assert_eq!(number(&database, SUM).await, 21);
}

#[tokio::test]
async fn a_step_that_fails_takes_all_of_them_back() {
    let database = database(&schema("fails").await);
    migrate(&database, &[FIRST]).await.unwrap();
    for _ in 0..2 {
        let failed = migrate(&database, &[FIRST, SECOND, BROKEN]).await;
        let code = failed.unwrap_err().code().cloned();
        assert_eq!(code, Some(SqlState::UNDEFINED_TABLE));
        assert_eq!(number(&database, SUM).await, 1);
        assert_eq!(number(&database, VERSION).await, 1);
    }
    migrate(&database, &[FIRST, SECOND]).await.unwrap();
    assert_eq!(number(&database, SUM).await, 11);
}

#[tokio::test]
async fn tables_of_a_newer_version_are_refused() {
    let database = database(&schema("newer").await);
    migrate(&database, &[FIRST, SECOND]).await.unwrap();
    let refused = migrate(&database, &[FIRST]).await.unwrap_err();
    assert!(
        matches!(
            refused,
            Error::NewerSchema {
                component: "test",
                found: 2,
                known: 1
            }
        ),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_run_each_step_once_whatever_isolation_is_the_default() {
    for isolation in ["read committed", "serializable"] {
        let name = isolation.split(' ').next().unwrap();
        let url = schema(name).await;
        let url = format!(
            "{url}%20-cdefault_transaction_isolation%3D{}",
            isolation.replace(' ', "%5C%20")
        );
        let databases: Vec<_> = (0..8).map(|_| database(&url)).collect();
        let migrating = databases.iter().map(|it| migrate(it, &[FIRST, SECOND]));
        for migrated in join_all(migrating).await {
            migrated.unwrap();
        }
        assert_eq!(number(&databases[0], SUM).await, 11);
    }
}

#[tokio::test]
async fn a_role_that_may_not_make_tables_will_do_when_they_are_there() {
    let url = schema("roles").await;
    let owner = database(&url);
    let role = format!("test_clerk_{}", std::process::id());
    let schema = format!("test_roles_{}", std::process::id());
    execute(&owner, format!("CREATE ROLE {role} LOGIN")).await;
    execute(&owner, format!("GRANT USAGE ON SCHEMA {schema} TO {role}")).await;
    let clerk = database(&url.replacen("postgres@", &format!("{role}@"), 1));
    let refused = migrate(&clerk, &[FIRST]).await.unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));

    migrate(&owner, &[FIRST]).await.unwrap();
    let grant = format!("GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}");
    execute(&owner, grant).await;
    migrate(&clerk, &[FIRST]).await.unwrap();
    assert_eq!(number(&clerk, SUM).await, 1);
    execute(&owner, format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn a_migration_that_is_given_up_leaves_nothing_and_lets_the_next_one_in() {
    let database = database(&schema("given_up").await);
    // Waits in its second step for as long as this lock is held.
    let holder = database.config().connect().await.unwrap();
    let lock = "SELECT pg_advisory_lock(hashtext(current_schema()))";
    holder.batch_execute(lock).await.unwrap();
    let waits = "SELECT pg_advisory_xact_lock(hashtext(current_schema()))";
    let steps = [FIRST, waits];
    let mut migrating = Box::pin(database.migrate("test", &steps));
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'
        AND objid::bigint = hashtext(current_schema())::bigint & 4294967295";
    tokio::select! {
        done = &mut migrating => panic!("{done:?}"),
        () = soon("the step to wait", async {
            while number(&database, waiting).await == 0 {}
        }) => drop(migrating),
    }
    drop(holder);
    migrate(&database, &[FIRST]).await.unwrap();
    assert_eq!(number(&database, SUM).await, 1);
}
