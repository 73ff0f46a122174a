use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::UnixStream;
use tokio::task::yield_now;

use crate::PostgresServer;
use crate::postgres_server::{as_postgres, private_folder};

/// The port in the name of its socket; it listens on no other.
const PORT: u16 = 6432;

/// A private `PgBouncer` in transaction mode before a private PostgreSQL: each transaction gets whatever
/// session is free. It listens on a Unix socket and ends when it is dropped.
///
/// It needs `pgbouncer`, which `scripts/services` installs.
#[derive(Debug)]
pub struct PgBouncer {
    folder: PathBuf,
    process: Child,
}

impl PgBouncer {
    /// Starts one with so many sessions for each user and database, and waits until it listens.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or ends at once.
    pub async fn start(server: &PostgresServer, sessions: usize) -> io::Result<Self> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        // Always below /tmp: the path of a Unix socket has at most 107 bytes.
        let folder = format!("/tmp/tidings-pgbouncer-{}-{number}", std::process::id());
        let folder = PathBuf::from(folder);
        private_folder(&folder)?;
        let settings = folder.join("pgbouncer.ini");
        std::fs::write(&settings, configuration(server, &folder, sessions))?;
        let process = as_postgres(Path::new("/usr/sbin/pgbouncer"))?
            .arg(&settings)
            .stdout(Stdio::null())
            .stderr(File::create(folder.join("stderr"))?)
            .spawn()?;
        let mut pooler = Self { folder, process };
        pooler.listens().await?;
        Ok(pooler)
    }

    /// The URL of the server's database through the pooler.
    pub fn url(&self) -> String {
        let folder = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{folder}:{PORT}/postgres")
    }

    async fn listens(&mut self) -> io::Result<()> {
        let socket = self.folder.join(format!(".s.PGSQL.{PORT}"));
        while UnixStream::connect(&socket).await.is_err() {
            if let Some(status) = self.process.try_wait()? {
                let said = std::fs::read_to_string(self.folder.join("stderr"))?;
                return Err(io::Error::other(format!(
                    "pgbouncer ended: {status}: {said}"
                )));
            }
            yield_now().await;
        }
        Ok(())
    }
}

fn configuration(server: &PostgresServer, folder: &Path, sessions: usize) -> String {
    format!(
        "[databases]
* = host={server} user=postgres
[pgbouncer]
listen_addr =
listen_port = {PORT}
unix_socket_dir = {folder}
auth_type = any
pool_mode = transaction
default_pool_size = {sessions}
max_client_conn = 1000
logfile = {folder}/log
",
        server = server.folder().display(),
        folder = folder.display(),
    )
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // Both fail only when there is nothing left to do.
        let _ended = self.process.kill().and_then(|()| self.process.wait());
        let _removed = std::fs::remove_dir_all(&self.folder);
    }
}
