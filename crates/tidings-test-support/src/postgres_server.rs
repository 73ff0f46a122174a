use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crate::authority::{self, Authority};
use crate::disk_trace::DiskTrace;
use crate::frozen::until_frozen;

/// Makes every table refuse new rows, as a full disk does.
const FILL: &str = "
    CREATE OR REPLACE FUNCTION public.tidings_test_full() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE 'could not extend file: no space left on device' USING ERRCODE = 'disk_full';
    END $$;
    DO $$
    DECLARE it regclass;
    BEGIN
        FOR it IN SELECT oid FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition
            AND relnamespace NOT IN (SELECT oid FROM pg_namespace
                WHERE nspname IN ('pg_catalog', 'information_schema'))
        LOOP
            EXECUTE format('CREATE OR REPLACE TRIGGER tidings_test_full BEFORE INSERT ON %s
                FOR EACH ROW EXECUTE FUNCTION public.tidings_test_full()', it);
        END LOOP;
    END $$";

/// Listens at no address.
const UNIX_ONLY: &str = "-c listen_addresses=";

/// The triggers stay: statements that run at the same time would fail without them.
const MAKE_ROOM: &str = "
    CREATE OR REPLACE FUNCTION public.tidings_test_full() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RETURN NEW;
    END $$";

/// A private PostgreSQL for one test, which can crash, freeze and fill it, and give it standbys. It
/// listens on a Unix socket, waits for the disk (`fsync` is on), and ends when it is dropped.
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
    /// When its programs are missing, or it does not start.
    pub fn start() -> io::Result<Self> {
        let server = Self::create()?;
        server.start_again()?;
        Ok(server)
    }

    /// Starts a server whose system calls are recorded, all its processes together. The trace is
    /// complete when the server has [crashed](Self::crash).
    ///
    /// # Errors
    ///
    /// Those of [`start`](Self::start), and when `strace` is missing or may not trace.
    pub fn start_traced() -> io::Result<(Self, DiskTrace)> {
        let server = Self::create()?;
        let trace = DiskTrace::new(&server.folder.join("trace"));
        let (script, program) = (server.folder.join("script"), server.folder.join("traced"));
        let line = trace.line(&server.programs.join("postgres"));
        std::fs::write(&script, format!("#!/bin/sh\n{line}"))?;
        // Not written by this process: a child that another thread starts meanwhile would inherit the open file, and
        // what is open for writing cannot be run.
        let mut install = Command::new("install");
        succeed(install.args(["-m", "755"]).args([&script, &program]))?;
        succeed(server.start_command(UNIX_ONLY)?.arg("-p").arg(program))?;
        Ok((server, trace))
    }

    /// Starts a server that demands TLS and passwords (SCRAM) at an address of its own, beside its
    /// socket. Returns the address and the authority to trust.
    ///
    /// # Errors
    ///
    /// Those of [`start`](Self::start).
    pub fn start_with_tls() -> io::Result<(Self, String, Authority)> {
        static LAST: AtomicU8 = AtomicU8::new(0);
        let server = Self::create()?;
        let (authority, certificate, key) = authority::certificate_files()?;
        let data = server.data();
        let rules = "local all all trust\nhostssl all all 127.0.0.0/8 scram-sha-256\n";
        std::fs::write(data.join("pg_hba.conf"), rules)?;
        for (name, content) in [("server.crt", certificate), ("server.key", key)] {
            let path = data.join(name);
            std::fs::write(&path, content)?;
            std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            give_to_postgres(&path)?;
        }
        let [.., high, low] = std::process::id().to_be_bytes();
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let address = format!("127.{high}.{low}.{number}");
        let settings = format!("-c ssl=on -c listen_addresses={address}");
        succeed(&mut server.start_command(&settings)?)?;
        Ok((server, address, authority))
    }

    /// A new one, which does not run yet.
    fn create() -> io::Result<Self> {
        let server = Self::new()?;
        let data = server.data();
        succeed(
            server
                .program("initdb")?
                .args(["-U", "postgres", "-A", "trust", "-E", "UTF8"])
                .args(["--locale=C", "--no-sync", "-D"])
                .arg(data),
        )?;
        Ok(server)
    }

    /// Starts a standby of this server and waits until it can be read. It replays each commit when it
    /// is at least `lag` old, until it is [promoted](Self::promote).
    ///
    /// # Errors
    ///
    /// When this server does not run, or the standby does not start.
    pub fn start_standby(&self, lag: Duration) -> io::Result<Self> {
        let standby = Self::new()?;
        let data = standby.data();
        succeed(
            standby
                .program("pg_basebackup")?
                .arg("-h")
                .arg(&self.folder)
                .args(["-U", "postgres", "-c", "fast", "--no-sync", "-R", "-D"])
                .arg(&data),
        )?;
        let settings = format!("recovery_min_apply_delay = '{}ms'\n", lag.as_millis());
        let path = data.join("postgresql.auto.conf");
        let own = std::fs::read_to_string(&path)?;
        std::fs::write(path, own + &settings)?;
        standby.start_again()?;
        Ok(standby)
    }

    /// A server that does not exist yet, with a folder for it.
    fn new() -> io::Result<Self> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        // Always below /tmp: the path of a Unix socket has at most 107 bytes.
        let folder = format!("/tmp/tidings-postgres-{}-{number}", std::process::id());
        let server = Self {
            folder: folder.into(),
            programs: programs()?,
        };
        private_folder(&server.folder)?;
        Ok(server)
    }

    /// The URL of its database.
    pub fn url(&self) -> String {
        let folder = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{folder}/postgres")
    }

    /// Ends it as a crash does: it writes nothing more and closes its connections without a word.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn crash(&self) -> io::Result<()> {
        succeed(self.control()?.args(["-m", "immediate", "stop"]))
    }

    /// Stops all its processes until they are thawed; its connections stay open. They have stopped when this returns.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn freeze(&self) -> io::Result<()> {
        self.signal("-STOP")
    }

    /// Lets it continue.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub(crate) fn thaw(&self) -> io::Result<()> {
        self.signal("-CONT")
    }

    /// Makes every table that exists refuse new rows as a full disk does, until there is
    /// [room](Self::make_room).
    ///
    /// # Errors
    ///
    /// When the server does not run.
    pub fn fill(&self) -> io::Result<()> {
        loop {
            // It locks all tables, in another order than some of those who use them.
            match self.execute(FILL) {
                Err(error) if error.to_string().contains("deadlock") => {}
                filled => return filled.map(drop),
            }
        }
    }

    /// Lets the tables take rows again.
    ///
    /// # Errors
    ///
    /// When the server does not run.
    pub fn make_room(&self) -> io::Result<()> {
        self.execute(MAKE_ROOM).map(drop)
    }

    /// Makes a standby the primary, and waits until it can be written to.
    ///
    /// # Errors
    ///
    /// When it is no standby.
    pub fn promote(&self) -> io::Result<()> {
        succeed(self.control()?.arg("promote"))
    }

    /// Runs statements as the superuser, and returns the rows that `psql` prints, without the last line
    /// end.
    ///
    /// # Errors
    ///
    /// When the server does not run, or refuses a statement.
    pub fn execute(&self, statements: &str) -> io::Result<String> {
        let output = self
            .program("psql")?
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
            .args(["-U", "postgres", "-d", "postgres", "-h"])
            .arg(&self.folder)
            .args(["-c", statements])
            .output()?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout)
                .trim_end()
                .to_owned())
        } else {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(io::Error::other(format!("psql failed: {said}")))
        }
    }

    /// Writes what is in the database into a file of this name.
    ///
    /// # Errors
    ///
    /// When the server does not run.
    pub fn dump(&self, file: &str) -> io::Result<()> {
        let mut dump = self.program("pg_dump")?;
        dump.args(["-F", "custom", "-f"])
            .arg(self.folder.join(file));
        succeed(dump.args(["-U", "postgres", "-h"]).arg(&self.folder))
    }

    /// Puts a dump in the place of what is in the database.
    ///
    /// # Errors
    ///
    /// When the server does not run, or there is no such dump.
    pub fn restore(&self, file: &str) -> io::Result<()> {
        let mut restore = self.program("pg_restore")?;
        restore.args(["--clean", "--if-exists", "--exit-on-error"]);
        restore.args(["-U", "postgres", "-d", "postgres", "-h"]);
        succeed(restore.arg(&self.folder).arg(self.folder.join(file)))
    }

    /// The folder of its Unix socket.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts it again where it was, and waits until it has recovered and listens.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start_again(&self) -> io::Result<()> {
        succeed(&mut self.start_command(UNIX_ONLY)?)
    }

    fn start_command(&self, settings: &str) -> io::Result<Command> {
        let settings = format!("{settings} -k {}", self.folder.display());
        let mut command = self.control()?;
        command.arg("-l").arg(self.folder.join("log"));
        command.args(["-t", "60", "-o", &settings, "start"]);
        Ok(command)
    }

    fn control(&self) -> io::Result<Command> {
        let mut control = self.program("pg_ctl")?;
        control.args(["-w", "-s", "-D"]).arg(self.data());
        Ok(control)
    }

    /// One of its programs.
    fn program(&self, name: &str) -> io::Result<Command> {
        as_postgres(&self.programs.join(name))
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Signals the server and then its children, so that it starts no more of them in between.
    fn signal(&self, signal: &str) -> io::Result<()> {
        let file = std::fs::read_to_string(self.data().join("postmaster.pid"))?;
        let server = file.lines().next().unwrap_or_default();
        let is_stop = signal == "-STOP";
        succeed(Command::new("kill").args([signal, server]))?;
        if is_stop {
            until_frozen(server)?;
        }
        for entry in std::fs::read_dir("/proc")? {
            let path = entry?.path();
            // A process can end while the list is read.
            let Ok(status) = std::fs::read_to_string(path.join("status")) else {
                continue;
            };
            let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
            if parent.is_some_and(|parent| parent.trim() == server)
                && let Some(child) = path.file_name().and_then(|child| child.to_str())
            {
                let _ended = Command::new("kill").arg(signal).arg(child).output()?;
                if is_stop {
                    until_frozen(child)?;
                }
            }
        }
        Ok(())
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // Each fails only when there is nothing left to do.
        let _running = self.thaw();
        let _stopped = self.crash();
        let _removed = std::fs::remove_dir_all(&self.folder);
    }
}

/// A folder that belongs to the user who runs the servers.
pub(crate) fn private_folder(path: &Path) -> io::Result<()> {
    std::fs::create_dir(path)?;
    give_to_postgres(path)
}

fn give_to_postgres(path: &Path) -> io::Result<()> {
    if is_root()? {
        succeed(Command::new("chown").arg("postgres").arg(path))?;
    }
    Ok(())
}

/// A program to be run by a user that PostgreSQL's programs accept.
pub(crate) fn as_postgres(program: &Path) -> io::Result<Command> {
    let mut command = if is_root()? {
        let mut command = Command::new("setpriv");
        command
            .args([
                "--reuid=postgres",
                "--regid=postgres",
                "--clear-groups",
                "--",
            ])
            .arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/");
    Ok(command)
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

pub(crate) fn is_root() -> io::Result<bool> {
    Ok(std::fs::metadata(Path::new("/proc/self"))?.uid() == 0)
}

/// Runs a command, and fails with what it wrote to standard error.
pub(crate) fn succeed(command: &mut Command) -> io::Result<()> {
    // The server would inherit a pipe for standard output and never close it.
    let Output { status, stderr, .. } = command.stdout(Stdio::null()).output()?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&stderr).into_owned();
    Err(io::Error::other(format!("{status}: {said}")))
}
