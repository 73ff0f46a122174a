//! `/v1/deliveries`: deliveries, and the attempts with their responses.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use tidings_webhooks::{DeliveryId, DeliveryQuery, DeliveryState};

use super::error::ApiError;
use super::extract::{InPath, NoFields, Parameters, SentKey};
use super::repeatable::{Made, Repeatable};
use crate::app::SharedApp;
use crate::idempotency::Once;
use crate::storage::Change;
use crate::wire::webhook::{DEFAULT_PAGE, MAX_PAGE};
use crate::wire::{Data, Page};

pub(super) async fn list(
    State(app): State<SharedApp>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let limit = parameters.limit(DEFAULT_PAGE, MAX_PAGE)?;
    // One more than the page shows whether there is a next page.
    let mut query = DeliveryQuery::newest(limit + 1);
    if let Some(endpoint) = parameters.parsed("endpoint_id", "the id of an endpoint")? {
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
    InPath(id): InPath<String>,
) -> Result<Response, ApiError> {
    let delivery = app.webhooks.delivery(delivery_id(&id)?).await?;
    Ok(Json(delivery.ok_or_else(unknown_delivery)?).into_response())
}

pub(super) async fn attempts(
    State(app): State<SharedApp>,
    InPath(id): InPath<String>,
) -> Result<Response, ApiError> {
    let attempts = app.webhooks.attempts(delivery_id(&id)?).await?;
    let data = attempts.ok_or_else(unknown_delivery)?;
    Ok(Json(Data { data }).into_response())
}

/// Sends a delivery again, in any state.
pub(super) async fn retry(
    State(app): State<SharedApp>,
    InPath(id): InPath<String>,
    SentKey(key): SentKey,
    _: NoFields,
) -> Result<Response, ApiError> {
    let id = delivery_id(&id)?;
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

fn delivery_id(text: &str) -> Result<DeliveryId, ApiError> {
    text.parse().map_err(|_| unknown_delivery())
}

fn unknown_delivery() -> ApiError {
    ApiError::not_found("id", "there is no such delivery")
}
