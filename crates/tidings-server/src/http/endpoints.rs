//! `/v1/endpoints` and `/v1/users/{user}/endpoints`: where events are posted.

pub(super) mod fields;

use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tidings::signing::Secret;
use tidings_webhooks::{Endpoint, EndpointId, EndpointSettings, NewEndpoint, Owner, Replay};

use self::fields::{ChangedEndpointFields, NewEndpointFields, NewReplay, Rotation};
use super::error::ApiError;
use super::expected::Time;
use super::extract::{Body, InPath, NoFields, NoIdempotencyKey, OwnerInPath, idempotency_key};
use super::fields::{Change, Fields};
use super::request::FromFields;
use crate::access::Caller;
use crate::app::SharedApp;
use crate::idempotency::Once;
use crate::storage::{CreateEndpoint, Created};
use crate::wire::Data;
use crate::wire::webhook::{
    CreatedEndpoint, EndpointWithHealth, RotatedSecret, SECRET_RULE, TestDelivery,
};

/// Why an endpoint is disabled if its owner wants it.
const BY_ITS_OWNER: &str = "disabled by its owner";

/// How long the old secret signs too after a rotation, unless the caller says otherwise.
const DEFAULT_OVERLAP: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) async fn create(
    State(app): State<SharedApp>,
    Extension(caller): Extension<Caller>,
    OwnerInPath(owner): OwnerInPath,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let once = idempotency_key(&headers, &caller)?.map(|key| {
        let route = match &owner {
            Owner::User(user) => format!("/v1/users/{user}/endpoints"),
            Owner::Operator => "/v1/endpoints".to_owned(),
        };
        Once::new(key, &route, &body)
    });
    let NewEndpointFields {
        url,
        enabled,
        secret,
        changes,
    } = NewEndpointFields::read(Fields::parse(&body)?)?;
    let secret = secret.as_deref().map(parse_secret).transpose()?;
    let url = url.ok_or_else(|| ApiError::invalid("url", "expected the URL to post to"))?;

    let mut settings = EndpointSettings::new(url);
    changes.apply(&mut settings);
    let mut new = NewEndpoint::new(owner, settings).with_limit(app.config.max_endpoints);
    if let Some(secret) = secret {
        new = new.with_secret(secret);
    }
    if enabled == Some(false) {
        new = new.disabled(BY_ITS_OWNER);
    }
    let prepared = app.webhooks.prepare_endpoint(new).await?;
    let response = serde_json::to_string(&CreatedEndpoint {
        endpoint: prepared.endpoint().clone(),
        secret: prepared.secret().expose().to_string(),
    })?;
    // The response has the secret in it, and is kept for a repeat.
    let context = once.as_ref().map(Once::context);
    let kept = match &context {
        Some(context) => app.encryption.seal(context, &response),
        None => Ok(String::new()),
    };
    let create = CreateEndpoint {
        endpoint: prepared.clone(),
        response: kept.map_err(|error| ApiError::internal(&error))?,
        once,
    };
    let response = match app.storage.records.create_endpoint(create).await? {
        Created::Stored => {
            app.webhooks.endpoint_created(&prepared);
            response
        }
        Created::Repeated(kept) => {
            let opened = app.encryption.open(&context.unwrap_or_default(), &kept);
            opened.map_err(|error| ApiError::internal(&error))?
        }
        Created::Conflict => return Err(ApiError::idempotency_conflict()),
        Created::TooMany { limit } => return Err(ApiError::too_many_endpoints(limit)),
    };
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    Ok((StatusCode::CREATED, content_type, response).into_response())
}

pub(super) async fn list(
    State(app): State<SharedApp>,
    OwnerInPath(owner): OwnerInPath,
) -> Result<Response, ApiError> {
    let data = app.webhooks.endpoints(&owner).await?;
    Ok(Json(Data { data }).into_response())
}

pub(super) async fn show(
    State(app): State<SharedApp>,
    OwnerInPath(owner): OwnerInPath,
    InPath(id): InPath<String>,
) -> Result<Response, ApiError> {
    let endpoint = find(&app, &owner, &id).await?;
    let health = app.webhooks.health(endpoint.id).await?;
    let health = health.ok_or_else(unknown_endpoint)?;
    Ok(Json(EndpointWithHealth { endpoint, health }).into_response())
}

pub(super) async fn update(
    State(app): State<SharedApp>,
    OwnerInPath(owner): OwnerInPath,
    InPath(id): InPath<String>,
    _: NoIdempotencyKey,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let id = find(&app, &owner, &id).await?.id;
    let ChangedEndpointFields {
        url,
        enabled,
        changes,
    } = ChangedEndpointFields::read(Fields::parse(&body)?)?;
    let url = match url {
        Change::Keep => None,
        Change::Reset => return Err(ApiError::invalid("url", "expected a URL, got null")),
        Change::Set(url) => Some(url),
    };
    let enabled = match enabled {
        Change::Keep => None,
        Change::Reset => Some(true),
        Change::Set(enabled) => Some(enabled),
    };
    let is_change = url.is_some() || !changes.is_empty();

    if is_change {
        let change = |settings: &mut EndpointSettings| {
            if let Some(url) = &url {
                settings.url.clone_from(url);
            }
            changes.apply(settings);
        };
        app.webhooks.update_endpoint(id, change).await?;
    }
    let endpoint = match enabled {
        Some(true) => app.webhooks.enable_endpoint(id).await?,
        Some(false) => app.webhooks.disable_endpoint(id, BY_ITS_OWNER).await?,
        None => app.webhooks.endpoint(id).await?,
    };
    Ok(Json(endpoint.ok_or_else(unknown_endpoint)?).into_response())
}

pub(super) async fn remove(
    State(app): State<SharedApp>,
    OwnerInPath(owner): OwnerInPath,
    InPath(id): InPath<String>,
    _: NoIdempotencyKey,
    _: NoFields,
) -> Result<StatusCode, ApiError> {
    let id = find(&app, &owner, &id).await?.id;
    if app.webhooks.remove_endpoint(id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(unknown_endpoint())
    }
}

pub(super) async fn rotate_secret(
    State(app): State<SharedApp>,
    OwnerInPath(owner): OwnerInPath,
    InPath(id): InPath<String>,
    _: NoIdempotencyKey,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let id = find(&app, &owner, &id).await?.id;
    let Rotation { secret, overlap } = Rotation::read(Fields::parse_optional(&body)?)?;
    let secret = secret.as_deref().map(parse_secret).transpose()?;
    let overlap = overlap.map_or(DEFAULT_OVERLAP, Duration::from_millis);
    let rotated = app.webhooks.rotate_secret(id, secret, overlap).await?;
    let secret = rotated.ok_or_else(unknown_endpoint)?.expose().to_string();
    Ok(Json(RotatedSecret { secret }).into_response())
}

pub(super) async fn send_test(
    State(app): State<SharedApp>,
    OwnerInPath(owner): OwnerInPath,
    InPath(id): InPath<String>,
    _: NoIdempotencyKey,
    _: NoFields,
) -> Result<Response, ApiError> {
    let id = find(&app, &owner, &id).await?.id;
    let delivery = app.webhooks.send_test(id).await?;
    let delivery_id = delivery.ok_or_else(ApiError::endpoint_disabled)?;
    Ok((StatusCode::ACCEPTED, Json(TestDelivery { delivery_id })).into_response())
}

pub(super) async fn replay(
    State(app): State<SharedApp>,
    OwnerInPath(owner): OwnerInPath,
    InPath(id): InPath<String>,
    _: NoIdempotencyKey,
    Body(body): Body,
) -> Result<StatusCode, ApiError> {
    let id = find(&app, &owner, &id).await?.id;
    let NewReplay {
        since,
        until,
        per_second,
    } = NewReplay::read(Fields::parse(&body)?)?;
    let Time(since) =
        since.ok_or_else(|| ApiError::invalid("since", "expected a time in RFC 3339"))?;
    let mut replay = Replay::since(since);
    if let Some(Time(until)) = until {
        replay = replay.until(until);
    }
    if let Some(per_second) = per_second {
        replay = replay.per_second(per_second);
    }
    if app.webhooks.replay(id, replay).await? {
        Ok(StatusCode::ACCEPTED)
    } else {
        Err(ApiError::endpoint_disabled())
    }
}

/// Finds an endpoint of this owner.
async fn find(app: &SharedApp, owner: &Owner, id: &str) -> Result<Endpoint, ApiError> {
    let id: EndpointId = id.parse().map_err(|_| unknown_endpoint())?;
    let found = app.webhooks.endpoint(id).await?;
    found
        .filter(|endpoint| endpoint.owner == *owner)
        .ok_or_else(unknown_endpoint)
}

fn unknown_endpoint() -> ApiError {
    ApiError::not_found("id", "this owner has no such endpoint")
}

fn parse_secret(text: &str) -> Result<Secret, ApiError> {
    Secret::parse(text)
        .map_err(|error| ApiError::invalid("secret", format!("{error}; {SECRET_RULE}")))
}
