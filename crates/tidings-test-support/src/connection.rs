//! One connection, from its first request until it ends.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::input::{Input, ReadError};
use crate::output::Output;
use crate::performance::{AfterReply, perform};
use crate::receiver::Shared;
use crate::socket::Socket;
use crate::{Behaviour, Closed, Head, Reply, Request};

/// How long a connection may last, so that a sender that never lets go cannot hold it for ever.
const MAX_AGE: Duration = Duration::from_secs(600);

/// How long closing in good order may take.
const MAX_FAREWELL: Duration = Duration::from_secs(1);

/// Serves one request after the other until the connection ends, and says how it went.
pub(crate) async fn serve<S: Socket>(socket: S, number: u64, shared: &Shared) -> Closed {
    let (reader, writer) = tokio::io::split(socket);
    let mut connection = Connection {
        number,
        requests: 0,
        input: Input::new(reader),
        output: Output::new(writer),
    };
    let last = tokio::time::timeout(MAX_AGE, async {
        loop {
            match connection.exchange(shared).await {
                AfterReply::Request => {}
                last => return last,
            }
        }
    })
    .await;

    let closed = Closed {
        connection: number,
        requests: connection.requests,
        bytes_sent: connection.output.bytes_sent(),
    };
    let Connection { input, output, .. } = connection;
    let socket = input.into_inner().unsplit(output.into_inner());
    match last {
        Ok(AfterReply::Reset) => reset(&socket),
        _ => close(socket).await,
    }
    closed
}

/// Reads what comes and says nothing until the other side lets go.
pub(crate) async fn stall(mut socket: TcpStream, number: u64) -> Closed {
    let mut nowhere = tokio::io::sink();
    let left = tokio::io::copy(&mut socket, &mut nowhere);
    // Whether it closes, breaks or is too old, the connection ends.
    let _ended = tokio::time::timeout(MAX_AGE, left).await;
    Closed::unused(number)
}

/// Replies a TLS handshake; nothing when the other side does not go through with it.
pub(crate) async fn handshake(
    acceptor: &TlsAcceptor,
    socket: TcpStream,
) -> Option<TlsStream<TcpStream>> {
    let handshake = tokio::time::timeout(MAX_AGE, acceptor.accept(socket)).await;
    handshake.ok()?.ok()
}

/// Closes in good order: with TLS a `close_notify`, then a TCP FIN.
async fn close(mut socket: impl Socket) {
    // When the other side was faster there is nothing left to close. One that reads no more would
    // hold up the `close_notify`.
    let _already_gone = tokio::time::timeout(MAX_FAREWELL, socket.shutdown()).await;
}

/// Makes a TCP RST of the drop that follows.
fn reset(socket: &impl Socket) {
    if let Err(error) = socket.tcp().set_zero_linger() {
        tracing::warn!(%error, "a connection is closed where a reset was due");
    }
}

struct Connection<R, W> {
    number: u64,
    requests: u64,
    input: Input<R>,
    output: Output<W>,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Connection<R, W> {
    /// Reads a request and treats it as the script says.
    async fn exchange(&mut self, shared: &Shared) -> AfterReply {
        let lines = match self.input.head().await {
            Ok(lines) => lines,
            Err(error) => return self.refuse(error).await,
        };
        self.requests += 1;
        let head = Head {
            connection: self.number,
            method: lines.method,
            target: lines.target,
            headers: lines.headers,
        };
        let behaviour = shared.script().decide(&head);
        let body = match behaviour {
            Behaviour::ResetBeforeBody => Bytes::new(),
            _ => match self.read_body(&head).await {
                Ok(body) => body,
                Err(error) => return self.refuse(error).await,
            },
        };
        shared.journal.add_request(Request {
            head: head.clone(),
            body,
            received_at: Instant::now(),
        });
        tokio::select! {
            // A sender that has let go does not mind how the connection ends.
            done = perform(&behaviour, &head, &mut self.output) => done.unwrap_or(AfterReply::Close),
            () = self.input.left() => AfterReply::Close,
        }
    }

    async fn read_body(&mut self, head: &Head) -> Result<Bytes, ReadError> {
        let waits = head
            .header("expect")
            .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
        if waits {
            self.output
                .send(b"HTTP/1.1 100 Continue\r\n\r\n")
                .await
                .map_err(|_| ReadError::Gone)?;
        }
        self.input.body(&head.headers).await
    }

    /// Replies to a sender why its request was not read.
    async fn refuse(&mut self, error: ReadError) -> AfterReply {
        if let ReadError::Refused(status, reason) = error {
            let reply = Reply::new(status)
                .with_header("content-type", "text/plain")
                .with_body(format!("{reason}\n"))
                .with_close();
            // A sender that has let go does not want to know.
            let _unheard = self.output.send(&reply.to_bytes(&Method::POST)).await;
        }
        AfterReply::Close
    }
}
