//! Posters that send as fast as they get replies.

use std::sync::Arc;
use std::time::Duration;

use tidings_bench::{Latencies, Rate};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::server::Poster;

pub(crate) const POSTERS: usize = 64;

/// What posters have reached.
pub(crate) struct Load {
    pub(crate) count: usize,
    elapsed: Duration,
    latencies: Latencies,
}

impl Load {
    /// How many requests per second, with so much in each.
    pub(crate) fn rate(&self, each: usize) -> Rate {
        Rate::new(self.count * each, self.elapsed, &self.latencies)
    }
}

/// Sends these requests in turn, over 64 connections, each of which waits for a reply before it goes on.
pub(crate) async fn post(address: &str, requests: Vec<Vec<u8>>, length: Duration) -> Load {
    let requests = Arc::new(requests);
    let mut posters = JoinSet::new();
    let started = Instant::now();
    for first in 0..POSTERS {
        let (address, requests) = (address.to_owned(), Arc::clone(&requests));
        posters.spawn(async move {
            let mut poster = Poster::connect(&address).await;
            let mut latencies = Latencies::default();
            for n in (first..).step_by(POSTERS) {
                let began = Instant::now();
                if began - started >= length {
                    break;
                }
                poster.request(&requests[n % requests.len()]).await;
                latencies.add(began.elapsed());
            }
            latencies
        });
    }
    let latencies: Latencies = posters.join_all().await.into_iter().flatten().collect();
    Load {
        count: latencies.count(),
        elapsed: started.elapsed(),
        latencies,
    }
}
