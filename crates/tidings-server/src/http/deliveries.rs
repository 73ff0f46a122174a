//! `/v1/deliveries`: what was posted, and what came back.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::extract::{InPath, Parameters};
use crate::app::SharedApp;
use crate::deliveries::{self, Filter, State as DeliveryState};
use crate::wire::webhook::{Attempt, Delivery};
use crate::wire::{Data, Page};

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 500;

pub(crate) async fn list(
    State(app): State<SharedApp>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let state = match parameters.text("state") {
        None => None,
        Some(text) => Some(DeliveryState::parse(text).ok_or_else(|| {
            ApiError::invalid("state", "expected pending, delivered, failed or cancelled")
        })?),
    };
    let limit = parameters.limit(DEFAULT_LIMIT, MAX_LIMIT)?;
    let filter = Filter {
        endpoint_id: parameters.text("endpoint_id").map(str::to_owned),
        state,
        before: match parameters.text("cursor") {
            Some(cursor) if !cursor.starts_with("dlv_") => {
                let expected = "expected the `next` of an earlier page";
                return Err(ApiError::invalid("cursor", expected));
            }
            cursor => cursor.map(str::to_owned),
        },
    };
    let mut deliveries = app
        .database
        .read(move |connection| {
            // One more than the page shows whether there is a next page.
            deliveries::list(connection, &filter, limit + 1).map_err(tidings_sqlite::Error::from)
        })
        .await?;
    let has_next = deliveries.len() > limit;
    deliveries.truncate(limit);
    let data: Vec<Delivery> = deliveries.into_iter().map(Delivery::from).collect();
    let next = data.last().filter(|_| has_next).map(|last| last.id.clone());
    Ok(Json(Page { data, next }).into_response())
}

pub(crate) async fn attempts(
    State(app): State<SharedApp>,
    InPath(id): InPath<String>,
) -> Result<Response, ApiError> {
    let attempts = app
        .database
        .read(move |connection| {
            deliveries::attempts(connection, &id).map_err(tidings_sqlite::Error::from)
        })
        .await?
        .ok_or_else(|| ApiError::not_found("id", "there is no such delivery"))?;
    let data: Vec<_> = attempts.into_iter().map(Attempt::from).collect();
    Ok(Json(Data { data }).into_response())
}
