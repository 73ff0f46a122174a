//! A gzip stream (RFC 1952) of zeros that is too long to be compressed anew for each request.
//!
//! A block that was compressed on its own means the same wherever it stands, so the stream is one
//! block again and again between a header and a trailer.

use std::io;

use bytes::Bytes;
use flate2::{Compress, Compression, Crc, FlushCompress};

/// What one block decodes to.
const BLOCK_BYTES: usize = 16 * 1024 * 1024;

/// Method deflate, no name, no time, system unknown.
pub(crate) const HEADER: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// The repeated part of a bomb, and its end.
#[derive(Debug, Clone)]
pub(crate) struct GzipBomb {
    pub(crate) block: Bytes,
    pub(crate) trailer: Bytes,
}

impl GzipBomb {
    /// A bomb of so many blocks, each 16 MiB when decoded and some 16 KiB on the wire.
    pub(crate) fn new(blocks: u64) -> io::Result<Self> {
        let zeros = vec![0; BLOCK_BYTES];
        let mut block = Vec::with_capacity(64 * 1024);
        // A full flush ends on a byte, and forgets what came before.
        Compress::new(Compression::best(), false)
            .compress_vec(&zeros, &mut block, FlushCompress::Full)
            .map_err(io::Error::other)?;

        let mut once = Crc::new();
        once.update(&zeros);
        let mut all = Crc::new();
        for _ in 0..blocks {
            all.combine(&once);
        }
        // An empty last block of deflate, then the checksum and the length of everything.
        let mut trailer = vec![0x03, 0x00];
        trailer.extend_from_slice(&all.sum().to_le_bytes());
        trailer.extend_from_slice(&all.amount().to_le_bytes());
        Ok(Self {
            block: block.into(),
            trailer: trailer.into(),
        })
    }

    /// The length of a bomb of so many blocks on the wire.
    pub(crate) fn length(&self, blocks: u64) -> u64 {
        HEADER.len() as u64 + self.block.len() as u64 * blocks + self.trailer.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoder_accepts_the_whole_stream() {
        let bomb = GzipBomb::new(2).unwrap();
        let stream = [HEADER, &bomb.block, &bomb.block, &bomb.trailer].concat();
        assert_eq!(stream.len() as u64, bomb.length(2));
        // The decoder compares the checksum and the length.
        let mut reader = flate2::read::GzDecoder::new(stream.as_slice());
        let decoded = io::copy(&mut reader, &mut io::sink()).unwrap();
        assert_eq!(decoded, 2 * BLOCK_BYTES as u64);
        assert!(decoded / bomb.length(2) > 900);
    }
}
