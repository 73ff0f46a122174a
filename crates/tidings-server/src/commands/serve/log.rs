//! What the server writes to standard error.

use std::fmt;
use std::io::{IsTerminal, Write};

use jiff::Timestamp;
use serde_json::Value;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::Config;
use crate::commands::CommandError;
use crate::settings::LogFormat;
use crate::telemetry::traces::Traces;

/// Reports each certificate that it refuses as an error, without its host. The attempt of the webhook has the same.
const VERIFIER: &str = "rustls_platform_verifier";

/// What is logged. Endpoints with bad certificates must not fill the log with errors that say nothing, unless it is asked
/// for them.
fn filter(given: &str) -> Result<Targets, CommandError> {
    let filter: Targets = given.parse()?;
    let is_named = filter.iter().any(|(target, _)| target == VERIFIER);
    Ok(if is_named {
        filter
    } else {
        filter.with_target(VERIFIER, LevelFilter::OFF)
    })
}

/// The log of this process.
#[derive(Debug)]
pub(super) struct Log {
    format: LogFormat,
    filter: reload::Handle<Targets, Registry>,
}

impl Log {
    /// Starts the log, and the traces if there are some. The library crates only emit events and spans; the binary
    /// decides where they go.
    pub(super) fn start(config: &Config, traces: Option<&Traces>) -> Result<Self, CommandError> {
        let (filter, handle) = reload::Layer::new(filter(&config.log)?);
        let lines = tracing_subscriber::fmt::layer()
            .with_timer(Now)
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr)
            // It would report a line that cannot be written by a panic.
            .log_internal_errors(false);
        let lines = match config.log_format {
            LogFormat::Text => lines.boxed(),
            LogFormat::Json => lines.json().boxed(),
        };
        tracing_subscriber::registry()
            .with(lines.with_filter(filter))
            .with(traces.map(Traces::layer))
            .init();
        Ok(Self {
            format: config.log_format,
            filter: handle,
        })
    }

    /// Logs by another filter from now on.
    pub(super) fn change(&self, filter: &str) -> Result<(), CommandError> {
        Ok(self.filter.reload(self::filter(filter)?)?)
    }

    /// Writes a line at every log level, in the format of the log. The server works on if the reader of the line
    /// has ended.
    pub(super) fn note(&self, line: &str) {
        let _closed = match self.format {
            LogFormat::Text => writeln!(std::io::stderr(), "{line}"),
            LogFormat::Json => writeln!(std::io::stderr(), "{}", json("INFO", line)),
        };
    }
}

/// A line as the log has it in JSON, with its fields in the same order.
pub(super) fn json(level: &str, message: &str) -> String {
    let (now, level, message) = (Now.to_string(), Value::from(level), Value::from(message));
    format!(
        r#"{{"timestamp":"{now}","level":{level},"fields":{{"message":{message}}},"target":"tidings_server"}}"#
    )
}

/// The time of a line: of the same form in all of them.
struct Now;

impl fmt::Display for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", Timestamp::now())
    }
}

impl FormatTime for Now {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn refused_certificates_are_logged_only_if_the_filter_names_them() {
        let target = "rustls_platform_verifier::verification::others";
        let is_logged = |given| filter(given).unwrap().would_enable(target, &Level::ERROR);
        assert!(!is_logged("warn"));
        assert!(!is_logged("trace,tidings=debug"));
        assert!(is_logged("warn,rustls_platform_verifier=error"));
        let others = filter("warn").unwrap();
        assert!(others.would_enable("tidings_server", &Level::WARN));
    }
}
