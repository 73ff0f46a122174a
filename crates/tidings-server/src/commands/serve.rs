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
    after_help = "Every setting can also stand in the file of --config, by its flag's name, for \
                  instance `listen = \"127.0.0.1:8080\"` or `api-key = [\"…\"]`."
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
        make_room_for_connections(&config);
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

/// Descriptors for the database, webhooks and everything else beside connections from outside.
const OTHER_DESCRIPTORS: usize = 512;

/// Raises the number of files that the process may open to what the limits on streams and workers
/// need, and says so when the system does not let it.
fn make_room_for_connections(config: &Config) {
    let needed = config.most_connections() + config.webhook_workers + OTHER_DESCRIPTORS;
    let needed = u64::try_from(needed).unwrap_or(u64::MAX);
    match rlimit::increase_nofile_limit(needed) {
        Ok(open) if open < needed => tracing::warn!(
            "the system lets this process open {open} files and connections; --max-streams {} needs \
             {needed} (ulimit -n)",
            config.max_streams
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit on open files is unknown"),
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
