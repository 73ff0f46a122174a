//! The order in which a server starts and stops.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tidings_notify::Notifier;
use tidings_notify::sqlite::SqliteStore;
use tidings_sqlite::{Database, Options};
use tidings_stream::sqlite::SqliteEngine;
use tidings_stream::{Consumer, ServiceConfig, Streams};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::accept::Acceptor;
use crate::app::{App, SharedApp};
use crate::config::Config;
use crate::dispatch::{Dispatcher, WebhookQueue};
use crate::http::seats::Seats;
use crate::readiness::{self, Readiness};
use crate::{deliveries, endpoints, http, idempotency, retention};

/// How long a client may take to send the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long sent bytes may stay unacknowledged before the connection counts as lost: the bound on
/// a reader that has stopped reading.
const STALLED_WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// A running server.
///
/// Dropping it ends its tasks without a farewell; [`shutdown`](Self::shutdown) is the polite way.
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

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The database cannot be opened or brought up to date.
    #[error("cannot use the database {}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The webhook sender cannot be set up.
    #[error("cannot set up the webhook sender")]
    Webhooks(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What a stopped server left undone. Nothing of it is lost: the next start goes on with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leftovers {
    /// Streams that were told to come back.
    pub streams: usize,
    /// Requests and streams that did not end in time and were cut off.
    pub cut_off: usize,
    /// Webhook attempts that did not end in time; they will be made again.
    pub unfinished_attempts: u64,
    /// Deliveries that wait for an attempt.
    pub waiting_deliveries: u64,
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "streams told to come back: {}, connections cut off: {}, webhook attempts given up: {}, \
             deliveries waiting for the next start: {}",
            self.streams, self.cut_off, self.unfinished_attempts, self.waiting_deliveries
        )
    }
}

impl Server {
    /// Opens the storage, takes up what a former run left, and listens.
    ///
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`StartError`] says what could not be had.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let listener = TcpListener::bind(config.listen).await;
        let listener = listener.map_err(|source| StartError::Listen {
            address: config.listen,
            source,
        })?;
        let address = listener.local_addr().map_err(|source| StartError::Listen {
            address: config.listen,
            source,
        })?;
        let storage = Storage::open(&config)
            .await
            .map_err(|source| StartError::Database {
                path: config.database.clone(),
                source,
            })?;
        let Storage {
            database,
            notifier,
            streams,
        } = storage;
        let webhooks =
            |source: Box<dyn std::error::Error + Send + Sync>| StartError::Webhooks(source);
        let dispatcher =
            Dispatcher::new(database.clone(), &config).map_err(|error| webhooks(error.into()))?;
        let dispatcher = Arc::new(dispatcher);
        let queue = WebhookQueue::new(&streams, &config).map_err(|error| webhooks(error.into()))?;
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
            seats: Seats::new(config.max_streams, config.max_streams_per_user),
            readiness: Readiness::default(),
            stopping: CancellationToken::new(),
            cutting_off: CancellationToken::new(),
            config,
            database,
            notifier,
            tasks,
        });
        let consumer = dispatcher
            .start(&streams, &app.config)
            .await
            .map_err(|error| webhooks(error.into()))?;
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

    /// The address that is listened on, with the port that was found for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops within the configured time, and says what was left.
    ///
    /// No new connections and no new webhook attempts; requests are answered, attempts are
    /// finished, streams get their farewell; what does not end in time is cut off. Everything that
    /// was accepted is on disk, so nothing is lost by it.
    pub async fn shutdown(self) -> Leftovers {
        let deadline = Instant::now() + self.app.config.shutdown_timeout;
        self.accepting.cancel();
        let streams = self.app.seats.taken();
        self.app.stopping.cancel();
        let webhooks = self.consumer.close();
        let (app, accept_loop) = (&self.app, self.accept_loop);
        let connections = async {
            if let Err(error) = accept_loop.await {
                tracing::error!(%error, "accepting connections had failed");
            }
            app.tasks.close();
            app.tasks.wait().await;
        };
        let (webhooks, connections) =
            tokio::join!(webhooks, tokio::time::timeout_at(deadline, connections));
        let cut_off = match connections {
            Ok(()) => 0,
            Err(_) => cut_off(&self.app).await,
        };
        if let Err(error) = self.app.notifier.close().await {
            tracing::warn!(%error, "some notifications will count as undelivered again");
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
                tracing::warn!(%error, "the waiting deliveries could not be counted");
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

/// Ends what did not end in time; answers how much that was.
async fn cut_off(app: &SharedApp) -> usize {
    let left = app.tasks.len();
    app.cutting_off.cancel();
    app.tasks.close();
    app.tasks.wait().await;
    left
}

/// The parts that keep things, all on one file.
struct Storage {
    database: Database,
    notifier: Notifier,
    streams: Streams,
}

impl Storage {
    async fn open(config: &Config) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let database = Database::open(&config.database, &Options::default().with_exclusive_lock())?;
        database.migrate("endpoints", endpoints::SCHEMA).await?;
        database.migrate("deliveries", deliveries::SCHEMA).await?;
        database.migrate("idempotency", idempotency::SCHEMA).await?;
        database.migrate("readiness", readiness::SCHEMA).await?;
        let store = SqliteStore::open(database.clone()).await?;
        let engine = SqliteEngine::open(database.clone()).await?;
        Ok(Self {
            database,
            notifier: Notifier::builder(Arc::new(store)).build(),
            streams: Streams::new(engine, ServiceConfig::default()),
        })
    }
}

/// Takes connections until told to stop.
async fn accept(listener: TcpListener, app: SharedApp, accepting: CancellationToken) {
    let service = TowerToHyperService::new(http::router(Arc::clone(&app)));
    let places = Arc::new(Semaphore::new(app.config.most_connections()));
    let mut builder = http1::Builder::new();
    // The time counts from the opening of the connection, so a silent one is closed too.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    loop {
        // A full server leaves new connections in the operating system's queue, which is bounded.
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, connection) = tokio::select! {
            biased;
            () = accepting.cancelled() => return,
            next = next => next,
        };
        let stream = match connection {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: closing connections brings some back.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if let Err(error) = tune(&stream) {
            tracing::debug!(%error, "a connection was gone before it was served");
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
                    // Finishes the request that is being answered, and takes no other.
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
            drop(place);
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
