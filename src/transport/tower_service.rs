use std::error::Error as StdError;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::built_in::{find, is_local};
use super::{RequestBody, ResponseBody, Transport};
use crate::sender::Progress;
use crate::{AttemptError, ErrorKind};

type BoxError = Box<dyn StdError + Send + Sync>;

/// Sends requests through a service, such as a stack of `tower` layers over an HTTP client.
///
/// The service must keep the contract of [`Transport`]; above all it must not follow redirects,
/// which nothing here could notice. Each request goes to a clone of the service, as soon as that is
/// ready. An error counts as [`Connect`](ErrorKind::Connect) before the request began to leave and
/// as [`Reset`](ErrorKind::Reset) after it, unless it contains an [`AttemptError`], or, before the
/// request began to leave, an [`io::Error`] that says more: that this machine is short of something
/// ([`Local`](ErrorKind::Local)), that the connection was refused, or that it took too long.
#[derive(Clone)]
pub struct TowerTransport<S>(S);

impl<S> TowerTransport<S> {
    /// Wraps a service.
    pub fn new(service: S) -> Self {
        Self(service)
    }
}

#[async_trait]
impl<S, B> Transport for TowerTransport<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    async fn send(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, AttemptError> {
        let progress = Arc::clone(request.body().progress());
        let mut service = self.0.clone();
        let sent = async {
            poll_fn(|context| service.poll_ready(context)).await?;
            service.call(request).await
        };
        match sent.await {
            Ok(response) => Ok(response.map(ResponseBody::new)),
            Err(error) => Err(attempt_error(error.into(), &progress)),
        }
    }
}

fn attempt_error(error: BoxError, progress: &Progress) -> AttemptError {
    // A layer may have wrapped it.
    if let Some(error) = find::<AttemptError>(&*error) {
        return error.clone();
    }
    let kind = match find::<io::Error>(&*error) {
        _ if progress.is_sent() => ErrorKind::Reset,
        Some(error) if is_local(error) => ErrorKind::Local,
        Some(error) if error.kind() == io::ErrorKind::ConnectionRefused => ErrorKind::Refused,
        Some(error) if error.kind() == io::ErrorKind::TimedOut => ErrorKind::ConnectTimeout,
        _ => ErrorKind::Connect,
    };
    AttemptError::new(kind, error)
}

impl<S> fmt::Debug for TowerTransport<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TowerTransport").finish_non_exhaustive()
    }
}
