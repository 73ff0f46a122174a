//! Calls a running server.

use std::error::Error;
use std::time::Duration;
use std::{fmt, io};

use clap::Args;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Method, RequestBuilder, Response, StatusCode, Url};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;
use tidings_reconnect::Obstacle;
use tidings_storage::explain::{explain, said_by_system};
use tidings_storage::idempotency::NAME;
use tokio::time::Instant;

use super::CommandError;
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
        hide_env_values = true,
        value_parser = Unshown(server_url)
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

    #[arg(skip)]
    limits: ReplyLimits,
}

pub(super) fn server_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).ok();
    let url = url
        .filter(|url| matches!(url.scheme(), "http" | "https"))
        .ok_or("expected an address such as http://127.0.0.1:8080")?;
    // A password would be sent in place of the key and shown in errors, and the rest would be lost.
    if !url.username().is_empty() || url.password().is_some() {
        Err(
            "expected an address without a user name and a password; the server takes a key (--api-key)",
        )
    } else if url.query().is_some() {
        Err("expected an address without a query (`?` and what follows)")
    } else if url.fragment().is_some() {
        Err("expected an address without a fragment (`#` and what follows)")
    } else {
        Ok(url)
    }
}

/// The first of some keys.
fn first_key(text: &str) -> Result<String, &'static str> {
    let key = text.split(',').next().unwrap_or_default().trim();
    if text.trim().is_empty() {
        Err("expected an API key, got an empty text; leave it out for a server with --dev")
    } else if !key.is_empty() && key.chars().all(|c| c.is_ascii_graphic()) {
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

/// When repeating ends, however many waits are left: a server that does not reply at all takes its time each time.
const REPEAT_WITHIN: Duration = Duration::from_secs(60);

/// A stream that is silent for this long is gone: the server pings at least every 25 s.
const STREAM_TIMEOUT: Duration = Duration::from_secs(150);

/// How much a command waits for and reads.
#[derive(Debug, Clone, Copy)]
struct ReplyLimits {
    /// Longest silence, before a reply and within it: the server gives up earlier.
    silence: Duration,
    /// Longest time until the end of a reply.
    whole: Duration,
    /// Maximum size of a reply. The pages of the server are much smaller.
    bytes: usize,
}

impl Default for ReplyLimits {
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(30),
            whole: Duration::from_secs(300),
            bytes: 256 << 20,
        }
    }
}

/// Maximum size of a reply that is an error.
const MAX_REFUSAL_BYTES: usize = 64 << 10;

/// An error that the server returned.
#[derive(Debug, thiserror::Error)]
pub(super) struct Refusal {
    status: StatusCode,
    code: String,
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

impl Refusal {
    /// Whether a repeat will be refused, too.
    fn is_final(&self) -> bool {
        let may_pass = self.status == StatusCode::TOO_MANY_REQUESTS || self.code == REQUEST_RUNNING;
        self.status.is_client_error() && !may_pass
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
        Self {
            url,
            api_key,
            limits: ReplyLimits::default(),
        }
    }

    /// Whether a key is sent.
    pub(super) fn has_key(&self) -> bool {
        self.api_key.is_some()
    }

    /// A client for streams, which sends the key with every request.
    pub(super) fn client(&self) -> Result<Client, CommandError> {
        Ok(self.builder()?.build()?)
    }

    /// A client for replies that end.
    pub(super) fn calling_client(&self) -> Result<Client, CommandError> {
        let builder = self.builder()?;
        let builder = builder.read_timeout(self.limits.silence);
        Ok(builder.timeout(self.limits.whole).build()?)
    }

    /// What a client for streams is made with.
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
            // On the way the key could be lost, and a POST become a GET, which changes nothing.
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(STREAM_TIMEOUT))
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

    /// Asks for something, and parses the JSON of the response.
    pub(super) async fn get<T: DeserializeOwned>(&self, url: Url) -> Result<T, CommandError> {
        parsed(&self.text(self.calling_client()?.get(url)).await?)
    }

    /// Makes a POST that would have another effect if it was repeated, and parses the JSON of the response. If the
    /// response is lost, the error says that the change may have been made.
    pub(super) async fn change_once<T: DeserializeOwned>(
        &self,
        url: Url,
    ) -> Result<T, CommandError> {
        match self.text(self.calling_client()?.post(url)).await {
            Ok(text) => parsed(&text),
            Err(error) if may_be_done(&error) => Err(Unknown(error).into()),
            Err(error) => Err(error),
        }
    }

    /// Makes something, and parses the JSON of the response. It repeats as [`change`](Self::change) does.
    pub(super) async fn create<T: DeserializeOwned>(
        &self,
        url: Url,
        body: &RawValue,
    ) -> Result<T, CommandError> {
        self.create_once(&new_key(), url, body).await
    }

    /// The same under an idempotency key.
    pub(super) async fn create_once<T: DeserializeOwned>(
        &self,
        key: &str,
        url: Url,
        body: &RawValue,
    ) -> Result<T, CommandError> {
        parsed(&self.repeat(key, Method::POST, url, Some(body)).await?)
    }

    /// Changes something, and returns the text of the response. If the response is lost, the request is repeated: a POST
    /// with the same idempotency key, so that nothing is done twice; other methods have the same effect again. So what
    /// is stored is not reported as a failure.
    pub(super) async fn change(
        &self,
        method: Method,
        url: Url,
        body: Option<&RawValue>,
    ) -> Result<String, CommandError> {
        self.repeat(&new_key(), method, url, body).await
    }

    async fn repeat(
        &self,
        key: &str,
        method: Method,
        url: Url,
        body: Option<&RawValue>,
    ) -> Result<String, CommandError> {
        let client = self.calling_client()?;
        let start = Instant::now();
        let mut waits = WAITS_BEFORE_REPEATS.into_iter();
        let mut is_repeat = false;
        loop {
            let mut request = client.request(method.clone(), url.clone());
            if method == Method::POST {
                request = request.header(NAME, key);
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            let error = match self.text(request).await {
                Ok(text) => return Ok(text),
                Err(error) => error,
            };
            let refusal = error.downcast_ref::<Refusal>();
            let is_gone = refusal.is_some_and(|it| it.status == StatusCode::NOT_FOUND);
            if is_repeat && is_gone && method == Method::DELETE {
                return Ok(String::new());
            }
            // Once a response is lost, a server that is not there may be starting again.
            let is_refused = refusal.is_some_and(Refusal::is_final);
            if error.is::<TooLarge>() {
                return Err(format!("{error}; the change was made").into());
            }
            if is_refused || !(is_repeat || may_be_done(&error)) {
                return Err(error);
            }
            is_repeat = true;
            match waits.next().filter(|_| start.elapsed() < REPEAT_WITHIN) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(Unknown(error).into()),
            }
        }
    }

    /// Sends a request, and reads a successful response to its end: JSON, or nothing.
    async fn text(&self, request: RequestBuilder) -> Result<String, CommandError> {
        let response = self.send(request).await?;
        self.rest(response).await
    }

    /// Reads the body of a response: JSON, or nothing.
    pub(super) async fn rest(&self, response: Response) -> Result<String, CommandError> {
        let (bytes, is_whole) = read(response, self.limits.bytes).await?;
        if !is_whole {
            return Err(TooLarge(self.limits.bytes).into());
        }
        let text = String::from_utf8(bytes).map_err(|_| NOT_OURS)?;
        if !text.is_empty() {
            parsed::<IgnoredAny>(&text)?;
        }
        Ok(text)
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
    // What the operating system reports helps; how a library noticed the end does not.
    let reason = match cause.downcast_ref::<io::Error>() {
        Some(cause) if cause.raw_os_error().is_some() => format!(": {}", said_by_system(cause)),
        _ => String::new(),
    };
    Lost(format!("lost the connection to the server{reason}")).into()
}

/// A reply was not read to its end.
#[derive(Debug, thiserror::Error)]
#[error("the reply is larger than {} MiB", .0 >> 20)]
struct TooLarge(usize);

/// What is said of the reply of another program.
pub(super) const NOT_OURS: &str = "this does not look like the reply of a Tidings server";

fn parsed<T: DeserializeOwned>(json: &str) -> Result<T, CommandError> {
    serde_json::from_str(json).map_err(|_| NOT_OURS.into())
}

/// Reads at most so many bytes of a response, and returns whether these are all.
async fn read(mut response: Response, most: usize) -> Result<(Vec<u8>, bool), CommandError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| lost(&error))? {
        if bytes.len() + chunk.len() > most {
            return Ok((bytes, false));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok((bytes, true))
}

/// Whether the server may have done what it was asked to do, although it did not say so. So may the server behind a
/// proxy that replies in its place, and one whose database did not confirm the change.
fn may_be_done(error: &CommandError) -> bool {
    let is_silent = |it: &Refusal| {
        it.code == OUTCOME_UNKNOWN || (!it.is_of_tidings && it.status.is_server_error())
    };
    error.is::<Lost>() || error.downcast_ref().is_some_and(is_silent)
}

/// The code of a reply to a change that the database did not confirm.
const OUTCOME_UNKNOWN: &str = "outcome_unknown";

/// The code of a reply to a repeat that came before the first request was done.
const REQUEST_RUNNING: &str = "request_running";

/// The response to a change was lost.
#[derive(Debug, thiserror::Error)]
#[error("{0}; the change may have been made")]
pub(super) struct Unknown(pub(super) CommandError);

/// An idempotency key that no other request has.
pub(super) fn new_key() -> String {
    format!("{:032x}", fastrand::u128(..))
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
    if status.is_redirection() {
        return Err(redirected(&response).into());
    }
    let (body, _) = read(response, MAX_REFUSAL_BYTES).await?;
    let refusal = match serde_json::from_slice(&body) {
        Ok(ErrorBody::<ReadError> { error }) => Refusal {
            status,
            code: error.code,
            message: error.message,
            field: error.field,
            is_of_tidings: true,
        },
        Err(_) => Refusal {
            status,
            code: String::new(),
            message: "this does not look like a Tidings server".to_owned(),
            field: None,
            is_of_tidings: false,
        },
    };
    Err(refusal.into())
}

/// Says where a redirect leads, which is not followed.
fn redirected(response: &Response) -> Refusal {
    let location = response.headers().get(LOCATION);
    let place = match location.and_then(|location| location.to_str().ok()) {
        Some(location) => format!("to {location}"),
        None => "without saying where".to_owned(),
    };
    Refusal {
        status: response.status(),
        code: String::new(),
        message: format!("it redirects {place}; use the address that it leads to (`--url`)"),
        field: None,
        is_of_tidings: false,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that sends the head of a reply, if there is one, and then a byte at a time for ever.
    async fn dripping(head: &'static str) -> Remote {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let _request = client.read(&mut [0; 4096]).await;
                    let mut sent = client.write_all(head.as_bytes()).await;
                    while sent.is_ok() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        sent = match head {
                            "" => Ok(()),
                            _ => client.write_all(b" ").await,
                        };
                    }
                });
            }
        });
        Remote {
            limits: ReplyLimits {
                silence: Duration::from_millis(200),
                whole: Duration::from_millis(500),
                bytes: 1 << 20,
            },
            ..Remote::new(url.parse().unwrap(), None)
        }
    }

    #[tokio::test]
    async fn a_reply_that_does_not_come_or_never_ends_is_given_up() {
        for head in ["", "HTTP/1.1 200 OK\r\n\r\n1", "HTTP/1.1 500 No\r\n\r\n1"] {
            let remote = dripping(head).await;
            let url = remote.address(&["v1", "keys"]).unwrap();
            let asked = tokio::time::timeout(Duration::from_secs(30), remote.get::<u8>(url));
            let error = asked.await.expect("an end").unwrap_err();
            assert_eq!(
                error.to_string(),
                "the server did not reply in time",
                "{head}"
            );
        }
    }
}
