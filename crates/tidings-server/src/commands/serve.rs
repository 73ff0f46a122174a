mod log;
mod reload;

use std::io::Write;
use std::time::Duration;

use clap::{Args, CommandFactory};
use tidings_storage::explain::explain;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use self::log::Log;
use self::reload::Reload;
use super::{CommandError, CommandLine, Reported};
use crate::settings::given::GivenSettings;
use crate::settings::{LogFormat, environment};
use crate::telemetry::prometheus;
use crate::telemetry::traces::Traces;
use crate::{Config, Server};

/// Runs the server.
#[derive(Debug, Args)]
#[command(
    after_help = "Every setting is also a key of the --config file, for instance `listen = \"127.0.0.1:8080\"` or `api-key = [\"…\"]`."
)]
pub(super) struct Serve {
    #[command(flatten)]
    pub(super) given: GivenSettings,
}

impl Serve {
    /// Runs the server. An error is reported in the format of the log.
    pub(super) async fn run(self) -> Result<(), CommandError> {
        let format = self.given.settings.log_format;
        let ended = self.serve().await;
        match (ended, format) {
            (Err(error), LogFormat::Json) => {
                let line = log::json("ERROR", &explain(&*error));
                let _closed = writeln!(std::io::stderr(), "{line}");
                Err(Reported.into())
            }
            (ended, _) => ended,
        }
    }

    async fn serve(self) -> Result<(), CommandError> {
        let GivenSettings {
            settings,
            given,
            origins,
        } = self.given;
        let file = settings.config.clone();
        let mut config = Config::checked(settings, &origins)?;
        let traces = config.otlp_endpoint.as_ref().map(Traces::start);
        let traces = traces.transpose()?;
        let log = Log::start(&config, traces.as_ref())?;
        warn_of_unknown_variables();
        prometheus::install()?;
        // Before the server starts, so that no signal is lost.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        report_files_that_are_too_large()?;
        let mut reload = Reload::new(std::env::args_os().collect(), file, given);
        fit_into_file_limit(&mut config);
        let signalled = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        // As a task, because to read files may block: a signal is heard also if a file system does not reply.
        let starting = AbortOnDropHandle::new(tokio::spawn(Server::start(config.clone())));
        let server = tokio::select! {
            started = starting => started??,
            () = signalled => {
                if let Some(traces) = traces {
                    traces.stop().await;
                }
                log.note("stopped before the server had started");
                return Ok(());
            }
        };
        print_address(&config, &server);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = reload.run(&mut hang_up, &server, &log) => {}
        }
        log.note(&format!(
            "stopping: waiting up to {} s for work in progress (press Ctrl+C again to stop at once)",
            config.shutdown_timeout.as_secs()
        ));
        let again = async {
            let first = Instant::now();
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if first.elapsed() >= SAME_REQUEST {
                    break;
                }
            }
        };
        tokio::select! {
            leftovers = server.shutdown() => {
                if let Some(traces) = traces {
                    traces.stop().await;
                }
                log.note(&format!("stopped: {leftovers}"));
                Ok(())
            }
            () = again => Err("stopped at once; the next start continues".into()),
        }
    }
}

/// A signal that comes this soon after the first is the same request: a terminal and a supervisor, or the
/// group of processes and one of them, get it each.
const SAME_REQUEST: Duration = Duration::from_millis(500);

/// Makes the write fail by which a file would grow over the limit of its size (`ulimit -f`): otherwise the operating
/// system ends the process.
fn report_files_that_are_too_large() -> std::io::Result<()> {
    let too_large = SignalKind::from_raw(libc::SIGXFSZ);
    // The handler stays when this is dropped.
    signal(too_large).map(drop)
}

/// Raises the limit of open files to what the limits of streams and workers need. If the system does
/// not allow it, lowers the limits and warns.
fn fit_into_file_limit(config: &mut Config) {
    let needed = config.needed_descriptors();
    match rlimit::increase_nofile_limit(u64::try_from(needed).unwrap_or(u64::MAX)) {
        Ok(open) => {
            let open = usize::try_from(open).unwrap_or(usize::MAX);
            if open < needed {
                config.fit_into(open);
                tracing::warn!(
                    max_streams = config.limits.max_streams,
                    max_connections = config.max_connections(),
                    "the limit of open files is {open} instead of {needed} (ulimit -n), so fewer \
                     streams and connections are served"
                );
            }
        }
        Err(error) => {
            tracing::warn!(%error, "cannot read the limit of open files, assuming that it is high enough");
        }
    }
}

/// A misspelt variable has no effect, and nothing else would show it.
fn warn_of_unknown_variables() {
    let names = std::env::vars_os().map(|(name, _)| name);
    for (variable, did_you_mean) in environment::unknown(&CommandLine::command(), names) {
        tracing::warn!(
            variable,
            did_you_mean,
            "unknown environment variable, which has no effect; tidings serve --help lists those of the settings"
        );
    }
}

/// Prints the address, the database, and what to try next.
fn print_address(config: &Config, server: &Server) {
    let address = server.address();
    let access = if config.api_keys.is_empty() {
        "open to every program on this machine (--dev)"
    } else {
        "callers must send a key"
    };
    // The program's name as it was typed works for the next command too.
    let tidings = std::env::args()
        .next()
        .unwrap_or_else(|| "tidings".to_owned());
    let next = if config.api_keys.is_empty() {
        format!(
            "open http://{address} in a browser, then run: {tidings} send anna \"Hello\" --url http://{address}"
        )
    } else {
        format!("TIDINGS_API_KEY=… {tidings} send anna \"Hello\" --url http://{address}")
    };
    let _closed = writeln!(
        std::io::stdout(),
        "Tidings listens on http://{address}, {access}\nThe database is {}\nTry: {next}",
        config.database
    );
}
