//! Receivers that speak HTTP/2 and fail in its own ways. They speak it without TLS, so that the frames
//! are those of the script.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{Request, Response, StatusCode};
use tidings::{Attempt, Endpoint, ErrorKind, HttpVersions, Message, Sender, Verdict};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

type Http2 = Connection<TcpStream, Bytes>;
type Stream = (Request<RecvStream>, SendResponse<Bytes>);

/// Long enough for anything that is not meant to time out, on a busy machine.
const PATIENT: Duration = Duration::from_secs(60);

/// Short enough to wait for, and long enough for a request to be made and sent on a busy machine.
const SHORT: Duration = Duration::from_secs(1);

/// What the first connection does with its second request. All others serve everything.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Replies nothing any more, but for pings.
    Silent,
    /// Reads nothing any more.
    Frozen,
    /// Says that the request was not handled (`REFUSED_STREAM`).
    Refused,
    /// Says that no request is handled any more (`GOAWAY`), and closes.
    GoAway,
    /// Closes.
    Closed,
    /// Breaks the request off with an error of its own, and serves the others.
    InternalError,
}

struct Server {
    url: String,
    connections: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    /// Treats each connection by a script, which gets its number, counted from 1.
    async fn start<F>(script: impl Fn(usize, Http2) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut scripts = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                let connection = h2::server::handshake(stream).await.unwrap();
                scripts.spawn(script(number, connection));
            }
        });
        Self {
            url,
            connections,
            _task: AbortOnDropHandle::new(task),
        }
    }

    async fn with(fault: Fault) -> Self {
        Self::start(move |number, mut connection| async move {
            if number == 1 {
                let first = connection.accept().await.unwrap().unwrap();
                reply(first);
                fail(connection, fault).await;
            } else {
                serve(connection).await;
            }
        })
        .await
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

fn reply((_request, mut response): Stream) {
    let head = Response::builder().status(StatusCode::ACCEPTED);
    response
        .send_response(head.body(()).unwrap(), true)
        .unwrap();
}

async fn serve(mut connection: Http2) {
    while let Some(Ok(stream)) = connection.accept().await {
        reply(stream);
    }
}

async fn fail(mut connection: Http2, fault: Fault) {
    let Some(Ok((_request, mut response))) = connection.accept().await else {
        return;
    };
    match fault {
        Fault::Silent => while connection.accept().await.is_some() {},
        Fault::Frozen => std::future::pending().await,
        Fault::Refused => {
            response.send_reset(Reason::REFUSED_STREAM);
            while connection.accept().await.is_some() {}
        }
        Fault::InternalError => {
            response.send_reset(Reason::INTERNAL_ERROR);
            serve(connection).await;
        }
        Fault::GoAway => {
            connection.abrupt_shutdown(Reason::NO_ERROR);
            while connection.accept().await.is_some() {}
        }
        Fault::Closed => {}
    }
}

fn sender() -> Sender {
    let builder = Sender::builder().http_versions(HttpVersions::Http2);
    builder.build().unwrap()
}

async fn attempt(sender: &Sender, server: &Server, timeout: Duration) -> Attempt {
    let endpoint = Endpoint::builder(&server.url).timeout(timeout);
    let endpoint = endpoint.build().unwrap();
    sender.attempt(&endpoint, &Message::from("hello"), 1).await
}

#[tokio::test]
async fn regression_a_connection_that_timed_out_is_not_used_again() {
    for fault in [Fault::Silent, Fault::Frozen] {
        let (server, sender) = (Server::with(fault).await, sender());
        let first = attempt(&sender, &server, PATIENT).await;
        assert_eq!(first.verdict(), Verdict::Delivered, "{first:?}");
        let second = attempt(&sender, &server, SHORT).await;
        let reported = (second.error_kind(), second.is_ambiguous());
        assert_eq!(
            reported,
            (Some(ErrorKind::ResponseTimeout), true),
            "{fault:?}"
        );
        for _ in 0..3 {
            let next = attempt(&sender, &server, PATIENT).await;
            assert_eq!(next.verdict(), Verdict::Delivered, "{fault:?}: {next:?}");
        }
        assert_eq!(server.connections(), 2, "{fault:?}");
    }
}

#[tokio::test]
async fn an_attempt_that_is_dropped_leaves_no_connection_to_the_next_one() {
    let (server, sender) = (Server::with(Fault::Silent).await, sender());
    attempt(&sender, &server, PATIENT).await;
    let dropped = attempt(&sender, &server, PATIENT);
    assert!(tokio::time::timeout(SHORT, dropped).await.is_err());
    let next = attempt(&sender, &server, PATIENT).await;
    assert_eq!(next.verdict(), Verdict::Delivered, "{next:?}");
    assert_eq!(server.connections(), 2);
}

#[test]
fn an_attempt_that_is_dropped_after_its_runtime_has_ended_panics_nowhere() {
    let [receiving, sending] = [(); 2].map(|()| Runtime::new().unwrap());
    let (report, mut arrived) = mpsc::channel(1);
    let server = receiving.block_on(Server::start(move |number, mut connection| {
        let report = report.clone();
        async move {
            if number == 1 {
                let _unanswered = connection.accept().await;
                report.send(()).await.unwrap();
                std::future::pending::<()>().await;
            } else {
                serve(connection).await;
            }
        }
    }));
    let sender = sender();
    let mut left = Box::pin(attempt(&sender, &server, PATIENT));
    sending.block_on(async {
        tokio::select! {
            attempt = &mut left => panic!("{attempt:?}"),
            request = arrived.recv() => request.unwrap(),
        }
    });
    drop(sending);
    drop(left);
    let next = receiving.block_on(attempt(&sender, &server, PATIENT));
    assert_eq!(next.verdict(), Verdict::Delivered, "{next:?}");
}

#[tokio::test]
async fn a_kept_connection_that_ends_is_followed_by_a_new_one_within_the_attempt() {
    for fault in [Fault::Refused, Fault::GoAway, Fault::Closed] {
        let (server, sender) = (Server::with(fault).await, sender());
        for _ in 0..2 {
            let attempt = attempt(&sender, &server, PATIENT).await;
            assert_eq!(
                attempt.verdict(),
                Verdict::Delivered,
                "{fault:?}: {attempt:?}"
            );
        }
        assert_eq!(server.connections(), 2, "{fault:?}");
    }
}

#[tokio::test]
async fn a_kept_connection_that_has_ended_before_the_next_request_is_not_used_for_it() {
    let server = Server::start(|number, mut connection| async move {
        if number == 1 {
            let first = connection.accept().await.unwrap().unwrap();
            reply(first);
            connection.graceful_shutdown();
            while connection.accept().await.is_some() {}
        } else {
            serve(connection).await;
        }
    })
    .await;
    let sender = sender();
    for number in 1..=2 {
        let attempt = attempt(&sender, &server, PATIENT).await;
        assert_eq!(attempt.verdict(), Verdict::Delivered, "{attempt:?}");
        assert_eq!(server.connections(), number);
    }
}

#[tokio::test]
async fn a_request_that_was_broken_off_is_not_sent_again() {
    let (server, sender) = (Server::with(Fault::InternalError).await, sender());
    attempt(&sender, &server, PATIENT).await;
    let second = attempt(&sender, &server, PATIENT).await;
    let reported = (second.error_kind(), second.is_ambiguous());
    assert_eq!(reported, (Some(ErrorKind::Reset), true), "{second:?}");
    // That says nothing about the connection.
    let third = attempt(&sender, &server, PATIENT).await;
    assert_eq!(third.verdict(), Verdict::Delivered, "{third:?}");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_new_connection_that_refuses_is_a_failure_that_leaves_nothing_in_doubt() {
    let server = Server::start(|_, connection| fail(connection, Fault::Refused)).await;
    let attempt = attempt(&sender(), &server, PATIENT).await;
    let reported = (attempt.error_kind(), attempt.is_ambiguous());
    assert_eq!(reported, (Some(ErrorKind::Reset), false), "{attempt:?}");
    assert_eq!(attempt.verdict(), Verdict::Retryable);
    assert_eq!(server.connections(), 1);
}

/// Sends interim responses of 8 KiB, and then the final one.
async fn interim(mut connection: Http2, count: usize) {
    let Some(Ok((_request, mut response))) = connection.accept().await else {
        return;
    };
    let sending = async {
        for number in 0..count {
            let hint = Response::builder()
                .status(StatusCode::EARLY_HINTS)
                .header("x-number", format!("{number:08192}"));
            if response.send_informational(hint.body(()).unwrap()).is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        let head = Response::builder().status(StatusCode::ACCEPTED);
        let _gone = response.send_response(head.body(()).unwrap(), true);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = sending => {}
        _ended = async { while connection.accept().await.is_some() {} } => {}
    }
}

#[tokio::test]
async fn a_flood_on_a_kept_connection_is_not_asked_for_again() {
    let server = Server::start(|_, mut connection| async move {
        reply(connection.accept().await.unwrap().unwrap());
        interim(connection, usize::MAX).await;
    })
    .await;
    let sender = sender();
    attempt(&sender, &server, PATIENT).await;
    let second = attempt(&sender, &server, PATIENT).await;
    let reported = (second.error_kind(), second.is_ambiguous());
    assert_eq!(reported, (Some(ErrorKind::Protocol), true), "{second:?}");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn interim_responses_are_passed_over() {
    let server = Server::start(|_, connection| interim(connection, 3)).await;
    let attempt = attempt(&sender(), &server, PATIENT).await;
    assert_eq!(attempt.status(), Some(StatusCode::ACCEPTED), "{attempt:?}");
}

#[tokio::test]
async fn endless_interim_responses_end_the_attempt_within_bounds() {
    let server = Server::start(|_, connection| interim(connection, usize::MAX)).await;
    let attempt = attempt(&sender(), &server, PATIENT).await;
    let reported = (attempt.error_kind(), attempt.is_ambiguous());
    assert_eq!(reported, (Some(ErrorKind::Protocol), true), "{attempt:?}");
    assert!(attempt.elapsed < PATIENT);
}
