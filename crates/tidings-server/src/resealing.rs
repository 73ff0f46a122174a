//! Encrypts the responses that are kept for a repeat, if they were stored without a key or with an earlier one.

use std::time::Duration;

use tidings_storage::{KeptResponse, NewResponse, Requests, StorageError, idempotency};

use crate::panics::catch;
use tidings_webhooks::encryption::{EncryptionKeys, SealError};

use crate::app::App;

/// The pause after a failure of the database.
const PAUSE: Duration = Duration::from_secs(5);

/// Looks at all kept responses once. Those of requests that are made meanwhile are encrypted already.
pub(crate) async fn run(app: &App) {
    if app.encryption.is_empty() {
        return;
    }
    let requests = &*app.storage.requests;
    let (mut after, mut resealed) = (String::new(), 0);
    let mut is_failing = false;
    loop {
        match step(requests, &app.encryption, &after).await {
            Ok(Some((last, count))) => {
                after = last;
                resealed += count;
            }
            Ok(None) => break,
            Err(StorageError::Closed) => return,
            // The same page again.
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    let error: &dyn std::error::Error = &error;
                    catch(|| {
                        tracing::warn!(
                            error,
                            "cannot encrypt the responses that are kept for a repeat, trying again"
                        );
                    });
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    if resealed > 0 {
        catch(|| {
            tracing::info!(
                responses = resealed,
                "encrypted the responses that are kept for a repeat with the first key"
            );
        });
    }
}

/// Encrypts those of a page. Returns its last key, and how many there were; `None` after the last page.
async fn step(
    requests: &dyn Requests,
    keys: &EncryptionKeys,
    after: &str,
) -> Result<Option<(String, usize)>, StorageError> {
    let page = requests.responses(after).await?;
    let Some(last) = page.last().map(|kept| kept.key.clone()) else {
        return Ok(None);
    };
    // What cannot be decrypted stays as it is: its repeat says so.
    let new: Vec<_> = page
        .into_iter()
        .filter_map(|kept| reseal(keys, kept).ok().flatten())
        .collect();
    let count = new.len();
    if count > 0 {
        requests.replace_responses(new).await?;
    }
    Ok(Some((last, count)))
}

/// The response in its new form, if it needs one.
fn reseal(keys: &EncryptionKeys, kept: KeptResponse) -> Result<Option<NewResponse>, SealError> {
    let KeptResponse { key, response } = kept;
    let Some(old) = response.filter(|response| !keys.is_current(response)) else {
        return Ok(None);
    };
    let context = idempotency::context(&key);
    let new = keys.seal(&context, &keys.open(&context, &old)?)?;
    Ok(Some(NewResponse { key, old, new }))
}
