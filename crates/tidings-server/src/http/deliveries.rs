//! `/v1/deliveries` and `/v1/users/{user}/deliveries`: what was sent, and the attempts with their responses.

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use tidings_storage::Change;
use tidings_storage::idempotency::Once;
use tidings_webhooks::{Delivery, DeliveryId, DeliveryQuery, DeliveryState, EndpointId, Owner};

use super::error::ApiError;
use super::extract::{InPath, NoFields, OwnerInPath, Parameters, SentKey};
use super::repeatable::{Made, Repeatable};
use crate::app::SharedApp;
use crate::wire::webhook::{DEFAULT_PAGE, MAX_PAGE, SentMessage};
use crate::wire::{Data, Page};

pub(super) async fn list(
    State(app): State<SharedApp>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let endpoint = parameters.parsed("endpoint_id", "the id of an endpoint")?;
    page(&app, endpoint, &parameters).await
}

/// A page of deliveries to one endpoint, or to all.
pub(super) async fn page(
    app: &SharedApp,
    endpoint: Option<EndpointId>,
    parameters: &Parameters,
) -> Result<Response, ApiError> {
    let limit = parameters.limit(DEFAULT_PAGE, MAX_PAGE)?;
    // One more than the page shows whether there is a next page.
    let mut query = DeliveryQuery::newest(limit + 1);
    if let Some(endpoint) = endpoint {
        query = query.to(endpoint);
    }
    if let Some(state) = parameters.text("state")? {
        let expected = "expected pending, delivered, failed or cancelled";
        let state = DeliveryState::parse(state);
        query = query.in_state(state.ok_or_else(|| ApiError::invalid("state", expected))?);
    }
    if let Some(before) = parameters.parsed("cursor", "the `next` of an earlier page")? {
        query = query.before(before);
    }
    let mut data = app.webhooks.deliveries(&query).await?;
    let has_next = data.len() > limit;
    data.truncate(limit);
    let next = data
        .last()
        .filter(|_| has_next)
        .map(|last| last.id.to_string());
    Ok(Json(Page { data, next }).into_response())
}

pub(super) async fn show(
    State(app): State<SharedApp>,
    target: Target,
) -> Result<Response, ApiError> {
    Ok(Json(target.find(&app).await?).into_response())
}

pub(super) async fn attempts(
    State(app): State<SharedApp>,
    target: Target,
) -> Result<Response, ApiError> {
    let id = target.find(&app).await?.id;
    let attempts = app.webhooks.attempts(id).await?;
    let data = attempts.ok_or_else(unknown_delivery)?;
    Ok(Json(Data { data }).into_response())
}

/// What is posted, byte by byte.
pub(super) async fn message(
    State(app): State<SharedApp>,
    target: Target,
) -> Result<Response, ApiError> {
    let id = target.find(&app).await?.id;
    let body = app.webhooks.body(id).await?;
    let body = body.ok_or_else(unknown_delivery)?;
    Ok(Json(SentMessage { body }).into_response())
}

/// Sends a delivery again, in any state.
pub(super) async fn retry(
    State(app): State<SharedApp>,
    target: Target,
    SentKey(key): SentKey,
    _: NoFields,
) -> Result<Response, ApiError> {
    let id = target.find(&app).await?.id;
    // Idempotency keys are of one caller, who has one of the two routes for the delivery.
    let once = key.map(|key| Once::new(key, &format!("/v1/deliveries/{id}/retry"), &[]));
    let request = Repeatable::new(&app, once);
    let retry = Change::Operate(app.webhooks.prepare_retry(id));
    match request
        .make(retry, |delivery| serde_json::to_string(&delivery))
        .await?
    {
        Made::Response(delivery) => {
            Ok(([(header::CONTENT_TYPE, "application/json")], delivery).into_response())
        }
        _ if app.webhooks.delivery(id).await?.is_some() => Err(ApiError::endpoint_disabled()),
        _ => Err(unknown_delivery()),
    }
}

/// The delivery that the path names: one to any endpoint, or to one of the user in the path.
#[derive(Debug)]
pub(super) struct Target {
    owner: Owner,
    id: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let OwnerInPath(owner) = OwnerInPath::from_request_parts(parts, state).await?;
        let InPath(id) = InPath::from_request_parts(parts, state).await?;
        Ok(Self { owner, id })
    }
}

impl Target {
    async fn find(&self, app: &SharedApp) -> Result<Delivery, ApiError> {
        let id: DeliveryId = self.id.parse().map_err(|_| unknown_delivery())?;
        let found = app.webhooks.delivery(id).await?;
        // The operator sees the deliveries of all.
        let is_shown = |it: &Delivery| self.owner == Owner::Operator || it.owner == self.owner;
        found.filter(is_shown).ok_or_else(unknown_delivery)
    }
}

fn unknown_delivery() -> ApiError {
    ApiError::not_found("id", "there is no such delivery")
}
