//! The faults of a file.

use std::io;

use async_trait::async_trait;
use tidings_sqlite::rusqlite::Connection;
use tidings_test_support::{Fault, Outage, SmallDisk};

/// A file on a small disk, which can run full, and which another process can keep locked: nothing else
/// happens to a file that a test can bring back.
#[derive(Debug)]
pub(crate) struct SqliteOutage {
    path: String,
    disk: SmallDisk,
    fault: Option<Fault>,
    /// The connection that has the lock.
    locking: std::sync::Mutex<Option<Connection>>,
}

impl SqliteOutage {
    #[expect(clippy::unused_async, reason = "as the other outages start")]
    pub(crate) async fn start() -> io::Result<Self> {
        let disk = SmallDisk::mount(64 << 20)?;
        Ok(Self {
            path: disk.path().join("test.db").display().to_string(),
            disk,
            fault: None,
            locking: std::sync::Mutex::default(),
        })
    }
}

#[async_trait]
impl Outage for SqliteOutage {
    fn url(&self) -> &str {
        &self.path
    }

    fn direct_url(&self) -> String {
        self.path.clone()
    }

    async fn begin(&mut self, fault: Fault) -> io::Result<()> {
        self.restore().await?;
        self.fault = Some(fault);
        match fault {
            Fault::Fill => self.disk.fill(),
            Fault::Freeze => {
                let connection = Connection::open(&self.path).map_err(io::Error::other)?;
                connection
                    .busy_timeout(std::time::Duration::from_secs(60))
                    .and_then(|()| connection.execute_batch("BEGIN IMMEDIATE"))
                    .map_err(io::Error::other)?;
                *self.locking.get_mut().unwrap() = Some(connection);
                Ok(())
            }
            Fault::Kill | Fault::Cut => Err(io::Error::other("a file has no such fault")),
        }
    }

    async fn restore(&mut self) -> io::Result<()> {
        match self.fault.take() {
            Some(Fault::Fill) => self.disk.make_room(),
            Some(_) => {
                // Its transaction ends with the connection.
                *self.locking.get_mut().unwrap() = None;
                Ok(())
            }
            None => Ok(()),
        }
    }
}
