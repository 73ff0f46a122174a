//! `/v1/endpoints` and `/v1/users/{user}/endpoints`: where events are posted.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tidings::signing::Secret;
use tidings_notify::{EventType, UserId};

use super::error::ApiError;
use super::extract::{Body, InPath};
use super::fields::Fields;
use super::notifications::created;
use crate::app::SharedApp;
use crate::endpoints::{Endpoint, Owner};
use crate::error::explain;
use crate::wire::{self, Data};
use crate::{deliveries, endpoints};

/// Maximum number of endpoints of one user, or of the operator: each event is stored once for each.
const MAX_ENDPOINTS: usize = 100;

/// Maximum number of event types of one endpoint.
const MAX_EVENT_TYPES: usize = 100;

pub(crate) async fn create_for_all(
    State(app): State<SharedApp>,
    Body(body): Body,
) -> Result<Response, ApiError> {
    create(&app, Owner::Operator, &body).await
}

pub(crate) async fn create_for_user(
    State(app): State<SharedApp>,
    InPath(user): InPath<UserId>,
    Body(body): Body,
) -> Result<Response, ApiError> {
    create(&app, Owner::User(user), &body).await
}

async fn create(app: &SharedApp, owner: Owner, body: &[u8]) -> Result<Response, ApiError> {
    let mut fields = Fields::parse(body)?;
    let url: String = fields
        .take("url")?
        .ok_or_else(|| ApiError::invalid("url", "expected the URL to post to"))?;
    let event_types: Vec<EventType> = fields.take("event_types")?.unwrap_or_default();
    let secret: Option<String> = fields.take("secret")?;
    fields.finish()?;
    if event_types.len() > MAX_EVENT_TYPES {
        let expected = format!("expected at most {MAX_EVENT_TYPES} types");
        return Err(ApiError::invalid("event_types", expected));
    }
    let secret = match secret {
        Some(text) => {
            Secret::parse(&text).map_err(|error| ApiError::invalid("secret", error.to_string()))?
        }
        None => Secret::generate(),
    };
    if let Err(error) = app.dispatcher.target(&url, secret.clone()) {
        return Err(ApiError::invalid("url", explain(&error)));
    }

    let endpoint = Endpoint::new(&owner, url, event_types, secret);
    let stored = endpoint.clone();
    app.database
        .write(move |tx| {
            if endpoints::count(tx, &owner)? >= MAX_ENDPOINTS {
                return Ok(false);
            }
            endpoints::insert(tx, &stored)?;
            Ok::<_, tidings_sqlite::Error>(true)
        })
        .await?
        .then_some(())
        .ok_or_else(|| {
            ApiError::new(
                StatusCode::CONFLICT,
                "too_many_endpoints",
                format!("an owner has at most {MAX_ENDPOINTS} endpoints"),
            )
        })?;

    let endpoint = wire::webhook::Endpoint::with_secret(endpoint);
    Ok(created(serde_json::to_string(&endpoint)?))
}

pub(crate) async fn list_for_all(State(app): State<SharedApp>) -> Result<Response, ApiError> {
    list(&app, Owner::Operator).await
}

pub(crate) async fn list_for_user(
    State(app): State<SharedApp>,
    InPath(user): InPath<UserId>,
) -> Result<Response, ApiError> {
    list(&app, Owner::User(user)).await
}

async fn list(app: &SharedApp, owner: Owner) -> Result<Response, ApiError> {
    let endpoints = app
        .database
        .read(move |connection| {
            endpoints::list(connection, &owner).map_err(tidings_sqlite::Error::from)
        })
        .await?;
    let data: Vec<_> = endpoints
        .into_iter()
        .map(wire::webhook::Endpoint::from)
        .collect();
    Ok(Json(Data { data }).into_response())
}

pub(crate) async fn remove_for_all(
    State(app): State<SharedApp>,
    InPath(id): InPath<String>,
) -> Result<StatusCode, ApiError> {
    remove(&app, Owner::Operator, id).await
}

pub(crate) async fn remove_for_user(
    State(app): State<SharedApp>,
    InPath(user): InPath<UserId>,
    InPath(id): InPath<String>,
) -> Result<StatusCode, ApiError> {
    remove(&app, Owner::User(user), id).await
}

async fn remove(app: &SharedApp, owner: Owner, id: String) -> Result<StatusCode, ApiError> {
    let removed = app
        .database
        .write(move |tx| {
            let removed = endpoints::remove(tx, &owner, &id)?;
            if removed {
                deliveries::cancel_all(tx, &id, "the endpoint was removed")?;
            }
            Ok::<_, tidings_sqlite::Error>(removed)
        })
        .await?;
    if removed {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::not_found("id", "this owner has no such endpoint"))
    }
}
