use std::io;
use std::time::Duration;

use crate::PostgresServer;

/// How many commits wait for a standby.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";

/// Ends the connections of those.
const END_WAITING: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE wait_event = 'SyncRep'";

/// Commits that wait for a synchronous standby.
impl PostgresServer {
    /// Makes commits wait for a standby that does not exist, and returns when they do.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn hold_commits(&self) -> io::Result<()> {
        self.execute("ALTER SYSTEM SET synchronous_standby_names = 'missing'")?;
        self.execute("SELECT pg_reload_conf()")?;
        std::thread::scope(|scope| {
            loop {
                let write = "DROP TABLE IF EXISTS held; CREATE TABLE held ()";
                let commit = scope.spawn(move || self.execute(write).is_ok());
                while !commit.is_finished() {
                    if self.execute(END_WAITING)? != "0" {
                        return Ok(());
                    }
                }
            }
        })
    }

    /// Lets commits go on, also those that wait.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn let_commits_go(&self) -> io::Result<()> {
        self.execute("ALTER SYSTEM RESET synchronous_standby_names")?;
        self.execute("SELECT pg_reload_conf()").map(drop)
    }

    /// How many commits wait, after [`hold_commits`](Self::hold_commits).
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn held_commits(&self) -> io::Result<usize> {
        self.execute(WAITING)?.parse().map_err(io::Error::other)
    }

    /// Waits for a commit that waits, and ends its connection: it has been made, and is not confirmed.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub async fn cut_off_a_commit(&self) -> io::Result<()> {
        while self.execute(END_WAITING)? == "0" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}
