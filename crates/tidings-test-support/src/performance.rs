//! What each [`Behaviour`] writes.

use std::io;
use std::sync::LazyLock;

use bytes::Bytes;
use tokio::io::AsyncWrite;

use crate::gzip_bomb::{self, GzipBomb};
use crate::output::Output;
use crate::reply::{Ending, Reply};
use crate::{Behaviour, Head};

/// What to do with the connection now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterReply {
    Request,
    Close,
    Reset,
}

/// How often endless things are repeated: more than a connection lives to see.
const FOREVER: u64 = u64::MAX;

/// Blocks of the gzip bomb: 1 GiB when decoded.
const BOMB_BLOCKS: u64 = 64;

/// Does what a behaviour says, for as long as the other side can take it.
pub(crate) async fn perform<W: AsyncWrite + Unpin>(
    behaviour: &Behaviour,
    head: &Head,
    output: &mut Output<W>,
) -> io::Result<AfterReply> {
    match behaviour {
        Behaviour::Reply(reply) => return send_reply(reply, head, output).await,
        Behaviour::NeverReply => std::future::pending().await,
        Behaviour::DripHead { pause } => {
            output.send(b"HTTP/1.1 200 OK\r\nx-slow: ").await?;
            output.drip(*pause).await?;
        }
        Behaviour::DripBody { pause } => {
            output
                .send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
                .await?;
            output.drip(*pause).await?;
        }
        Behaviour::EndlessBody => {
            output
                .send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                .await?;
            let mut chunk = b"1000\r\n".to_vec();
            chunk.resize(chunk.len() + 0x1000, b'x');
            chunk.extend_from_slice(b"\r\n");
            output.send_repeated(&chunk.into(), FOREVER).await?;
        }
        Behaviour::HugeBody { bytes } => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n");
            output.send(head.as_bytes()).await?;
            output.send_filler(*bytes).await?;
        }
        Behaviour::GzipBomb => {
            let bomb = bomb()?;
            let length = bomb.length(BOMB_BLOCKS);
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {length}\r\n\r\n"
            );
            output.send(head.as_bytes()).await?;
            output.send(gzip_bomb::HEADER).await?;
            output.send_repeated(&bomb.block, BOMB_BLOCKS).await?;
            output.send(&bomb.trailer).await?;
        }
        Behaviour::EndlessHeaders => {
            output.send(b"HTTP/1.1 200 OK\r\n").await?;
            let line = Bytes::from_static(b"x-more: and more, and more, and more\r\n");
            output.send_repeated(&line, FOREVER).await?;
        }
        Behaviour::HugeHeader { bytes } => {
            output.send(b"HTTP/1.1 200 OK\r\nx-huge: ").await?;
            output.send_filler(*bytes).await?;
            output.send(b"\r\ncontent-length: 0\r\n\r\n").await?;
        }
        Behaviour::Interim {
            status,
            count,
            then,
        } => {
            let interim = Reply::new(*status).to_bytes(&head.method);
            output.send_repeated(&interim, *count).await?;
            return send_reply(then, head, output).await;
        }
        Behaviour::ResetBeforeBody | Behaviour::ResetAfterBody => return Ok(AfterReply::Reset),
        Behaviour::HangUp => {}
        Behaviour::HalfHead => output.send(b"HTTP/1.1 20").await?,
        Behaviour::HalfBody => {
            output
                .send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello")
                .await?;
        }
        Behaviour::Raw(bytes) => output.send(bytes).await?,
    }
    Ok(AfterReply::Close)
}

async fn send_reply<W: AsyncWrite + Unpin>(
    reply: &Reply,
    head: &Head,
    output: &mut Output<W>,
) -> io::Result<AfterReply> {
    if let Some(gate) = &reply.gate {
        gate.opened().await;
    }
    if !reply.delay.is_zero() {
        tokio::time::sleep(reply.delay).await;
    }
    output.send(&reply.to_bytes(&head.method)).await?;
    Ok(match reply.ending {
        Ending::KeepAlive => AfterReply::Request,
        Ending::Close | Ending::SilentClose => AfterReply::Close,
    })
}

/// The gzip bomb. Compressing it takes a moment, so it is kept.
fn bomb() -> io::Result<GzipBomb> {
    static BOMB: LazyLock<Result<GzipBomb, io::ErrorKind>> =
        LazyLock::new(|| GzipBomb::new(BOMB_BLOCKS).map_err(|error| error.kind()));
    Ok(BOMB.clone()?)
}
