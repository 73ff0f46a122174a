use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::yield_now;

/// A private Redis for one test, which can stop, freeze, fill and demote it. It listens on a Unix socket,
/// keeps nothing unless it is [durable](Self::start_durable), and ends when it is dropped.
///
/// It needs `redis-server` and `redis-cli`, which `scripts/services` installs.
#[derive(Debug)]
pub struct RedisServer {
    folder: PathBuf,
    options: &'static [&'static str],
    process: Child,
}

impl RedisServer {
    /// Starts a server and waits until it listens and has its data.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or ends at once.
    pub async fn start() -> io::Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts a server that replies once a change is on disk.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
    pub async fn start_durable() -> io::Result<Self> {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await
    }

    /// Starts a server that may be a node of a cluster, once it is given its slots.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
    pub async fn start_node() -> io::Result<Self> {
        Self::start_with(&["--cluster-enabled", "yes"]).await
    }

    async fn start_with(options: &'static [&'static str]) -> io::Result<Self> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let name = format!("tidings-redis-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder)?;
        let process = run(&folder, options)?;
        let mut server = Self {
            folder,
            options,
            process,
        };
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

    /// Starts it again where it was, and waits until it listens and has its data.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
    pub async fn start_again(&mut self) -> io::Result<()> {
        self.process = run(&self.folder, self.options)?;
        self.listens().await
    }

    /// Stops the process until it is thawed; its connections stay open. It has stopped when this returns.
    ///
    /// # Errors
    ///
    /// When the operating system does not let it be stopped.
    #[cfg(target_os = "linux")]
    pub fn freeze(&self) -> io::Result<()> {
        self.signal("-STOP")?;
        crate::frozen::until_frozen(&self.process.id().to_string())
    }

    /// Lets it continue.
    ///
    /// # Errors
    ///
    /// When the operating system does not let it continue.
    pub(crate) fn thaw(&self) -> io::Result<()> {
        self.signal("-CONT")
    }

    /// Makes every command fail that needs memory, until there is [room](Self::make_room).
    ///
    /// # Errors
    ///
    /// When the server does not reply.
    pub fn fill(&self) -> io::Result<()> {
        self.command(&["CONFIG", "SET", "maxmemory", "1"]).map(drop)
    }

    /// Gives it memory without a limit again.
    ///
    /// # Errors
    ///
    /// When the server does not reply.
    pub fn make_room(&self) -> io::Result<()> {
        self.command(&["CONFIG", "SET", "maxmemory", "0"]).map(drop)
    }

    /// Makes it a replica, as a failover does to the old master. Its connections stay open. Its own
    /// master is out of reach.
    ///
    /// # Errors
    ///
    /// When the server does not reply.
    pub fn demote(&self) -> io::Result<()> {
        self.command(&["REPLICAOF", "127.0.0.1", "1"]).map(drop)
    }

    /// Makes it a master again.
    ///
    /// # Errors
    ///
    /// When the server does not reply.
    pub fn promote(&self) -> io::Result<()> {
        self.command(&["REPLICAOF", "NO", "ONE"]).map(drop)
    }

    /// Runs one command and returns what `redis-cli` prints, without the last line end.
    ///
    /// # Errors
    ///
    /// When the server does not reply, or replies with an error.
    pub fn command(&self, command: &[&str]) -> io::Result<String> {
        let output = Command::new("redis-cli")
            .arg("-s")
            .arg(self.socket())
            .arg("-e")
            .args(command)
            .output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            let said = text(&output.stderr);
            Err(io::Error::other(format!("redis-cli failed: {said}")))
        }
    }

    fn signal(&self, signal: &str) -> io::Result<()> {
        let id = self.process.id().to_string();
        let status = Command::new("kill").args([signal, &id]).status()?;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("kill ended: {status}")))
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    async fn listens(&mut self) -> io::Result<()> {
        while !self.is_ready().await {
            if let Some(status) = self.process.try_wait()? {
                return Err(io::Error::other(format!("redis-server ended: {status}")));
            }
            yield_now().await;
        }
        Ok(())
    }

    /// Whether it listens, and has read its data from the disk.
    async fn is_ready(&self) -> bool {
        let ask = async {
            let mut connection = UnixStream::connect(self.socket()).await?;
            connection.write_all(b"PING\r\n").await?;
            let mut reply = [0; 8];
            let length = connection.read(&mut reply).await?;
            io::Result::Ok(length > 0 && !reply.starts_with(b"-LOADING"))
        };
        ask.await.unwrap_or(false)
    }
}

fn run(folder: &Path, options: &[&str]) -> io::Result<Child> {
    Command::new("redis-server")
        .args(["--port", "0", "--unixsocket", "socket", "--save", ""])
        .args(options)
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn regression_a_frozen_server_does_nothing_more() {
        let server = RedisServer::start().await.unwrap();
        let tasks = format!("/proc/{}/task", server.process.id());
        for _ in 0..200 {
            server.command(&["SET", "key", "value"]).unwrap();
            server.freeze().unwrap();
            for task in std::fs::read_dir(&tasks).unwrap() {
                let status = task.unwrap().path().join("status");
                let status = std::fs::read_to_string(status).unwrap();
                assert!(status.contains("\nState:\tT"), "{status}");
            }
            server.thaw().unwrap();
        }
    }
}
