//! Resolves host names for new connections: once for many, in a task of its own, and only to
//! addresses that requests may go to.
//!
//! ```text
//! name ─▶ cache ────────────────────────────▶ policy ─▶ route ─▶ addresses to connect to
//!           └─▶ one task for each name ─────────▲
//! ```
//!
//! The policy is asked after the cache, for each new connection, and the connection goes to the
//! addresses that it leaves: there is no second lookup that could have another result (*DNS
//! rebinding*).

mod cache;
mod name_servers;
mod route;

use std::error::Error as StdError;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use hyper_util::client::legacy::connect::dns;
use tokio::time::Instant;
use tower_service::Service;

use crate::sender::Progress;
use crate::transport::built_in::LocalAddresses;
use crate::{AddressPolicy, BlockedAddress, ErrorKind};
use cache::Cache;

pub(crate) use cache::LookupError;
pub(crate) use name_servers::NameServers;

/// Most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;

/// Resolves host names, in place of the built-in resolver.
///
/// The built-in one asks the name servers of the system's configuration (`/etc/resolv.conf`,
/// `/etc/hosts`) itself. Where names come from elsewhere, let the system resolve them:
///
/// ```
/// use async_trait::async_trait;
/// use tidings::{Resolve, ResolveError, Resolved};
///
/// struct System;
///
/// #[async_trait]
/// impl Resolve for System {
///     async fn resolve(&self, name: &str) -> Result<Resolved, ResolveError> {
///         match tokio::net::lookup_host((name, 0)).await {
///             Ok(found) => Ok(found.map(|socket| socket.ip()).collect()),
///             Err(error) => Err(ResolveError::NotFound(error.into())),
///         }
///     }
/// }
///
/// let sender = tidings::Sender::builder().resolver(System).build()?;
/// # Ok::<(), tidings::ConfigError>(())
/// ```
///
/// # Contract
///
/// Each lookup runs in a task of its own and is not cancelled when the attempts that wait for it
/// give up; it is abandoned after 30 seconds. A lookup that panics counts as
/// [`Unavailable`](ResolveError::Unavailable).
#[async_trait]
pub trait Resolve: Send + Sync + 'static {
    /// Finds the addresses of a name.
    async fn resolve(&self, name: &str) -> Result<Resolved, ResolveError>;
}

/// The addresses of a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    addresses: Vec<IpAddr>,
    ttl: Option<Duration>,
}

impl Resolved {
    /// Says how long the addresses may be cached: at most five minutes are used. Without it they
    /// are cached for 30 seconds.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }
}

impl FromIterator<IpAddr> for Resolved {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        Self {
            addresses: addresses.into_iter().collect(),
            ttl: None,
        }
    }
}

/// Why a name was not resolved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// A name server replied: the name does not exist, has no address, or its zone is broken.
    #[error("the name has no address")]
    NotFound(#[source] Box<dyn StdError + Send + Sync>),
    /// No name server replied.
    #[error("no name server replied")]
    Unavailable(#[source] Box<dyn StdError + Send + Sync>),
}

/// Resolves names through a cache and keeps the addresses that are allowed. Clones share the cache.
#[derive(Clone)]
pub(crate) struct GuardedResolver {
    policy: AddressPolicy,
    /// Where connections come from.
    from: LocalAddresses,
    cache: Arc<Cache>,
}

impl GuardedResolver {
    pub(crate) fn new(
        policy: AddressPolicy,
        from: LocalAddresses,
        resolve: Arc<dyn Resolve>,
    ) -> Self {
        Self {
            policy,
            from,
            cache: Arc::new(Cache::new(resolve)),
        }
    }

    /// Resolves a name anew next time.
    pub(crate) fn forget(&self, name: &str) {
        self.cache.forget(name);
    }

    /// Whether this machine has a route to a host: an address, or a name that was just resolved. A name
    /// that is forgotten since then was found to have none, by another connection.
    pub(crate) fn has_route(&self, host: &str) -> bool {
        let has_route = |to: &IpAddr| self.policy.allows(*to) && route::exists(*to, self.from);
        match host.trim_matches(['[', ']']).parse() {
            Ok(address) => has_route(&address),
            Err(_name) => (self.cache.known(host)).is_some_and(|known| known.iter().any(has_route)),
        }
    }

    /// What it means that a lookup got no reply since some time: the trouble of the name's zone if
    /// there were replies about other names, else that of this machine's name servers.
    pub(crate) fn kind_of_silence(&self, since: Instant) -> ErrorKind {
        if self.cache.got_reply_since(since) {
            ErrorKind::Dns
        } else {
            ErrorKind::Local
        }
    }
}

impl Service<dns::Name> for GuardedResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: dns::Name) -> Self::Future {
        let resolver = self.clone();
        let progress = Progress::current();
        Box::pin(async move {
            let start = Instant::now();
            if let Some(progress) = &progress {
                progress.looking_up();
            }
            let found = resolver.cache.resolve(name.as_str()).await;
            if let Some(progress) = progress {
                progress.looked_up(start.elapsed());
            }
            let mut addresses = vet(&resolver.policy, &found?)?;
            route::keep_reachable(&mut addresses, |to| route::exists(to, resolver.from));
            Ok(addresses.into_iter())
        })
    }
}

impl std::fmt::Debug for GuardedResolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuardedResolver")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// Keeps what is allowed of the addresses of a name; an error when nothing is left.
fn vet(policy: &AddressPolicy, found: &[IpAddr]) -> Result<Vec<SocketAddr>, BlockedAddress> {
    let allowed: Vec<_> = (found.iter().copied())
        .filter(|address| policy.allows(*address))
        // The transport replaces the port.
        .map(|address| SocketAddr::new(address, 0))
        .take(MAX_ADDRESSES)
        .collect();
    match found.first() {
        Some(blocked) if allowed.is_empty() => Err(BlockedAddress::of_address(*blocked)),
        _ => Ok(allowed),
    }
}

#[cfg(test)]
mod tests;
