//! The settings of `serve`, in one table: each field is a flag, an environment variable and a key of
//! the file, with its default and its range.
//!
//! A flag overrides the variable, the variable overrides the file, the file overrides the default.
//! [`Config`](crate::Config) is what the server runs on, after the checks that concern more than one
//! setting.

pub(crate) mod contradictions;
pub(crate) mod environment;
pub(crate) mod file;
pub(crate) mod given;
pub mod jwt;
pub mod limits;
pub mod mistakes;
pub mod network;
pub(crate) mod origin;

use std::ffi::OsStr;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{ArgAction, Args};
use jiff::{Span, SpanRelativeTo};
use tidings_storage::{DatabaseUrl, RedisUrl};
use tidings_webhooks::encryption::{EncryptionKey, InvalidKey};
use tracing_subscriber::filter::Targets;
use url::Url;

use self::jwt::JwtSettings;
use self::limits::LimitSettings;
use self::network::Network;

pub(crate) const HOUR: u64 = 60 * 60;
pub(crate) const DAY: u64 = 24 * HOUR;

/// The settings of `serve`, each in its range.
#[derive(Debug, Clone, Args)]
#[non_exhaustive]
pub struct Settings {
    /// TOML file with any of these settings as keys, for instance `listen = "0.0.0.0:8080"`
    #[arg(long, env = "TIDINGS_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Address and port to listen on, for instance `0.0.0.0:8080` or `localhost:8080`; port 0 picks a free
    /// port and prints it
    #[arg(long, env = "TIDINGS_LISTEN", value_name = "ADDRESS:PORT",
          default_value = "127.0.0.1:8080", value_parser = address)]
    pub listen: SocketAddr,

    /// Database: `sqlite:` and a file, which is created if it does not exist, or a PostgreSQL database that
    /// several servers may share, `postgres://user:password@host/database`; `?sslmode=verify-full` after it demands
    /// TLS
    #[arg(
        long,
        env = "TIDINGS_DATABASE",
        value_name = "URL",
        default_value = "sqlite:tidings.db",
        hide_env_values = true,
        value_parser = Unshown(DatabaseUrl::from_str)
    )]
    pub database: DatabaseUrl,

    /// Redis server that carries wake-ups between instances and keeps who is online, beside a PostgreSQL
    /// database: `redis://user:password@host/number`, or `rediss://` for TLS
    #[arg(
        long,
        env = "TIDINGS_REDIS",
        value_name = "URL",
        hide_env_values = true,
        value_parser = Unshown(RedisUrl::from_str)
    )]
    pub redis: Option<RedisUrl>,

    /// For development, on loopback only: requires no API key, trusts web pages that are served from this
    /// machine, and allows webhooks to private addresses
    #[arg(long, env = "TIDINGS_DEV", value_name = "BOOL", default_value = "false",
          num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set,
          value_parser = switch)]
    pub dev: bool,

    /// API key that callers send as `Authorization: Bearer KEY`, at least 16 characters; may be given
    /// several times, or several separated by commas
    #[arg(long = "api-key", env = "TIDINGS_API_KEY", value_name = "KEY", value_delimiter = ',',
          hide_env_values = true, value_parser = Unshown(ApiKey::from_str))]
    pub api_keys: Vec<ApiKey>,

    /// Web origin whose pages may call this server, besides its own, for instance
    /// `https://app.example.com`; may be given several times, or several separated by commas
    #[arg(long = "allow-origin", env = "TIDINGS_ALLOW_ORIGIN", value_name = "ORIGIN",
          value_delimiter = ',', value_parser = origin)]
    pub allow_origins: Vec<String>,

    /// How tokens of users are verified.
    #[command(flatten)]
    pub jwt: JwtSettings,

    /// Key that encrypts the secrets of webhook endpoints in the database: 32 random bytes in base64, for
    /// instance of `openssl rand -base64 32`. Of several, separated by commas, the first encrypts and all
    /// decrypt [default: secrets are stored as they are]
    #[arg(long = "encryption-key", env = "TIDINGS_ENCRYPTION_KEY", value_name = "KEY",
          value_delimiter = ',', hide_env_values = true,
          value_parser = Unshown(encryption_key))]
    pub encryption_keys: Vec<EncryptionKey>,

    /// What is limited.
    #[command(flatten)]
    pub limits: LimitSettings,

    /// Proxies in front of the server: addresses, or networks such as `10.0.0.0/8`. The limits of addresses
    /// count the clients that these name in `X-Forwarded-For` or `Forwarded`, and no others; may be given several
    /// times, or several separated by commas
    #[arg(long, env = "TIDINGS_TRUSTED_PROXIES", value_name = "NETWORK", value_delimiter = ',',
          value_parser = Network::from_str)]
    pub trusted_proxies: Vec<Network>,

    /// Longest silence on a stream before a ping, 1s to 25s
    #[arg(long, env = "TIDINGS_PING_INTERVAL", value_name = "DURATION",
          default_value = "20s", value_parser = time(1, 25))]
    pub ping_interval: Duration,

    /// How long an idle connection of a client stays open, 5s to 1h; longer than the idle time of a
    /// proxy in front
    #[arg(long, env = "TIDINGS_KEEP_ALIVE", value_name = "DURATION",
          default_value = "75s", value_parser = time(5, 3600))]
    pub keep_alive: Duration,

    /// How long notifications and finished deliveries are kept, 1h to 36500d
    #[arg(long, env = "TIDINGS_RETENTION", value_name = "DURATION",
          default_value = "90d", value_parser = time(HOUR, 36_500 * DAY))]
    pub retention: Duration,

    /// Longest time for one webhook request, 1s to 60s
    #[arg(long, env = "TIDINGS_WEBHOOK_TIMEOUT", value_name = "DURATION",
          default_value = "20s", value_parser = time(1, 60))]
    pub webhook_timeout: Duration,

    /// Maximum number of webhook requests at the same time, 1 to 1024; up to 256 more that take longer than a second
    /// are under way beside them
    #[arg(long, env = "TIDINGS_WEBHOOK_WORKERS", value_name = "COUNT",
          default_value = "64", value_parser = count(1, 1024_usize))]
    pub webhook_workers: usize,

    /// Waiting time before each webhook attempt, separated by commas: 1 to 100 of up to 7d each
    #[arg(long, env = "TIDINGS_WEBHOOK_SCHEDULE", value_name = "DURATIONS", value_delimiter = ',',
          default_value = "0s,5s,5m,30m,2h,5h,10h,14h,20h,24h", value_parser = time(0, 7 * DAY))]
    pub webhook_schedule: Vec<Duration>,

    /// Allows webhooks to loopback, private and link-local addresses [default: only with --dev]
    #[arg(long, env = "TIDINGS_WEBHOOK_PRIVATE_ADDRESSES", value_name = "BOOL",
          num_args = 0..=1, default_missing_value = "true", value_parser = switch)]
    pub webhook_private_addresses: Option<bool>,

    /// How long a stopping server waits for work in progress, up to 10m
    #[arg(long, env = "TIDINGS_SHUTDOWN_TIMEOUT", value_name = "DURATION",
          default_value = "30s", value_parser = time(0, 600))]
    pub shutdown_timeout: Duration,

    /// With several servers on one database: how long the others wait after a server has crashed, before they
    /// send its webhooks and count its users as offline, 1s to 5m
    #[arg(long, env = "TIDINGS_LEASE", value_name = "DURATION",
          default_value = "30s", value_parser = time(1, 300))]
    pub lease: Duration,

    /// Collector of OpenTelemetry that gets traces, as protobuf over HTTP: its address for all signals, for
    /// instance `http://127.0.0.1:4318`; only in a binary that was built with the feature `otlp` [default: no traces]
    #[arg(long, env = "TIDINGS_OTLP_ENDPOINT", value_name = "URL", hide_env_values = true,
          value_parser = Unshown(collector))]
    pub otlp_endpoint: Option<Url>,

    /// What to log on standard error: a level (error, warn, info, debug, trace, off) or a filter such as
    /// `info,tidings_server=debug`
    #[arg(
        long,
        env = "TIDINGS_LOG",
        value_name = "FILTER",
        default_value = "warn",
        value_parser = log_filter
    )]
    pub log: String,

    /// Format of the log lines: text, or json for one object a line
    #[arg(
        long,
        env = "TIDINGS_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        value_parser = LogFormat::from_str
    )]
    pub log_format: LogFormat,
}

/// Format of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("expected text or json"),
        }
    }
}

/// A key of a caller. `Debug` does not show it.
#[derive(Clone)]
pub struct ApiKey(String);

impl ApiKey {
    /// Minimum number of characters of a key: a shorter key can be guessed.
    pub const MIN_LENGTH: usize = 16;

    /// The key itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for ApiKey {
    type Err = String;

    /// Takes no notice of blanks around a key, which may be one of a list.
    fn from_str(key: &str) -> Result<Self, String> {
        let key = key.trim();
        if key.len() >= Self::MIN_LENGTH && key.chars().all(|c| c.is_ascii_graphic()) {
            return Ok(Self(key.to_owned()));
        }
        let least = Self::MIN_LENGTH;
        let got = if key.is_empty() { ", got none" } else { "" };
        Err(format!(
            "expected at least {least} visible ASCII characters{got}"
        ))
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Parses a value that may contain a password, which the error therefore does not repeat.
#[derive(Clone, Copy)]
pub(crate) struct Unshown<T, E>(pub(crate) fn(&str) -> Result<T, E>);

impl<T, E> TypedValueParser for Unshown<T, E>
where
    T: Clone + Send + Sync + 'static,
    E: fmt::Display + Clone + Send + Sync + 'static,
{
    type Value = T;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        let refused = |reason: String| {
            let name = argument.map(ToString::to_string).unwrap_or_default();
            let text = format!("invalid value for '{name}': {reason}\n");
            clap::Error::raw(ErrorKind::ValueValidation, text).with_cmd(command)
        };
        let text = value
            .to_str()
            // With this kind, the variable that it is of is named.
            .ok_or_else(|| clap::Error::new(ErrorKind::InvalidUtf8).with_cmd(command))?;
        (self.0)(text).map_err(|error| refused(error.to_string()))
    }
}

/// Takes no notice of blanks around a key, which may be one of a list.
fn encryption_key(text: &str) -> Result<EncryptionKey, InvalidKey> {
    text.trim().parse()
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    // No other name is looked up: what it leads to can change.
    let text = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    text.parse()
        .map_err(|_| "expected an IP address and a port, such as 127.0.0.1:8080 or localhost:8080; no other name is looked up")
}

/// A setting that is on or off. Other words are refused, as in a file: what opens a server must not be guessed.
fn switch(text: &str) -> Result<bool, &'static str> {
    text.parse().map_err(|_| "expected true or false")
}

/// Checks a filter. The library takes a misspelt level for the name of a module, so a name must have a
/// level here; and no text and numbers for levels, which is not what people mean.
fn log_filter(text: &str) -> Result<String, &'static str> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    let is_level = |text: &str| LEVELS.iter().any(|level| text.eq_ignore_ascii_case(level));
    let is_complete = |part: &str| match part.rsplit_once('=') {
        // A filter of spans, of which the library would ignore a part.
        _ if part.contains('[') => false,
        Some((_, level)) => is_level(level.trim()),
        None => is_level(part.trim()),
    };
    if text.split(',').all(is_complete) && text.parse::<Targets>().is_ok() {
        Ok(text.to_owned())
    } else {
        Err(
            "expected error, warn, info, debug, trace or off, or a filter such as `info,tidings_server=debug`",
        )
    }
}

/// The address of a collector. Credentials belong into a header, which is a variable.
fn collector(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).ok().filter(|url| {
        let is_plain = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        matches!(url.scheme(), "http" | "https") && is_plain
    });
    url.ok_or("expected a URL of http or https without user, password and query, such as http://127.0.0.1:4318")
}

/// Origins are compared as text, so an origin must be spelled as browsers send it. `null`, which a file and
/// every page in a sandbox sends, is no origin to trust.
fn origin(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    let spelled = Url::parse(text).map(|url| url.origin().ascii_serialization());
    if spelled.as_deref() == Ok(text) {
        Ok(text.to_owned())
    } else {
        Err("expected an origin such as `https://app.example.com`")
    }
}

/// A whole number from `min` to `max`.
pub(crate) fn count<T>(
    min: T,
    max: T,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + fmt::Display + Clone + Send + Sync + 'static,
{
    move |text| {
        let value = text.parse().ok();
        value
            .filter(|value| (&min..=&max).contains(&value))
            .ok_or_else(|| format!("expected {min} to {max}"))
    }
}

/// A time from `min` to `max` seconds.
pub(crate) fn time(
    min: u64,
    max: u64,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    let (min, max) = (Duration::from_secs(min), Duration::from_secs(max));
    move |text| {
        let value = parse_duration(text.trim())?;
        if (min..=max).contains(&value) {
            return Ok(value);
        }
        Err(format!(
            "expected {} to {}",
            duration_text(min),
            duration_text(max)
        ))
    }
}

/// The largest unit of which the duration is a multiple, as [`parse_duration`] reads it.
fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(DAY, "d"), (HOUR, "h"), (60, "m")];
    let unit = units
        .iter()
        .find(|(unit, _)| seconds >= *unit && seconds.is_multiple_of(*unit));
    let (unit, name) = unit.unwrap_or(&(1, "s"));
    format!("{}{name}", seconds / unit)
}

/// Reads `30s`, `5m`, `1h 30m`, `90d`; a day has 24 hours.
///
/// # Errors
///
/// A text that says what is expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    text.parse::<Span>()
        .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| format!("expected a duration such as 30s, 5m or 90d, got `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("90d"), Ok(Duration::from_secs(90 * DAY)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        for text in ["", "soon", "-5s", "5", "1 month"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
