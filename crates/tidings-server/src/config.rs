//! What the server is told: flags, environment variables and a file, merged and checked once.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use jiff::{Span, SpanRelativeTo};
use serde::Deserialize;
use tidings::retry::Schedule;

/// The settings of `serve`, each as a flag, as an environment variable and as a key of the file.
///
/// A flag wins over its variable, a variable over the file, the file over the default.
#[derive(Debug, Default, Clone, Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// A TOML file with any of these settings as keys, for instance `listen = "0.0.0.0:8080"`
    #[arg(long, env = "TIDINGS_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// Address and port to listen on; port 0 takes a free one and prints it [default: 127.0.0.1:8080]
    #[arg(long, env = "TIDINGS_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,

    /// Where to store: `sqlite:` and a file, created when missing [default: sqlite:tidings.db]
    #[arg(long, env = "TIDINGS_DATABASE", value_name = "URL")]
    pub database: Option<String>,

    /// Needs no key, but listens on loopback only: for trying out and developing
    #[arg(long, env = "TIDINGS_DEV", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub dev: Option<bool>,

    /// A key that callers send as `Authorization: Bearer KEY`, at least 16 characters; may be given
    /// several times, or in the variable with commas between
    #[arg(
        long = "api-key",
        env = "TIDINGS_API_KEY",
        value_name = "KEY",
        value_delimiter = ',',
        hide_env_values = true
    )]
    #[serde(rename = "api-keys")]
    pub api_keys: Option<Vec<String>>,

    /// A web origin whose pages may call this server, besides its own, for instance
    /// `https://app.example.com`; may be given several times
    #[arg(
        long = "allow-origin",
        env = "TIDINGS_ALLOW_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ','
    )]
    #[serde(rename = "allow-origins")]
    pub allow_origins: Option<Vec<String>>,

    /// Largest request body in bytes [default: 1048576]
    #[arg(long, env = "TIDINGS_MAX_BODY_BYTES", value_name = "BYTES")]
    pub max_body_bytes: Option<usize>,

    /// Most open streams (SSE and WebSocket) in all [default: 10000]
    #[arg(long, env = "TIDINGS_MAX_STREAMS", value_name = "COUNT")]
    pub max_streams: Option<usize>,

    /// Most open streams of one user [default: 100]
    #[arg(long, env = "TIDINGS_MAX_STREAMS_PER_USER", value_name = "COUNT")]
    pub max_streams_per_user: Option<usize>,

    /// Longest silence on a stream before a ping, 1s to 60s [default: 20s]
    #[arg(long, env = "TIDINGS_PING_INTERVAL", value_name = "DURATION", value_parser = parse_duration)]
    #[serde(deserialize_with = "duration_text")]
    pub ping_interval: Option<Duration>,

    /// How long notifications and finished deliveries are kept, at least 1h [default: 90d]
    #[arg(long, env = "TIDINGS_RETENTION", value_name = "DURATION", value_parser = parse_duration)]
    #[serde(deserialize_with = "duration_text")]
    pub retention: Option<Duration>,

    /// Longest time for one webhook request, 1s to 60s [default: 20s]
    #[arg(long, env = "TIDINGS_WEBHOOK_TIMEOUT", value_name = "DURATION", value_parser = parse_duration)]
    #[serde(deserialize_with = "duration_text")]
    pub webhook_timeout: Option<Duration>,

    /// Webhook requests in flight at once, 1 to 1024 [default: 64]
    #[arg(long, env = "TIDINGS_WEBHOOK_WORKERS", value_name = "COUNT")]
    pub webhook_workers: Option<usize>,

    /// Waiting times before each webhook attempt, with commas between
    /// [default: 0s,5s,5m,30m,2h,5h,10h,14h,20h,24h]
    #[arg(long, env = "TIDINGS_WEBHOOK_SCHEDULE", value_name = "DURATIONS", value_delimiter = ',', value_parser = parse_duration)]
    #[serde(deserialize_with = "duration_texts")]
    pub webhook_schedule: Option<Vec<Duration>>,

    /// Lets webhooks reach loopback, private and link-local addresses [default: only with --dev]
    #[arg(long, env = "TIDINGS_WEBHOOK_PRIVATE_ADDRESSES", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub webhook_private_addresses: Option<bool>,

    /// How long a stopping server waits for what is in flight, up to 10m [default: 30s]
    #[arg(long, env = "TIDINGS_SHUTDOWN_TIMEOUT", value_name = "DURATION", value_parser = parse_duration)]
    #[serde(deserialize_with = "duration_text")]
    pub shutdown_timeout: Option<Duration>,

    /// What to log on standard error: a level (error, warn, info, debug, trace) or a filter such as
    /// `info,tidings_server=debug` [default: warn]
    #[arg(long, env = "TIDINGS_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    /// How log lines look: text or json [default: text]
    #[arg(long, env = "TIDINGS_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The checked settings that a [`Server`](crate::Server) runs on.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// The SQLite file.
    pub database: PathBuf,
    /// Whether pages on loopback addresses count as the server's own.
    pub dev: bool,
    /// Keys of callers; none means that every caller is let in, which only `dev` on loopback may.
    pub api_keys: Vec<ApiKey>,
    /// Further origins whose pages may call.
    pub allow_origins: Vec<String>,
    /// Largest request body.
    pub max_body_bytes: usize,
    /// Most open streams in all.
    pub max_streams: usize,
    /// Most open streams of one user.
    pub max_streams_per_user: usize,
    /// Longest silence on a stream.
    pub ping_interval: Duration,
    /// How long notifications and finished deliveries are kept.
    pub retention: Duration,
    /// Longest time for one webhook request.
    pub webhook_timeout: Duration,
    /// Webhook requests in flight at once.
    pub webhook_workers: usize,
    /// Waiting times before each webhook attempt.
    pub webhook_schedule: Vec<Duration>,
    /// Whether webhooks may reach addresses that are not public.
    pub webhook_private_addresses: bool,
    /// How long a stopping server waits for what is in flight.
    pub shutdown_timeout: Duration,
    /// What to log.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
}

/// A key that lets a caller in. `Debug` does not show it.
#[derive(Clone)]
pub struct ApiKey(String);

impl ApiKey {
    /// Fewest characters of a key: fewer can be guessed.
    pub const MIN_LENGTH: usize = 16;

    /// The key itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not TOML, or has an unknown key or a value of the wrong type.
    #[error("the configuration file {} is not valid", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A value is out of its range, or contradicts another.
    #[error("--{setting}: {expected}")]
    Invalid {
        /// The flag, without its hyphens.
        setting: &'static str,
        /// What was expected.
        expected: String,
    },
}

impl Settings {
    /// Reads the file, if one is named, and fills in what flags and variables left open.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for an unreadable or malformed file.
    pub fn with_file(self) -> Result<Self, ConfigError> {
        let Some(path) = self.config.clone() else {
            return Ok(self);
        };
        let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Unreadable {
            path: path.clone(),
            source,
        })?;
        let file = toml::from_str(&text).map_err(|source| ConfigError::Malformed {
            path,
            source: Box::new(source),
        })?;
        Ok(self.or(file))
    }

    fn or(self, other: Self) -> Self {
        Self {
            config: self.config,
            listen: self.listen.or(other.listen),
            database: self.database.or(other.database),
            dev: self.dev.or(other.dev),
            api_keys: self.api_keys.or(other.api_keys),
            allow_origins: self.allow_origins.or(other.allow_origins),
            max_body_bytes: self.max_body_bytes.or(other.max_body_bytes),
            max_streams: self.max_streams.or(other.max_streams),
            max_streams_per_user: self.max_streams_per_user.or(other.max_streams_per_user),
            ping_interval: self.ping_interval.or(other.ping_interval),
            retention: self.retention.or(other.retention),
            webhook_timeout: self.webhook_timeout.or(other.webhook_timeout),
            webhook_workers: self.webhook_workers.or(other.webhook_workers),
            webhook_schedule: self.webhook_schedule.or(other.webhook_schedule),
            webhook_private_addresses: self
                .webhook_private_addresses
                .or(other.webhook_private_addresses),
            shutdown_timeout: self.shutdown_timeout.or(other.shutdown_timeout),
            log: self.log.or(other.log),
            log_format: self.log_format.or(other.log_format),
        }
    }

    /// Applies the defaults and checks every value.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] names the setting and what was expected of it.
    pub fn check(self) -> Result<Config, ConfigError> {
        let dev = self.dev.unwrap_or(false);
        let listen = self
            .listen
            .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)));
        let api_keys = check_keys(self.api_keys.unwrap_or_default())?;
        check_access(dev, listen.ip(), &api_keys)?;
        Ok(Config {
            listen,
            database: check_database(self.database.as_deref().unwrap_or("sqlite:tidings.db"))?,
            dev,
            api_keys,
            allow_origins: check_origins(self.allow_origins.unwrap_or_default())?,
            max_body_bytes: in_range(
                "max-body-bytes",
                self.max_body_bytes,
                1 << 20,
                1 << 10,
                1 << 26,
            )?,
            max_streams: in_range("max-streams", self.max_streams, 10_000, 1, 1_000_000)?,
            max_streams_per_user: in_range(
                "max-streams-per-user",
                self.max_streams_per_user,
                100,
                1,
                100_000,
            )?,
            ping_interval: in_time_range("ping-interval", self.ping_interval, 20, 1, 60)?,
            retention: in_time_range("retention", self.retention, 90 * DAY, HOUR, 36_500 * DAY)?,
            webhook_timeout: in_time_range("webhook-timeout", self.webhook_timeout, 20, 1, 60)?,
            webhook_workers: in_range("webhook-workers", self.webhook_workers, 64, 1, 1024)?,
            webhook_schedule: check_schedule(self.webhook_schedule)?,
            webhook_private_addresses: self.webhook_private_addresses.unwrap_or(dev),
            shutdown_timeout: in_time_range("shutdown-timeout", self.shutdown_timeout, 30, 0, 600)?,
            log: self.log.unwrap_or_else(|| "warn".to_owned()),
            log_format: self.log_format.unwrap_or_default(),
        })
    }
}

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;

fn check_keys(keys: Vec<String>) -> Result<Vec<ApiKey>, ConfigError> {
    keys.into_iter()
        .map(|key| {
            let usable =
                key.len() >= ApiKey::MIN_LENGTH && key.chars().all(|c| c.is_ascii_graphic());
            usable.then_some(ApiKey(key)).ok_or(ConfigError::Invalid {
                setting: "api-key",
                expected: format!(
                    "expected at least {} visible ASCII characters",
                    ApiKey::MIN_LENGTH
                ),
            })
        })
        .collect()
}

/// Only a loopback address may be open to everybody, and only when `--dev` says so.
fn check_access(dev: bool, address: IpAddr, keys: &[ApiKey]) -> Result<(), ConfigError> {
    if !keys.is_empty() || (dev && address.is_loopback()) {
        return Ok(());
    }
    let expected = if dev {
        format!(
            "--dev is open to every caller and listens on loopback only; with {address}, set a key"
        )
    } else {
        "expected at least one key; or use --dev to try things out on this machine without"
            .to_owned()
    };
    Err(ConfigError::Invalid {
        setting: "api-key",
        expected,
    })
}

fn check_database(url: &str) -> Result<PathBuf, ConfigError> {
    let path = url.strip_prefix("sqlite:").filter(|path| !path.is_empty());
    path.map(|path| Path::new(path).to_owned())
        .ok_or_else(|| ConfigError::Invalid {
            setting: "database",
            expected: format!("expected `sqlite:` and a file name, got `{url}`"),
        })
}

/// An origin is compared as text, so it must be spelled the way browsers send it.
fn check_origins(origins: Vec<String>) -> Result<Vec<String>, ConfigError> {
    for origin in &origins {
        let spelled = url::Url::parse(origin).map(|url| url.origin().ascii_serialization());
        if origin != "null" && spelled.as_deref() != Ok(origin) {
            return Err(ConfigError::Invalid {
                setting: "allow-origin",
                expected: format!(
                    "expected an origin such as `https://app.example.com`, got `{origin}`"
                ),
            });
        }
    }
    Ok(origins)
}

fn check_schedule(schedule: Option<Vec<Duration>>) -> Result<Vec<Duration>, ConfigError> {
    let schedule = schedule.unwrap_or_else(|| {
        let retries = Schedule::standard_webhooks();
        [&[Duration::ZERO], retries.delays()].concat()
    });
    let week = Duration::from_secs(7 * DAY);
    if schedule.is_empty() || schedule.len() > 100 || schedule.iter().any(|wait| *wait > week) {
        return Err(ConfigError::Invalid {
            setting: "webhook-schedule",
            expected: "expected 1 to 100 waiting times of at most 7d".to_owned(),
        });
    }
    Ok(schedule)
}

fn in_range(
    setting: &'static str,
    value: Option<usize>,
    default: usize,
    least: usize,
    most: usize,
) -> Result<usize, ConfigError> {
    let value = value.unwrap_or(default);
    if (least..=most).contains(&value) {
        Ok(value)
    } else {
        Err(ConfigError::Invalid {
            setting,
            expected: format!("expected {least} to {most}, got {value}"),
        })
    }
}

fn in_time_range(
    setting: &'static str,
    value: Option<Duration>,
    default: u64,
    least: u64,
    most: u64,
) -> Result<Duration, ConfigError> {
    let value = value.unwrap_or(Duration::from_secs(default));
    if (Duration::from_secs(least)..=Duration::from_secs(most)).contains(&value) {
        Ok(value)
    } else {
        Err(ConfigError::Invalid {
            setting,
            expected: format!(
                "expected {least} to {most} seconds, got {}",
                value.as_secs_f64()
            ),
        })
    }
}

/// Reads `30s`, `5m`, `1h 30m`, `90d`; a day has 24 hours.
///
/// # Errors
///
/// A text that says what was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    text.parse::<Span>()
        .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| format!("expected a duration such as 30s, 5m or 90d, got `{text}`"))
}

fn duration_text<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text)
        .map(Some)
        .map_err(serde::de::Error::custom)
}

fn duration_texts<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<Duration>>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts
        .iter()
        .map(|text| parse_duration(text))
        .collect::<Result<_, _>>()
        .map(Some)
        .map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dev() -> Settings {
        Settings {
            dev: Some(true),
            ..Settings::default()
        }
    }

    fn refused(settings: Settings) -> String {
        settings.check().unwrap_err().to_string()
    }

    #[test]
    fn dev_is_open_on_loopback_and_nowhere_else() {
        assert!(dev().check().unwrap().api_keys.is_empty());
        let everywhere = Settings {
            listen: Some(([0, 0, 0, 0], 8080).into()),
            ..dev()
        };
        assert!(refused(everywhere.clone()).contains("loopback only"));
        let with_key = Settings {
            api_keys: Some(vec!["0123456789abcdef".to_owned()]),
            ..everywhere
        };
        with_key.check().unwrap();
    }

    #[test]
    fn without_dev_a_key_is_demanded() {
        assert!(refused(Settings::default()).contains("--api-key"));
        let short = Settings {
            api_keys: Some(vec!["short".to_owned()]),
            ..Settings::default()
        };
        assert!(refused(short).contains("16"));
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        let zero = Some(Duration::ZERO);
        for (settings, name) in [
            (
                Settings {
                    max_body_bytes: Some(0),
                    ..dev()
                },
                "--max-body-bytes",
            ),
            (
                Settings {
                    max_streams: Some(0),
                    ..dev()
                },
                "--max-streams",
            ),
            (
                Settings {
                    ping_interval: zero,
                    ..dev()
                },
                "--ping-interval",
            ),
            (
                Settings {
                    retention: zero,
                    ..dev()
                },
                "--retention",
            ),
            (
                Settings {
                    webhook_workers: Some(0),
                    ..dev()
                },
                "--webhook-workers",
            ),
            (
                Settings {
                    webhook_schedule: Some(vec![]),
                    ..dev()
                },
                "--webhook-schedule",
            ),
            (
                Settings {
                    database: Some("tidings.db".into()),
                    ..dev()
                },
                "--database",
            ),
            (
                Settings {
                    allow_origins: Some(vec!["example.com".into()]),
                    ..dev()
                },
                "--allow-origin",
            ),
        ] {
            assert!(refused(settings).starts_with(name), "{name}");
        }
    }

    #[test]
    fn the_file_fills_in_and_flags_win() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tidings.toml");
        std::fs::write(&path, "dev = true\nretention = \"30d\"\nmax-streams = 7\nwebhook-schedule = [\"0s\", \"1m\"]\n").unwrap();
        let settings = Settings {
            config: Some(path),
            max_streams: Some(8),
            ..Settings::default()
        };
        let config = settings.with_file().unwrap().check().unwrap();
        assert_eq!(config.max_streams, 8);
        assert_eq!(config.retention, Duration::from_secs(30 * DAY));
        assert_eq!(config.webhook_schedule.len(), 2);
    }

    #[test]
    fn an_unknown_key_in_the_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tidings.toml");
        std::fs::write(&path, "lisen = \"127.0.0.1:1\"").unwrap();
        let settings = Settings {
            config: Some(path),
            ..Settings::default()
        };
        let ConfigError::Malformed { source, .. } = settings.with_file().unwrap_err() else {
            panic!("expected a malformed file")
        };
        assert!(source.to_string().contains("lisen"));
    }

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
