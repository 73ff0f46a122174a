//! Calls a running server.

use std::error::Error;
use std::time::Duration;
use std::{fmt, io};

use clap::Args;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Response, Url};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tidings_reconnect::Obstacle;

use super::CommandError;
use crate::error::{explain, said_by_system};
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

fn server_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).ok();
    url.filter(|url| matches!(url.scheme(), "http" | "https"))
        .ok_or("expected an address such as http://127.0.0.1:8080")
}

/// The first of some keys.
fn first_key(text: &str) -> Result<String, &'static str> {
    let key = text.split(',').next().unwrap_or_default();
    if !key.is_empty() && key.chars().all(|c| c.is_ascii_graphic()) {
        Ok(key.to_owned())
    } else {
        Err("expected visible ASCII characters")
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A server that is silent for this long is gone: on streams it pings at least every 25 s.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(150);

/// An error that the server returned.
#[derive(Debug, thiserror::Error)]
pub(super) struct Refusal {
    status: reqwest::StatusCode,
    message: String,
    field: Option<String>,
}

impl Refusal {
    pub(super) fn status(&self) -> reqwest::StatusCode {
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
    /// A client that sends the key with every request.
    pub(super) fn client(&self) -> Result<Client, CommandError> {
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
            .read_timeout(SILENCE_TIMEOUT)
            .build()?)
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
        let response = accepted(
            request
                .send()
                .await
                .map_err(|error| self.unreachable(&error))?,
        )
        .await?;
        response.json().await.map_err(|error| lost(&error))
    }

    /// Says why the server could not be reached. Most likely none runs.
    pub(super) fn unreachable(&self, error: &reqwest::Error) -> CommandError {
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

/// Says how a connection ended before its response did.
pub(super) fn lost(error: &reqwest::Error) -> CommandError {
    let cause = last(error);
    if error.is_timeout() {
        return "the server did not reply in time".into();
    }
    if error.is_decode() && cause.is::<serde_json::Error>() {
        return "this does not look like the reply of a Tidings server".into();
    }
    // What the operating system reports helps; how a library noticed the end does not.
    match cause.downcast_ref::<io::Error>() {
        Some(cause) if cause.raw_os_error().is_some() => format!(
            "lost the connection to the server: {}",
            said_by_system(cause)
        )
        .into(),
        _ => "lost the connection to the server".into(),
    }
}

/// The last of the errors that are behind one: those in between are of libraries.
fn last<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last
}

/// Returns a successful response, and turns any other into a [`Refusal`].
pub(super) async fn accepted(response: Response) -> Result<Response, CommandError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response.text().await.map_err(|error| lost(&error))?;
    let (message, field) = match serde_json::from_str(&text) {
        Ok(ErrorBody::<ReadError> { error }) => (error.message, error.field),
        Err(_) => ("this does not look like a Tidings server".to_owned(), None),
    };
    Err(Refusal {
        status,
        message,
        field,
    }
    .into())
}
