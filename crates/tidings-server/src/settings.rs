//! What `serve` can be told: flags, environment variables and a file, merged.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jiff::{Span, SpanRelativeTo};
use serde::Deserialize;

use crate::config::ConfigError;

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
    #[arg(long, env = "TIDINGS_LISTEN", value_name = "ADDRESS:PORT", value_parser = parse_address)]
    pub listen: Option<SocketAddr>,

    /// Where to store: `sqlite:` and a file, created when missing [default: sqlite:tidings.db]
    #[arg(long, env = "TIDINGS_DATABASE", value_name = "URL")]
    pub database: Option<String>,

    /// For trying out and developing, on loopback only: needs no key, trusts pages of this machine,
    /// lets webhooks reach private addresses
    #[arg(long, env = "TIDINGS_DEV", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL",
          value_parser = clap::builder::BoolishValueParser::new())]
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
    #[serde(rename = "api-key")]
    pub api_keys: Option<Vec<String>>,

    /// A web origin whose pages may call this server, besides its own, for instance
    /// `https://app.example.com`; may be given several times
    #[arg(
        long = "allow-origin",
        env = "TIDINGS_ALLOW_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ','
    )]
    #[serde(rename = "allow-origin")]
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

    /// Longest silence on a stream before a ping, 1s to 25s [default: 20s]
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
    #[arg(long, env = "TIDINGS_WEBHOOK_PRIVATE_ADDRESSES", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL",
          value_parser = clap::builder::BoolishValueParser::new())]
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
        let file = toml::from_str(&text).map_err(|error: toml::de::Error| {
            let start = error.span().map_or(0, |span| span.start);
            ConfigError::Malformed {
                path,
                line: text[..start].lines().count().max(1),
                message: error.message().to_owned(),
            }
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
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "expected an address and a port, such as 127.0.0.1:8080".to_owned())
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
    use crate::Config;

    const DAY: u64 = 24 * 60 * 60;

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
        let config = Config::try_from(settings.with_file().unwrap()).unwrap();
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
        let refused = settings.with_file().unwrap_err().to_string();
        assert!(refused.contains("line 1"), "{refused}");
        assert!(refused.contains("lisen"), "{refused}");
    }

    #[test]
    fn a_mistake_in_the_file_shows_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tidings.toml");
        std::fs::write(
            &path,
            "dev = true\napi-key = [\"a-secret-0123456789\", 5]\n",
        )
        .unwrap();
        let settings = Settings {
            config: Some(path),
            ..Settings::default()
        };
        let refused = crate::explain(&settings.with_file().unwrap_err());
        assert!(refused.contains("line 2"), "{refused}");
        assert!(!refused.contains("secret"), "{refused}");
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
