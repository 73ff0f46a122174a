//! How requests are sent: over hyper, over reqwest, or through a service of the caller.
//!
//! | transport | for |
//! |---|---|
//! | the built-in one | everything: it times each phase, checks addresses, and sends a request once more when it met a stale connection |
//! | [`SenderBuilder::http_client`](crate::SenderBuilder::http_client) | the settings of a [`reqwest::ClientBuilder`](https://docs.rs/reqwest) (feature `reqwest`) |
//! | [`TowerTransport`] | any service that takes an HTTP request, such as a stack of `tower` layers |
//! | your own [`Transport`] | everything else, such as a queue in front of a gateway |

mod body;
pub(crate) mod built_in;
#[cfg(feature = "reqwest")]
mod reqwest_client;
mod tower_service;

use async_trait::async_trait;
use http::{Request, Response};

use crate::AttemptError;

pub use body::{RequestBody, ResponseBody};
pub use built_in::HttpVersions;
#[cfg(feature = "reqwest")]
pub(crate) use reqwest_client::ReqwestTransport;
pub use tower_service::TowerTransport;

/// Sends requests.
///
/// # Contract
///
/// - `send` makes one request and returns the response as soon as its head is there. It does not
///   wait for a deadline of its own: the sender drops the future when the attempt's time is up, and
///   the request must end with it.
/// - It follows no redirect and retries nothing. A redirect that is followed takes the headers of
///   the endpoint, the signature among them, to another host, and its response would be taken for
///   the endpoint's.
/// - It decodes nothing: the head of the body is kept as it was sent.
/// - It begins to read the request's body only once the request is about to leave. From then on a
///   failure is [ambiguous](crate::Attempt::is_ambiguous).
/// - It returns the [`ErrorKind`](crate::ErrorKind) that fits, and
///   [`Local`](crate::ErrorKind::Local) for what is not the endpoint's fault.
///
/// ```
/// use async_trait::async_trait;
/// use http::{Request, Response, StatusCode};
/// use tidings::AttemptError;
/// use tidings::transport::{RequestBody, ResponseBody, Transport};
///
/// /// Accepts everything and sends nothing.
/// #[derive(Debug)]
/// struct DryRun;
///
/// #[async_trait]
/// impl Transport for DryRun {
///     async fn send(
///         &self,
///         request: Request<RequestBody>,
///     ) -> Result<Response<ResponseBody>, AttemptError> {
///         println!("POST {}", request.uri());
///         let mut response = Response::new(ResponseBody::empty());
///         *response.status_mut() = StatusCode::ACCEPTED;
///         Ok(response)
///     }
/// }
///
/// let sender = tidings::Sender::builder().transport(DryRun).build()?;
/// # Ok::<(), tidings::ConfigError>(())
/// ```
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends one request and returns its response.
    async fn send(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Response<ResponseBody>, AttemptError>;
}
