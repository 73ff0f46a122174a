//! Requests that become WebSockets.

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::future::FutureExt;

use super::error::ApiError;
use super::extract::header_once;
use super::request_id::RequestId;
use super::socket::Socket;
use crate::app::App;
use crate::connections::{ClientConnection, Counted, Transport, has_option};
use crate::wire::code::Code;

/// The subprotocol that is confirmed to clients that offer it. Browsers fail a connection if none of
/// the offered ones is.
const PROTOCOL: HeaderValue = HeaderValue::from_static("tidings.v1");

/// A request to upgrade to a WebSocket, and the connection that becomes one.
#[derive(Debug)]
pub(crate) struct Upgrade {
    pub(crate) counted: Counted,
    pub(super) request_id: RequestId,
    upgraded: OnUpgrade,
    accept_key: HeaderValue,
    offers_protocol: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Upgrade {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let headers = &parts.headers;
        let asks = |name, option| has_option(headers, name, option);
        if !asks(header::CONNECTION, "upgrade") || !asks(header::UPGRADE, "websocket") {
            let expected = "expected a WebSocket: `Connection: Upgrade` and `Upgrade: websocket`";
            return Err(upgrade_required(expected));
        }
        if !asks(header::SEC_WEBSOCKET_VERSION, "13") {
            return Err(upgrade_required("expected `Sec-WebSocket-Version: 13`"));
        }
        let key = socket_key(headers)?;
        let accept_key = derive_accept_key(key.as_bytes());
        let accept_key = HeaderValue::try_from(accept_key).map_err(|_| wrong_socket_key())?;
        let offers_protocol = PROTOCOL
            .to_str()
            .is_ok_and(|name| asks(header::SEC_WEBSOCKET_PROTOCOL, name));
        let not_here = || upgrade_required("this connection cannot be upgraded");
        let connection = parts.extensions.get::<ClientConnection>().cloned();
        Ok(Self {
            counted: connection.ok_or_else(not_here)?.into_counted(),
            request_id: parts.extensions.get().cloned().ok_or_else(not_here)?,
            upgraded: parts.extensions.remove().ok_or_else(not_here)?,
            accept_key,
            offers_protocol,
        })
    }
}

impl Upgrade {
    /// Accepts the upgrade. What `run` makes of the socket is a task of the server.
    pub(crate) fn accept<F>(
        self,
        app: &App,
        run: impl FnOnce(Socket) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let upgraded = self.upgraded;
        let session = async move {
            let upgraded = match upgraded.await {
                Ok(upgraded) => upgraded.downcast::<TokioIo<Transport>>(),
                Err(error) => {
                    tracing::debug!(%error, "a WebSocket upgrade failed");
                    return;
                }
            };
            let Ok(parts) = upgraded else {
                tracing::error!("a WebSocket came over a transport that is not the server's");
                return;
            };
            let transport = parts.io.into_inner().leave();
            // The library may have read more than the request.
            run(Socket::new(transport, &parts.read_buf).await).await;
        };
        let cutting_off = app.cutting_off.clone();
        app.tasks
            .spawn(session.with_cancellation_token_owned(cutting_off));
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.accept_key);
        if self.offers_protocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL);
        }
        response
    }
}

/// The response names the protocol, and its version
/// ([RFC 9110, section 15.5.22](https://www.rfc-editor.org/rfc/rfc9110#section-15.5.22),
/// [RFC 6455, section 4.4](https://www.rfc-editor.org/rfc/rfc6455#section-4.4)).
fn upgrade_required(message: &'static str) -> ApiError {
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (
            header::SEC_WEBSOCKET_VERSION,
            HeaderValue::from_static("13"),
        ),
    ];
    let error = ApiError::new(Code::UpgradeRequired, message);
    error.with_headers(HeaderMap::from_iter(headers))
}

/// The name of the header with the key of a WebSocket, as the RFC spells it.
const SOCKET_KEY: &str = "Sec-WebSocket-Key";

/// Length of the key of a WebSocket in bytes.
const SOCKET_KEY_BYTES: usize = 16;

/// The key, if it is one
/// ([RFC 6455, section 4.2.1](https://www.rfc-editor.org/rfc/rfc6455#section-4.2.1)).
fn socket_key(headers: &HeaderMap) -> Result<&HeaderValue, ApiError> {
    let key = header_once(headers, SOCKET_KEY)?;
    let is_one = |key: &&HeaderValue| {
        let bytes = BASE64_STANDARD.decode(key).ok();
        bytes.is_some_and(|bytes| bytes.len() == SOCKET_KEY_BYTES)
    };
    key.filter(is_one).ok_or_else(wrong_socket_key)
}

fn wrong_socket_key() -> ApiError {
    ApiError::invalid(
        SOCKET_KEY,
        format!("expected {SOCKET_KEY_BYTES} bytes in base64"),
    )
}
