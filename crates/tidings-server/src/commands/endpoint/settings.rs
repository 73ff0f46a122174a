//! The settings of an endpoint as flags.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;
use tidings_storage::explain::said_by_system;
use tidings_webhooks::{Format, MAX_RATE_LIMIT, SignatureScheme};

use super::{Body, CommandError};
use crate::settings::{count, parse_duration};
use crate::small_file;

/// The largest file with a secret.
const MAX_SECRET_BYTES: u64 = 1 << 16;

/// An endpoint to make.
#[derive(Debug, Args)]
pub(super) struct NewEndpoint {
    /// Where events are posted
    #[arg(value_name = "URL")]
    post_to: String,

    /// File with the secret that signs the requests, `whsec_` and 24 to 64 bytes in base64; `-` is standard input
    /// [default: the server makes one]
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,

    /// Posts nothing until the endpoint is enabled
    #[arg(long)]
    disabled: bool,

    #[command(flatten)]
    settings: Settings,
}

/// What to change of an endpoint.
#[derive(Debug, Args)]
pub(super) struct Changes {
    /// Where events are posted
    #[arg(long = "post-to", value_name = "URL")]
    post_to: Option<String>,

    /// Resets a setting to its default; may be given several times, or several separated by commas
    #[arg(long, value_name = "SETTING", value_delimiter = ',')]
    reset: Vec<Setting>,

    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Args)]
struct Settings {
    /// A note for its owner
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,

    /// Type of the events, such as order.paid or order.*; may be given several times, or several separated by commas
    /// [default: every type]
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    event_types: Vec<String>,

    /// What a body looks like: envelope or raw
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    format: Option<Format>,

    /// Additional header of each request; may be given several times
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,

    /// How requests are signed, standard or timestamped; may be given several times, or both separated by a comma
    #[arg(long = "signature", value_name = "SCHEME", value_delimiter = ',', value_parser = signature)]
    signatures: Vec<SignatureScheme>,

    /// Maximum number of requests per second, 1 to 1000000
    #[arg(long, value_name = "COUNT", value_parser = count(1, MAX_RATE_LIMIT))]
    rate_limit: Option<u32>,

    /// Longest time for one request, up to 1h, or up to 60s for an endpoint of a user
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,

    /// Waiting time before each attempt, in whole seconds, separated by commas
    #[arg(long, value_name = "DURATIONS", value_delimiter = ',', value_parser = parse_duration)]
    schedule: Vec<Duration>,
}

/// A setting that has a default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Setting {
    Description,
    Type,
    Format,
    Header,
    Signature,
    RateLimit,
    Timeout,
    Schedule,
}

impl Setting {
    /// The name of the field in JSON.
    fn field(self) -> &'static str {
        match self {
            Self::Description => "description",
            Self::Type => "event_types",
            Self::Format => "format",
            Self::Header => "headers",
            Self::Signature => "signatures",
            Self::RateLimit => "rate_limit",
            Self::Timeout => "timeout_ms",
            Self::Schedule => "schedule",
        }
    }
}

impl NewEndpoint {
    pub(super) fn body(&self) -> Result<Body, CommandError> {
        let mut body = self.settings.body()?;
        body.insert("url".to_owned(), self.post_to.as_str().into());
        if self.disabled {
            body.insert("enabled".to_owned(), false.into());
        }
        if let Some(file) = &self.secret_file {
            body.insert("secret".to_owned(), read_secret(file)?.into());
        }
        Ok(body)
    }
}

impl Changes {
    pub(super) fn body(&self) -> Result<Body, CommandError> {
        let mut body = self.settings.body()?;
        if let Some(url) = &self.post_to {
            body.insert("url".to_owned(), url.as_str().into());
        }
        for setting in &self.reset {
            let field = setting.field().to_owned();
            if body
                .insert(field, Value::Null)
                .is_some_and(|it| !it.is_null())
            {
                let name = setting
                    .to_possible_value()
                    .map(|it| it.get_name().to_owned());
                let name = name.unwrap_or_default();
                return Err(format!("--reset: not allowed for {name} beside --{name}").into());
            }
        }
        if body.is_empty() {
            return Err("expected a setting to change, see: tidings endpoint update --help".into());
        }
        Ok(body)
    }
}

impl Settings {
    /// The fields that are given.
    fn body(&self) -> Result<Body, CommandError> {
        let mut headers = Body::new();
        for (name, value) in &self.headers {
            let is_known = headers.keys().any(|known| known.eq_ignore_ascii_case(name));
            if is_known {
                return Err(
                    format!("--header: expected each header once, got {name} twice").into(),
                );
            }
            headers.insert(name.clone(), value.as_str().into());
        }
        let schedule = self.schedule.iter().map(|wait| match wait.subsec_nanos() {
            0 => Ok(Value::from(wait.as_secs())),
            _ => Err("--schedule: expected whole seconds"),
        });
        let timeout = self.timeout.map(|timeout| milliseconds("timeout", timeout));
        let list = |values: Vec<Value>| (!values.is_empty()).then_some(Value::Array(values));
        let types = self.event_types.iter().map(|it| it.as_str().into());
        let fields = [
            (
                Setting::Description,
                self.description.as_deref().map(Value::from),
            ),
            (Setting::Type, list(types.collect())),
            (
                Setting::Format,
                self.format.map(serde_json::to_value).transpose()?,
            ),
            (
                Setting::Header,
                (!headers.is_empty()).then_some(Value::Object(headers)),
            ),
            (
                Setting::Signature,
                list(
                    self.signatures
                        .iter()
                        .map(serde_json::to_value)
                        .collect::<Result<_, _>>()?,
                ),
            ),
            (Setting::RateLimit, self.rate_limit.map(Value::from)),
            (Setting::Timeout, timeout.transpose()?.map(Value::from)),
            (Setting::Schedule, list(schedule.collect::<Result<_, _>>()?)),
        ];
        let given = fields
            .into_iter()
            .filter_map(|(setting, value)| value.map(|value| (setting.field().to_owned(), value)));
        Ok(given.collect())
    }
}

/// Whole milliseconds, which is how the server counts.
pub(super) fn milliseconds(flag: &str, time: Duration) -> Result<u64, CommandError> {
    let whole = u64::try_from(time.as_millis()).ok();
    whole
        .filter(|it| Duration::from_millis(*it) == time)
        .ok_or_else(|| format!("--{flag}: expected whole milliseconds").into())
}

/// The secret in a file, without the line end after it. On the command line it would be visible to other programs.
pub(super) fn read_secret(file: &Path) -> Result<String, CommandError> {
    let read = if file == Path::new("-") {
        small_file::read_all(std::io::stdin(), MAX_SECRET_BYTES)
    } else {
        small_file::read(file, MAX_SECRET_BYTES)
    };
    let text = read.and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other));
    let text = text.map_err(|error| {
        let reason = said_by_system(&error);
        format!("--secret-file: cannot read {}: {reason}", file.display())
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// A word of the server, as it is written in JSON.
fn word<T: serde::de::DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_value(text.into()).ok()
}

fn format(text: &str) -> Result<Format, &'static str> {
    word(text).ok_or("expected envelope or raw")
}

fn signature(text: &str) -> Result<SignatureScheme, &'static str> {
    word(text).ok_or("expected standard or timestamped")
}

fn header(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text
        .split_once(':')
        .ok_or("expected a name, a colon and a value, such as `x-team: billing`")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}
