//! Secrets that are encrypted where they are stored.

use std::time::Duration;

use jiff::Timestamp;
use tidings::signing::{Secret, Verifier};
use tidings_test_support::{Receiver, Reply, Schema};
use tidings_webhooks::encryption::EncryptionKeys;
use tidings_webhooks::{DeliveryState, EndpointId, EndpointSettings, Options};

use crate::support::{App, Place, receiver_of, schedule, soon, start_on_postgres};

/// Options with keys of these letters. The second attempt of a delivery is long after the first.
fn with_keys(letters: &str) -> Options {
    let key = |letter: char| letter.to_string().repeat(43).parse().unwrap();
    let keys = EncryptionKeys::new(letters.chars().map(key));
    schedule(&[0, 200, 60_000]).with_encryption_keys(keys)
}

/// What a secret looks like where it is not encrypted.
fn plain(secret: &Secret) -> String {
    let text = secret.expose().to_string();
    text.strip_prefix("whsec_").unwrap().to_owned()
}

/// Whether a text is in the file of the database, or in a file beside it.
fn is_on_disk(place: &Place, text: &str) -> bool {
    let folder = place.file().parent().unwrap().read_dir().unwrap();
    let mut files = folder.map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    files.any(|file| {
        let mut windows = file.windows(text.len());
        windows.any(|bytes| bytes == text.as_bytes())
    })
}

/// Waits until the secrets of an endpoint are stored as this function says.
async fn until_stored(app: &App, endpoint: EndpointId, is: impl Fn(&str) -> bool + Sync) -> String {
    soon(async {
        loop {
            let stored = app.store.endpoint(endpoint).await.unwrap().unwrap();
            if is(&stored.secrets) {
                return stored.secrets;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

/// Checks that the request of this number is signed by the secret.
async fn is_signed(receiver: &Receiver, number: u64, secret: &Secret) {
    let request = soon(receiver.request(number)).await;
    let now = Timestamp::now();
    let verified = Verifier::new(secret.clone()).verify(&request.head.headers, &request.body, now);
    verified.unwrap();
}

async fn create(app: &App, receiver: &Receiver) -> (EndpointId, Secret) {
    let settings = EndpointSettings::new(receiver.url("/"));
    let (endpoint, secret) = app.create(settings).await;
    (endpoint.id, secret)
}

#[tokio::test]
async fn no_plain_secret_is_on_disk_and_webhooks_are_signed() {
    let receiver = receiver_of(Reply::ok()).await;
    let place = Place::new();
    let app = place.start(with_keys("A")).await;
    let (endpoint, first) = create(&app, &receiver).await;
    app.accept(1..2).await;
    is_signed(&receiver, 1, &first).await;
    let rotated = app.webhooks.rotate_secret(endpoint, None, Duration::ZERO);
    let second = rotated.await.unwrap().unwrap();
    app.accept(2..3).await;
    is_signed(&receiver, 2, &second).await;
    app.stop().await;
    assert!(is_on_disk(&place, "sealed:1:"));
    for secret in [&first, &second] {
        assert!(!is_on_disk(&place, &plain(secret)));
    }

    let app = place.start(with_keys("A")).await;
    app.accept(3..4).await;
    is_signed(&receiver, 3, &second).await;
    assert!(app.webhooks.remove_endpoint(endpoint).await.unwrap());
    app.stop().await;
}

#[tokio::test]
async fn no_plain_secret_is_in_a_row_of_postgres() {
    let receiver = receiver_of(Reply::ok()).await;
    let schema = Schema::create().await;
    let app = start_on_postgres(&schema, with_keys("A")).await;
    let (endpoint, secret) = create(&app, &receiver).await;
    app.accept(1..2).await;
    is_signed(&receiver, 1, &secret).await;
    let stored = until_stored(&app, endpoint, |_| true).await;
    assert!(stored.starts_with("sealed:1:"), "{stored}");
    assert!(!stored.contains(&plain(&secret)));
    app.stop().await;
    let app = start_on_postgres(&schema, with_keys("EA")).await;
    until_stored(&app, endpoint, |new| new != stored).await;
    app.stop().await;
    let app = start_on_postgres(&schema, with_keys("E")).await;
    app.accept(2..3).await;
    is_signed(&receiver, 2, &secret).await;
    app.stop().await;
}

#[tokio::test]
async fn what_was_stored_without_a_key_is_encrypted_after_the_start_with_one() {
    let receiver = receiver_of(Reply::ok()).await;
    let place = Place::new();
    let app = place.start(with_keys("")).await;
    let (first, secret) = create(&app, &receiver).await;
    let (second, other) = create(&app, &receiver).await;
    app.stop().await;
    assert!(is_on_disk(&place, &plain(&secret)));

    let app = place.start(with_keys("A")).await;
    for endpoint in [first, second] {
        until_stored(&app, endpoint, |stored| stored.starts_with("sealed:1:")).await;
    }
    app.stop().await;
    for secret in [&secret, &other] {
        assert!(
            !is_on_disk(&place, &plain(secret)),
            "also not in pages that are free"
        );
    }
    let app = place.start(with_keys("A")).await;
    app.accept(1..2).await;
    soon(receiver.request(2)).await;
    app.until(first, DeliveryState::Delivered, 1).await;
    app.until(second, DeliveryState::Delivered, 1).await;
    app.stop().await;
}

#[tokio::test]
async fn a_new_key_in_front_replaces_the_old_one() {
    let receiver = receiver_of(Reply::ok()).await;
    let place = Place::new();
    let app = place.start(with_keys("A")).await;
    let (endpoint, secret) = create(&app, &receiver).await;
    let by_old = until_stored(&app, endpoint, |_| true).await;
    app.stop().await;
    let app = place.start(with_keys("EA")).await;
    let by_new = until_stored(&app, endpoint, |stored| stored != by_old).await;
    app.stop().await;
    // The old key can go, and nothing is left to do.
    let app = place.start(with_keys("E")).await;
    app.accept(1..2).await;
    is_signed(&receiver, 1, &secret).await;
    assert_eq!(until_stored(&app, endpoint, |_| true).await, by_new);
    app.stop().await;
}

/// The endpoint is not blamed, everything else works, and with the key the delivery arrives.
#[tokio::test]
async fn a_lost_key_fails_attempts_with_a_reason_and_breaks_nothing_else() {
    let receiver = receiver_of(Reply::ok()).await;
    let place = Place::new();
    let app = place.start(with_keys("A")).await;
    let (lost, secret) = create(&app, &receiver).await;
    app.stop().await;

    let app = place.start(with_keys("E")).await;
    let (other, of_other) = create(&app, &receiver).await;
    app.accept(1..2).await;
    is_signed(&receiver, 1, &of_other).await;
    app.until(other, DeliveryState::Delivered, 1).await;
    let waiting = soon(async {
        loop {
            let waiting = app.until(lost, DeliveryState::Pending, 1).await.remove(0);
            if waiting.attempts == 2 {
                return waiting;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let attempts = app.attempts(waiting.id).await;
    assert_eq!(attempts.len(), 2);
    for attempt in &attempts {
        let reason = attempt.error.as_deref().unwrap();
        assert!(reason.contains("which is not configured"), "{reason}");
        assert_eq!(attempt.status, None);
    }
    let health = app.webhooks.health(lost).await.unwrap().unwrap();
    assert_eq!((health.last_failure_at, health.success_rate), (None, None));
    let listed = app.webhooks.endpoint(lost).await.unwrap().unwrap();
    assert!(listed.enabled);
    let renamed = app.webhooks.update_endpoint(lost, |settings| {
        settings.description = "renamed".to_owned();
    });
    assert!(renamed.await.unwrap().is_some());
    app.stop().await;

    let app = place.start(with_keys("EA")).await;
    app.webhooks.retry(waiting.id).await.unwrap().unwrap();
    is_signed(&receiver, 2, &secret).await;
    app.until(lost, DeliveryState::Delivered, 1).await;
    let kept = app.webhooks.endpoint(lost).await.unwrap().unwrap();
    assert_eq!(kept.settings.description, "renamed");
    app.stop().await;
}

#[tokio::test]
async fn after_the_loss_of_a_key_a_new_secret_helps() {
    let receiver = receiver_of(Reply::ok()).await;
    let place = Place::new();
    let app = place.start(with_keys("A")).await;
    let (endpoint, _) = create(&app, &receiver).await;
    app.stop().await;
    let app = place.start(with_keys("E")).await;
    let rotated = app
        .webhooks
        .rotate_secret(endpoint, None, Duration::from_secs(60));
    let secret = rotated.await.unwrap().unwrap();
    app.accept(1..2).await;
    is_signed(&receiver, 1, &secret).await;
    app.stop().await;
}
