//! `/v1/deliveries`: what was posted, and what came back.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::extract::{Id, Parameters};
use crate::app::SharedApp;
use crate::deliveries::{self, AttemptRecord, Delivery, Filter, State as DeliveryState};

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 500;

/// Which deliveries to list.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ListParameters {
    endpoint_id: Option<String>,
    state: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

pub(crate) async fn list(
    State(app): State<SharedApp>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct List {
        data: Vec<Delivery>,
        next: Option<String>,
    }
    let state = match parameters.state.as_deref() {
        None => None,
        Some(text) => Some(DeliveryState::parse(text).ok_or_else(|| {
            ApiError::invalid("state", "expected pending, delivered, failed or cancelled")
        })?),
    };
    let limit = checked_limit(parameters.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
    let filter = Filter {
        endpoint_id: parameters.endpoint_id,
        state,
        before: parameters.cursor,
    };
    let data = app
        .database
        .read(move |connection| {
            deliveries::list(connection, &filter, limit).map_err(tidings_sqlite::Error::from)
        })
        .await?;
    let is_full = data.len() == limit as usize;
    let next = data.last().filter(|_| is_full).map(|last| last.id.clone());
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

/// Checks the `limit` of a list.
pub(crate) fn checked_limit(limit: Option<u32>, default: u32, most: u32) -> Result<u32, ApiError> {
    let limit = limit.unwrap_or(default);
    if (1..=most).contains(&limit) {
        Ok(limit)
    } else {
        Err(ApiError::invalid(
            "limit",
            format!("expected 1 to {most}, got {limit}"),
        ))
    }
}
