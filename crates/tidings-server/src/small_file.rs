//! Reads files that must be small: one that never ends, such as a device, would fill the memory.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// The file is too large.
#[derive(Debug, thiserror::Error)]
#[error("expected at most {max_bytes} bytes")]
struct TooLarge {
    max_bytes: u64,
}

/// Reads a file of at most so many bytes.
pub(crate) fn read(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = File::open(path)?.take(max_bytes + 1);
    let length = file.read_to_end(&mut bytes)?;
    if length as u64 > max_bytes {
        return Err(io::Error::new(
            ErrorKind::FileTooLarge,
            TooLarge { max_bytes },
        ));
    }
    Ok(bytes)
}
