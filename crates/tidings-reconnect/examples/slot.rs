//! `cargo run -p tidings-reconnect --example slot`
//!
//! A hundred callers share one connection to a server in this program, which closes it then: the next caller gets
//! another.

#![allow(clippy::print_stdout, reason = "an example prints what happens")]

use std::error::Error;
use std::io;
use std::sync::Arc;

use tidings_reconnect::{Breakable, Slot};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

#[derive(Debug)]
struct Connection(TcpStream);

impl Breakable for Connection {
    fn is_broken(&self) -> bool {
        // Nothing is ever sent: only an end can be read.
        !matches!(self.0.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

type Shared = Slot<Connection, Arc<io::Error>>;

async fn connection(slot: &Shared, server: &str) -> Result<Arc<Connection>, Arc<io::Error>> {
    slot.connection(async || Ok(Connection(TcpStream::connect(server).await?)))
        .await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = listener.local_addr()?.to_string();
    let slot = Arc::new(Shared::new());

    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let (slot, server) = (Arc::clone(&slot), server.clone());
        callers.spawn(async move { connection(&slot, &server).await });
    }
    let connections = callers.join_all().await;
    let first = connections[0].clone()?;
    let are_same = connections
        .iter()
        .all(|other| matches!(other, Ok(other) if Arc::ptr_eq(other, &first)));
    println!("100 callers share one connection: {are_same}");

    let (accepted, _) = listener.accept().await?;
    drop(accepted);
    first.0.readable().await?;
    let second = connection(&slot, &server).await?;
    println!(
        "after its end there is another: {}",
        !Arc::ptr_eq(&first, &second)
    );
    Ok(())
}
