//! Webhooks of a run: an endpoint for each user, and the receiver of all.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use futures_util::FutureExt;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;
use tidings_storage::explain::{explain, said_by_system};
use tidings_webhooks::EndpointId;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::arrivals::{Arrivals, Seen, Sent, Shared};
use super::{INTERRUPTED, Run, TYPE};
use crate::commands::CommandError;
use crate::commands::interrupts::Interrupts;
use crate::commands::receiving;

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
    interrupts: &mut Interrupts,
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
    // Ends with the command alone.
    let receiving = receiving::serve(listener, service, CancellationToken::new());
    readers.spawn(receiving.boxed());
    let mut receiving = Receiving {
        arrivals: Arrivals::new(shared, 1, readers),
        endpoints: Vec::new(),
    };
    for user in 0..run.users {
        let user = run.user(user);
        let added = if interrupts.have_come() {
            Err(INTERRUPTED.into())
        } else {
            let left = format!("interrupted while {user} got an endpoint, which may be left");
            tokio::select! {
                added = receiving.add(run, user, &url) => added,
                () = interrupts.again() => Err(left.into()),
            }
        };
        if let Err(error) = added {
            let reason = explain(error.as_ref());
            return Err(match receiving.end(run, interrupts).await {
                Ok(()) => error,
                Err(left) => format!("{reason}; {left}").into(),
            });
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

    /// Removes the endpoints. The second interrupt in the meantime leaves those that are still there.
    pub(super) async fn end(
        self,
        run: &Run,
        interrupts: &mut Interrupts,
    ) -> Result<(), CommandError> {
        // They have ended what came before.
        interrupts.forget();
        let (mut is_over, mut left, mut first) = (false, 0_usize, None);
        for (user, id) in self.endpoints {
            let removed = if is_over {
                Err("interrupted".into())
            } else {
                tokio::select! {
                    removed = remove(run, &user, id) => removed,
                    () = interrupts.again() => {
                        is_over = true;
                        Err("interrupted".into())
                    }
                }
            };
            if let Err(error) = removed {
                left += 1;
                first.get_or_insert((user, id, error));
            }
        }
        let Some((user, id, error)) = first else {
            return Ok(());
        };
        let others = match left - 1 {
            0 => "was".to_owned(),
            others => format!("and {others} of other users were"),
        };
        let reason = explain(error.as_ref());
        Err(format!("the endpoint {id} of {user} {others} not removed: {reason}").into())
    }
}

async fn remove(run: &Run, user: &str, id: EndpointId) -> Result<(), CommandError> {
    let path = ["v1", "users", user, "endpoints", &id.to_string()];
    let address = run.remote.address(&path)?;
    run.remote.change(Method::DELETE, address, None).await?;
    Ok(())
}
