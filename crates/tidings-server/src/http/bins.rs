//! `/v1/bins`: request bins, and where they take requests.

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri};
use tidings::AddressPolicy;
use tidings::signing::Secret;
use url::{Host, Url};

use super::body::Body;
use super::error::ApiError;
use super::expected::{Field, Whole};
use super::extract::{InPath, NoFields, NoIdempotencyKey};
use super::fields::{Change, Fields};
use super::origin::host_of;
use super::request::{FromFields, request};
use crate::app::SharedApp;
use crate::bins::MAX_BINS;
use crate::wire::Data;
use crate::wire::bin::{Bin, BinWithRequests};
use crate::wire::webhook::SECRET_RULE;

type ResponseStatus = Whole<200, 599>;

request! {
    /// What to change of a bin.
    #[schemars(deny_unknown_fields)]
    struct ChangedBin {
        /// The status of its responses, from 200 to 599; `null` is 200.
        #[schemars(with = "Option<ResponseStatus>")]
        "status" status: Change<ResponseStatus>,
        /// What requests are verified with: `whsec_` and 24 to 64 bytes in base64. `null` forgets it.
        #[schemars(with = "Option<String>")]
        "secret" secret: Change<String>,
    }
}

pub(super) async fn list(State(app): State<SharedApp>) -> Json<Data<Vec<Bin>>> {
    let data = app.bins.all().into_iter().map(Bin::from).collect();
    Json(Data { data })
}

/// A repeat makes another bin, which costs nothing and ends by itself.
pub(super) async fn create(
    State(app): State<SharedApp>,
    _: NoIdempotencyKey,
    _: NoFields,
) -> Result<(StatusCode, Json<Bin>), ApiError> {
    let bin = app
        .bins
        .create()
        .map_err(|error| ApiError::internal(&error))?
        .ok_or_else(|| ApiError::too_many_bins(MAX_BINS))?;
    Ok((StatusCode::CREATED, Json(bin.into())))
}

pub(super) async fn show(
    State(app): State<SharedApp>,
    InPath(id): InPath<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<BinWithRequests>, ApiError> {
    let (settings, requests) = app.bins.get(&id).ok_or_else(unknown)?;
    let host = host_of(&headers, &uri);
    let reachable = is_reachable(&app.config.address_policy(), host);
    let host = host.map(str::to_owned);
    Ok(Json(BinWithRequests::new(
        settings, requests, host, reachable,
    )))
}

/// Whether an endpoint may be at this host; `None` for a name, whose addresses are checked when it is called.
fn is_reachable(policy: &AddressPolicy, host: Option<&str>) -> Option<bool> {
    if matches!(policy, AddressPolicy::Any) {
        return Some(true);
    }
    let url = Url::parse(&format!("http://{}", host?)).ok()?;
    if policy.check_url(&url).is_err() {
        return Some(false);
    }
    (!matches!(url.host(), Some(Host::Domain(_)))).then_some(true)
}

pub(super) async fn update(
    State(app): State<SharedApp>,
    InPath(id): InPath<String>,
    _: NoIdempotencyKey,
    Body(body): Body,
) -> Result<Json<Bin>, ApiError> {
    let unchanged = app.bins.change(&id, |_| {});
    unchanged.ok_or_else(unknown)?;
    let ChangedBin { status, secret } = ChangedBin::read(Fields::parse(&body)?)?;
    let status = match status {
        Change::Keep => None,
        Change::Reset => Some(StatusCode::OK),
        Change::Set(status) => Some(response_status(status)?),
    };
    let secret = match secret {
        Change::Keep => None,
        Change::Reset => Some(None),
        Change::Set(text) => Some(Some(Secret::parse(&text).map_err(|error| {
            ApiError::invalid("secret", format!("{error}; {SECRET_RULE}"))
        })?)),
    };
    let changed = app.bins.change(&id, |settings| {
        settings.status = status.unwrap_or(settings.status);
        if let Some(secret) = secret {
            settings.secret = secret;
        }
    });
    Ok(Json(changed.ok_or_else(unknown)?.into()))
}

fn response_status(status: ResponseStatus) -> Result<StatusCode, ApiError> {
    let status = u16::try_from(status.get()).ok();
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    status.ok_or_else(|| {
        ApiError::invalid("status", format!("expected {}", ResponseStatus::expected()))
    })
}

pub(super) async fn remove(
    State(app): State<SharedApp>,
    InPath(id): InPath<String>,
    _: NoIdempotencyKey,
    _: NoFields,
) -> Result<StatusCode, ApiError> {
    if app.bins.remove(&id) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(unknown())
    }
}

/// The id in the path, of a bin that is there. It stands before a body: nothing is read for a bin that is not there.
#[derive(Debug)]
pub(super) struct KnownBin(String);

impl FromRequestParts<SharedApp> for KnownBin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &SharedApp) -> Result<Self, ApiError> {
        let InPath(id) = InPath::<String>::from_request_parts(parts, app).await?;
        if app.bins.has(&id) {
            Ok(Self(id))
        } else {
            Err(unknown())
        }
    }
}

/// Takes a request of anyone. Its response has no body: nothing that was sent is shown as a page of this server.
pub(super) async fn take(
    State(app): State<SharedApp>,
    KnownBin(id): KnownBin,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<StatusCode, ApiError> {
    app.bins.take(&id, headers, &body).ok_or_else(unknown)
}

fn unknown() -> ApiError {
    ApiError::not_found(
        "id",
        "this instance of the server has no such bin; a bin ends with its instance, and a day after its last use",
    )
}
