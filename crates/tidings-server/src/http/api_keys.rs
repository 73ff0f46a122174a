//! `/v1/keys`: API keys that are kept in the database.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use tidings_storage::idempotency::Once;
use tidings_storage::{Change, Scope, Scopes};

use super::body::Body;
use super::error::ApiError;
use super::expected::Time;
use super::extract::{InPath, NoFields, NoIdempotencyKey, SentKey};
use super::fields::Fields;
use super::repeatable::{Made, Repeatable};
use super::request::{FromFields, request};
use crate::access::new_key;
use crate::app::SharedApp;
use crate::wire::Data;
use crate::wire::api_key::{ApiKey, CreatedApiKey};

/// The route, as idempotency keys tell it from others.
const ROUTE: &str = "/v1/keys";

/// Maximum number of keys: every instance has all of them in memory.
const MAX_KEYS: u32 = 1000;

/// Maximum length of a name in bytes.
const MAX_NAME: usize = 100;

request! {
    /// An API key to make.
    #[schemars(deny_unknown_fields)]
    struct NewKey {
        /// What the key is for: 1 to 100 bytes.
        #[schemars(required, length(min = 1, max = MAX_NAME))]
        "name" name: Option<String>,
        /// What the key may do: at least one, each once.
        #[schemars(required, length(min = 1), extend("uniqueItems" = true))]
        "scopes" scopes: Option<Vec<Scope>>,
        /// When it becomes invalid, in the future.
        "expires_at" expires_at: Option<Time>,
    }
}

pub(super) async fn create(
    State(app): State<SharedApp>,
    SentKey(idempotency_key): SentKey,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let NewKey {
        name,
        scopes,
        expires_at,
    } = NewKey::read(Fields::parse(&body)?)?;
    let name = name.filter(|name| is_name(name)).ok_or_else(|| {
        let expected = "bytes without control characters";
        ApiError::invalid(
            "name",
            format!("expected a text of 1 to {MAX_NAME} {expected}"),
        )
    })?;
    let scopes = Scopes::new(scopes.unwrap_or_default())
        .ok_or_else(|| ApiError::invalid("scopes", "expected at least one scope, each once"))?;
    let once = idempotency_key.map(|key| Once::new(key, ROUTE, &body));
    let of_caller = app.access.key_of_caller(&headers);
    let of_caller = of_caller.map_err(|error| ApiError::internal(&error))?;
    let request = Repeatable::new(&app, once).sealed_with(of_caller);
    if let Some(response) = request.earlier().await? {
        return Ok(created(response));
    }
    let expires_at = expires_at.map(|Time(at)| at);
    if expires_at.is_some_and(|at| at <= Timestamp::now()) {
        return Err(ApiError::invalid(
            "expires_at",
            "expected a time in the future",
        ));
    }

    let (key, stored) =
        new_key(name, scopes, expires_at).map_err(|error| ApiError::internal(&error))?;
    let described = ApiKey::from(stored.clone());
    let text = serde_json::to_string(&CreatedApiKey { described, key })?;
    let change = Change::CreateKey {
        key: stored,
        limit: MAX_KEYS,
    };
    match request.make(change, move |_| Ok(text.clone())).await? {
        Made::Response(response) => Ok(created(response)),
        Made::TooMany { limit } => Err(ApiError::too_many_keys(limit)),
        Made::Refused | Made::Contended => Err(ApiError::request_running()),
    }
}

fn created(key: String) -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    (StatusCode::CREATED, content_type, key).into_response()
}

/// Names are shown in terminals and logs.
fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && !name.chars().any(char::is_control)
}

pub(super) async fn list(
    State(app): State<SharedApp>,
) -> Result<Json<Data<Vec<ApiKey>>>, ApiError> {
    let all = app.storage.api_keys.all().await?;
    let known = app.access.stored_keys();
    let keys = all.keys.into_iter().map(|key| known.with_last_use(key));
    let data = keys.map(ApiKey::from).collect();
    Ok(Json(Data { data }))
}

pub(super) async fn revoke(
    State(app): State<SharedApp>,
    InPath(id): InPath<String>,
    _: NoIdempotencyKey,
    _: NoFields,
) -> Result<StatusCode, ApiError> {
    if app.access.revoke_key(&id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::not_found("id", "there is no such API key"))
    }
}
