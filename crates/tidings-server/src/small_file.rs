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
    read_all(File::open(path)?, max_bytes)
}

/// Reads at most so many bytes to their end.
pub(crate) fn read_all(source: impl Read, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let length = source.take(max_bytes + 1).read_to_end(&mut bytes)?;
    if length as u64 > max_bytes {
        return Err(io::Error::new(
            ErrorKind::FileTooLarge,
            TooLarge { max_bytes },
        ));
    }
    Ok(bytes)
}
