//! How many workers one endpoint may hold at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The part of the workers that one endpoint gets: with an eighth, seven endpoints can be stalled
/// and the next is still served.
const PARTS: usize = 8;

/// The workers that each endpoint holds.
#[derive(Debug)]
pub(crate) struct Shares {
    most: usize,
    held: Arc<Mutex<HashMap<String, usize>>>,
}

/// A worker in use for an endpoint; dropping it gives the worker back.
#[derive(Debug)]
pub(crate) struct Share {
    endpoint_id: String,
    held: Arc<Mutex<HashMap<String, usize>>>,
}

impl Shares {
    pub(crate) fn of(workers: usize) -> Self {
        Self {
            most: (workers / PARTS).max(1),
            held: Arc::default(),
        }
    }

    /// Takes a worker for an endpoint, unless it holds its share.
    pub(crate) fn take(&self, endpoint_id: &str) -> Option<Share> {
        // Counting cannot leave half a change behind, so a poisoned lock is still right.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.get(endpoint_id).copied().unwrap_or(0);
        if count >= self.most {
            return None;
        }
        held.insert(endpoint_id.to_owned(), count + 1);
        Some(Share {
            endpoint_id: endpoint_id.to_owned(),
            held: Arc::clone(&self.held),
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.endpoint_id) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.endpoint_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_holds_its_share_and_leaves_the_rest_to_others() {
        let shares = Shares::of(16);
        let held = [shares.take("slow"), shares.take("slow")];
        assert!(held.iter().all(Option::is_some));
        assert!(shares.take("slow").is_none());
        assert!(shares.take("healthy").is_some());
        drop(held);
        assert!(shares.take("slow").is_some());
        assert!(Shares::of(1).take("only").is_some());
    }
}
