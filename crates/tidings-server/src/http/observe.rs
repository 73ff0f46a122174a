//! What is recorded of each request: its span, its line in the log, its metrics, and what its response says of the
//! database.

use axum::Json;
use axum::extract::{MatchedPath, Request};
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;
use tracing::Instrument;
use tracing::field::Empty;

use super::error::Fault;
use super::request_id::RequestId;
use super::routes::{QUERY, READY};
use super::sse;
use crate::app::App;
use crate::telemetry::{self, Requests, traces};
use crate::wire::ErrorBody;

/// The field of the span that has the caller, once it is known.
pub(super) const CALLER: &str = "caller";

/// Runs a request in its span, and records it. The query is left out: it can contain secrets.
pub(super) async fn observe<F>(
    app: &App,
    requests: &Requests,
    mut request: Request,
    respond: impl FnOnce(Request) -> F,
) -> Response
where
    F: Future<Output = Response>,
{
    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(id.clone());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map(MatchedPath::as_str);
    let route = route.unwrap_or(telemetry::UNKNOWN_ROUTE);
    // Of the highest level, so that a warning of any request has it.
    let span = tracing::error_span!(
        "request",
        http.request.method = request.method().as_str(),
        http.route = route,
        request_id = %id,
        { CALLER } = Empty,
        otel.kind = Empty,
        otel.name = Empty,
    );
    let has_traces = app.config.otlp_endpoint.is_some();
    if has_traces {
        span.record("otel.kind", "server");
        span.record("otel.name", format!("{} {route}", request.method()));
        traces::begin_request(&span, request.headers());
    }
    let only_reads = request.method().is_safe() || route == QUERY;
    let of_response = has_traces.then(|| span.clone());
    let is_event_source = sse::is_event_source(&request);
    let observed = async {
        let mut response = run(app, requests, route, request, respond).await;
        let status = response.status();
        if let Some(fault) = response.extensions_mut().remove::<Fault>() {
            let Fault(mut error) = if only_reads { fault.of_read() } else { fault };
            if is_event_source {
                response = sse::refusal_of(&error, response);
            } else {
                error.request_id = Some(id.to_string());
                *response.body_mut() = Json(ErrorBody { error }).into_response().into_body();
            }
        }
        if let Some(span) = of_response {
            traces::end_request(&span, status);
        }
        id.put_into(response.headers_mut());
        response
    };
    observed.instrument(span).await
}

async fn run<F>(
    app: &App,
    requests: &Requests,
    route: &str,
    request: Request,
    respond: impl FnOnce(Request) -> F,
) -> Response
where
    F: Future<Output = Response>,
{
    let method = request.method().clone();
    let uri = request.uri().clone();
    let start = Instant::now();
    let response = respond(request).await;
    let (status, duration) = (response.status(), start.elapsed());
    requests.finished(&method, route, status, duration);
    tracing::debug!(
        url.path = uri.path(),
        http.response.status_code = status.as_u16(),
        duration_ms = duration.as_secs_f64() * 1000.0,
        "request finished"
    );
    match response.extensions().get() {
        Some(cause) => app.outage.failed(cause),
        // Others end an outage where they have stored something: a success can also mean that there was nothing
        // to store, which a full disk does not refuse.
        None if status.is_success() && route == READY => app.outage.worked(),
        None => {}
    }
    response
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidings_test_support::Log;

    use crate::http::running::{KEY, Running};

    #[tokio::test]
    async fn only_what_writes_ends_an_outage_of_the_database() {
        let log = Log::default();
        let _listening = log.listen();
        let running = Running::start().await;
        running.remove_database();
        let notification = json!({ "user_id": "anna", "payload": 1 });
        for _ in 0..2 {
            let write = running.client.post(running.url("/v1/notifications"));
            let write = write.bearer_auth(KEY).json(&notification).send().await;
            assert_eq!(write.unwrap().status(), 503);
            let read = running
                .client
                .get(running.url("/v1/users/anna/notifications"));
            let read = read.bearer_auth(KEY).send().await;
            assert_eq!(read.unwrap().status(), 200);
            for (method, path, body) in [
                ("HEAD", "/v1/users/anna/notifications", ""),
                ("POST", "/v1/bins", "{}"),
                ("POST", "/v1/presence/query", r#"{"user_ids":["anna"]}"#),
                ("OPTIONS", "/v1/notifications", ""),
            ] {
                let request = running
                    .client
                    .request(method.parse().unwrap(), running.url(path))
                    .header("Origin", running.url(""))
                    .header("Access-Control-Request-Method", "POST");
                let response = request.bearer_auth(KEY).body(body).send().await.unwrap();
                assert!(response.status().is_success(), "{method} {path}");
            }
        }
        assert_eq!(log.lines("the database does not work").len(), 1);
        let ends = log.lines("the database works again");
        assert!(ends.is_empty(), "{ends:?}");
    }
}
