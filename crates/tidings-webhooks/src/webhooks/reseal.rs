//! Encrypting what was stored without a key, or with an earlier one.

use std::sync::Arc;
use std::time::Duration;

use super::manage::NO_SECRETS;
use crate::encryption::{EncryptionKeys, SealError};
use crate::endpoint::context;
use crate::store::StoredSecrets;
use crate::{Store, StoreError};

/// Endpoints that are looked at, and changed, at once.
const PAGE: usize = 100;

/// The pause after a failure of the store.
const PAUSE: Duration = Duration::from_secs(5);

/// Looks at all endpoints once, and encrypts their secrets with the current key, if there is one. A change that is
/// made meanwhile encrypts them by itself. Warns of those that cannot be decrypted.
pub(super) async fn run(store: Arc<dyn Store>, keys: EncryptionKeys) {
    let (mut after, mut resealed, mut unreadable) = (None, 0, 0);
    let mut is_failing = false;
    loop {
        let page = match store.secrets(after, PAGE).await {
            Ok(page) => page,
            Err(StoreError::Closed) => return,
            Err(error) => {
                pause(&error, &mut is_failing).await;
                continue;
            }
        };
        let Some(last) = page.last().map(|stored| stored.endpoint) else {
            break;
        };
        let (new, problems) = reseal(&keys, page);
        let count = new.len();
        if count > 0
            && let Err(error) = store.replace_secrets(new).await
        {
            // The same page again.
            pause(&error, &mut is_failing).await;
            continue;
        }
        after = Some(last);
        resealed += count;
        unreadable += problems.len();
        if let Some(problem) = problems.first() {
            let error: &dyn std::error::Error = problem;
            tracing::debug!(error, "secrets of endpoints cannot be decrypted");
        }
    }
    if resealed > 0 {
        tracing::info!(
            endpoints = resealed,
            "encrypted the secrets of endpoints with the first key"
        );
    }
    if unreadable > 0 {
        tracing::warn!(
            endpoints = unreadable,
            "the secrets of endpoints cannot be decrypted with the configured keys; their webhooks fail until \
             their key is configured or a new secret is set"
        );
    }
}

/// What is to be replaced of a page, and why some of it cannot be.
fn reseal(keys: &EncryptionKeys, page: Vec<StoredSecrets>) -> (Vec<StoredSecrets>, Vec<SealError>) {
    let (mut new, mut problems) = (Vec::new(), Vec::new());
    for stored in page {
        if keys.is_current(&stored.secrets) || stored.secrets == NO_SECRETS {
            continue;
        }
        let context = context(stored.endpoint);
        let opened = keys.open(&context, &stored.secrets);
        match opened.and_then(|text| keys.seal(&context, &text)) {
            Ok(secrets) => new.push(StoredSecrets { secrets, ..stored }),
            Err(problem) => problems.push(problem),
        }
    }
    (new, problems)
}

async fn pause(error: &StoreError, is_failing: &mut bool) {
    if !std::mem::replace(is_failing, true) {
        let error: &dyn std::error::Error = error;
        tracing::warn!(
            error,
            "cannot encrypt the secrets of endpoints with the first key, trying again"
        );
    }
    tokio::time::sleep(PAUSE).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EndpointId;

    #[test]
    fn regression_an_endpoint_that_is_removed_has_nothing_to_encrypt() {
        let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let keys = EncryptionKeys::new([key.parse().unwrap()]);
        let page = |secrets: &str| {
            vec![StoredSecrets {
                endpoint: EndpointId::random(),
                revision: 1,
                secrets: secrets.to_owned(),
            }]
        };
        let (new, problems) = reseal(&keys, page("[\"whsec_…\"]"));
        assert_eq!((new.len(), problems.len()), (1, 0));
        let (new, problems) = reseal(&keys, page(NO_SECRETS));
        assert_eq!((new.len(), problems.len()), (0, 0));
    }
}
