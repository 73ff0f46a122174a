//! The sending half of a connection.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};

#[derive(Debug)]
pub(crate) struct Output<W> {
    writer: W,
    bytes_sent: u64,
}

impl<W: AsyncWrite + Unpin> Output<W> {
    pub(crate) fn new(writer: W) -> Self {
        Self {
            writer,
            bytes_sent: 0,
        }
    }

    pub(crate) fn into_inner(self) -> W {
        self.writer
    }

    pub(crate) fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }

    /// Sends all of it.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        // Counting each write keeps the count right when the sender lets go in the middle.
        while !rest.is_empty() {
            let written = self.writer.write(rest).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.bytes_sent += written as u64;
            rest = &rest[written..];
        }
        self.writer.flush().await
    }

    /// Sends so many bytes, all of them `x`.
    pub(crate) async fn send_filler(&mut self, bytes: u64) -> io::Result<()> {
        const BLOCK: [u8; 16 * 1024] = [b'x'; 16 * 1024];
        let mut rest = bytes;
        while rest > 0 {
            let length = usize::try_from(rest).map_or(BLOCK.len(), |rest| rest.min(BLOCK.len()));
            self.send(&BLOCK[..length]).await?;
            rest -= length as u64;
        }
        Ok(())
    }

    /// Sends the same bytes again and again, so many times.
    pub(crate) async fn send_repeated(&mut self, bytes: &Bytes, times: u64) -> io::Result<()> {
        for _ in 0..times {
            self.send(bytes).await?;
        }
        Ok(())
    }

    /// Sends one byte after each pause until the connection breaks.
    pub(crate) async fn drip(&mut self, pause: Duration) -> io::Result<()> {
        loop {
            tokio::time::sleep(pause).await;
            self.send(b"x").await?;
        }
    }
}
