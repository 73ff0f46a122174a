use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use http::Uri;
use http::uri::{Authority, Scheme};
use tokio::time::Instant;

/// Where a connection leads: a scheme, a host and a port.
///
/// Compared as it is written, because URLs have their hosts in lower case: [`Authority`] compares and
/// hashes letter by letter, which took a fortieth of the time of a delivery.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    is_secured: bool,
    pub(super) authority: Authority,
}

/// How many connections are kept that no request uses, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) max_idle: usize,
    pub(super) max_idle_per_origin: usize,
    pub(super) idle_timeout: Duration,
}

/// Which connections are kept. It only decides: a connection that leaves is returned, so that it is
/// closed without a lock.
///
/// A connection of HTTP/1 (`A`) is here while no request uses it. One of HTTP/2 (`B`) is here all the
/// time, is shared by requests, and is idle while there are none.
#[derive(Debug)]
pub(super) struct Kept<A, B> {
    bounds: Bounds,
    origins: HashMap<Origin, OfOrigin<A, B>>,
    idle: usize,
}

#[derive(Debug)]
struct OfOrigin<A, B> {
    /// The one that has been idle for longest comes first.
    unshared: Vec<Idle<A>>,
    shared: Option<Shared<B>>,
}

#[derive(Debug)]
struct Idle<A> {
    since: Instant,
    connection: A,
}

#[derive(Debug)]
struct Shared<B> {
    connection: B,
    users: usize,
    idle_since: Instant,
}

/// A connection that was kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<A, B> {
    Unshared(A),
    /// How many requests use it now as well.
    Shared(B, usize),
}

/// A connection that left.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left<A, B> {
    Unshared(A),
    Shared(B),
}

/// A connection that was taken out to see whether it still works.
#[derive(Debug)]
pub(super) struct Suspect<A> {
    origin: Origin,
    idle: Idle<A>,
}

impl Origin {
    /// `None` for a URI without a host.
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        Some(Self {
            is_secured: uri.scheme() == Some(&Scheme::HTTPS),
            authority: uri.authority()?.clone(),
        })
    }
}

impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        self.is_secured == other.is_secured && self.authority.as_str() == other.authority.as_str()
    }
}

impl Eq for Origin {}

impl Hash for Origin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.is_secured.hash(state);
        self.authority.as_str().hash(state);
    }
}

impl<A, B: Clone + PartialEq> Kept<A, B> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            origins: HashMap::new(),
            idle: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// Finds a connection, the one that was used last.
    pub(super) fn take(&mut self, origin: &Origin) -> Option<Found<A, B>> {
        let of_origin = self.origins.get_mut(origin)?;
        if let Some(shared) = &mut of_origin.shared {
            self.idle -= usize::from(shared.users == 0);
            shared.users += 1;
            return Some(Found::Shared(shared.connection.clone(), shared.users));
        }
        let idle = of_origin.unshared.pop()?;
        self.idle -= 1;
        Some(Found::Unshared(idle.connection))
    }

    /// Keeps a connection that is not shared.
    pub(super) fn put(&mut self, origin: &Origin, connection: A, now: Instant) -> Vec<Left<A, B>> {
        let most = self.bounds.max_idle_per_origin;
        let of_origin = self.of_origin(origin);
        if of_origin.unshared.len() >= most {
            return vec![Left::Unshared(connection)];
        }
        let since = now;
        of_origin.unshared.push(Idle { since, connection });
        self.idle += 1;
        self.bound()
    }

    /// Lets requests share a connection from now on, beginning with the one that made it, in place of
    /// another one.
    pub(super) fn share(
        &mut self,
        origin: &Origin,
        connection: B,
        now: Instant,
    ) -> Vec<Left<A, B>> {
        let shared = Shared {
            connection,
            users: 1,
            idle_since: now,
        };
        let old = self.of_origin(origin).shared.replace(shared);
        self.idle -= usize::from(old.as_ref().is_some_and(|old| old.users == 0));
        let left = old.map(|old| Left::Shared(old.connection));
        Vec::from_iter(left)
    }

    /// A request no longer uses a shared connection.
    pub(super) fn leave(&mut self, origin: &Origin, of: &B, now: Instant) -> Vec<Left<A, B>> {
        let of_origin = self.origins.get_mut(origin);
        let shared = of_origin.and_then(|of_origin| of_origin.shared.as_mut());
        if let Some(shared) = shared.filter(|shared| shared.connection == *of) {
            shared.users -= 1;
            if shared.users == 0 {
                shared.idle_since = now;
                self.idle += 1;
                return self.bound();
            }
        }
        Vec::new()
    }

    /// Lets no more requests share a connection.
    pub(super) fn discard(&mut self, origin: &Origin, connection: &B) -> Option<Left<A, B>> {
        let of_origin = self.origins.get_mut(origin)?;
        let shared = (of_origin.shared).take_if(|shared| shared.connection == *connection)?;
        self.idle -= usize::from(shared.users == 0);
        Some(Left::Shared(shared.connection))
    }

    /// Takes out all but so many idle connections, those first that have been idle for longest.
    pub(super) fn take_excess(&mut self, keep: usize) -> Vec<Left<A, B>> {
        let excess = self.idle.saturating_sub(keep);
        let mut times: Vec<Instant> = (self.origins.values())
            .flat_map(|of_origin| {
                let unshared = of_origin.unshared.iter().map(|idle| idle.since);
                unshared.chain(of_origin.shared.as_ref().and_then(Shared::idle_since))
            })
            .collect();
        times.sort_unstable();
        match excess.checked_sub(1).and_then(|last| times.get(last)) {
            Some(until) => self.take_idle_until(*until),
            None => Vec::new(),
        }
    }

    /// Takes out what has been idle for too long.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<Left<A, B>> {
        match now.checked_sub(self.bounds.idle_timeout) {
            Some(until) => self.take_idle_until(until),
            None => Vec::new(),
        }
    }

    /// Takes out what is idle since some time or longer, and forgets origins without connections.
    fn take_idle_until(&mut self, until: Instant) -> Vec<Left<A, B>> {
        let mut left = Vec::new();
        self.origins.retain(|_, of_origin| {
            let unshared = of_origin.take_unshared_until(until);
            left.extend(unshared.map(|idle| Left::Unshared(idle.connection)));
            let is_over =
                |shared: &mut Shared<B>| shared.idle_since().is_some_and(|at| at <= until);
            let shared = of_origin.shared.take_if(is_over);
            left.extend(shared.map(|shared| Left::Shared(shared.connection)));
            !of_origin.unshared.is_empty() || of_origin.shared.is_some()
        });
        self.idle -= left.len();
        left
    }

    /// Takes out the unshared connections that are idle since some time or longer, to see whether
    /// they still work. Those that do come back by [`restore`](Self::restore).
    pub(super) fn take_suspects(&mut self, until: Instant) -> Vec<Suspect<A>> {
        let mut suspects = Vec::new();
        for (origin, of_origin) in &mut self.origins {
            let unshared = of_origin.take_unshared_until(until);
            suspects.extend(unshared.map(|idle| Suspect {
                origin: origin.clone(),
                idle,
            }));
        }
        self.idle -= suspects.len();
        suspects
    }

    /// Keeps what was taken out with [`take_suspects`](Self::take_suspects), in its old place.
    pub(super) fn restore(&mut self, suspects: Vec<Suspect<A>>) {
        self.idle += suspects.len();
        for Suspect { origin, idle } in suspects {
            let unshared = &mut self.of_origin(&origin).unshared;
            let place = unshared.partition_point(|other| other.since <= idle.since);
            unshared.insert(place, idle);
        }
    }

    /// Keeps the number of idle connections within its bound.
    fn bound(&mut self) -> Vec<Left<A, B>> {
        let most = self.bounds.max_idle;
        if self.idle > most {
            // An eighth at a time, because each time all connections are looked at.
            self.take_excess(most - most / 8)
        } else {
            Vec::new()
        }
    }

    fn of_origin(&mut self, origin: &Origin) -> &mut OfOrigin<A, B> {
        self.origins.entry(origin.clone()).or_default()
    }
}

impl<A, B> OfOrigin<A, B> {
    fn take_unshared_until(&mut self, until: Instant) -> impl Iterator<Item = Idle<A>> {
        let end = self.unshared.partition_point(|idle| idle.since <= until);
        self.unshared.drain(..end)
    }
}

impl<A, B> Default for OfOrigin<A, B> {
    fn default() -> Self {
        Self {
            unshared: Vec::new(),
            shared: None,
        }
    }
}

impl<B> Shared<B> {
    fn idle_since(&self) -> Option<Instant> {
        (self.users == 0).then_some(self.idle_since)
    }
}

impl<A> Suspect<A> {
    pub(super) fn connection(&mut self) -> &mut A {
        &mut self.idle.connection
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Endpoint;

    fn kept(max_idle: usize) -> Kept<u32, u32> {
        Kept::new(Bounds {
            max_idle,
            max_idle_per_origin: 3,
            idle_timeout: Duration::from_secs(10),
        })
    }

    fn origin(text: &str) -> Origin {
        Origin::of(&text.parse().unwrap()).unwrap()
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn an_origin_is_the_same_however_its_url_is_written() {
        let of = |url| Origin::of(Endpoint::new(url).unwrap().uri()).unwrap();
        for (written, usual) in [
            ("HTTP://A.Test:80/Path", "http://a.test/"),
            ("https://[2001:DB8::A]:443", "https://[2001:db8::a]/"),
            ("https://B\u{fc}cher.test", "https://xn--bcher-kva.test/"),
        ] {
            assert_eq!(of(written), of(usual));
        }
        assert_ne!(of("http://a.test:443/"), of("https://a.test/"));
    }

    #[test]
    fn the_connection_that_was_used_last_is_used_next_by_its_own_origin() {
        let (mut kept, now) = (kept(10), Instant::now());
        let [a, b] = ["http://a.test/", "https://a.test/"].map(origin);
        for connection in 1..3 {
            assert_eq!(kept.put(&a, connection, at(now, u64::from(connection))), []);
        }
        assert_eq!(kept.take(&b), None);
        assert_eq!(kept.take(&a), Some(Found::Unshared(2)));
        assert_eq!(kept.take(&a), Some(Found::Unshared(1)));
        assert_eq!((kept.take(&a), kept.idle), (None, 0));
    }

    #[test]
    fn an_origin_keeps_so_many_and_no_more() {
        let (mut kept, now, a) = (kept(10), Instant::now(), origin("http://a.test/"));
        for connection in 0..3 {
            assert_eq!(kept.put(&a, connection, now), []);
        }
        assert_eq!(kept.put(&a, 3, now), [Left::Unshared(3)]);
        assert_eq!(kept.idle, 3);
    }

    #[test]
    fn too_many_idle_connections_end_those_first_that_have_been_idle_for_longest() {
        let (mut kept, start) = (kept(8), Instant::now());
        let origins: Vec<_> = (0..9)
            .map(|n| origin(&format!("http://{n}.test/")))
            .collect();
        for (n, origin) in (0..).zip(&origins[..8]) {
            // The last one comes first in time.
            assert_eq!(kept.put(origin, n, at(start, 100 - u64::from(n))), []);
        }
        let left = kept.put(&origins[8], 8, at(start, 200));
        let ended = [6, 7].map(Left::Unshared);
        assert!(
            left.len() == 2 && ended.iter().all(|one| left.contains(one)),
            "{left:?}"
        );
        assert_eq!(kept.idle, 7);
        assert_eq!(kept.take(&origins[8]), Some(Found::Unshared(8)));
        assert_eq!(kept.take_excess(0).len(), 6);
        assert!(kept.is_empty() && kept.idle == 0);
    }

    #[test]
    fn a_shared_connection_is_idle_while_no_request_uses_it() {
        let (mut kept, start, a) = (kept(1), Instant::now(), origin("https://a.test/"));
        assert_eq!(kept.share(&a, 1, start), []);
        assert_eq!(kept.take(&a), Some(Found::Shared(1, 2)));
        assert_eq!(kept.take(&a), Some(Found::Shared(1, 3)));
        for _ in 0..3 {
            assert_eq!((kept.idle, kept.take_excess(0)), (0, vec![]));
            assert_eq!(kept.leave(&a, &1, at(start, 5)), []);
        }
        assert_eq!((kept.idle, kept.take_expired(at(start, 14))), (1, vec![]));
        assert_eq!(kept.take_expired(at(start, 15)), [Left::Shared(1)]);
        assert!(kept.is_empty() && kept.idle == 0);
    }

    #[test]
    fn a_shared_connection_is_replaced_and_its_requests_go_on() {
        let (mut kept, now, a) = (kept(8), Instant::now(), origin("https://a.test/"));
        kept.share(&a, 1, now);
        assert_eq!(kept.share(&a, 2, now), [Left::Shared(1)]);
        assert_eq!(kept.leave(&a, &1, now), []);
        assert_eq!(kept.idle, 0);
        assert_eq!(kept.leave(&a, &2, now), []);
        assert_eq!(kept.idle, 1);
        assert_eq!((kept.take(&a), kept.idle), (Some(Found::Shared(2, 1)), 0));
        assert_eq!((kept.leave(&a, &2, now), kept.idle), (vec![], 1));
        assert_eq!(kept.share(&a, 3, now), [Left::Shared(2)]);
        assert_eq!((kept.take(&a), kept.idle), (Some(Found::Shared(3, 2)), 0));
    }

    #[test]
    fn a_shared_connection_in_use_is_never_closed() {
        let (mut kept, start) = (kept(8), Instant::now());
        let [a, b] = ["https://a.test/", "https://b.test/"].map(origin);
        kept.share(&a, 1, start);
        kept.put(&b, 2, at(start, 1));
        assert_eq!(kept.take_excess(0), [Left::Unshared(2)]);
        kept.put(&b, 3, at(start, 1));
        assert_eq!(kept.take_expired(at(start, 60)), [Left::Unshared(3)]);
        assert_eq!(kept.take(&a), Some(Found::Shared(1, 2)));
    }

    #[test]
    fn a_discarded_connection_is_not_found_again() {
        let (mut kept, now, a) = (kept(8), Instant::now(), origin("https://a.test/"));
        kept.share(&a, 1, now);
        assert_eq!(kept.discard(&a, &2), None);
        assert_eq!(kept.discard(&a, &1), Some(Left::Shared(1)));
        assert_eq!((kept.take(&a), kept.idle), (None, 0));
        assert_eq!(kept.leave(&a, &1, now), []);
        kept.share(&a, 2, now);
        kept.leave(&a, &2, now);
        assert_eq!(kept.idle, 1);
        assert_eq!(kept.discard(&a, &2), Some(Left::Shared(2)));
        assert_eq!(kept.idle, 0);
    }

    #[test]
    fn what_was_idle_for_too_long_ends() {
        let (mut kept, start, a) = (kept(8), Instant::now(), origin("http://a.test/"));
        kept.put(&a, 1, start);
        kept.put(&a, 2, at(start, 1));
        assert_eq!(kept.take_expired(at(start, 10)), [Left::Unshared(1)]);
        assert_eq!((kept.idle, kept.is_empty()), (1, false));
        assert_eq!(kept.take_expired(at(start, 11)), [Left::Unshared(2)]);
        assert_eq!((kept.idle, kept.is_empty()), (0, true));
    }

    #[test]
    fn a_suspect_that_works_comes_back_to_its_place() {
        let (mut kept, start, a) = (kept(8), Instant::now(), origin("http://a.test/"));
        kept.put(&a, 1, start);
        kept.put(&a, 2, at(start, 1));
        kept.put(&a, 3, at(start, 2));
        let mut suspects = kept.take_suspects(at(start, 1));
        assert_eq!((suspects.len(), kept.idle), (2, 1));
        assert_eq!([0, 1].map(|index| *suspects[index].connection()), [1, 2]);
        kept.restore(suspects);
        assert_eq!(kept.idle, 3);
        for connection in [3, 2, 1] {
            assert_eq!(kept.take(&a), Some(Found::Unshared(connection)));
        }
    }
}
