//! A key set of a file or a URL: loaded again in the background, and kept while that fails.

use std::sync::Arc;
use std::time::Duration;

use crate::panics;
use reqwest::{Client, StatusCode};
use tidings_reconnect::Obstacle;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::key_set::{self, KeySet, KeySetError, NameInSet};
use super::verification_keys::VerificationKey;
use crate::settings::jwt::JwksSource;
use crate::small_file;

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
    /// The keys of the set that this server does not know, which were in the log already.
    unknown: Vec<NameInSet>,
    /// When loading last ended, with or without success.
    tried: Option<Instant>,
}

/// Why a key set cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JwksError {
    /// The client for it cannot be made.
    #[error("cannot prepare the request")]
    Client(#[source] reqwest::Error),
    /// The server of the URL could not be reached, or did not reply in full.
    #[error("{0}")]
    Obstacle(Obstacle),
    /// The request failed in another way.
    #[error("the request failed, or the server did not reply by HTTP")]
    Request,
    /// The server refused the request.
    #[error("the server replied {0}")]
    Status(StatusCode),
    /// The server named another address: it can be one without TLS, or a private one.
    #[error(
        "the server replied {0}, and redirects are not followed; give the URL that it leads to"
    )]
    Redirect(StatusCode),
    /// The file cannot be read.
    #[error("cannot read the file")]
    Unreadable(#[source] std::io::Error),
    /// It is too large.
    #[error("expected at most {MAX_BYTES} bytes")]
    TooLarge,
    /// It takes too long.
    #[error("expected it within {} s", TIMEOUT.as_secs())]
    Late,
    /// Its text cannot be used.
    #[error(transparent)]
    KeySet(#[from] KeySetError),
}

impl Jwks {
    pub(crate) fn new(source: JwksSource, pace: Pace) -> Result<Self, JwksError> {
        let client = Client::builder()
            .tls_backend_rustls()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT);
        Ok(Self {
            source,
            client: client.build().map_err(JwksError::Client)?,
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
        let loaded = timeout(TIMEOUT, self.fetch()).await;
        let loaded = loaded.unwrap_or(Err(JwksError::Late));
        let tried = Some(Instant::now());
        match loaded {
            Ok(set) => {
                let before = self.loaded.send_replace(Loaded {
                    keys: Some(set.keys.into()),
                    unknown: set.unknown.clone(),
                    tried,
                });
                // One line for each change, not for each loading.
                if !set.unknown.is_empty() && set.unknown != before.unknown {
                    self.warn_of_unknown(&set.unknown);
                }
                Ok(())
            }
            Err(error) => {
                self.loaded.send_modify(|loaded| loaded.tried = tried);
                Err(error)
            }
        }
    }

    fn warn_of_unknown(&self, unknown: &[NameInSet]) {
        let names: Vec<_> = unknown.iter().map(ToString::to_string).collect();
        panics::catch(|| {
            tracing::warn!(
                keys = names.join(", "),
                source = %self.source,
                "the key set has keys of a kind or an algorithm that is not supported (--jwt-jwks); tokens that are \
                 signed by them are refused, the other keys are used"
            );
        });
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
                    panics::catch(
                        || tracing::info!(source = %self.source, "loaded the keys for tokens (--jwt-jwks)"),
                    );
                }
                Err(error) if !was_failing => self.warn(&error),
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// One line for each outage, not for each attempt.
    pub(crate) fn warn(&self, error: &JwksError) {
        let error: &dyn std::error::Error = error;
        panics::catch(|| {
            tracing::warn!(
                error,
                source = %self.source,
                "cannot load the keys for tokens (--jwt-jwks), trying again; keys that are known stay valid"
            );
        });
    }

    async fn fetch(&self) -> Result<KeySet, JwksError> {
        let text = match &self.source {
            JwksSource::File(path) => {
                let path = path.clone();
                let read = move || small_file::read(&path, MAX_BYTES as u64);
                let read = tokio::task::spawn_blocking(read).await;
                read.unwrap_or_else(|panic| Err(panic.into()))
                    .map_err(JwksError::Unreadable)?
            }
            JwksSource::Url(url) => self.download(url.clone()).await?,
        };
        Ok(key_set::parse(&text)?)
    }

    async fn download(&self, url: url::Url) -> Result<Vec<u8>, JwksError> {
        let mut response = self
            .client
            .get(url)
            .send()
            .await
            .map_err(|error| failed(&error))?;
        let status = response.status();
        if status.is_redirection() {
            return Err(JwksError::Redirect(status));
        }
        if !status.is_success() {
            return Err(JwksError::Status(status));
        }
        let mut text = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| failed(&error))? {
            if text.len() + chunk.len() > MAX_BYTES {
                return Err(JwksError::TooLarge);
            }
            text.extend_from_slice(&chunk);
        }
        Ok(text)
    }
}

/// Names what an operator can change. The library's own error has the URL, which may have a secret in it.
fn failed(error: &reqwest::Error) -> JwksError {
    if error.is_timeout() {
        return JwksError::Late;
    }
    Obstacle::find(error).map_or(JwksError::Request, JwksError::Obstacle)
}
