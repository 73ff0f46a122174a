//! `/v1/endpoints` and `/v1/users/{user}/endpoints`: where events are posted.

pub(super) mod fields;

use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::ser::Error as _;
use tidings::signing::Secret;
use tidings_notify::UserId;
use tidings_storage::idempotency::{IdempotencyKey, Once};
use tidings_webhooks::{
    Delivery, Endpoint, EndpointId, EndpointSettings, NewEndpoint, Owner, Replay, SetEnabled,
};

use self::fields::{ChangedEndpointFields, NewEndpointFields, NewReplay, Rotation};
use super::body::Body;
use super::error::ApiError;
use super::expected::Time;
use super::extract::{
    InPath, NoFields, NoIdempotencyKey, OwnerInPath, Parameters, PathPart, SentKey,
};
use super::fields::{Change, Fields};
use super::repeatable::{Made, Repeatable};
use super::request::FromFields;
use crate::app::SharedApp;
use crate::wire::Data;
use crate::wire::webhook::{
    CreatedEndpoint, EndpointWithHealth, RotatedSecret, SECRET_RULE, TestDelivery,
};

/// Why an endpoint is disabled if a caller wants it.
const BY_A_CALLER: &str = "disabled by a request to the API";

/// How long the old secret signs too after a rotation, unless the caller says otherwise.
const DEFAULT_OVERLAP: Duration = Duration::from_secs(24 * 60 * 60);

/// How often a change is tried again if another one was made at the same time.
const MAX_CONTENTION: u32 = 16;

pub(super) async fn create(
    State(app): State<SharedApp>,
    OwnerInPath(owner): OwnerInPath,
    SentKey(key): SentKey,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let NewEndpointFields {
        url,
        enabled,
        secret,
        changes,
    } = NewEndpointFields::read(Fields::parse(&body)?)?;
    let secret = secret.as_deref().map(parse_secret).transpose()?;
    let url = url.ok_or_else(|| ApiError::invalid("url", "expected the URL to post to"))?;
    let once = key.map(|key| Once::new(key, &all_of(&owner), &body));
    let request = Repeatable::new(&app, once);
    if let Some(response) = request.earlier().await? {
        return Ok(json(StatusCode::CREATED, response));
    }

    let mut settings = EndpointSettings::new(url);
    changes.apply(&mut settings);
    let is_of_a_user = matches!(owner, Owner::User(_));
    let mut new =
        NewEndpoint::new(owner, settings).with_limit(app.limits.now().settings.max_endpoints);
    if let Some(secret) = secret {
        new = new.with_secret(secret);
    }
    if enabled == Some(false) {
        new = new.with_disabled(BY_A_CALLER);
    }
    let prepared = app.webhooks.prepare_endpoint(new).await?;
    let created = serde_json::to_string(&CreatedEndpoint {
        endpoint: prepared.endpoint().clone(),
        secret: prepared.secret().expose().to_string(),
    })?;
    let change = tidings_storage::Change::CreateEndpoint(prepared.into());
    match request.make(change, move |_| Ok(created.clone())).await? {
        Made::Response(response) => Ok(json(StatusCode::CREATED, response)),
        Made::TooMany { limit } if is_of_a_user => {
            Err(ApiError::too_many_endpoints(limit).about(UserId::NAME))
        }
        Made::TooMany { limit } => Err(ApiError::too_many_endpoints(limit)),
        Made::Refused | Made::Contended => Err(tidings_webhooks::Error::Contended.into()),
    }
}

/// A response with a document that is text already.
fn json(status: StatusCode, document: String) -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    (status, content_type, document).into_response()
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
        Change::Keep => SetEnabled::Keep,
        Change::Reset | Change::Set(true) => SetEnabled::Enable,
        Change::Set(false) => SetEnabled::Disable(BY_A_CALLER),
    };
    let is_change = url.is_some() || !changes.is_empty();
    let change = |settings: &mut EndpointSettings| {
        if let Some(url) = &url {
            settings.url.clone_from(url);
        }
        changes.apply(settings);
    };
    let webhooks = &app.webhooks;
    let endpoint = match enabled {
        _ if is_change => webhooks.update_endpoint_with(id, enabled, change).await?,
        SetEnabled::Keep => webhooks.endpoint(id).await?,
        SetEnabled::Enable => webhooks.enable_endpoint(id).await?,
        SetEnabled::Disable(because) => webhooks.disable_endpoint(id, because).await?,
    };
    if !is_change && enabled != SetEnabled::Keep {
        // It may have been so before.
        app.storage.records.confirm().await?;
    }
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
    target: Target,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let request = Repeatable::new(&app, target.once("secret/rotate", &body));
    if let Some(response) = request.earlier().await? {
        return Ok(json(StatusCode::OK, response));
    }
    let id = target.find(&app).await?;
    let Rotation { secret, overlap } = Rotation::read(Fields::parse_optional(&body)?)?;
    let secret = secret.as_deref().map(parse_secret).transpose()?;
    let secret = secret.unwrap_or_else(Secret::generate);
    let overlap = overlap.map_or(DEFAULT_OVERLAP, |overlap| {
        Duration::from_millis(overlap.get())
    });
    let rotated = serde_json::to_string(&RotatedSecret {
        secret: secret.expose().to_string(),
    })?;
    for _ in 0..MAX_CONTENTION {
        let rotation = app.webhooks.prepare_rotation(id, secret.clone(), overlap);
        let rotation = rotation.await?.ok_or_else(unknown_endpoint)?;
        let rotated = rotated.clone();
        let change = tidings_storage::Change::Operate(rotation);
        if let Made::Response(response) = request.make(change, move |_| Ok(rotated.clone())).await?
        {
            return Ok(json(StatusCode::OK, response));
        }
    }
    Err(tidings_webhooks::Error::Contended.into())
}

pub(super) async fn send_test(
    State(app): State<SharedApp>,
    target: Target,
    _: NoFields,
) -> Result<Response, ApiError> {
    let request = Repeatable::new(&app, target.once("test", &[]));
    if let Some(response) = request.earlier().await? {
        return Ok(json(StatusCode::ACCEPTED, response));
    }
    let id = target.find(&app).await?;
    let test = app.webhooks.prepare_test(id).await?;
    let test = tidings_storage::Change::Operate(test.ok_or_else(ApiError::endpoint_disabled)?);
    let respond = |delivery: Option<&Delivery>| {
        let missing = || serde_json::Error::custom("a test without a delivery");
        let delivery_id = delivery.ok_or_else(missing)?.id;
        serde_json::to_string(&TestDelivery { delivery_id })
    };
    match request.make(test, respond).await? {
        Made::Response(response) => Ok(json(StatusCode::ACCEPTED, response)),
        _ => Err(ApiError::endpoint_disabled()),
    }
}

pub(super) async fn replay(
    State(app): State<SharedApp>,
    target: Target,
    Body(body): Body,
) -> Result<StatusCode, ApiError> {
    let request = Repeatable::new(&app, target.once("replay", &body));
    if request.earlier().await?.is_some() {
        return Ok(StatusCode::ACCEPTED);
    }
    let id = target.find(&app).await?;
    let NewReplay {
        since,
        until,
        per_second,
    } = NewReplay::read(Fields::parse(&body)?)?;
    let Time(since) =
        since.ok_or_else(|| ApiError::invalid("since", "expected a time in RFC 3339"))?;
    let mut replay = Replay::since(since);
    if let Some(Time(until)) = until {
        replay = replay.with_until(until);
    }
    if let Some(per_second) = per_second {
        replay = replay.with_rate(per_second.get());
    }
    let replay = tidings_storage::Change::Operate(app.webhooks.prepare_replay(id, replay).await?);
    match request.make(replay, |_| Ok(String::new())).await? {
        Made::Response(_empty) => Ok(StatusCode::ACCEPTED),
        _ => Err(ApiError::endpoint_disabled()),
    }
}

pub(super) async fn stop_replay(
    State(app): State<SharedApp>,
    OwnerInPath(owner): OwnerInPath,
    InPath(id): InPath<String>,
    _: NoIdempotencyKey,
    _: NoFields,
) -> Result<StatusCode, ApiError> {
    let id = find(&app, &owner, &id).await?.id;
    if !app.webhooks.stop_replay(id).await? {
        // An earlier request may have stopped it.
        app.storage.records.confirm().await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn deliveries(
    State(app): State<SharedApp>,
    OwnerInPath(owner): OwnerInPath,
    InPath(id): InPath<String>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let endpoint = find(&app, &owner, &id).await?.id;
    super::deliveries::page(&app, Some(endpoint), &parameters).await
}

/// The route of all endpoints of an owner.
fn all_of(owner: &Owner) -> String {
    match owner {
        Owner::User(user) => format!("/v1/users/{user}/endpoints"),
        Owner::Operator => "/v1/endpoints".to_owned(),
    }
}

/// The endpoint that the path names, and the idempotency key of the request.
#[derive(Debug)]
pub(super) struct Target {
    owner: Owner,
    id: String,
    key: Option<IdempotencyKey>,
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let OwnerInPath(owner) = OwnerInPath::from_request_parts(parts, state).await?;
        let InPath(id) = InPath::from_request_parts(parts, state).await?;
        let SentKey(key) = SentKey::from_request_parts(parts, state).await?;
        Ok(Self { owner, id, key })
    }
}

impl Target {
    /// What makes an operation on the endpoint repeatable.
    fn once(&self, operation: &str, body: &[u8]) -> Option<Once> {
        let route = format!("{}/{}/{operation}", all_of(&self.owner), self.id);
        let key = self.key.clone()?;
        Some(Once::new(key, &route, body))
    }

    async fn find(&self, app: &SharedApp) -> Result<EndpointId, ApiError> {
        Ok(find(app, &self.owner, &self.id).await?.id)
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
