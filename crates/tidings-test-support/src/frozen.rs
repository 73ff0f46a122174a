//! Stopping a process for a while.

use std::io;
use std::path::Path;

/// Waits until a process that was sent SIGSTOP has stopped, with all its threads: each goes on until it has seen the
/// signal, which may be long after on a busy machine. Returns at once if the process has ended.
///
/// # Errors
///
/// When the system does not say how its threads are.
pub(crate) fn until_frozen(process: &str) -> io::Result<()> {
    let folder = Path::new("/proc").join(process).join("task");
    while !is_frozen(&folder)? {
        std::thread::yield_now();
    }
    Ok(())
}

fn is_frozen(folder: &Path) -> io::Result<bool> {
    let tasks = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        tasks => tasks?,
    };
    for task in tasks {
        // A thread can end while the list is read.
        let Ok(status) = std::fs::read_to_string(task?.path().join("status")) else {
            continue;
        };
        let state = status.lines().find_map(|line| line.strip_prefix("State:"));
        // Stopped, or ended and not waited for.
        if !state.is_some_and(|state| state.trim().starts_with(['T', 'Z', 'X'])) {
            return Ok(false);
        }
    }
    Ok(true)
}
