//! The checked settings that a server runs on.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidings::retry::Schedule;

use crate::settings::{LogFormat, Settings};

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

/// Connections beyond the streams: requests that come and go.
const EXTRA_CONNECTIONS: usize = 1024;

impl Config {
    /// Most connections at a time. More wait in the operating system's queue.
    pub(crate) fn most_connections(&self) -> usize {
        self.max_streams + EXTRA_CONNECTIONS
    }
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
    /// The file is not TOML, or has an unknown key or a value of the wrong type. The line itself is
    /// not shown: it may hold a key.
    #[error("the configuration file {}, line {line}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
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

impl TryFrom<Settings> for Config {
    type Error = ConfigError;

    /// Applies the defaults and checks every value; [`ConfigError::Invalid`] names the setting and
    /// what was expected of it.
    fn try_from(settings: Settings) -> Result<Self, ConfigError> {
        let dev = settings.dev.unwrap_or(false);
        let listen = settings
            .listen
            .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)));
        let api_keys = check_keys(settings.api_keys.unwrap_or_default())?;
        check_access(dev, listen.ip(), &api_keys)?;
        Ok(Self {
            listen,
            database: check_database(settings.database.as_deref().unwrap_or("sqlite:tidings.db"))?,
            dev,
            api_keys,
            allow_origins: check_origins(settings.allow_origins.unwrap_or_default())?,
            max_body_bytes: in_range(
                "max-body-bytes",
                settings.max_body_bytes,
                1 << 20,
                1 << 10,
                1 << 26,
            )?,
            max_streams: in_range("max-streams", settings.max_streams, 10_000, 1, 1_000_000)?,
            max_streams_per_user: in_range(
                "max-streams-per-user",
                settings.max_streams_per_user,
                100,
                1,
                100_000,
            )?,
            ping_interval: in_time_range("ping-interval", settings.ping_interval, 20, 1, 25)?,
            retention: in_time_range(
                "retention",
                settings.retention,
                90 * DAY,
                HOUR,
                36_500 * DAY,
            )?,
            webhook_timeout: in_time_range("webhook-timeout", settings.webhook_timeout, 20, 1, 60)?,
            webhook_workers: in_range("webhook-workers", settings.webhook_workers, 64, 1, 1024)?,
            webhook_schedule: check_schedule(settings.webhook_schedule)?,
            webhook_private_addresses: settings.webhook_private_addresses.unwrap_or(dev),
            shutdown_timeout: in_time_range(
                "shutdown-timeout",
                settings.shutdown_timeout,
                30,
                0,
                600,
            )?,
            log: settings.log.unwrap_or_else(|| "warn".to_owned()),
            log_format: settings.log_format.unwrap_or_default(),
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
    if dev && !address.is_loopback() {
        return Err(ConfigError::Invalid {
            setting: "dev",
            expected: format!("it listens on loopback only; for {address}, use --api-key instead"),
        });
    }
    if !dev && keys.is_empty() {
        return Err(ConfigError::Invalid {
            setting: "api-key",
            expected: "expected at least one; to try things out on this machine, use --dev"
                .to_owned(),
        });
    }
    Ok(())
}

/// Takes `sqlite:file`, `sqlite:/absolute/file` and `sqlite:///absolute/file`.
fn check_database(url: &str) -> Result<PathBuf, ConfigError> {
    let path = url
        .strip_prefix("sqlite:")
        .map(|path| match path.strip_prefix("//") {
            // Between two slashes and the third would stand a host.
            Some(rest) if rest.starts_with('/') => rest,
            Some(_) => "",
            None => path,
        });
    let usable = |path: &&str| !path.is_empty() && !path.starts_with(':') && !path.contains('?');
    path.filter(usable)
        .map(|path| Path::new(path).to_owned())
        .ok_or_else(|| ConfigError::Invalid {
            setting: "database",
            expected: format!("expected `sqlite:` and the name of a file, got `{url}`"),
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
                "expected {} to {}, got {}",
                in_words(Duration::from_secs(least)),
                in_words(Duration::from_secs(most)),
                in_words(value)
            ),
        })
    }
}

/// A duration as it may be given: `1h 30m`.
fn in_words(duration: Duration) -> String {
    match jiff::SignedDuration::try_from(duration) {
        Ok(duration) => format!("{duration:#}"),
        Err(_) => "more".to_owned(),
    }
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
        Config::try_from(settings).unwrap_err().to_string()
    }

    #[test]
    fn dev_is_open_on_loopback_and_nowhere_else() {
        assert!(Config::try_from(dev()).unwrap().api_keys.is_empty());
        let everywhere = Settings {
            listen: Some(([0, 0, 0, 0], 8080).into()),
            ..dev()
        };
        assert!(refused(everywhere.clone()).contains("loopback only"));
        let keys = Some(vec!["0123456789abcdef".to_owned()]);
        let with_key = Settings {
            api_keys: keys.clone(),
            ..everywhere
        };
        assert!(refused(with_key.clone()).contains("loopback only"));
        let without_dev = Settings {
            dev: None,
            ..with_key
        };
        Config::try_from(without_dev).unwrap();
    }

    #[test]
    fn a_database_is_a_file() {
        let path = |url: &str| check_database(url).ok();
        assert_eq!(path("sqlite:a.db"), Some(PathBuf::from("a.db")));
        assert_eq!(path("sqlite:/a/b.db"), Some(PathBuf::from("/a/b.db")));
        assert_eq!(path("sqlite:///a/b.db"), Some(PathBuf::from("/a/b.db")));
        for url in [
            "sqlite:",
            "sqlite::memory:",
            "sqlite://a.db",
            "sqlite:a.db?mode=ro",
            "a.db",
        ] {
            assert_eq!(path(url), None, "{url}");
        }
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
}
