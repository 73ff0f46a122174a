use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::UnixStream;
use tokio::task::yield_now;

/// A Redis of one test's own, which it can stop and start. It listens on a Unix socket, keeps nothing,
/// and ends when it is dropped.
///
/// It needs `redis-server`, which `scripts/services` installs.
#[derive(Debug)]
pub struct RedisServer {
    folder: PathBuf,
    process: Child,
}

impl RedisServer {
    /// Starts a server and waits until it listens.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or ends at once.
    pub async fn start() -> io::Result<Self> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let name = format!("tidings-redis-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder)?;
        let process = run(&folder)?;
        let mut server = Self { folder, process };
        server.listens().await?;
        Ok(server)
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Kills it.
    ///
    /// # Errors
    ///
    /// When the operating system does not let it be killed.
    pub fn stop(&mut self) -> io::Result<()> {
        self.process.kill()?;
        self.process.wait().map(drop)
    }

    /// Starts it again where it was, and waits until it listens.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
    pub async fn start_again(&mut self) -> io::Result<()> {
        self.process = run(&self.folder)?;
        self.listens().await
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    async fn listens(&mut self) -> io::Result<()> {
        while UnixStream::connect(self.socket()).await.is_err() {
            if let Some(status) = self.process.try_wait()? {
                return Err(io::Error::other(format!("redis-server ended: {status}")));
            }
            yield_now().await;
        }
        Ok(())
    }
}

fn run(folder: &Path) -> io::Result<Child> {
    Command::new("redis-server")
        .args(["--port", "0", "--unixsocket", "socket", "--save", ""])
        .current_dir(folder)
        .stdout(Stdio::null())
        .spawn()
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // Both fail only when there is nothing left to do.
        let _ended = self.process.kill().and_then(|()| self.process.wait());
        let _removed = std::fs::remove_dir_all(&self.folder);
    }
}
