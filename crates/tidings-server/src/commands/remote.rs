//! Calls a running server.

use std::error::Error;
use std::time::Duration;
use std::{fmt, io};

use clap::Args;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, ClientBuilder, Method, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tidings_reconnect::Obstacle;

use super::CommandError;
use crate::error::{explain, said_by_system};
use crate::idempotency::NAME;
use crate::settings::Unshown;
use crate::wire::{ErrorBody, ReadError};

/// Which server a command calls.
#[derive(Debug, Args)]
pub(super) struct Remote {
    /// Address of the server
    #[arg(
        long,
        env = "TIDINGS_URL",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL",
        value_parser = server_url
    )]
    url: Url,

    /// API key of the server; not needed for a server with --dev. Of several keys, separated by commas, the
    /// first is sent
    #[arg(
        long,
        env = "TIDINGS_API_KEY",
        value_name = "KEY",
        hide_env_values = true,
        value_parser = Unshown(first_key)
    )]
    api_key: Option<String>,
}

pub(super) fn server_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).ok();
    url.filter(|url| matches!(url.scheme(), "http" | "https"))
        .ok_or("expected an address such as http://127.0.0.1:8080")
}

/// The first of some keys.
fn first_key(text: &str) -> Result<String, &'static str> {
    let key = text.split(',').next().unwrap_or_default().trim();
    if !key.is_empty() && key.chars().all(|c| c.is_ascii_graphic()) {
        Ok(key.to_owned())
    } else {
        Err("expected visible ASCII characters")
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait before each repeat of a request whose response was lost: a server takes that long to start again.
const WAITS_BEFORE_REPEATS: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// A server that is silent for this long is gone: on streams it pings at least every 25 s.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(150);

/// An error that the server returned.
#[derive(Debug, thiserror::Error)]
pub(super) struct Refusal {
    status: StatusCode,
    message: String,
    field: Option<String>,
    /// The error has the shape of ours; otherwise it may be that of a proxy.
    is_of_tidings: bool,
}

impl Refusal {
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server replied {}", self.status)?;
        if let Some(field) = &self.field {
            write!(f, ", {field}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl Remote {
    pub(super) fn new(url: Url, api_key: Option<String>) -> Self {
        Self { url, api_key }
    }

    /// A client that sends the key with every request.
    pub(super) fn client(&self) -> Result<Client, CommandError> {
        Ok(self.builder()?.build()?)
    }

    /// What such a client is made with.
    pub(super) fn builder(&self) -> Result<ClientBuilder, CommandError> {
        let mut headers = HeaderMap::new();
        if let Some(key) = &self.api_key {
            let mut value = HeaderValue::try_from(format!("Bearer {key}"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(Client::builder()
            .tls_backend_rustls()
            .default_headers(headers)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(SILENCE_TIMEOUT))
    }

    /// A URL of the server: each element of `path` is one segment, with any characters.
    pub(super) fn address(&self, path: &[&str]) -> Result<Url, CommandError> {
        if path.iter().any(|name| matches!(*name, "." | "..")) {
            // A URL would lose them, and with them mean another route.
            return Err("expected a name other than `.` and `..`".into());
        }
        let mut url = self.url.clone();
        url.path_segments_mut()
            .map_err(|()| "the address of the server has no path")?
            .pop_if_empty()
            .extend(path);
        Ok(url)
    }

    /// Makes one request and parses the JSON response.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        url: Url,
        body: Option<&RawValue>,
    ) -> Result<T, CommandError> {
        let mut request = self.client()?.request(method, url);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = self.send(request).await?;
        response.json().await.map_err(|error| lost(&error))
    }

    /// Makes a request that changes something and must not be repeated, and returns the text of the response. If the
    /// response is lost, the error says that the change may have been made.
    pub(super) async fn change(
        &self,
        method: Method,
        url: Url,
        body: Option<&RawValue>,
    ) -> Result<String, CommandError> {
        let mut request = self.client()?.request(method, url);
        if let Some(body) = body {
            request = request.json(body);
        }
        let changed = match self.send(request).await {
            Ok(response) => response.text().await.map_err(|error| lost(&error)),
            Err(error) => Err(error),
        };
        changed.map_err(|error| {
            if is_without_response(&error) {
                unknown(&error)
            } else {
                error
            }
        })
    }

    /// Makes something. If the response is lost, the request is repeated with the same idempotency key, so that nothing
    /// is made twice, and what is stored is not reported as a failure.
    pub(super) async fn create<T: DeserializeOwned>(
        &self,
        url: Url,
        body: &RawValue,
    ) -> Result<T, CommandError> {
        let client = self.client()?;
        let key = format!("{:032x}", fastrand::u128(..));
        let mut waits = WAITS_BEFORE_REPEATS.into_iter();
        let mut may_be_stored = false;
        loop {
            let request = client.post(url.clone()).header(NAME, &key).json(body);
            let error = match self.send(request).await {
                Ok(response) => match response.json().await {
                    Ok(created) => return Ok(created),
                    Err(error) => lost(&error),
                },
                Err(error) => error,
            };
            // Once a response is lost, a server that is not there may be starting again.
            may_be_stored |= is_without_response(&error);
            let is_refused = error.is::<Refusal>() && !is_without_response(&error);
            if !may_be_stored || is_refused {
                return Err(error);
            }
            let Some(wait) = waits.next() else {
                return Err(unknown(&error));
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Sends a request; returns a successful response.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, CommandError> {
        let sent = request.send().await;
        accepted(sent.map_err(|error| self.unreachable(&error))?).await
    }

    /// Says why the server could not be reached. Most likely none runs.
    fn unreachable(&self, error: &reqwest::Error) -> CommandError {
        let url = &self.url;
        if !error.is_connect() {
            return lost(error);
        }
        match Obstacle::find(error) {
            Some(Obstacle::NotListening) => {
                format!("no server at {url}; start one with: tidings serve --dev").into()
            }
            Some(Obstacle::NotTls) => format!(
                "no TLS at {url}; a Tidings server uses http, unless a proxy with a certificate is in \
                 front of it"
            )
            .into(),
            Some(obstacle) => format!("cannot connect to {url}: {obstacle}").into(),
            None => format!("cannot connect to {url}: {}", explain(last(error))).into(),
        }
    }
}

/// A request was sent, and its response did not arrive whole.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Lost(String);

/// Says how a connection ended before its response did.
pub(super) fn lost(error: &reqwest::Error) -> CommandError {
    let cause = last(error);
    if error.is_timeout() {
        return Lost("the server did not reply in time".to_owned()).into();
    }
    if error.is_decode() && cause.is::<serde_json::Error>() {
        return "this does not look like the reply of a Tidings server".into();
    }
    // What the operating system reports helps; how a library noticed the end does not.
    let reason = match cause.downcast_ref::<io::Error>() {
        Some(cause) if cause.raw_os_error().is_some() => format!(": {}", said_by_system(cause)),
        _ => String::new(),
    };
    Lost(format!("lost the connection to the server{reason}")).into()
}

/// Whether the server may have done what it was asked to do, although it did not say so. So may the server behind a
/// proxy that replies in its place.
fn is_without_response(error: &CommandError) -> bool {
    let refusal = error.downcast_ref::<Refusal>();
    error.is::<Lost>() || refusal.is_some_and(|it| !it.is_of_tidings && it.status.is_server_error())
}

/// Adds to an error that the change may have been made.
fn unknown(error: &CommandError) -> CommandError {
    format!("{error}; the change may have been made").into()
}

/// The last of the errors that are behind one: those in between are of libraries.
fn last<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last
}

/// Returns a successful response, also to an upgrade, and turns any other into a [`Refusal`].
async fn accepted(response: Response) -> Result<Response, CommandError> {
    let status = response.status();
    if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    let text = response.text().await.map_err(|error| lost(&error))?;
    let refusal = match serde_json::from_str(&text) {
        Ok(ErrorBody::<ReadError> { error }) => Refusal {
            status,
            message: error.message,
            field: error.field,
            is_of_tidings: true,
        },
        Err(_) => Refusal {
            status,
            message: "this does not look like a Tidings server".to_owned(),
            field: None,
            is_of_tidings: false,
        },
    };
    Err(refusal.into())
}
