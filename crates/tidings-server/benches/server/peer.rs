//! The server `durable-streams`, which keeps streams of bytes: no users, counts or webhooks.

use std::io::{BufRead, BufReader};
use std::process::Command;

use tidings_bench::PEER;

use crate::process::Process;
use crate::server::Poster;

pub(crate) const NAME: &str = "durable-streams";

/// What a stream has sent when its reader has everything.
pub(crate) const CAUGHT_UP: &str = "\"upToDate\":true";

/// What is sent in vain without it.
pub(crate) const MISSING: &str = "not installed";

pub(crate) struct Peer {
    pub(crate) process: Process,
    pub(crate) address: String,
    _folder: tempfile::TempDir,
}

impl Peer {
    /// Starts it with its defaults, which sync before they reply; without the program, there is no peer.
    pub(crate) fn start() -> Option<Self> {
        let program = std::env::var_os(PEER)?;
        let folder = tempfile::tempdir_in(".").unwrap();
        let port = {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            free.local_addr().unwrap().port().to_string()
        };
        let mut process = Process::start(
            Command::new(program)
                .args(["--port", &port, "--data-dir"])
                .arg(folder.path()),
        );
        let mut lines = BufReader::new(process.output()).lines();
        let first = lines.next().unwrap().unwrap();
        assert!(first.contains("listening"), "{first}");
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self {
            process,
            address: format!("127.0.0.1:{port}"),
            _folder: folder,
        })
    }

    pub(crate) async fn create(&self, streams: usize) {
        let mut poster = Poster::connect(&self.address).await;
        for n in 0..streams {
            let put = format!(
                "PUT /stream{n} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 0\r\n\r\n"
            );
            poster.request(put.as_bytes()).await;
        }
    }

    /// A request that appends to a stream.
    pub(crate) fn append(n: usize, body: &str) -> Vec<u8> {
        let length = body.len();
        format!(
            "POST /stream{n} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    /// A request for what is appended from now on.
    pub(crate) fn follow(n: usize) -> String {
        Self::from(n, "now")
    }

    /// A request for everything that was appended, and what is from now on.
    pub(crate) fn read(n: usize) -> String {
        Self::from(n, "-1")
    }

    fn from(n: usize, offset: &str) -> String {
        format!("GET /stream{n}?offset={offset}&live=sse HTTP/1.1\r\nhost: localhost\r\n\r\n")
    }
}
