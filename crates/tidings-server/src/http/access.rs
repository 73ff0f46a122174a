//! Lets a request through to its handler if its caller may use the route.

use std::sync::Arc;

use axum::RequestExt;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tidings_notify::UserId;

use super::error::ApiError;
use super::extract::InPath;
use super::observe::CALLER;
use super::origin::is_cross_site;
use super::parameters::{self, Known};
use super::rate_limit::Counted;
use super::response_room::ResponseRoom;
use super::routes::Demand;
use crate::access::credential::{Credential, Place, Unclear};
use crate::access::{Access, Caller, Forbidden, Refusal, TokenRule};
use crate::limits::Limits;
use crate::wire::code::Code;

/// Who may pass to the handler of a route.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) access: Arc<Access>,
    pub(super) limits: Arc<Limits>,
    pub(super) responses: ResponseRoom,
    /// The parameters of the query, if others are refused.
    pub(super) parameters: Option<Known>,
    pub(super) demand: Demand,
    /// Whether the user in the path may use it with a token.
    pub(super) is_of_a_user: bool,
}

/// Finds out who calls, and refuses the request if they may not use the route, have sent too many requests, or use a
/// parameter that the route does not know. The handler gets the [`Caller`] as an extension.
pub(super) async fn authorize(
    State(gate): State<Arc<Gate>>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    let caller = match gate.identify(&parts).await {
        Ok(caller) => caller,
        Err(refused) => return refused,
    };
    tracing::Span::current().record(CALLER, &*caller.name());
    // Before it is known whether the caller may use the route: a request that is refused counts too.
    let counted = Counted::new(&gate.limits, &caller);
    let mut request = Request::from_parts(parts, body);
    let refused = counted
        .as_ref()
        .and_then(|counted| counted.refusal(&request));
    let mut response = match refused {
        Some(refused) => refused,
        None => match gate.check(&caller, &mut request).await {
            Ok(()) => {
                let only_reads = only_reads(request.method());
                request.extensions_mut().insert(caller.clone());
                let response = next.run(request).await;
                gate.responses.admit(&caller, only_reads, response)
            }
            Err(refused) => refused.into_response(),
        },
    };
    if let Some(counted) = counted {
        counted.describe(response.headers_mut());
    }
    response
}

impl Gate {
    /// Finds out who calls.
    async fn identify(&self, parts: &Parts) -> Result<Caller, Response> {
        if is_cross_site(&parts.headers) {
            return Err(not_from_a_page(
                "requests from pages of other sites are not allowed",
                parts.uri.path(),
            ));
        }
        let tokens = self.access.accepts_tokens();
        let refused = |refusal| refuse(refusal, tokens, parts.uri.path());
        let sent = self
            .access
            .credential(&parts.headers, &parts.uri)
            .map_err(refused)?;
        if sent.as_ref().is_some_and(|sent| is_forgeable(sent, parts)) {
            return Err(not_from_a_page(
                "a token in a cookie is accepted from pages of trusted origins only, which send an Origin header",
                parts.uri.path(),
            ));
        }
        self.access.identify(sent).await.map_err(refused)
    }

    /// Refuses a caller who may not use the route, and parameters that it does not know.
    async fn check(&self, caller: &Caller, request: &mut Request) -> Result<(), ApiError> {
        if let Demand::Scope(scope) = self.demand {
            // A user that cannot be read is the handler's to refuse.
            let user = if self.is_of_a_user {
                request.extract_parts::<InPath<UserId>>().await.ok()
            } else {
                None
            };
            let user = user.as_ref().map(|InPath(user)| user);
            let checked = caller.check(scope, user);
            checked.map_err(|rule| forbid(rule, request.uri().path()))?;
        }
        let known = self.parameters.as_ref();
        known.map_or(Ok(()), |known| parameters::check(known, request.uri()))
    }
}

/// Whether the page of another site could have caused the request: a browser adds the cookie by itself.
/// [`check_origin`](super::origin::check_origin) has refused every `Origin` that is not trusted.
fn is_forgeable(sent: &Credential, parts: &Parts) -> bool {
    let headers = &parts.headers;
    if sent.place != Place::Cookie || headers.contains_key(header::ORIGIN) {
        return false;
    }
    let is_upgrade = headers.contains_key(header::UPGRADE);
    !only_reads(&parts.method) || is_upgrade || is_same_site(headers)
}

fn only_reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Whether a browser reports that the page of a sibling host caused the request.
fn is_same_site(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    site == Some(b"same-site")
}

fn not_from_a_page(message: &'static str, path: &str) -> Response {
    tracing::info!(
        rule = message,
        url.path = path,
        "refused a request by its origin"
    );
    ApiError::new(Code::OriginNotAllowed, message).into_response()
}

/// The caller may not use the route.
fn forbid(rule: Forbidden, path: &str) -> ApiError {
    tracing::info!(%rule, url.path = path, "refused a caller");
    ApiError::new(Code::Forbidden, rule.to_string())
}

/// It is not known who calls. `tokens`: whether a token is accepted, too.
fn refuse(refusal: Refusal, tokens: bool, path: &str) -> Response {
    let mut challenge = "Bearer".to_owned();
    let credential = if tokens {
        "API key or token"
    } else {
        "API key"
    };
    let rule = match refusal {
        Refusal::Token(TokenRule::NoKeys) => {
            return ApiError::no_token_keys().into_response();
        }
        Refusal::Storage(error) => return ApiError::from(error).into_response(),
        Refusal::ExpiredKey => "the API key has expired".to_owned(),
        Refusal::Token(rule) => {
            challenge = format!("Bearer error=\"invalid_token\", error_description=\"{rule}\"");
            rule.to_string()
        }
        Refusal::Missing | Refusal::Unclear(Unclear::Header) => {
            format!("expected one header `Authorization: Bearer KEY` with a valid {credential}")
        }
        Refusal::UnknownKey => format!(
            "the {credential} is not known: it is mistyped or revoked, or is of another server"
        ),
        Refusal::Unclear(Unclear::Several) => {
            "expected one API key or token, got several".to_owned()
        }
        Refusal::KeyElsewhere => {
            "an API key is accepted only in the header `Authorization: Bearer KEY`; make a new one if this one \
             was in a URL"
                .to_owned()
        }
        Refusal::NoTokens => "the server accepts no tokens: it has no --jwt-secret, --jwt-public-key or \
                              --jwt-jwks"
            .to_owned(),
    };
    tracing::info!(rule, url.path = path, "refused a caller");
    let refused = ApiError::new(Code::Unauthorized, rule);
    let mut response = refused.into_response();
    // No rule has characters that a header cannot have.
    if let Ok(challenge) = HeaderValue::try_from(challenge) {
        let headers = response.headers_mut();
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}
