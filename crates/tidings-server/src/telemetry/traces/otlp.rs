//! The spans of this process, sent to a collector through the crates of OpenTelemetry.

use std::error::Error as StdError;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Status, TracerProvider};
use opentelemetry_http::{HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tidings_reconnect::Trouble;
use tokio::runtime::Handle;
use tracing::{Level, Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::registry::LookupSpan;
use url::Url;

use super::STREAM;

/// How long the collector may take for one batch.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a stopping server tries to send the last spans.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// What sends spans.
#[derive(Debug)]
pub(crate) struct Traces(SdkTracerProvider);

/// Why no traces can be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TracesError {
    #[error("cannot prepare the client for --otlp-endpoint")]
    Client(#[from] reqwest::Error),
    #[error("cannot prepare the export to --otlp-endpoint")]
    Exporter(#[from] ExporterBuildError),
}

impl Traces {
    /// Prepares to send spans to a collector. It is not called before there are some.
    ///
    /// Must be called within a Tokio runtime.
    pub(crate) fn start(endpoint: &Url) -> Result<Self, TracesError> {
        let client = Client {
            http: reqwest::Client::builder()
                .timeout(TIMEOUT)
                .redirect(reqwest::redirect::Policy::none())
                .build()?,
            runtime: Handle::current(),
            trouble: Mutex::new(Trouble::new()),
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(traces_at(endpoint))
            .with_timeout(TIMEOUT)
            .build()?;
        let resource = Resource::builder()
            .with_service_name("tidings")
            .with_attribute(opentelemetry::KeyValue::new(
                "service.version",
                env!("CARGO_PKG_VERSION"),
            ))
            .build();
        // Spans wait in a queue of a fixed size, and those beyond it are dropped.
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build();
        Ok(Self(provider))
    }

    /// Takes the spans of these packages, whatever the log shows, with the warnings and errors in them.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let is_wanted = |metadata: &Metadata<'_>| {
            metadata.target().starts_with("tidings")
                && metadata.name() != STREAM
                && (metadata.is_span() || *metadata.level() <= Level::WARN)
        };
        let wanted = filter_fn(is_wanted).with_max_level_hint(LevelFilter::DEBUG);
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("tidings"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_filter(wanted)
    }

    /// Sends the last spans.
    pub(crate) async fn stop(self) {
        let stopped =
            tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(STOP_TIMEOUT));
        if let Ok(Err(error)) = stopped.await {
            tracing::warn!(%error, "cannot send the last traces");
        }
    }
}

/// The address of the collector is that of all signals.
fn traces_at(endpoint: &Url) -> String {
    format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/'))
}

/// Makes the span of a request continue the trace of its caller, and names it.
pub(crate) fn begin_request(span: &Span, headers: &HeaderMap) {
    let context = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
    // Without a layer for traces there is nothing to continue.
    let _without_traces = span.set_parent(context);
}

/// Records how a request ended.
pub(crate) fn end_request(span: &Span, status: StatusCode) {
    span.set_attribute("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.set_status(Status::error(""));
    }
}

/// Sends batches with the runtime of the server: the exporter has a thread without one.
#[derive(Debug)]
struct Client {
    http: reqwest::Client,
    runtime: Handle,
    trouble: Mutex<Trouble>,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(
        &self,
        request: axum::http::Request<Bytes>,
    ) -> Result<axum::http::Response<Bytes>, HttpError> {
        let sent = self.runtime.spawn(send(self.http.clone(), request));
        let result = match sent.await {
            Ok(result) => result,
            Err(panic) => Err(panic.into()),
        };
        self.report(&result);
        result
    }
}

async fn send(
    client: reqwest::Client,
    request: axum::http::Request<Bytes>,
) -> Result<axum::http::Response<Bytes>, HttpError> {
    let response = client.execute(request.try_into()?).await?;
    let mut built = axum::http::Response::new(Bytes::new());
    *built.status_mut() = response.status();
    *built.headers_mut() = response.headers().clone();
    Ok(built)
}

impl Client {
    /// One line when the collector stops taking spans, and one when it takes them again.
    fn report(&self, result: &Result<axum::http::Response<Bytes>, HttpError>) {
        let trouble = || self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = match result {
            Ok(response) if response.status().is_success() => {
                if trouble().worked() {
                    tracing::info!("the collector takes traces again");
                }
                return;
            }
            Ok(response) => format!("the collector replied {}", response.status()),
            Err(error) => {
                let error: &(dyn StdError + 'static) = &**error;
                tidings_storage::explain::explain(error)
            }
        };
        if trouble().failed() {
            tracing::warn!(
                reason,
                "cannot send traces, dropping them until it works (--otlp-endpoint)"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use tidings_test_support::{Receiver, Reply};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[tokio::test]
    async fn regression_what_a_stream_does_later_begins_no_trace() {
        let collector = Receiver::start(Reply::ok()).await.unwrap();
        let traces = Traces::start(&collector.url("/").parse().unwrap()).unwrap();
        let subscriber = tracing_subscriber::registry().with(traces.layer());
        tracing::subscriber::with_default(subscriber, || drop(tracing::error_span!(STREAM)));
        traces.stop().await;
        assert_eq!(collector.requests().len(), 0);
    }

    /// The server that a redirect names may be one that must not read spans.
    #[tokio::test]
    async fn spans_are_not_sent_to_where_a_collector_redirects() {
        let other = Receiver::start(Reply::ok()).await.unwrap();
        let redirect = Reply::redirect(StatusCode::TEMPORARY_REDIRECT, other.url("/v1/traces"));
        let collector = Receiver::start(redirect).await.unwrap();
        let traces = Traces::start(&collector.url("/").parse().unwrap()).unwrap();
        let subscriber = tracing_subscriber::registry().with(traces.layer());
        tracing::subscriber::with_default(subscriber, || drop(tracing::error_span!("request")));
        traces.stop().await;
        assert_eq!(collector.requests().len(), 1);
        assert_eq!(other.connections(), 0);
    }
}
