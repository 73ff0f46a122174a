use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::postgres_server::{is_root, succeed};

/// A file system of a few megabytes, which a test can fill. It ends when it is dropped.
///
/// It needs the right to mount: root, or `sudo` without a password.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts an empty one of this size.
    ///
    /// # Errors
    ///
    /// When it cannot be mounted.
    pub fn mount(bytes: u64) -> io::Result<Self> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let name = format!("tidings-disk-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder)?;
        let options = format!("size={bytes},mode=0777");
        let mount = ["-t", "tmpfs", "-o", &options, "tmpfs"];
        succeed(as_root("mount")?.args(mount).arg(&folder))?;
        Ok(Self { folder })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Takes all the room that is left.
    ///
    /// # Errors
    ///
    /// For any other reason than that there is no more room.
    pub fn fill(&self) -> io::Result<()> {
        let filler = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.filler())?;
        loop {
            match io::Write::write_all(&mut &filler, &[0; 4096]) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives back what [`fill`](Self::fill) has taken.
    ///
    /// # Errors
    ///
    /// When it is not filled.
    pub fn make_room(&self) -> io::Result<()> {
        std::fs::remove_file(self.filler())
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Both fail only when there is nothing left to do. A file that is still open keeps what it needs.
        let _unmounted = as_root("umount").and_then(|mut umount| {
            let umount = umount.arg("--lazy").arg(&self.folder);
            succeed(umount)
        });
        let _removed = std::fs::remove_dir(&self.folder);
    }
}

fn as_root(program: &str) -> io::Result<Command> {
    if is_root()? {
        return Ok(Command::new(program));
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    Ok(command)
}
