//! `/v1/deliveries`: what was posted, and what came back.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::error::ApiError;
use super::extract::{Id, Parameters};
use crate::app::SharedApp;
use crate::deliveries::{self, AttemptRecord, Delivery, Filter, State as DeliveryState};

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 500;

pub(crate) async fn list(
    State(app): State<SharedApp>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct List {
        data: Vec<Delivery>,
        next: Option<String>,
    }
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
    let mut data = app
        .database
        .read(move |connection| {
            // One more than the page tells whether there is a next.
            deliveries::list(connection, &filter, limit + 1).map_err(tidings_sqlite::Error::from)
        })
        .await?;
    let has_next = data.len() > limit;
    data.truncate(limit);
    let next = data.last().filter(|_| has_next).map(|last| last.id.clone());
    Ok(Json(List { data, next }).into_response())
}

pub(crate) async fn attempts(
    State(app): State<SharedApp>,
    Id(id): Id,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct List {
        data: Vec<AttemptRecord>,
    }
    let data = app
        .database
        .read(move |connection| {
            deliveries::attempts(connection, &id).map_err(tidings_sqlite::Error::from)
        })
        .await?
        .ok_or_else(|| ApiError::not_found("id", "there is no such delivery"))?;
    Ok(Json(List { data }).into_response())
}
