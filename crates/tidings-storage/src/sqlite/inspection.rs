//! A look at a SQLite file that changes nothing in it, also if a server uses it.

use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rustix::fs::{Access, access};
use rustix::io::Errno;
use tidings_sqlite::rusqlite::{Connection, OpenFlags, OptionalExtension};
use tidings_sqlite::{Error, Fault};
use tidings_webhooks::EndpointId;

use super::APPLICATION_ID;
use crate::explain::{explain, said_by_system};
use crate::finding::{Finding, Status};
use crate::import::PARTS;
use crate::inspection::{CLOCK, STORE, Secrets, newer};

/// Larger files are not read as a whole: that would take minutes.
const MAX_CHECKED_BYTES: u64 = 256 << 20;

/// How far a time of the file may be in the future.
const TOLERANCE: Duration = Duration::from_secs(5);

/// Looks at the file itself, whatever links lead to it: a server keeps the log and the lock beside it.
pub(crate) fn inspect(path: &Path, secrets: &mut Secrets) -> Vec<Finding> {
    let shown = path.display();
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => return vec![Finding::error(STORE, format!("{shown} is not a file"))],
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return vec![match tidings_sqlite::real_path(path) {
                Ok(path) => missing(&path),
                Err(error) => Finding::error(STORE, explain(&error)),
            }];
        }
        Err(error) => {
            let reason = said_by_system(&error);
            return vec![Finding::error(
                STORE,
                format!("cannot look at {shown}: {reason}"),
            )];
        }
    };
    let path = match tidings_sqlite::real_path(path) {
        Ok(path) => path,
        Err(error) => return vec![Finding::error(STORE, explain(&error))],
    };
    let (path, shown) = (path.as_path(), path.display());
    let content = content(path, &metadata, secrets);
    let is_usable = content.status != Status::Error;
    let mut findings = vec![content];
    findings.extend(unwritable(path));
    findings.extend(
        holder(path).map(|process| Finding::ok(STORE, format!("process {process} uses {shown}"))),
    );
    let mode = metadata.permissions().mode() & 0o777;
    // The file may be that of another program.
    if is_usable && mode & 0o077 != 0 {
        let message = format!(
            "other users of this machine can read or write {shown}, which contains secrets (mode {mode:o}): run chmod 600"
        );
        findings.push(Finding::warning(STORE, message));
    }
    findings.push(clock(path, &metadata));
    findings
}

/// A file that a server would make.
fn missing(path: &Path) -> Finding {
    let (shown, folder) = (path.display(), folder_of(path));
    match access(folder, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Finding::ok(
            STORE,
            format!("{shown} does not exist yet: a server makes it"),
        ),
        Err(error) => Finding::error(
            STORE,
            format!("cannot make {shown}: {}", cannot_write("its folder", error)),
        ),
    }
}

/// Why a server of this user could not write the file, or the log and the lock beside it.
fn unwritable(path: &Path) -> Vec<Finding> {
    let shown = path.display();
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    let lock = Path::new(&lock);
    let needed = [
        ("the file", path),
        ("its lock file", lock),
        ("its folder", folder_of(path)),
    ];
    let findings = needed.map(|(what, path)| {
        let error = access(path, Access::WRITE_OK).err()?;
        // The server makes its lock file.
        if error == Errno::NOENT && path == lock {
            return None;
        }
        let message = format!("cannot use {shown}: {}", cannot_write(what, error));
        Some(Finding::error(STORE, message))
    });
    findings.into_iter().flatten().collect()
}

fn cannot_write(what: &str, error: Errno) -> String {
    let reason = said_by_system(&error.into());
    format!("this user cannot write {what}: {reason}")
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn content(path: &Path, metadata: &Metadata, secrets: &mut Secrets) -> Finding {
    let shown = path.display();
    if let Err(error) = tidings_sqlite::check_file(path) {
        return Finding::error(STORE, explain(&error));
    }
    if metadata.len() == 0 {
        return Finding::ok(
            STORE,
            format!("{shown} is empty: a server makes its tables"),
        );
    }
    let looked = open(path).and_then(|connection| look(&connection, metadata.len(), secrets));
    match looked {
        Ok(Content::Usable(details)) => Finding::ok(
            STORE,
            format!("{shown}: {}, {details}", size(path, metadata)),
        ),
        Ok(Content::Imported(to)) => Finding::warning(
            STORE,
            format!(
                "{shown} was imported into {to}: a server on it would send webhooks that others send too"
            ),
        ),
        Ok(Content::Refused(reason)) => Finding::error(STORE, format!("{shown} {reason}")),
        Ok(Content::Newer(error)) => Finding::error(STORE, format!("{shown}: {error}")),
        Err(error) => match tidings_sqlite::Error::from(error) {
            // As a server says it.
            Error::Unusable(Fault::NotADatabase) => {
                let path = path.to_owned();
                Finding::error(STORE, explain(&Error::NotADatabase { path }))
            }
            error => {
                let reason = explain(&error);
                Finding::error(STORE, format!("cannot read {shown}: {reason}"))
            }
        },
    }
}

enum Content {
    Usable(&'static str),
    /// Into which database.
    Imported(String),
    Refused(String),
    Newer(Error),
}

/// Opens the file without making others beside it: as one that does not change, unless there is a write-ahead log,
/// which a server keeps and leaves behind: empty if it stopped in order. With a slash in front, no part of the path is
/// taken for a host.
fn open(path: &Path) -> Result<Connection, tidings_sqlite::rusqlite::Error> {
    const KEPT: AsciiSet = NON_ALPHANUMERIC
        .remove(b'/')
        .remove(b'.')
        .remove(b'-')
        .remove(b'_');
    let name = percent_encode(path.as_os_str().as_bytes(), &KEPT);
    let immutable = if beside(path, "-wal").exists() {
        ""
    } else {
        "&immutable=1"
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(format!("file:{name}?mode=ro{immutable}"), flags)?;
    connection.busy_timeout(TOLERANCE)?;
    Ok(connection)
}

fn look(
    connection: &Connection,
    bytes: u64,
    secrets: &mut Secrets,
) -> Result<Content, tidings_sqlite::rusqlite::Error> {
    let has_table = |name: &str| {
        let found = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1";
        connection.prepare(found)?.exists([name])
    };
    let mark: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let is_ours = mark == APPLICATION_ID || (mark == 0 && has_table("tidings_schema")?);
    if !is_ours {
        return Ok(Content::Refused(
            "is a database of another program".to_owned(),
        ));
    }
    let known: Vec<_> = PARTS
        .iter()
        .map(|part| (part.component, part.version))
        .collect();
    let mut versions = connection.prepare("SELECT component, version FROM tidings_schema")?;
    let mut versions = versions.query([])?;
    while let Some(row) = versions.next()? {
        let component: String = row.get(0)?;
        if let Some((component, found, known)) = newer(&known, &component, row.get(1)?) {
            return Ok(Content::Newer(Error::NewerSchema {
                component,
                found,
                known,
            }));
        }
    }
    if has_table("webhook_endpoint")? {
        let select = "SELECT endpoint, secrets FROM webhook_endpoint WHERE removed = 0";
        let mut select = connection.prepare(select)?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let stored: String = row.get(1)?;
            secrets.add(EndpointId::from_i64(row.get(0)?), &stored);
        }
    }
    if has_table("imported")? {
        let to = "SELECT \"to\" FROM imported";
        let to: Option<String> = connection.query_row(to, [], |row| row.get(0)).optional()?;
        if let Some(to) = to {
            return Ok(Content::Imported(to));
        }
    }
    if bytes > MAX_CHECKED_BYTES {
        return Ok(Content::Usable("too large to be checked as a whole here"));
    }
    let result: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if result == "ok" {
        Ok(Content::Usable("whole (quick_check)"))
    } else {
        Ok(Content::Refused(format!("is damaged: {result}")))
    }
}

/// The process that holds the lock of a server, where the system lists locks. To try the lock would disturb a server
/// that starts.
fn holder(path: &Path) -> Option<u32> {
    let inode = std::fs::metadata(beside(path, ".lock")).ok()?.ino();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| holder_in(line, inode))
}

/// Reads a line such as `1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF`.
fn holder_in(line: &str, inode: u64) -> Option<u32> {
    let mut words = line.split_whitespace().skip(1);
    let kind = words.next()?;
    let process = words.nth(2)?.parse().ok()?;
    let file = words.next()?.rsplit(':').next()?;
    (kind == "FLOCK" && file.parse() == Ok(inode)).then_some(process)
}

/// A file goes by this machine's clock. It shows if the clock was set back.
fn clock(path: &Path, metadata: &Metadata) -> Finding {
    let log = std::fs::metadata(beside(path, "-wal")).and_then(|log| log.modified());
    let changed = metadata.modified().into_iter().chain(log).max();
    let ahead = changed.and_then(|changed| changed.duration_since(SystemTime::now()).ok());
    match ahead.filter(|ahead| *ahead > TOLERANCE) {
        Some(ahead) => Finding::warning(
            CLOCK,
            format!(
                "the file was changed {} s in the future: the clock of this machine was set back",
                ahead.as_secs()
            ),
        ),
        None => Finding::ok(CLOCK, "a file goes by the clock of this machine"),
    }
}

/// The size of the file, and of its write-ahead log if there is one: what was stored last is only there.
fn size(path: &Path, metadata: &Metadata) -> String {
    let size = format!("{} KiB", metadata.len() >> 10);
    match std::fs::metadata(beside(path, "-wal")) {
        Ok(log) if log.len() > 0 => {
            format!("{size} and {} KiB of its write-ahead log", log.len() >> 10)
        }
        _ => size,
    }
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found_by_its_file() {
        let line = "1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF";
        assert_eq!(holder_in(line, 1234), Some(4711));
        assert_eq!(holder_in(line, 123), None);
        let other = "2: POSIX  ADVISORY  WRITE 4711 08:01:1234 0 EOF";
        assert_eq!(holder_in(other, 1234), None);
        // A process that waits for the lock.
        let waiting = "1: -> FLOCK  ADVISORY  WRITE 4712 08:01:1234 0 EOF";
        assert_eq!(holder_in(waiting, 1234), None);
    }
}
