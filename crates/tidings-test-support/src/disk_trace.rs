use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How `strace` is called: it follows all processes and threads, names files, and prints enough of what
/// is written for a marker.
const OPTIONS: &[&str] = &[
    "-f",
    "-y",
    "-qq",
    "-s",
    "64",
    "-e",
    TRACED,
    "-e",
    "signal=none",
];

/// System calls that write to a file or a socket, that wait for the disk, or that change a length.
const TRACED: &str =
    "trace=write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,fsync,fdatasync,sync_file_range";

/// A process under `strace`, whose replies are compared with what it has put on disk by then.
///
/// Killing a process does not show a missing fsync: the kernel still has what the process wrote. The
/// order of its system calls does. A reply that promises durability may only be written when no file
/// of the store has data that was written but not synced:
///
/// ```no_run
/// use tidings_test_support::DiskTrace;
///
/// # fn example() -> std::io::Result<()> {
/// let trace = DiskTrace::new("/tmp/trace".as_ref());
/// let mut server = trace.command("tidings").arg("serve").spawn()?;
/// // … post, wait for the reply …
/// server.kill()?;
/// server.wait()?;
/// let replies = trace.replies("HTTP/1.1 201", &["-wal"])?;
/// assert!(replies.iter().all(|reply| reply.unsynced.is_empty()), "{replies:?}");
/// # Ok(()) }
/// ```
///
/// It needs `strace`, and may not be used where the process may not be traced.
#[derive(Debug)]
pub struct DiskTrace {
    log: PathBuf,
}

/// A reply of a traced process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedReply {
    /// What had been written since the last reply, in bytes, over all files of the store.
    pub written: u64,
    /// How much of that was on disk.
    pub synced: u64,
    /// The files of the store with data that was not on disk when the reply was written.
    pub unsynced: Vec<PathBuf>,
}

impl DiskTrace {
    /// Keeps the trace in this file.
    pub fn new(log: &Path) -> Self {
        Self {
            log: log.to_owned(),
        }
    }

    /// A command that runs the program under `strace`. Arguments and the rest are for the program.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("strace");
        command.args(OPTIONS).arg("-o").arg(&self.log);
        command.arg("--").arg(program);
        command
    }

    /// A line of shell that runs the program, with the arguments of the shell, in the shell's own
    /// process: for what starts a program and has to know its process.
    pub(crate) fn line(&self, program: &Path) -> String {
        let (options, log) = (OPTIONS.join(" "), self.log.display());
        format!(
            "exec strace -D {options} -o '{log}' -- '{}' \"$@\"\n",
            program.display()
        )
    }

    /// The replies that contain `marker`, in their order, once the process has ended. Files of the
    /// store are those whose paths end with one of `files` or, where it ends with `*`, contain what stands
    /// before that.
    ///
    /// # Errors
    ///
    /// When the trace cannot be read.
    pub fn replies(&self, marker: &str, files: &[&str]) -> io::Result<Vec<TracedReply>> {
        let log = std::fs::read_to_string(&self.log)?;
        Ok(replies(&log, marker, files))
    }
}

/// A sync that a thread is in the middle of. It covers what was written before.
struct Sync<'a> {
    path: &'a str,
    /// How much of that was written since the last reply, in bytes.
    covers: u64,
    is_dirty_again: bool,
}

fn replies(log: &str, marker: &str, files: &[&str]) -> Vec<TracedReply> {
    let mut replies = Vec::new();
    let mut dirty: HashSet<&str> = HashSet::new();
    let mut unfinished: HashMap<&str, Sync<'_>> = HashMap::new();
    // What was written to a file since the last reply and is not synced.
    let mut pending: HashMap<&str, u64> = HashMap::new();
    let (mut written, mut synced) = (0, 0);
    for line in log.lines() {
        let Some((thread, call)) = line.split_once(' ') else {
            continue;
        };
        let call = call.trim_start();
        if call.starts_with("<... ") {
            if let Some(sync) = unfinished.remove(thread)
                && call.ends_with("= 0")
            {
                if !sync.is_dirty_again {
                    dirty.remove(sync.path);
                }
                let pending = pending.entry(sync.path).or_default();
                let covered = sync.covers.min(*pending);
                *pending -= covered;
                synced += covered;
            }
            continue;
        }
        let Some(path) = path(call) else { continue };
        let is_store = files.iter().any(|file| match file.strip_suffix('*') {
            Some(part) => path.contains(part),
            None => path.ends_with(file),
        });
        let is_sync = call.starts_with("fsync(") || call.starts_with("fdatasync(");
        if is_sync && is_store {
            if call.ends_with("<unfinished ...>") {
                let sync = Sync {
                    path,
                    covers: pending.get(path).copied().unwrap_or(0),
                    is_dirty_again: false,
                };
                unfinished.insert(thread, sync);
            } else if call.ends_with("= 0") {
                dirty.remove(path);
                synced += pending.remove(path).unwrap_or(0);
            }
        } else if is_store {
            dirty.insert(path);
            written += length(call);
            *pending.entry(path).or_default() += length(call);
            for sync in unfinished.values_mut() {
                sync.is_dirty_again |= sync.path == path;
            }
        } else if call.contains(marker) {
            let mut unsynced: Vec<_> = dirty.iter().map(PathBuf::from).collect();
            unsynced.sort();
            replies.push(TracedReply {
                written,
                synced,
                unsynced,
            });
            (written, synced) = (0, 0);
            pending.clear();
            for sync in unfinished.values_mut() {
                sync.covers = 0;
            }
        }
    }
    replies
}

/// The path of the call's first argument, `7</path>`.
fn path(call: &str) -> Option<&str> {
    let (_, arguments) = call.split_once('(')?;
    let (descriptor, rest) = arguments.split_once('<')?;
    let is_descriptor = descriptor.bytes().all(|it| it.is_ascii_digit());
    let (path, _) = rest.split_once('>')?;
    is_descriptor.then_some(path)
}

/// How many bytes a call has written, if it says so.
fn length(call: &str) -> u64 {
    let result = call.rsplit("= ").next();
    result.and_then(|it| it.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNCED: &str = r#"
10 pwrite64(7</d/t.db-wal>, "7\0"..., 32, 0) = 32
10 pwrite64(7</d/t.db-wal>, "a"..., 4096, 56) = 4096
10 fdatasync(7</d/t.db-wal> <unfinished ...>
11 sendto(9<TCP:[127.0.0.1:1->127.0.0.1:2]>, "HTTP/1.1 200 OK"..., 80, 0, NULL, 0) = 80
10 <... fdatasync resumed>) = 0
11 sendto(9<TCP:[127.0.0.1:1->127.0.0.1:2]>, "HTTP/1.1 201 Created"..., 80, 0, NULL, 0) = 80
"#;

    #[test]
    fn a_reply_after_the_sync_leaves_nothing_unsynced() {
        let found = replies(SYNCED, "HTTP/1.1 201", &["-wal"]);
        let expected = TracedReply {
            written: 32 + 4096,
            synced: 32 + 4096,
            unsynced: Vec::new(),
        };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn a_reply_before_the_sync_or_without_one_is_found() {
        let wal = [PathBuf::from("/d/t.db-wal")];
        // A part of the path is enough only if it is asked for.
        assert_eq!(replies(SYNCED, "HTTP/1.1 200", &["t.db"])[0].written, 0);
        assert_eq!(
            replies(SYNCED, "HTTP/1.1 200", &["/d/t.db*"])[0].unsynced,
            wal
        );
        let without = SYNCED.replace("fdatasync", "sync_file_range");
        assert_eq!(
            replies(&without, "HTTP/1.1 201", &["-wal"])[0].unsynced,
            wal
        );
        // The one that is written while the sync lasts.
        assert_eq!(replies(SYNCED, "HTTP/1.1 200", &["-wal"])[0].unsynced, wal);
        let failed = SYNCED.replace("resumed>) = 0", "resumed>) = -1 EIO");
        assert_eq!(replies(&failed, "HTTP/1.1 201", &["-wal"])[0].unsynced, wal);
        // A write in the middle of the sync is not covered by it.
        let again = SYNCED.replace(
            "10 <...",
            "12 pwrite64(7</d/t.db-wal>, \"b\"..., 4096, 9999) = 4096\n10 <...",
        );
        assert_eq!(replies(&again, "HTTP/1.1 201", &["-wal"])[0].unsynced, wal);
    }

    #[test]
    fn what_counts_as_synced_was_written_since_the_last_reply() {
        let synced = |log: &str| -> Vec<u64> {
            let replies = replies(log, "HTTP/1.1", &["-wal"]);
            replies.iter().map(|reply| reply.synced).collect()
        };
        // The first reply comes while the sync lasts.
        assert_eq!(synced(SYNCED), [0, 0]);
        let reply = "11 sendto(9<TCP:[127.0.0.1:1->127.0.0.1:2]>, \"HTTP/1.1 200 OK\"..., 80, 0, NULL, 0) = 80\n";
        let in_time = SYNCED.replace(reply, "");
        assert_eq!(synced(&in_time), [32 + 4096]);
        let without = in_time.replace("fdatasync", "sync_file_range");
        assert_eq!(synced(&without), [0]);
        // A later write is another's, and not covered.
        let later = in_time.replace(
            "11 sendto",
            "12 pwrite64(7</d/t.db-wal>, \"b\"..., 100, 9999) = 100\n11 sendto",
        );
        assert_eq!(synced(&later), [32 + 4096]);
    }
}
