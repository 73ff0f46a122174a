use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// Stands where a database server should: it replies to each client with the same bytes, whatever the
/// client sends, and ends the connection. It stops when it is dropped.
#[derive(Debug)]
pub struct Impostor {
    address: SocketAddr,
    _serving: AbortOnDropHandle<()>,
}

impl Impostor {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub async fn start(reply: impl Into<Vec<u8>>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let reply = reply.into();
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Err(error) = exchange(client, &reply).await {
                    tracing::debug!(%error, "a client left before the reply");
                }
            }
        });
        Ok(Self {
            address,
            _serving: AbortOnDropHandle::new(serving),
        })
    }

    /// The address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn exchange(mut client: TcpStream, reply: &[u8]) -> io::Result<()> {
    let _read = client.read(&mut [0; 4096]).await?;
    client.write_all(reply).await
}
