//! Request bins: addresses that take webhooks and keep the last ones, for a person to look at.
//!
//! They are in the memory of this process, and end with it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use jiff::Timestamp;
use tidings::signing::{Secret, Verifier, VerifyError};
use tokio::time::Instant;

/// Maximum number of bins.
pub(crate) const MAX_BINS: usize = 20;

/// Requests that a bin keeps, the newest.
const MAX_REQUESTS: usize = 50;

/// Most bytes of headers and bodies that a bin keeps. Only the newest request may be larger.
const MAX_BYTES: usize = 1 << 20;

/// How long a bin is kept after it was last used or looked at.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The time, in microseconds like all times that are stored.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

/// The bins of this process.
#[derive(Debug, Default)]
pub(crate) struct Bins(Mutex<HashMap<String, Bin>>);

/// What a bin is, without its requests.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) id: String,
    pub(crate) created_at: Timestamp,
    /// The status of the responses.
    pub(crate) status: StatusCode,
    /// What the requests are verified with.
    pub(crate) secret: Option<Secret>,
    /// How many requests have come.
    pub(crate) received: u64,
}

#[derive(Debug)]
struct Bin {
    settings: Settings,
    requests: VecDeque<Received>,
    used_at: Instant,
}

/// A request that a bin has taken.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// Counted from 1.
    pub(crate) number: u64,
    pub(crate) at: Timestamp,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The status of the response.
    pub(crate) status: StatusCode,
}

impl Received {
    /// Whether the request is signed with the secret, as a receiver finds that arrives at the same time.
    pub(crate) fn verify(&self, secret: &Secret) -> Result<(), VerifyError> {
        let verifier = Verifier::new(secret.clone());
        verifier
            .verify(&self.headers, &self.body, self.at)
            .map(|_| ())
    }

    fn bytes(&self) -> usize {
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| name.as_str().len() + value.len());
        headers.sum::<usize>() + self.body.len()
    }
}

impl Bin {
    fn take(&mut self, headers: HeaderMap, body: &[u8]) -> StatusCode {
        let settings = &mut self.settings;
        settings.received += 1;
        self.requests.push_front(Received {
            number: settings.received,
            at: now(),
            headers,
            // What was read from a connection may have room for more.
            body: Bytes::copy_from_slice(body),
            status: settings.status,
        });
        let mut bytes = 0;
        let kept = self.requests.iter().take(MAX_REQUESTS).take_while(|one| {
            bytes += one.bytes();
            bytes <= MAX_BYTES
        });
        let kept = kept.count().max(1);
        self.requests.truncate(kept);
        settings.status
    }
}

impl Bins {
    /// Makes a bin. `None` if there are as many as allowed.
    pub(crate) fn create(&self) -> Result<Option<Settings>, getrandom::Error> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)?;
        let settings = Settings {
            id: format!("bin_{:032x}", u128::from_be_bytes(random)),
            created_at: now(),
            status: StatusCode::OK,
            secret: None,
            received: 0,
        };
        let bin = Bin {
            settings: settings.clone(),
            requests: VecDeque::new(),
            used_at: Instant::now(),
        };
        let mut bins = self.bins();
        if bins.len() >= MAX_BINS {
            return Ok(None);
        }
        bins.insert(settings.id.clone(), bin);
        Ok(Some(settings))
    }

    /// All bins, the oldest first.
    pub(crate) fn all(&self) -> Vec<Settings> {
        let bins = self.bins();
        let mut all: Vec<_> = bins.values().map(|bin| bin.settings.clone()).collect();
        all.sort_by(|one, other| (one.created_at, &one.id).cmp(&(other.created_at, &other.id)));
        all
    }

    /// Whether there is such a bin. To ask is not to use it.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.bins().contains_key(id)
    }

    /// A bin with its requests, the newest first.
    pub(crate) fn get(&self, id: &str) -> Option<(Settings, Vec<Received>)> {
        self.with(id, |bin| {
            let requests = bin.requests.iter().cloned();
            (bin.settings.clone(), requests.collect())
        })
    }

    /// Changes what a bin does, and returns what it is then.
    pub(crate) fn change(&self, id: &str, change: impl FnOnce(&mut Settings)) -> Option<Settings> {
        self.with(id, |bin| {
            change(&mut bin.settings);
            bin.settings.clone()
        })
    }

    /// Removes a bin. Returns whether it was there.
    pub(crate) fn remove(&self, id: &str) -> bool {
        self.bins().remove(id).is_some()
    }

    /// Takes a request. Returns the status of its response.
    pub(crate) fn take(&self, id: &str, headers: HeaderMap, body: &[u8]) -> Option<StatusCode> {
        self.with(id, |bin| bin.take(headers, body))
    }

    fn with<T>(&self, id: &str, using: impl FnOnce(&mut Bin) -> T) -> Option<T> {
        let mut bins = self.bins();
        let bin = bins.get_mut(id)?;
        bin.used_at = Instant::now();
        Some(using(bin))
    }

    /// The bins that have not expired.
    fn bins(&self) -> MutexGuard<'_, HashMap<String, Bin>> {
        // Each change leaves the bins whole.
        let mut bins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bins.retain(|_, bin| bin.used_at.elapsed() < LIFETIME);
        bins
    }
}

#[cfg(test)]
mod tests {
    use tidings::signing::StandardSigner;

    use super::*;

    fn request(bytes: usize) -> (HeaderMap, Bytes) {
        (HeaderMap::new(), vec![b'x'; bytes].into())
    }

    fn numbers(bins: &Bins, id: &str) -> Vec<u64> {
        let (_, requests) = bins.get(id).unwrap();
        requests.iter().map(|request| request.number).collect()
    }

    #[test]
    fn a_bin_keeps_the_newest_requests_within_its_bounds() {
        let bins = Bins::default();
        let id = bins.create().unwrap().unwrap().id;
        for _ in 0..MAX_REQUESTS + 5 {
            let (headers, body) = request(10);
            assert_eq!(bins.take(&id, headers, &body), Some(StatusCode::OK));
        }
        let newest_first: Vec<_> = (6..=MAX_REQUESTS as u64 + 5).rev().collect();
        assert_eq!(numbers(&bins, &id), newest_first);

        let (headers, body) = request(MAX_BYTES - 15);
        bins.take(&id, headers, &body);
        assert_eq!(numbers(&bins, &id), [56, 55], "the second fits beside it");
        let (headers, body) = request(MAX_BYTES + 1);
        bins.take(&id, headers, &body);
        assert_eq!(numbers(&bins, &id), [57], "the newest is always kept");
        assert_eq!(bins.take("bin_0", HeaderMap::new(), b""), None);
    }

    #[test]
    fn a_kept_body_takes_no_more_memory_than_its_bytes() {
        let bins = Bins::default();
        let id = bins.create().unwrap().unwrap().id;
        let mut body = bytes::BytesMut::with_capacity(MAX_BYTES);
        body.extend_from_slice(b"{}");
        bins.take(&id, HeaderMap::new(), &body.freeze());
        let mut all = bins.bins();
        let kept = all.get_mut(&id).unwrap().requests.pop_front().unwrap();
        assert_eq!(kept.body.try_into_mut().unwrap().capacity(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_as_many_bins_as_allowed_and_an_unused_one_makes_room_after_a_day() {
        let bins = Bins::default();
        let ids: Vec<_> = (0..MAX_BINS)
            .map(|_| bins.create().unwrap().unwrap().id)
            .collect();
        assert!(bins.create().unwrap().is_none());
        let hour = Duration::from_secs(60 * 60);
        tokio::time::advance(hour * 23).await;
        let (headers, body) = request(1);
        bins.take(&ids[0], headers, &body);
        tokio::time::advance(hour).await;
        assert_eq!(bins.all().len(), 1);
        assert_eq!(bins.all()[0].id, ids[0]);
        assert!(bins.has(&ids[0]) && !bins.has(&ids[1]));
        assert!(bins.create().unwrap().is_some());
        assert!(bins.remove(&ids[0]) && !bins.remove(&ids[0]));
    }

    #[test]
    fn a_request_is_verified_by_the_time_when_it_came() {
        let bins = Bins::default();
        let id = bins.create().unwrap().unwrap().id;
        let secret = Secret::generate();
        let signer = StandardSigner::new([secret.clone()]).unwrap();
        let now = Timestamp::now();
        let old = now - jiff::SignedDuration::from_mins(6);
        for at in [old, now] {
            let mut headers = HeaderMap::new();
            signer.sign("msg_1", at, b"{}", &mut headers);
            bins.take(&id, headers, b"{}");
        }
        let (_, requests) = bins.get(&id).unwrap();
        assert_eq!(requests[0].verify(&secret), Ok(()));
        assert_eq!(requests[1].verify(&secret), Err(VerifyError::TooOld));
        let other = Secret::generate();
        assert_eq!(requests[0].verify(&other), Err(VerifyError::NoMatch));
    }
}
