use std::io::{IsTerminal, Write};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::CommandError;
use crate::settings::{LogFormat, Settings};
use crate::{Config, Server};

/// Runs the server.
#[derive(Debug, Args)]
#[command(
    after_help = "Every setting can also stand in the file of --config, by its flag's name, \
                        for instance `listen = \"127.0.0.1:8080\"` (lists: `api-keys`, `allow-origins`)."
)]
pub(super) struct Serve {
    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        let config = Config::try_from(self.settings.with_file()?)?;
        start_log(&config)?;
        // Signals are watched from here on, so that none is lost while the server starts.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let server = Server::start(config.clone()).await?;
        announce(&config, &server)?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        writeln!(
            std::io::stderr(),
            "stopping: waiting up to {} s for what is in flight (once more to stop at once)",
            config.shutdown_timeout.as_secs()
        )?;
        tokio::select! {
            leftovers = server.shutdown() => {
                writeln!(std::io::stderr(), "stopped: {leftovers}")?;
                Ok(())
            }
            _ = terminate.recv() => Err("stopped at once; the next start goes on".into()),
            _ = interrupt.recv() => Err("stopped at once; the next start goes on".into()),
        }
    }
}

/// The library crates only emit; where it goes is decided here.
fn start_log(config: &Config) -> Result<(), CommandError> {
    let filter = EnvFilter::try_new(&config.log).map_err(|error| {
        format!(
            "--log: expected a level or a filter, got `{}`: {error}",
            config.log
        )
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

/// Says where the server is, where it stores, and what to try next.
fn announce(config: &Config, server: &Server) -> Result<(), CommandError> {
    let address = server.address();
    let access = if config.api_keys.is_empty() {
        "open to every program on this machine (--dev)"
    } else {
        "callers need a key"
    };
    // What the person typed to get here works for the next command too, on the path or not.
    let tidings = std::env::args()
        .next()
        .unwrap_or_else(|| "tidings".to_owned());
    let mut out = std::io::stdout().lock();
    writeln!(out, "Tidings listens on http://{address}, {access}")?;
    writeln!(out, "It stores in {}", config.database.display())?;
    if config.api_keys.is_empty() {
        writeln!(
            out,
            "Try: open http://{address} in a browser, then run: {tidings} send anna \"Hello\" --url http://{address}"
        )?;
    } else {
        writeln!(
            out,
            "Try: TIDINGS_API_KEY=… {tidings} send anna \"Hello\" --url http://{address}"
        )?;
    }
    out.flush()?;
    Ok(())
}
