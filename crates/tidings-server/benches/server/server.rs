//! A server process, and a connection to it.

use std::io::{BufRead, BufReader};
use std::process::Command;

use tidings_bench::SERVER;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process::Process;

/// Of the database of a server, in its folder.
pub(crate) const FILE: &str = "tidings.db";

/// A server process.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) address: String,
    /// Of its own database.
    folder: Option<tempfile::TempDir>,
}

impl Server {
    /// Starts one on a file of its own, in the current directory's file system.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// The same with more options.
    pub(crate) fn with(options: &[&str]) -> Self {
        let folder = tempfile::tempdir_in(".").unwrap();
        let database = folder.path().join(FILE);
        let mut server = Self::run(&format!("sqlite:{}", database.display()), options);
        server.folder = Some(folder);
        server
    }

    /// Starts one on this database.
    pub(crate) fn on(database: &str) -> Self {
        Self::run(database, &[])
    }

    fn run(database: &str, options: &[&str]) -> Self {
        let program = std::env::var_os(SERVER);
        let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_tidings").into());
        let mut process = Process::start(
            Command::new(program)
                .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--database"])
                .arg(database)
                .args(options),
        );
        let mut lines = BufReader::new(process.output()).lines();
        let first = lines.next().unwrap().unwrap();
        // The other lines are read too, so that the server never waits for the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let address = first.split("http://").nth(1).unwrap();
        let address = address.split(',').next().unwrap().to_owned();
        Self {
            process,
            address,
            folder: None,
        }
    }

    /// Ends it as a crash does, and returns the folder of its own database.
    pub(crate) fn end(self) -> Option<tempfile::TempDir> {
        drop(self.process);
        self.folder
    }

    pub(crate) async fn create_endpoint(&self, owner: &str, url: &str) {
        let mut poster = Poster::connect(&self.address).await;
        let body = format!(r#"{{"url":"{url}"}}"#);
        poster.post(&format!("/v1{owner}/endpoints"), &body).await;
    }

    /// An endpoint of the operator that gets one type of events.
    pub(crate) async fn create_endpoint_for(&self, event_type: &str, url: &str) {
        let mut poster = Poster::connect(&self.address).await;
        let body = format!(r#"{{"url":"{url}","event_types":["{event_type}"]}}"#);
        poster.post("/v1/endpoints", &body).await;
    }
}

/// A notification of ordinary size.
pub(crate) fn notification(user: &str) -> String {
    notification_of("order.paid", user)
}

fn notification_of(event_type: &str, user: &str) -> String {
    format!(
        r#"{{"user_id":"{user}","type":"{event_type}","payload":{{"title":"An order was paid","body":"Three apples, 4.20","url":"https://shop.example/orders/17"}}}}"#
    )
}

/// One connection that posts one request after another.
pub(crate) struct Poster {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Poster {
    pub(crate) async fn connect(address: &str) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self {
            socket,
            buffer: Vec::new(),
        }
    }

    /// Posts a notification; returns its id.
    pub(crate) async fn notify(&mut self, user: &str) -> String {
        self.notify_of("order.paid", user).await
    }

    /// Posts a notification of a type; returns its id.
    pub(crate) async fn notify_of(&mut self, event_type: &str, user: &str) -> String {
        let body = notification_of(event_type, user);
        let reply = self.post("/v1/notifications", &body).await;
        let (_, id) = reply.split_once(r#"{"id":""#).unwrap();
        id.split('"').next().unwrap().to_owned()
    }

    pub(crate) async fn post(&mut self, path: &str, body: &str) -> String {
        self.request(&post(path, body)).await
    }

    pub(crate) async fn get(&mut self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        self.request(request.as_bytes()).await
    }

    pub(crate) async fn request(&mut self, request: &[u8]) -> String {
        self.socket.write_all(request).await.unwrap();
        let message = read_message(&mut self.socket, &mut self.buffer)
            .await
            .unwrap();
        let text = String::from_utf8(message).unwrap();
        assert!(text.starts_with("HTTP/1.1 20"), "{text}");
        text
    }
}

/// A request.
pub(crate) fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// Reads one request or response; `None` at the end of the connection.
pub(crate) async fn read_message(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(head) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
            let length = text
                .split("content-length: ")
                .nth(1)
                .and_then(|rest| rest.lines().next()?.trim().parse::<usize>().ok())
                .unwrap_or(0);
            let end = head + 4 + length;
            if buffer.len() >= end {
                let rest = buffer.split_off(end);
                return Some(std::mem::replace(buffer, rest));
            }
        }
        if socket.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
