//! A key set of a file or a URL: loaded again in the background, and kept while that fails.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::verification_keys::{VerificationKey, parse_jwks};
use crate::settings::jwt::JwksSource;

/// How long loading may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The largest key set: a hundred keys take less.
const MAX_BYTES: usize = 256 * 1024;

/// How often the key set is loaded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Also without a reason, so that keys that were withdrawn are forgotten.
    pub(crate) every: Duration,
    /// At least this long after the last time, whatever tokens ask for.
    pub(crate) at_most_every: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(300),
            at_most_every: Duration::from_secs(10),
        }
    }
}

/// The keys of a source as they were loaded last.
#[derive(Debug)]
pub(crate) struct Jwks {
    source: JwksSource,
    client: Client,
    pace: Pace,
    loaded: watch::Sender<Loaded>,
    wanted: Notify,
}

#[derive(Debug, Clone, Default)]
struct Loaded {
    /// `None` until loading has worked once.
    keys: Option<Arc<[VerificationKey]>>,
    /// When loading last ended, with or without success.
    tried: Option<Instant>,
}

/// Why a key set cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JwksError {
    /// The client for it cannot be made, or the request failed.
    #[error("the request failed")]
    Request(#[source] reqwest::Error),
    /// The file cannot be read.
    #[error("cannot read the file")]
    Unreadable(#[source] std::io::Error),
    /// It is too large, or takes too long.
    #[error("expected at most {MAX_BYTES} bytes within {} s", TIMEOUT.as_secs())]
    TooMuch,
    /// It is not a key set.
    #[error("expected a JSON Web Key Set")]
    Malformed(#[source] serde_json::Error),
    /// It has no key that can be used.
    #[error("expected at least one public key for RS256, ES256 or EdDSA")]
    NoKeys,
}

impl Jwks {
    pub(crate) fn new(source: JwksSource, pace: Pace) -> Result<Self, JwksError> {
        let client = Client::builder().tls_backend_rustls().timeout(TIMEOUT);
        Ok(Self {
            source,
            client: client.build().map_err(without_url)?,
            pace,
            loaded: watch::Sender::default(),
            wanted: Notify::new(),
        })
    }

    /// The keys, if they could be loaded.
    pub(crate) fn keys(&self) -> Option<Arc<[VerificationKey]>> {
        self.loaded.borrow().keys.clone()
    }

    /// Asks for another loading, and waits for its end; unless there was one a moment ago.
    pub(crate) async fn refresh(&self) {
        let mut loaded = self.loaded.subscribe();
        let tried = loaded.borrow_and_update().tried;
        if tried.is_some_and(|tried| tried.elapsed() < self.pace.at_most_every) {
            return;
        }
        self.wanted.notify_one();
        let _late = timeout(TIMEOUT, loaded.changed()).await;
    }

    /// Loads the keys once. The old ones stay if that fails.
    pub(crate) async fn load(&self) -> Result<(), JwksError> {
        let keys = timeout(TIMEOUT, self.fetch()).await;
        let keys = keys.unwrap_or(Err(JwksError::TooMuch));
        self.loaded.send_modify(|loaded| {
            loaded.tried = Some(Instant::now());
            if let Ok(keys) = &keys {
                loaded.keys = Some(keys.clone());
            }
        });
        keys.map(drop)
    }

    /// Loads the keys again and again.
    pub(crate) async fn run(&self) {
        let mut is_failing = self.keys().is_none();
        loop {
            // Also after the first loading, which the start has made.
            sleep(self.pace.at_most_every).await;
            let pause = self.pace.every.saturating_sub(self.pace.at_most_every);
            tokio::select! {
                () = sleep(pause) => {}
                () = self.wanted.notified() => {}
            }
            let was_failing = is_failing;
            let outcome = self.load().await;
            is_failing = outcome.is_err();
            match outcome {
                Ok(()) if was_failing => {
                    tracing::info!(source = %self.source, "loaded the keys for tokens (--jwt-jwks)");
                }
                Err(error) if !was_failing => self.warn(&error),
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// One line for each outage, not for each attempt.
    pub(crate) fn warn(&self, error: &JwksError) {
        let error: &dyn std::error::Error = error;
        tracing::warn!(
            error,
            source = %self.source,
            "cannot load the keys for tokens (--jwt-jwks), trying again; keys that are known stay valid"
        );
    }

    async fn fetch(&self) -> Result<Arc<[VerificationKey]>, JwksError> {
        let text = match &self.source {
            JwksSource::File(path) => tokio::fs::read(path).await.map_err(JwksError::Unreadable)?,
            JwksSource::Url(url) => self.download(url.clone()).await?,
        };
        let keys = parse_jwks(&text).map_err(JwksError::Malformed)?;
        if keys.is_empty() {
            return Err(JwksError::NoKeys);
        }
        Ok(keys.into())
    }

    async fn download(&self, url: url::Url) -> Result<Vec<u8>, JwksError> {
        let response = self.client.get(url).send().await;
        let response = response.and_then(reqwest::Response::error_for_status);
        let mut response = response.map_err(without_url)?;
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(without_url)? {
            if text.len() + chunk.len() > MAX_BYTES {
                return Err(JwksError::TooMuch);
            }
            text.extend_from_slice(&chunk);
        }
        Ok(text)
    }
}

/// A URL may have a secret in it.
fn without_url(error: reqwest::Error) -> JwksError {
    JwksError::Request(error.without_url())
}
