//! The order in which a server starts and stops.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidings_storage::{DatabaseUrl, Redis, Storage};

use crate::panics;
use futures_util::FutureExt;
use tidings::Sender;
use tidings_notify::presence::{PresenceError, Tracker, TrackerOptions};
use tidings_notify::{Notifier, RoutingInfo};
use tidings_webhooks::encryption::EncryptionKeys;
use tidings_webhooks::{Options, Webhooks};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::accept::Acceptor;
use crate::access::Access;
use crate::app::{App, SharedApp};
use crate::bins::Bins;
use crate::config::Config;
use crate::error::StartError;
use crate::farewell::Farewell;
use crate::health::Readiness;
use crate::http::{EventLoops, LoopTasks, Room};
use crate::limits::Limits;
use crate::openings::Openings;
use crate::outage::Outage;
use crate::permits::Permits;
use crate::same_redis::SameRedis;
use crate::telemetry::Accepts;
use crate::{connections, resealing, retention, telemetry};

/// How long dropped connections and requests in the database may take to end, when time is over.
const DROP_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the last steps may take together, even when time is over: the last writes of webhooks (two seconds at most),
/// what is dropped (one), and the end of the database.
const LAST_STEPS: Duration = Duration::from_secs(5);

/// A running server.
///
/// Dropping it ends its tasks at once; [`shutdown`](Self::shutdown) is the orderly way.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    app: SharedApp,
    accepting: CancellationToken,
    accept_loop: AbortOnDropHandle<()>,
    _retention: AbortOnDropHandle<()>,
    /// Encrypts what was stored without a key.
    _resealing: AbortOnDropHandle<()>,
    /// Keeps the keys of callers up to date, as long as there are streams.
    access: AbortOnDropHandle<()>,
    _loop_tasks: LoopTasks,
    /// Compares the setting of this instance with those of the others, if there can be some.
    _same_redis: Option<AbortOnDropHandle<()>>,
    /// Ends the connections when the server is dropped.
    _cutting_off: DropGuard,
}

/// What a stopped server left unfinished. None of it is lost: the next start continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leftovers {
    /// Streams that got the request to reconnect.
    pub streams: usize,
    /// Requests and streams that did not end in time and were dropped.
    pub cut_off: usize,
    /// Webhook attempts that did not end in time; they will be repeated.
    pub abandoned_attempts: usize,
    /// Outcomes of webhook attempts that could not be stored; those attempts will be repeated too.
    pub unwritten_outcomes: usize,
    /// Deliveries that wait for an attempt, unless the database did not reply.
    pub waiting_deliveries: Option<u64>,
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "streams asked to reconnect: {}, connections dropped: {}, webhook attempts abandoned: {}, \
             outcomes of attempts not stored: {}, pending deliveries: ",
            self.streams, self.cut_off, self.abandoned_attempts, self.unwritten_outcomes
        )?;
        match self.waiting_deliveries {
            Some(waiting) => write!(f, "{waiting}"),
            None => f.write_str("unknown"),
        }
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
        let listener = connections::listen(config.listen).map_err(cannot_listen)?;
        let address = listener.local_addr().map_err(cannot_listen)?;
        let redis = match &config.redis {
            Some(url) => Some(Redis::open(url).await.map_err(|source| StartError::Redis {
                url: url.clone(),
                source,
            })?),
            None => None,
        };
        let storage = Storage::open(&config.database, redis).await;
        let storage = storage.map_err(|source| StartError::Storage {
            database: config.database.clone(),
            source,
        })?;
        let access = Arc::new(Access::open(&config, Arc::clone(&storage.api_keys)).await?);
        let notifier = Notifier::new(Arc::clone(&storage.logs));
        let instance = format!("{:016x}", fastrand::u64(..));
        telemetry::started(&instance);
        let tracker = tracker(&storage, &instance, config.lease)?;
        let encryption = EncryptionKeys::new(config.encryption_keys.iter().cloned());
        let webhooks = Webhooks::start(
            Arc::clone(&storage.webhooks),
            storage.streams.clone(),
            webhook_options(&config)?.with_encryption_keys(encryption.clone()),
        )
        .await?;
        // Not said of secrets that are encrypted with a key that is missing now: then they could not be read.
        if encryption.is_empty() && !config.dev {
            tracing::warn!(
                "the secrets of webhook endpoints are stored without encryption; TIDINGS_ENCRYPTION_KEY encrypts them"
            );
        }
        let tasks = TaskTracker::new();
        let acceptor = Arc::new(Acceptor {
            records: Arc::clone(&storage.records),
            notifier: notifier.clone(),
            webhooks: webhooks.clone(),
            tasks: tasks.clone(),
            accepts: Accepts::new(),
        });
        let (limits, cutting_off) = (Arc::new(Limits::new(&config)), CancellationToken::new());
        let farewell = Farewell::new(&cutting_off);
        let (event_loops, loop_tasks) =
            EventLoops::start(&farewell.said(), &cutting_off).map_err(StartError::EventLoops)?;
        let app = Arc::new(App {
            permits: Permits::new(Arc::clone(&limits)),
            limits,
            openings: Openings::new(storage.reads_at_once),
            event_loops,
            bins: Bins::default(),
            bodies: Room::default(),
            config,
            access: Arc::clone(&access),
            storage,
            notifier,
            instance,
            tracker,
            webhooks,
            encryption,
            acceptor,
            readiness: Readiness::default(),
            outage: Outage::default(),
            stopping: CancellationToken::new(),
            farewell,
            cutting_off,
            tasks,
        });
        let access = tokio::spawn(async move { access.run().await }.boxed());
        let accepting = CancellationToken::new();
        let accept_loop = connections::accept(listener, Arc::clone(&app), accepting.clone());
        let accept_loop = tokio::spawn(accept_loop.boxed());
        let retention = tokio::spawn(delete_old_data(Arc::clone(&app)).boxed());
        let resealing = tokio::spawn(encrypt_kept_responses(Arc::clone(&app)).boxed());
        let is_shared = matches!(app.config.database, DatabaseUrl::Postgres(_));
        let same_redis = is_shared.then(|| tokio::spawn(compare_redis(Arc::clone(&app)).boxed()));
        Ok(Self {
            address,
            _cutting_off: app.cutting_off.clone().drop_guard(),
            app,
            accepting,
            accept_loop: AbortOnDropHandle::new(accept_loop),
            _retention: AbortOnDropHandle::new(retention),
            _resealing: AbortOnDropHandle::new(resealing),
            access: AbortOnDropHandle::new(access),
            _loop_tasks: loop_tasks,
            _same_redis: same_redis.map(AbortOnDropHandle::new),
        })
    }

    /// The address that the server listens on, with the actual port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What its handlers share.
    #[cfg(test)]
    pub(crate) fn app(&self) -> SharedApp {
        Arc::clone(&self.app)
    }

    /// Changes the limits to those of another configuration, of which nothing else is used. What is open beyond them
    /// stays open.
    pub fn change_limits(&self, config: &Config) {
        self.app.limits.change(config);
    }

    /// Stops within the configured time and five seconds more, and returns what was left unfinished.
    ///
    /// The server takes no new connections and starts no new webhook attempts. It finishes requests
    /// and attempts, and ends streams with a `bye`, a thousand in a second or all within half the time; what
    /// does not end in time is dropped. Everything
    /// that was accepted is on disk, so nothing is lost.
    pub async fn shutdown(self) -> Leftovers {
        let deadline = Instant::now() + self.app.config.shutdown_timeout;
        self.accepting.cancel();
        let streams = self.app.permits.taken();
        self.app.stopping.cancel();
        let webhooks = self
            .app
            .webhooks
            .stop_within(self.app.config.shutdown_timeout);
        let (app, accept_loop) = (&self.app, self.accept_loop);
        let connections = async {
            if let Err(error) = accept_loop.await {
                tracing::error!(%error, "the task that accepted connections has failed");
            }
            app.tasks.close();
            app.tasks.wait().await;
        };
        let farewell = app.farewell.say(streams, app.config.shutdown_timeout / 2);
        let (webhooks, connections, ()) =
            tokio::join!(webhooks, timeout_at(deadline, connections), farewell);
        let cut_off = match connections {
            Ok(()) => 0,
            Err(_) => drop_connections(&self.app).await,
        };
        // Up to here, streams wait for their turn, and must end when their keys are revoked.
        self.access.abort();
        let _cancelled = self.access.await;
        let end = deadline + LAST_STEPS;
        let waiting_deliveries = timeout_at(end, close_database(&self.app)).await;
        let waiting_deliveries = waiting_deliveries.unwrap_or_else(|_| {
            tracing::error!("stopping although the database did not close in time");
            None
        });
        Leftovers {
            streams,
            cut_off,
            abandoned_attempts: webhooks.abandoned_attempts,
            unwritten_outcomes: webhooks.unwritten_outcomes,
            waiting_deliveries,
        }
    }
}

/// Deletes what is too old until the server stops.
async fn delete_old_data(app: SharedApp) {
    let what = "the deletion of old data";
    while panics::attempt(what, retention::run(&app)).await.is_none() {}
}

/// Encrypts once what was stored without a key.
async fn encrypt_kept_responses(app: SharedApp) {
    let what = "the encryption of kept responses";
    while panics::attempt(what, resealing::run(&app)).await.is_none() {}
}

/// Compares this instance with the others until it stops.
async fn compare_redis(app: SharedApp) {
    let same_redis = SameRedis::new(&app.config);
    let watching = async {
        let watch = || same_redis.watch(&*app.storage.records);
        while panics::attempt("the comparison of --redis", watch())
            .await
            .is_none()
        {}
    };
    app.stopping.run_until_cancelled(watching).await;
}

/// Finishes the writes in the queue, and closes the database. Returns how many deliveries wait.
async fn close_database(app: &App) -> Option<u64> {
    if let Err(error) = app.tracker.close().await {
        tracing::warn!(%error, "cannot store that the streams of this server have ended; their users count as online until its lease ends");
    }
    if let Err(error) = app.notifier.close().await {
        tracing::warn!(%error, "cannot store which notifications were sent; some will count as undelivered again");
    }
    if let Err(error) = app.access.stored_keys().record_uses().await {
        tracing::warn!(%error, "cannot store when API keys were used last; some will be listed with an earlier use");
    }
    let waiting_deliveries = app.webhooks.pending().await;
    let waiting_deliveries = waiting_deliveries
        .inspect_err(|error| tracing::warn!(%error, "cannot count the pending deliveries, reporting them as unknown"));
    app.storage.close().await;
    waiting_deliveries.ok()
}

/// Takes part in presence for the streams of this instance.
fn tracker(storage: &Storage, instance: &str, lease: Duration) -> Result<Tracker, PresenceError> {
    let routing = RoutingInfo {
        instance_id: instance.to_owned(),
        ..RoutingInfo::default()
    };
    let options = TrackerOptions::default().with_lease_ttl(lease);
    Tracker::join(Arc::clone(&storage.presence), routing, options)
}

fn webhook_options(config: &Config) -> Result<Options, tidings_webhooks::Error> {
    let sender = Sender::builder()
        .address_policy(config.address_policy())
        .build()?;
    Ok(Options::default()
        .with_schedule(config.webhook_schedule.iter().copied())
        .with_timeout(config.webhook_timeout)
        .with_workers(config.webhook_workers)
        .with_lease(config.lease)
        .with_max_event_age(config.retention)
        .with_sender(sender))
}

/// Drops what did not end in time; returns how much that was.
///
/// Connections end at once. A request that waits for the disk cannot be dropped, and is not waited
/// for either: what it writes is accepted, or never was.
async fn drop_connections(app: &SharedApp) -> usize {
    let left = app.tasks.len();
    app.cutting_off.cancel();
    app.tasks.close();
    if timeout(DROP_TIMEOUT, app.tasks.wait()).await.is_err() {
        let requests = app.tasks.len();
        tracing::warn!(
            requests,
            "stopping while requests still wait for the database"
        );
    }
    left
}

#[cfg(test)]
mod tests;
