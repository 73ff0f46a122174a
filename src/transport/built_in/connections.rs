//! The open connections: how many are idle, and how much was read from each.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

/// Most bytes that are read for each request under way.
///
/// It is far more than all heads, and what is read of a body, come to. It ends a flood of what the
/// layers above read for as long as it comes, such as interim responses: they look at a whole buffer
/// at a time, and nothing else stops them in the middle of it.
pub(super) const MAX_READ: u64 = 2 * 1024 * 1024;

/// How long a connection that no request has used yet is kept open: its handshake
/// is not over, or its request is about to find it.
const NEW_FOR: Duration = Duration::from_secs(30);

/// A connection that is not in the registry any more, however many requests are under way.
const CLOSED: u32 = 1 << 31;

/// All connections of a transport.
#[derive(Debug, Clone)]
pub(crate) struct Connections(Arc<Registry>);

#[derive(Debug)]
struct Registry {
    max_idle: usize,
    idle: AtomicUsize,
    next_id: AtomicU64,
    start: Instant,
    open: Mutex<HashMap<u64, Connection>>,
}

/// One connection. Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Connection(Arc<State>);

#[derive(Debug)]
struct State {
    id: u64,
    registry: Connections,
    /// How many requests are under way, and [`CLOSED`].
    users: AtomicU32,
    /// Bytes read so far, and how many may be.
    read: AtomicU64,
    may_read: AtomicU64,
    has_responded: AtomicBool,
    /// Whether no request has used it yet.
    is_new: AtomicBool,
    /// When it fell idle, in microseconds since the registry was made: several may do so within a
    /// millisecond, and their order counts.
    idle_since: AtomicU64,
    must_close: AtomicBool,
    reader: Mutex<Option<Waker>>,
}

/// A request under way on a connection, which is not idle until this is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: Connection,
    /// How much had been read when the request began.
    read_before: u64,
    was_kept: bool,
}

impl Connections {
    pub(super) fn new(max_idle: usize) -> Self {
        Self(Arc::new(Registry {
            max_idle,
            idle: AtomicUsize::new(0),
            next_id: AtomicU64::new(0),
            start: Instant::now(),
            open: Mutex::default(),
        }))
    }

    /// Registers a new connection, which is idle until a request gets it.
    pub(super) fn open(&self) -> Connection {
        let connection = Connection(Arc::new(State {
            id: self.0.next_id.fetch_add(1, Ordering::Relaxed),
            registry: self.clone(),
            users: AtomicU32::new(0),
            read: AtomicU64::new(0),
            may_read: AtomicU64::new(MAX_READ),
            has_responded: AtomicBool::new(false),
            is_new: AtomicBool::new(true),
            idle_since: AtomicU64::new(self.now()),
            must_close: AtomicBool::new(false),
            reader: Mutex::default(),
        }));
        self.lock().insert(connection.0.id, connection.clone());
        self.one_more_idle();
        connection
    }

    /// Closes every connection that no request uses.
    pub(super) fn close_idle(&self) {
        self.close_all_but(0);
    }

    fn one_more_idle(&self) {
        let idle = self.0.idle.fetch_add(1, Ordering::Relaxed) + 1;
        if idle > self.0.max_idle {
            // An eighth at a time, because each time all connections are looked at.
            self.close_all_but(self.0.max_idle - self.0.max_idle / 8);
        }
    }

    fn one_less_idle(&self) {
        self.0.idle.fetch_sub(1, Ordering::Relaxed);
    }

    /// Closes idle connections, those first that have been idle for longest.
    fn close_all_but(&self, keep: usize) {
        let now = self.now();
        let mut idle: Vec<Connection> = {
            let open = self.lock();
            let idle = open.values().filter(|connection| connection.may_close(now));
            idle.cloned().collect()
        };
        let excess = idle.len().saturating_sub(keep);
        if excess > 0 {
            idle.sort_unstable_by_key(|connection| connection.0.idle_since.load(Ordering::Relaxed));
            for connection in &idle[..excess] {
                connection.close();
            }
        }
    }

    fn now(&self) -> u64 {
        let elapsed: Duration = self.0.start.elapsed();
        u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Connection>> {
        // Nothing that can panic runs under the lock.
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn idle(&self) -> usize {
        self.0.idle.load(Ordering::Relaxed)
    }
}

impl Connection {
    /// A request got this connection.
    pub(super) fn lease(self) -> Lease {
        let state = &self.0;
        let users = state.users.fetch_add(1, Ordering::AcqRel);
        if users == 0 {
            state.registry.one_less_idle();
        }
        state.is_new.store(false, Ordering::Relaxed);
        let read_before = state.read.load(Ordering::Acquire);
        let under_way = u64::from((users & !CLOSED) + 1);
        let may_read = read_before + MAX_READ * under_way;
        state.may_read.store(may_read, Ordering::Release);
        Lease {
            read_before,
            was_kept: state.has_responded.load(Ordering::Acquire),
            connection: self.clone(),
        }
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// So many bytes were read.
    pub(super) fn add_read(&self, bytes: usize) {
        self.0.read.fetch_add(bytes as u64, Ordering::AcqRel);
    }

    /// Whether more was read than anything asked for.
    pub(super) fn is_flooded(&self) -> bool {
        self.0.read.load(Ordering::Acquire) > self.0.may_read.load(Ordering::Acquire)
    }

    /// Whether it has to end, because too many connections are idle.
    pub(super) fn must_close(&self) -> bool {
        self.0.must_close.load(Ordering::Acquire) && self.is_idle()
    }

    /// Wakes this reader when the connection has to end.
    pub(super) fn set_reader(&self, waker: &Waker) {
        let mut reader = self.lock_reader();
        if !reader
            .as_ref()
            .is_some_and(|reader| reader.will_wake(waker))
        {
            *reader = Some(waker.clone());
        }
    }

    /// It has ended.
    pub(super) fn closed(&self) {
        let users = self.0.users.fetch_or(CLOSED, Ordering::AcqRel);
        if users == 0 {
            self.0.registry.one_less_idle();
        }
        self.0.registry.lock().remove(&self.0.id);
    }

    fn is_idle(&self) -> bool {
        self.0.users.load(Ordering::Acquire) == 0
    }

    fn may_close(&self, now: u64) -> bool {
        let since = self.0.idle_since.load(Ordering::Relaxed);
        let is_new = self.0.is_new.load(Ordering::Relaxed);
        let age = Duration::from_micros(now.saturating_sub(since));
        self.is_idle() && (!is_new || age >= NEW_FOR)
    }

    fn close(&self) {
        self.0.must_close.store(true, Ordering::Release);
        let reader = self.lock_reader().take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn lock_reader(&self) -> MutexGuard<'_, Option<Waker>> {
        self.0.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The head of a response arrived.
    pub(super) fn responded(&self) {
        let state = &self.connection.0;
        state.has_responded.store(true, Ordering::Release);
    }

    /// Whether the connection had served another request before.
    pub(super) fn is_kept(&self) -> bool {
        self.was_kept
    }

    /// Whether nothing was read from the connection since the request began.
    pub(super) fn read_nothing(&self) -> bool {
        self.connection.0.read.load(Ordering::Acquire) == self.read_before
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let state = &self.connection.0;
        let now = state.registry.now();
        state.idle_since.store(now, Ordering::Relaxed);
        if state.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            state.registry.one_more_idle();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_idle_while_no_request_uses_it() {
        let connections = Connections::new(10);
        let connection = connections.open();
        assert_eq!(connections.idle(), 1);
        let leases = [connection.clone().lease(), connection.clone().lease()];
        assert_eq!(connections.idle(), 0);
        drop(leases);
        assert_eq!(connections.idle(), 1);
        connection.closed();
        assert_eq!(connections.idle(), 0);
        assert!(connections.lock().is_empty());
    }

    #[test]
    fn a_connection_that_ends_in_use_is_never_idle_again() {
        let connections = Connections::new(10);
        let connection = connections.open();
        let lease = connection.clone().lease();
        connection.closed();
        drop(lease);
        assert_eq!(connections.idle(), 0);
        drop(connection.lease());
        assert_eq!(connections.idle(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_idle_connections_end_the_longest_idle_first() {
        let connections = Connections::new(8);
        let mut all = Vec::new();
        for _ in 0..10 {
            all.push(connections.open());
        }
        // None has been used yet.
        assert!(!all.iter().any(Connection::must_close));
        let busy = all[0].clone().lease();
        for connection in &all[1..] {
            drop(connection.clone().lease());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        // Nine were idle: seven may stay.
        let ended = all.iter().map(Connection::must_close).collect::<Vec<_>>();
        assert_eq!(ended.iter().filter(|ended| **ended).count(), 2);
        assert_eq!(ended[..3], [false, true, true]);
        drop(busy);
        connections.close_idle();
        assert!(all.iter().all(Connection::must_close));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_no_request_found_may_end_after_a_while() {
        let connections = Connections::new(0);
        let connection = connections.open();
        connections.close_idle();
        assert!(!connection.must_close());
        tokio::time::advance(NEW_FOR).await;
        connections.close_idle();
        assert!(connection.must_close());
    }

    #[test]
    fn each_request_allows_more_to_be_read_and_none_allows_a_flood() {
        let bytes = usize::try_from(MAX_READ).unwrap();
        let connection = Connections::new(1).open();
        connection.add_read(bytes);
        assert!(!connection.is_flooded());
        connection.add_read(1);
        assert!(connection.is_flooded());
        let first = connection.clone().lease();
        let _second = connection.clone().lease();
        connection.add_read(2 * bytes);
        assert!(!connection.is_flooded());
        connection.add_read(1);
        assert!(connection.is_flooded());
        drop(first);
        assert!(connection.is_flooded());
    }
}
