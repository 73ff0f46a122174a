//! The order in which a server starts and stops.

use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tidings_stream::{Consumer, Streams};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::accept::Acceptor;
use crate::app::{App, SharedApp};
use crate::config::Config;
use crate::dispatch::{Dispatcher, WebhookQueue};
use crate::error::StartError;
use crate::health::Readiness;
use crate::permits::Permits;
use crate::storage::Storage;
use crate::{deliveries, http, retention};

/// How long a client may take to send the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long sent bytes may stay unacknowledged before the connection counts as lost: the limit for a
/// client that has stopped reading.
const STALLED_WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// A running server.
///
/// Dropping it ends its tasks at once; [`shutdown`](Self::shutdown) is the orderly way.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    app: SharedApp,
    streams: Streams,
    consumer: Consumer,
    accepting: CancellationToken,
    accept_loop: AbortOnDropHandle<()>,
    _retention: AbortOnDropHandle<()>,
}

/// What a stopped server left unfinished. None of it is lost: the next start continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leftovers {
    /// Streams that were told to reconnect.
    pub streams: usize,
    /// Requests and streams that did not end in time and were dropped.
    pub cut_off: usize,
    /// Webhook attempts that did not end in time; they will be repeated.
    pub unfinished_attempts: u64,
    /// Deliveries that wait for an attempt.
    pub waiting_deliveries: u64,
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "streams told to reconnect: {}, connections dropped: {}, webhook attempts abandoned: {}, \
             pending deliveries: {}",
            self.streams, self.cut_off, self.unfinished_attempts, self.waiting_deliveries
        )
    }
}

impl Server {
    /// Listens, opens the database, and continues what an earlier run left unfinished.
    ///
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`StartError`] names the part that could not be started.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let cannot_listen = |source| StartError::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(cannot_listen)?;
        let address = listener.local_addr().map_err(cannot_listen)?;
        let storage = Storage::open(&config.database).await;
        let Storage {
            database,
            notifier,
            streams,
        } = storage.map_err(|source| StartError::Storage {
            database: config.database.to_string(),
            source,
        })?;
        let dispatcher = Arc::new(Dispatcher::new(database.clone(), &config)?);
        let queue = WebhookQueue::new(&streams, &config)?;
        let tasks = TaskTracker::new();
        let app = Arc::new(App {
            acceptor: Acceptor::new(
                database.clone(),
                notifier.clone(),
                streams.clone(),
                queue,
                tasks.clone(),
            ),
            dispatcher: Arc::clone(&dispatcher),
            permits: Permits::new(config.max_streams, config.max_streams_per_user),
            readiness: Readiness::default(),
            stopping: CancellationToken::new(),
            cutting_off: CancellationToken::new(),
            config,
            database,
            notifier,
            tasks,
        });
        let consumer = dispatcher.start(&streams, &app.config).await?;
        let accepting = CancellationToken::new();
        let accept_loop = tokio::spawn(accept(listener, Arc::clone(&app), accepting.clone()));
        let retention = tokio::spawn(retention::run(Arc::clone(&app)));
        Ok(Self {
            address,
            app,
            streams,
            consumer,
            accepting,
            accept_loop: AbortOnDropHandle::new(accept_loop),
            _retention: AbortOnDropHandle::new(retention),
        })
    }

    /// The address that the server listens on, with the actual port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops within the configured time, and returns what was left unfinished.
    ///
    /// The server takes no new connections and starts no new webhook attempts. It finishes requests
    /// and attempts, and ends streams with a `bye`; what does not end in time is dropped. Everything
    /// that was accepted is on disk, so nothing is lost.
    pub async fn shutdown(self) -> Leftovers {
        let deadline = Instant::now() + self.app.config.shutdown_timeout;
        self.accepting.cancel();
        let streams = self.app.permits.taken();
        self.app.stopping.cancel();
        let webhooks = self.consumer.close();
        let (app, accept_loop) = (&self.app, self.accept_loop);
        let connections = async {
            if let Err(error) = accept_loop.await {
                tracing::error!(%error, "the task that accepts connections failed");
            }
            app.tasks.close();
            app.tasks.wait().await;
        };
        let (webhooks, connections) =
            tokio::join!(webhooks, tokio::time::timeout_at(deadline, connections));
        let cut_off = match connections {
            Ok(()) => 0,
            Err(_) => drop_connections(&self.app).await,
        };
        if let Err(error) = self.app.notifier.close().await {
            tracing::warn!(%error, "cannot store which notifications were sent; some will count as undelivered again");
        }
        self.streams.close().await;
        let waiting_deliveries = self
            .app
            .database
            .read(|connection| {
                deliveries::count_pending(connection).map_err(tidings_sqlite::Error::from)
            })
            .await
            .unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot count the pending deliveries");
                0
            });
        self.app.database.close().await;
        Leftovers {
            streams,
            cut_off,
            unfinished_attempts: webhooks.abandoned,
            waiting_deliveries,
        }
    }
}

/// Drops what did not end in time; returns how much that was.
async fn drop_connections(app: &SharedApp) -> usize {
    let left = app.tasks.len();
    app.cutting_off.cancel();
    app.tasks.close();
    app.tasks.wait().await;
    left
}

/// Accepts connections until `accepting` is cancelled.
async fn accept(listener: TcpListener, app: SharedApp, accepting: CancellationToken) {
    let service = TowerToHyperService::new(http::router(Arc::clone(&app)));
    let permits = Arc::new(Semaphore::new(app.config.max_connections()));
    let mut builder = http1::Builder::new();
    // The time starts when the connection opens, so a silent connection is closed too.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    loop {
        // A full server leaves new connections in the operating system's queue, which is bounded.
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, connection) = tokio::select! {
            biased;
            () = accepting.cancelled() => return,
            next = next => next,
        };
        let stream = match connection {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Most likely out of file descriptors, until some connections end.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if let Err(error) = tune(&stream) {
            tracing::debug!(%error, "a connection ended before it was served");
            continue;
        }
        let connection = builder
            .serve_connection(TokioIo::new(stream), service.clone())
            .with_upgrades();
        let (stopping, cutting_off) = (app.stopping.clone(), app.cutting_off.clone());
        let serve = async move {
            let mut connection = pin!(connection);
            let outcome = tokio::select! {
                outcome = connection.as_mut() => outcome,
                () = stopping.cancelled() => {
                    // Finishes the current request, and takes no other.
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = outcome {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a connection ended"
                );
            }
            drop(permit);
        };
        app.tasks.spawn(async move {
            cutting_off.run_until_cancelled_owned(serve).await;
        });
    }
}

fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(STALLED_WRITE_TIMEOUT))?;
    socket.set_keepalive(true)
}
