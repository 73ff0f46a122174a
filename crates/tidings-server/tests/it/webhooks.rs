//! Webhooks: signed, filtered, retried over restarts, recorded.

mod cancelled;
mod delivered;
mod failed;
mod retried;
mod stopped;

use http::StatusCode;
use jiff::Timestamp;
use serde_json::Value;
use tidings::signing::{Verifier, VerifyError};
use tidings_test_support::{Receiver, Reply, Request};

use crate::support::{Server, soon};

/// A receiver of webhooks that gives them to the test one after another.
pub(crate) struct Webhooks {
    receiver: Receiver,
    taken: u64,
}

/// A webhook as its receiver saw it.
pub(crate) struct Webhook(Request);

impl Webhooks {
    pub(crate) async fn start() -> Self {
        let receiver = Receiver::start(Reply::new(StatusCode::NO_CONTENT));
        Self {
            receiver: receiver.await.unwrap(),
            taken: 0,
        }
    }

    pub(crate) fn url(&self) -> String {
        self.receiver.url("/hook")
    }

    pub(crate) fn reply_with(&self, status: u16) {
        let status = StatusCode::from_u16(status).unwrap();
        self.receiver.switch_to(Reply::new(status));
    }

    pub(crate) fn redirect_to(&self, location: &'static str) {
        let redirect = Reply::redirect(StatusCode::TEMPORARY_REDIRECT, location);
        self.receiver.switch_to(redirect);
    }

    pub(crate) async fn next(&mut self) -> Webhook {
        self.taken += 1;
        Webhook(self.receiver.request(self.taken).await)
    }
}

impl Webhook {
    pub(crate) fn id(&self) -> &str {
        self.0.header("webhook-id").unwrap()
    }

    pub(crate) fn verify(&self, verifier: &Verifier) -> Result<(), VerifyError> {
        let Request { head, body, .. } = &self.0;
        let result = verifier.verify(&head.headers, body, Timestamp::now());
        result.map(drop)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.0.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.0.body).unwrap()
    }
}

pub(crate) async fn create(server: &Server, path: &str, body: Value) -> Value {
    let response = server.post(path, &body).await;
    assert_eq!(response.status(), 201);
    response.json().await.unwrap()
}

/// Waits until a delivery is in this state.
pub(crate) async fn delivery_in(server: &Server, state: &str) -> Value {
    soon(state, async {
        loop {
            let list = server.get(&format!("/v1/deliveries?state={state}")).await;
            if let Some(delivery) = list["data"].get(0) {
                return delivery.clone();
            }
        }
    })
    .await
}
