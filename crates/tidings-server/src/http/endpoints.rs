//! `/v1/endpoints` and `/v1/users/{user}/endpoints`: where events are posted.

use std::convert::identity;
use std::num::NonZeroU32;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tidings::signing::Secret;
use tidings_webhooks::{
    Endpoint, EndpointId, EndpointSettings, EventPattern, Format, NewEndpoint, Owner, Replay,
    SignatureScheme,
};

use super::error::ApiError;
use super::expected::{Texts, Time};
use super::extract::{Body, InPath, NoFields, NoIdempotencyKey, OwnerInPath, idempotency_key};
use super::fields::{Change, Fields};
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
    let mut fields = Fields::parse(&body)?;
    let url: Option<String> = fields.take("url")?;
    let enabled: Option<bool> = fields.take("enabled")?;
    let changes = Changes::parse(&mut fields)?;
    let secret = parse_secret(&mut fields)?;
    fields.finish()?;
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
    let mut fields = Fields::parse(&body)?;
    let url = match fields.take_change("url")? {
        Change::Keep => None,
        Change::Reset => return Err(ApiError::invalid("url", "expected a URL, got null")),
        Change::Set(url) => Some::<String>(url),
    };
    let enabled = match fields.take_change("enabled")? {
        Change::Keep => None,
        Change::Reset => Some(true),
        Change::Set(enabled) => Some(enabled),
    };
    let is_change = !fields.is_empty() || url.is_some();
    let changes = Changes::parse(&mut fields)?;
    fields.finish()?;

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
    let mut fields = Fields::parse_optional(&body)?;
    let secret = parse_secret(&mut fields)?;
    let overlap: Option<u64> = fields.take("overlap_ms")?;
    fields.finish()?;
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
    let mut fields = Fields::parse(&body)?;
    let since = fields.take("since")?;
    let until = fields.take("until")?;
    let per_second: Option<u32> = fields.take("per_second")?;
    fields.finish()?;
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

fn parse_secret(fields: &mut Fields<'_>) -> Result<Option<Secret>, ApiError> {
    let secret: Option<String> = fields.take("secret")?;
    secret
        .map(|text| Secret::parse(&text))
        .transpose()
        .map_err(|error| ApiError::invalid("secret", format!("{error}; {SECRET_RULE}")))
}

/// The settings that a request gives.
#[derive(Debug, PartialEq, Eq)]
struct Changes {
    description: Change<String>,
    event_types: Change<Vec<EventPattern>>,
    format: Change<Format>,
    headers: Change<Texts>,
    signatures: Change<Vec<SignatureScheme>>,
    rate_limit: Change<NonZeroU32>,
    timeout_ms: Change<u64>,
    schedule: Change<Vec<u64>>,
}

impl Changes {
    fn parse(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            description: fields.take_change("description")?,
            event_types: fields.take_change("event_types")?,
            format: fields.take_change("format")?,
            headers: fields.take_change("headers")?,
            signatures: fields.take_change("signatures")?,
            rate_limit: fields.take_change("rate_limit")?,
            timeout_ms: fields.take_change("timeout_ms")?,
            schedule: fields.take_change("schedule")?,
        })
    }

    fn apply(&self, settings: &mut EndpointSettings) {
        let default = EndpointSettings::new(String::new());
        let milliseconds = |timeout| Some(Duration::from_millis(timeout));
        let seconds = |waits: Vec<u64>| Some(waits.into_iter().map(Duration::from_secs).collect());
        self.description
            .apply(&mut settings.description, default.description, identity);
        self.event_types
            .apply(&mut settings.event_types, default.event_types, identity);
        self.format
            .apply(&mut settings.format, default.format, identity);
        self.headers
            .apply(&mut settings.headers, default.headers, |Texts(headers)| {
                headers
            });
        self.signatures
            .apply(&mut settings.signatures, default.signatures, identity);
        self.rate_limit.apply(&mut settings.rate_limit, None, Some);
        self.timeout_ms
            .apply(&mut settings.timeout, None, milliseconds);
        self.schedule.apply(&mut settings.schedule, None, seconds);
    }
}
