//! A server process, and a connection to it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A server process.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: String,
    /// Of its own database.
    folder: Option<tempfile::TempDir>,
}

impl Server {
    /// Starts one on a file of its own, in the current directory's file system.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir_in(".").unwrap();
        let database = folder.path().join("tidings.db");
        let mut server = Self::on(&format!("sqlite:{}", database.display()));
        server.folder = Some(folder);
        server
    }

    /// Starts one on this database.
    pub(crate) fn on(database: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_tidings"))
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--database"])
            .arg(database)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
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

    pub(crate) async fn create_endpoint(&self, owner: &str, url: &str) {
        let mut poster = Poster::connect(&self.address).await;
        let body = format!(r#"{{"url":"{url}"}}"#);
        poster.post(&format!("/v1{owner}/endpoints"), &body).await;
    }

    /// Seconds of processor time so far.
    pub(crate) fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let ticks = |n| {
            fields
                .split_whitespace()
                .nth(n)
                .unwrap()
                .parse::<f64>()
                .unwrap()
        };
        (ticks(11) + ticks(12)) / 100.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _status = self.process.wait();
    }
}

/// A notification of ordinary size.
pub(crate) fn notification(user: &str) -> String {
    format!(
        r#"{{"user_id":"{user}","type":"order.paid","payload":{{"title":"An order was paid","body":"Three apples, 4.20","url":"https://shop.example/orders/17"}}}}"#
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
        let reply = self.post("/v1/notifications", &notification(user)).await;
        let (_, id) = reply.split_once(r#"{"id":""#).unwrap();
        id.split('"').next().unwrap().to_owned()
    }

    pub(crate) async fn post(&mut self, path: &str, body: &str) -> String {
        self.request(&format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await
    }

    pub(crate) async fn get(&mut self, path: &str) -> String {
        self.request(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"))
            .await
    }

    async fn request(&mut self, request: &str) -> String {
        self.socket.write_all(request.as_bytes()).await.unwrap();
        let message = read_message(&mut self.socket, &mut self.buffer)
            .await
            .unwrap();
        let text = String::from_utf8(message).unwrap();
        assert!(text.starts_with("HTTP/1.1 20"), "{text}");
        text
    }
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
