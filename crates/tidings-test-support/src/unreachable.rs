use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// An address of 127.0.0.1 where no connection comes about, for as long as this lives.
#[derive(Debug)]
pub struct Unreachable {
    address: SocketAddr,
    _held: Held,
}

/// What keeps the port, so that no other process can open it meanwhile.
#[derive(Debug)]
#[expect(dead_code, reason = "held for its drop alone")]
enum Held {
    Bound(TcpSocket),
    Full(TcpListener, Vec<TcpStream>),
}

impl Unreachable {
    /// An address that refuses connections (TCP RST): the port is bound, but nothing listens.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub fn refusing() -> io::Result<Self> {
        let socket = bound()?;
        Ok(Self {
            address: socket.local_addr()?,
            _held: Held::Bound(socket),
        })
    }

    /// An address that does not react to connections: a client waits until its own
    /// deadline.
    ///
    /// The listener never accepts and its backlog is full, so that the kernel drops what comes.
    /// Linux does; other systems may refuse instead.
    ///
    /// # Errors
    ///
    /// When no port can be had, or its backlog cannot be filled.
    pub async fn silent() -> io::Result<Self> {
        let socket = bound()?;
        let address = socket.local_addr()?;
        let listener = socket.listen(1)?;
        // Linux takes one connection more than the backlog says.
        let waiting = vec![
            TcpStream::connect(address).await?,
            TcpStream::connect(address).await?,
        ];
        Ok(Self {
            address,
            _held: Held::Full(listener, waiting),
        })
    }

    /// The address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path, which begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

fn bound() -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    Ok(socket)
}
