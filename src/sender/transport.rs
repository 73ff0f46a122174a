//! Who makes the requests: hyper, as we set it up, or an HTTP client of the caller's own.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::body::TrackedBody;
use super::connector::Connector;
use super::phases::Progress;
use super::{AttemptError, failure};
use crate::{Endpoint, ErrorKind};

/// Idle connections kept per host. Fewer than there are workers would make new connections all the
/// time, because many answers come at once; these are closed after 90 seconds without use.
const MAX_IDLE_PER_HOST: usize = 256;

const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// Most bytes of a head. Those of an answer to a webhook take a few hundred.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// What a receiver may send ahead over HTTP/2: more than is read of an answer's body, and for all
/// answers together.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Most interim answers (1xx) before the final one. HTTP sets no limit; a few are what there is a
/// use for.
pub(super) const MAX_INTERIM_ANSWERS: u32 = 100;

type BoxError = Box<dyn StdError + Send + Sync>;

#[derive(Debug, Clone)]
pub(super) enum Transport {
    /// Our own. It follows no redirect, goes through no proxy and decodes nothing.
    Own(Arc<legacy::Client<Connector, TrackedBody>>),
    /// One that the caller handed in, and that does as it was told.
    Given(reqwest::Client),
}

impl Transport {
    pub(super) fn own(connector: Connector) -> Self {
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
            .http1_max_buf_size(MAX_HEAD_BYTES)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .http2_keep_alive_timeout(Duration::from_secs(10));
        Self::Own(Arc::new(builder.build(connector)))
    }

    /// Posts once, and answers when the head of the answer is there.
    pub(super) async fn post(
        &self,
        endpoint: &Endpoint,
        headers: HeaderMap,
        body: TrackedBody,
        progress: &Arc<Progress>,
    ) -> Result<Response<AnswerBody>, AttemptError> {
        match self {
            Self::Own(client) => {
                let mut request = Request::new(body);
                *request.method_mut() = Method::POST;
                *request.uri_mut() = endpoint.uri().clone();
                *request.headers_mut() = headers;
                let counting = Arc::clone(progress);
                hyper::ext::on_informational(&mut request, move |_| {
                    counting.interim_answer(MAX_INTERIM_ANSWERS);
                });
                let answer = tokio::select! {
                    biased;
                    answer = progress.observe(client.request(request)) => answer,
                    () = progress.flooded() => {
                        return Err(AttemptError::new(ErrorKind::Protocol, Flood).ambiguous());
                    }
                };
                match answer {
                    Ok(response) => Ok(response.map(AnswerBody::Own)),
                    Err(error) => Err(failure::of_own(error, progress)),
                }
            }
            Self::Given(client) => {
                let mut request = reqwest::Request::new(Method::POST, endpoint.url().clone());
                *request.headers_mut() = headers;
                *request.body_mut() = Some(reqwest::Body::wrap(body));
                let response = (progress.observe(client.execute(request)).await)
                    .map_err(|error| failure::of_given(error, endpoint, progress))?;
                if response.url() != endpoint.url() {
                    let host = response.url().host_str().unwrap_or_default().into();
                    return Err(AttemptError::new(ErrorKind::Redirected, Followed { host }));
                }
                Ok(Response::from(response).map(AnswerBody::Given))
            }
        }
    }
}

/// The receiver said "wait" too often.
#[derive(Debug, thiserror::Error)]
#[error("more than {MAX_INTERIM_ANSWERS} interim answers")]
struct Flood;

/// An HTTP client of the caller's own went where nobody may go.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client followed a redirect to {host}")]
struct Followed {
    host: Box<str>,
}

/// The body of an answer, as far as it is read.
#[derive(Debug)]
pub(super) enum AnswerBody {
    Own(Incoming),
    Given(reqwest::Body),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Own(body) => Pin::new(body)
                .poll_frame(context)
                .map_err(|error| -> BoxError { error.into() }),
            Self::Given(body) => Pin::new(body)
                .poll_frame(context)
                .map_err(|error| -> BoxError { error.into() }),
        }
    }
}
