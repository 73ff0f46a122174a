//! Webhooks of a run: an endpoint for each user, and the receiver of all.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;
use tidings_webhooks::EndpointId;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::arrivals::{Arrivals, Seen, Sent, Shared};
use super::{Run, TYPE};
use crate::commands::CommandError;
use crate::error::said_by_system;

/// What is needed of a webhook's body.
#[derive(Deserialize)]
struct Envelope {
    data: Sent,
}

#[derive(Serialize)]
struct NewEndpoint<'a> {
    url: &'a str,
    event_types: [&'static str; 1],
    description: &'static str,
}

#[derive(Deserialize)]
struct Created {
    id: EndpointId,
}

struct Receiver {
    run: Arc<Run>,
    shared: Arc<Shared>,
    seen: Mutex<Seen>,
}

/// Endpoints that exist until the end.
pub(super) struct Receiving {
    pub(super) arrivals: Arrivals,
    endpoints: Vec<(String, EndpointId)>,
}

/// Listens, and makes an endpoint for every user.
pub(super) async fn receive(
    run: &Arc<Run>,
    address: SocketAddr,
) -> Result<Receiving, CommandError> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        let reason = said_by_system(&error);
        format!("cannot listen on {address}: {reason}")
    })?;
    let url = format!("http://{}/", listener.local_addr()?);
    let receiver = Receiver {
        run: Arc::clone(run),
        shared: Arc::default(),
        seen: Mutex::default(),
    };
    let shared = Arc::clone(&receiver.shared);
    let service = Router::new().fallback(count).with_state(Arc::new(receiver));
    let mut readers = JoinSet::new();
    readers.spawn(async move {
        // Ends with the command alone.
        let _ended = axum::serve(listener, service).await;
    });
    let mut receiving = Receiving {
        arrivals: Arrivals::new(shared, 1, readers),
        endpoints: Vec::new(),
    };
    for user in 0..run.users {
        if let Err(error) = receiving.add(run, run.user(user), &url).await {
            receiving.end(run).await?;
            return Err(error);
        }
    }
    Ok(receiving)
}

async fn count(State(receiver): State<Arc<Receiver>>, body: Bytes) -> StatusCode {
    let Ok(Envelope { data }) = serde_json::from_slice(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    let mut seen = receiver.seen.lock().unwrap_or_else(PoisonError::into_inner);
    receiver.shared.arrived(&receiver.run, &data, &mut seen);
    StatusCode::NO_CONTENT
}

impl Receiving {
    async fn add(&mut self, run: &Run, user: String, url: &str) -> Result<(), CommandError> {
        let body = to_raw_value(&NewEndpoint {
            url,
            event_types: [TYPE],
            description: "made by tidings bench",
        })?;
        let address = run.remote.address(&["v1", "users", &user, "endpoints"])?;
        let Created { id } = run.remote.create(address, &body).await?;
        self.endpoints.push((user, id));
        Ok(())
    }

    /// Removes the endpoints.
    pub(super) async fn end(self, run: &Run) -> Result<(), CommandError> {
        let mut ended = Ok(());
        for (user, id) in self.endpoints {
            let path = ["v1", "users", &user, "endpoints", &id.to_string()];
            let address = run.remote.address(&path)?;
            if let Err(error) = run.remote.change(Method::DELETE, address, None).await {
                let left = format!("the endpoint {id} of {user} was not removed: {error}");
                ended = Err(left.into());
            }
        }
        ended
    }
}
