//! Receivers that a sender of webhooks must survive, and servers that a store must survive.
//!
//! A sender is easy to write against a receiver that replies. What sets senders apart is what they
//! do with one that stalls, drips, lies, floods or breaks off, and such a receiver is hard to find
//! when a test needs it. A [`Receiver`] is one on demand: it listens on loopback, does to each
//! request what its [`Script`] says, and keeps what it was sent. It writes to raw sockets, because
//! an HTTP library refuses to misbehave.
//!
//! | part | is |
//! |---|---|
//! | [`Receiver`] | the server; it stops when it is dropped |
//! | [`Script`] | which [`Behaviour`] the next request meets: always the same, in sequence, or by a function |
//! | [`Behaviour`] | one way to treat one request, from a plain [`Reply`] to a gzip bomb |
//! | [`Request`] | what arrived, for the test to look at |
//! | [`Gate`] | holds replies back until the test says so |
//! | [`Tls`], [`Authority`] | certificates with one fault each, and the authority to trust |
//! | [`Unreachable`] | an address without a server: refused, or silent |
//! | [`Impostor`] | what replies in place of a database server |
//! | [`Proxy`] | a way to a server, to be cut, blocked, frozen and led to another server |
//! | [`Schema`] | a PostgreSQL schema for one test, on the server that all tests share |
//! | [`RedisServer`], [`PostgresServer`], [`PgBouncer`] | a private server for one test: crash, freeze, fill, demote, standbys |
//! | [`Outage`] | those faults in the same words for each kind of server, for one suite over all stores |
//! | [`SmallDisk`] | a file system that a test can fill |
//! | [`DiskTrace`] | whether a reply was written before its data was on disk |
//! | [`Log`] | what a test has logged |
//! | [`set_default`] | gives a subscriber what a test traces and logs |
//! | [`CallsBack`] | a recorder of metrics that uses what it records |
//! | [`Panics`] | a recorder of metrics, and a tracing subscriber, that panic |
//! | [`soon`] | waits for what must happen, and fails by name when it does not |
//! | [`explain`] | an error with its causes, as text to compare |
//! | [`catalogue`] | all of them by path, for any sender to be pointed at |
//!
//! Tests wait for what happens, never for the clock: [`Receiver::request`] returns when the request
//! has arrived, [`Receiver::closed`] when the sender has let go of a connection.
//!
//! ```
//! use tidings_test_support::{Reply, Behaviour, Receiver, Script};
//! # use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! # async fn post(url: String) -> String {
//! #     let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
//! #     let mut socket = tokio::net::TcpStream::connect(host).await.unwrap();
//! #     let request = format!("POST /{path} HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi");
//! #     socket.write_all(request.as_bytes()).await.unwrap();
//! #     let mut reply = String::new();
//! #     let _reset = socket.read_to_string(&mut reply).await;
//! #     reply
//! # }
//!
//! # async fn example() -> std::io::Result<()> {
//! // The first request is read and then reset; every later one gets a reply.
//! let script = Script::sequence([Behaviour::ResetAfterBody], Reply::ok().with_close());
//! let receiver = Receiver::start(script).await?;
//!
//! assert_eq!(post(receiver.url("/hook")).await, "");
//! assert!(post(receiver.url("/hook")).await.starts_with("HTTP/1.1 200 OK"));
//! assert_eq!(receiver.request(2).await.body, "hi");
//! # Ok(()) }
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(example()).unwrap();
//! ```
//!
//! To point another sender at all of them, in any language:
//!
//! ```sh
//! cargo run -p tidings-test-support --example hostile_receiver -- 127.0.0.1:8099
//! ```
//!
//! It speaks HTTP/1.1 only. It is not a mock that checks expectations, and not a server: it keeps
//! the last [`Receiver::KEPT`] requests in memory and replies to strangers as badly as it can.

#![doc(test(attr(deny(unused_imports))))]

mod authority;
mod behaviour;
mod calls_back;
pub mod catalogue;
mod connection;
#[cfg(target_os = "linux")]
mod disk_trace;
mod explain;
#[cfg(target_os = "linux")]
mod frozen;
mod gate;
mod gzip_bomb;
#[cfg(target_os = "linux")]
mod held_commits;
mod impostor;
mod input;
mod journal;
mod log;
#[cfg(target_os = "linux")]
mod outage;
mod output;
mod panics;
mod performance;
#[cfg(target_os = "linux")]
mod pgbouncer;
#[cfg(target_os = "linux")]
mod postgres_server;
mod proxy;
mod receiver;
#[cfg(unix)]
mod redis_server;
mod reply;
mod request;
mod schema;
mod script;
#[cfg(target_os = "linux")]
mod small_disk;
mod socket;
mod soon;
mod unreachable;

pub use authority::{Authority, Tls};
pub use behaviour::Behaviour;
pub use calls_back::CallsBack;
#[cfg(target_os = "linux")]
pub use disk_trace::{DiskTrace, TracedReply};
pub use explain::explain;
pub use gate::Gate;
pub use impostor::Impostor;
pub use log::{Log, set_default};
#[cfg(target_os = "linux")]
pub use outage::{Breakable, Fault, Outage, PostgresOutage, RedisOutage, Server};
pub use panics::Panics;
#[cfg(target_os = "linux")]
pub use pgbouncer::PgBouncer;
#[cfg(target_os = "linux")]
pub use postgres_server::PostgresServer;
pub use proxy::{Proxy, Welcome};
pub use receiver::{Builder, Receiver};
#[cfg(unix)]
pub use redis_server::RedisServer;
pub use reply::Reply;
pub use request::{Closed, Head, Request};
pub use schema::{Schema, connect};
pub use script::Script;
#[cfg(target_os = "linux")]
pub use small_disk::SmallDisk;
pub use soon::{PATIENCE, soon};
pub use unreachable::Unreachable;
