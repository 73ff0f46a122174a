//! Looks names up for new connections: once for many, not too often, and only to where requests may
//! go.
//!
//! ```text
//! name ─▶ cache ──────────────────────────────▶ policy ─▶ addresses to connect to
//!           └─▶ one lookup per name at a time ──▲
//! ```
//!
//! The policy is asked after the cache, for each new connection, and the connection goes to the
//! addresses that it leaves: there is no second lookup that could be answered otherwise (*DNS
//! rebinding*).

mod cache;

use std::error::Error as StdError;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tower_service::Service;
use url::Url;

use crate::sender::Progress;
use crate::{AddressPolicy, BlockedAddress};
use cache::{Answer, Cache};

pub(crate) use cache::LookupError;

/// Most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;

/// Looks names up through a cache and keeps the addresses that are allowed. Clones share the cache.
#[derive(Clone)]
pub(crate) struct GuardedResolver {
    policy: AddressPolicy,
    lookup: Arc<dyn Resolve>,
    cache: Arc<Cache>,
}

impl GuardedResolver {
    pub(crate) fn new(policy: AddressPolicy, lookup: Arc<dyn Resolve>) -> Self {
        Self {
            policy,
            lookup,
            cache: Arc::new(Cache::default()),
        }
    }

    /// Looks the name of a URL up again next time.
    pub(crate) fn forget(&self, url: &Url) {
        if let Some(name) = url.domain() {
            self.cache.forget(name);
        }
    }

    async fn answer(&self, name: Name) -> Answer {
        if let Some(answer) = self.cache.find(name.as_str(), Instant::now()) {
            return answer;
        }
        let turn = self.cache.turn(name.as_str());
        let _first = turn.wait().await;
        // Whoever was here before may have found it.
        if let Some(answer) = self.cache.find(name.as_str(), Instant::now()) {
            return answer;
        }
        let text = name.as_str().to_owned();
        let answer = match self.lookup.resolve(name).await {
            Ok(found) => Ok(found.collect::<Arc<[SocketAddr]>>()),
            Err(source) => Err(LookupError::new(source)),
        };
        let answer = answer.and_then(|found| {
            if found.is_empty() {
                Err(LookupError::new("the name has no address"))
            } else {
                Ok(found)
            }
        });
        self.cache.insert(&text, answer.clone(), Instant::now());
        answer
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
        // Asked for here: a connection that outlives its attempt goes on in a task of its own.
        let progress = Progress::current();
        Box::pin(async move {
            let name = name.as_str().parse()?;
            let start = Instant::now();
            let answer = resolver.answer(name).await;
            if let Some(progress) = progress {
                progress.looked_up(start.elapsed());
            }
            Ok(vet(resolver.policy, &answer?)?.into_iter())
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

/// Keeps what is allowed of the addresses of a name; an error when that leaves none.
fn vet(policy: AddressPolicy, found: &[SocketAddr]) -> Result<Vec<SocketAddr>, BlockedAddress> {
    let allowed: Vec<_> = (found.iter().copied())
        .filter(|address| policy.allows(address.ip()))
        .take(MAX_ADDRESSES)
        .collect();
    match found.first() {
        Some(blocked) if allowed.is_empty() => Err(BlockedAddress::new(blocked.ip())),
        _ => Ok(allowed),
    }
}

/// Asks the operating system, which has no way to ask but one that blocks a thread.
#[derive(Debug)]
pub(crate) struct SystemResolver {
    lookups: Arc<Semaphore>,
}

/// Most lookups at a time. A name server that never answers holds a thread for as long as the
/// system waits for it; these must not be all the threads that the runtime has for such work, which
/// are 512.
const MAX_LOOKUPS: usize = 128;

impl SystemResolver {
    pub(crate) fn new() -> Self {
        Self {
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
        }
    }
}

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let lookups = Arc::clone(&self.lookups);
        Box::pin(async move {
            let permit = lookups.acquire_owned().await?;
            let lookup = tokio::task::spawn_blocking(move || -> io::Result<Vec<SocketAddr>> {
                // Held by the thread: nobody can call the system off.
                let _permit = permit;
                // The port is the client's business: it replaces the zero.
                Ok((name.as_str(), 0).to_socket_addrs()?.collect())
            });
            Ok(Box::new(lookup.await??.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests;
