use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};

/// A PostgreSQL of one test's own, which it can crash and start again. It listens on a Unix socket,
/// waits for the disk as a real one does, and ends when it is dropped.
///
/// It needs PostgreSQL's own programs, which `scripts/services` installs, and `setpriv` when it runs as
/// root: the server refuses to.
#[derive(Debug)]
pub struct PostgresServer {
    folder: PathBuf,
    programs: PathBuf,
}

impl PostgresServer {
    /// Starts a server and waits until it listens.
    ///
    /// # Errors
    ///
    /// When its programs are not there, or it does not start.
    pub fn start() -> io::Result<Self> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        // Always below /tmp: the path of a Unix socket has at most 107 bytes.
        let folder = format!("/tmp/tidings-postgres-{}-{number}", std::process::id());
        let server = Self {
            folder: folder.into(),
            programs: programs()?,
        };
        std::fs::create_dir(&server.folder)?;
        if is_root()? {
            done(Command::new("chown").arg("postgres").arg(&server.folder))?;
        }
        let data = server.folder.join("data");
        done(
            server
                .program("initdb")?
                .args(["-U", "postgres", "-A", "trust", "-E", "UTF8"])
                .args(["--locale=C", "--no-sync", "-D"])
                .arg(data),
        )?;
        server.start_again()?;
        Ok(server)
    }

    /// The URL of its database.
    pub fn url(&self) -> String {
        let folder = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{folder}/postgres")
    }

    /// Ends it as a crash would: nothing is written any more, nobody is told.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn crash(&self) -> io::Result<()> {
        done(self.control()?.args(["-m", "immediate", "stop"]))
    }

    /// Starts it again where it was, and waits until it has recovered and listens.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start_again(&self) -> io::Result<()> {
        let settings = format!("-c listen_addresses= -k {}", self.folder.display());
        done(
            self.control()?
                .arg("-l")
                .arg(self.folder.join("log"))
                .args(["-t", "60", "-o", &settings, "start"]),
        )
    }

    fn control(&self) -> io::Result<Command> {
        let mut control = self.program("pg_ctl")?;
        control
            .args(["-w", "-s", "-D"])
            .arg(self.folder.join("data"));
        Ok(control)
    }

    /// One of its programs, to be run by a user that it likes.
    fn program(&self, name: &str) -> io::Result<Command> {
        let path = self.programs.join(name);
        let mut command = if is_root()? {
            let mut command = Command::new("setpriv");
            command
                .args([
                    "--reuid=postgres",
                    "--regid=postgres",
                    "--clear-groups",
                    "--",
                ])
                .arg(path);
            command
        } else {
            Command::new(path)
        };
        command.current_dir("/");
        Ok(command)
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // Both fail only when there is nothing left to do.
        let _stopped = self.crash();
        let _removed = std::fs::remove_dir_all(&self.folder);
    }
}

/// Debian keeps PostgreSQL's programs out of `PATH`, in a directory per version: the newest is taken.
fn programs() -> io::Result<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    found.sort();
    let newest = found.pop().map(|(_, path)| path);
    let in_path = || {
        let paths = std::env::var_os("PATH")?;
        std::env::split_paths(&paths).find(|path| path.join("initdb").is_file())
    };
    newest
        .or_else(in_path)
        .ok_or_else(|| io::Error::other("the programs of PostgreSQL are not installed"))
}

fn is_root() -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata(Path::new("/proc/self"))?.uid() == 0)
}

fn done(command: &mut Command) -> io::Result<()> {
    // What the server writes goes to its log; a pipe that it had inherited would never end.
    let Output { status, stderr, .. } = command.stdout(std::process::Stdio::null()).output()?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&stderr).into_owned();
    Err(io::Error::other(format!("{status}: {said}")))
}
