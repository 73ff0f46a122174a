use std::env;

use tokio_postgres::{Client, NoTls};

/// A PostgreSQL schema for one test, on the server that `DATABASE_URL` names, which goes when it is
/// dropped.
#[derive(Debug)]
pub struct Schema {
    server: String,
    name: String,
}

impl Schema {
    /// Creates a schema under a new name.
    ///
    /// # Panics
    ///
    /// If `DATABASE_URL` is not set, or the server cannot be used: a test never passes without it.
    pub async fn create() -> Self {
        let server = env::var("DATABASE_URL").expect(
            "DATABASE_URL names a PostgreSQL server; `scripts/services` runs a command with one",
        );
        Self::create_on(&server).await
    }

    /// Creates a schema on another server.
    ///
    /// # Panics
    ///
    /// If the server cannot be used.
    pub async fn create_on(server: &str) -> Self {
        // Upper case: names must not be folded anywhere.
        let schema = Self {
            server: server.to_owned(),
            name: format!("Test{:016x}", fastrand::u64(..)),
        };
        run(server, &format!("CREATE SCHEMA \"{}\"", schema.name)).await;
        schema
    }

    /// The URL of a connection that finds its tables here.
    pub fn url(&self) -> String {
        self.url_at(&self.server)
    }

    /// The same by way of another server, such as a proxy.
    pub fn url_at(&self, server: &str) -> String {
        let separator = if server.contains('?') { '&' } else { '?' };
        let name = &self.name;
        format!("{server}{separator}options=-csearch_path%3D%22{name}%22")
    }

    /// A connection that finds its tables here.
    ///
    /// # Panics
    ///
    /// If the server cannot be used.
    pub async fn client(&self) -> Client {
        connect(&self.url()).await
    }

    /// Runs statements in this schema.
    ///
    /// # Panics
    ///
    /// If the server refuses them.
    pub async fn execute(&self, statements: &str) {
        run(&self.url(), statements).await;
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        // A test that has failed may have left a transaction open, which must not hold it up.
        let statement = format!(
            "SET lock_timeout = '10s'; DROP SCHEMA \"{}\" CASCADE",
            self.name
        );
        let server = self.server.clone();
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be made");
            runtime.block_on(async {
                // Another program may be cleaning these tables at the moment, which is a deadlock.
                for _ in 0..3 {
                    let client = connect(&server).await;
                    if client.batch_execute(&statement).await.is_ok() {
                        return;
                    }
                }
                run(&server, &statement).await;
            });
        });
        // A test that has failed should say why, and not this.
        let is_dropped = dropping.join().is_ok() || std::thread::panicking();
        assert!(is_dropped, "the schema of a test is left over");
    }
}

/// Connects to a server, without TLS.
///
/// # Panics
///
/// If the server cannot be used.
pub async fn connect(url: &str) -> Client {
    let connected = tokio_postgres::connect(url, NoTls).await;
    let (client, connection) = connected.expect("the server takes a connection");
    // It ends with the client.
    tokio::spawn(connection);
    client
}

async fn run(url: &str, statements: &str) {
    connect(url)
        .await
        .batch_execute(statements)
        .await
        .expect("the server runs the statements");
}
