//! The `tidings` binary.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use tidings_server::commands::{Cli, CommandError, Reported};
use tidings_server::explain;

/// The threads of the server allocate and free each other's memory, for which the allocator of glibc
/// locks. SQLite uses this one too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long threads that are not needed any more may take to end.
const LAST_WAIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return exit_code(Err(error.into())),
    };
    let ended = runtime.block_on(run());
    // A thread that reads a file may wait for a file system that does not reply, and must not keep the process from
    // ending: the command has waited for what it has to.
    runtime.shutdown_timeout(LAST_WAIT);
    exit_code(ended)
}

/// Reports an error.
fn exit_code(ended: Result<(), CommandError>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of standard output has seen enough, as `head` does.
        Err(error) if is_closed_output(&error) => ExitCode::SUCCESS,
        Err(error) if error.is::<Reported>() => ExitCode::FAILURE,
        Err(error) => {
            let _closed = writeln!(std::io::stderr(), "tidings: {}", explain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// Whether writing to standard output or error failed because its reader has ended. A lost connection has
/// words of its own.
fn is_closed_output(error: &CommandError) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

async fn run() -> Result<(), CommandError> {
    let arguments: Vec<_> = std::env::args_os().collect();
    Cli::from_arguments(&arguments)?.run().await
}
