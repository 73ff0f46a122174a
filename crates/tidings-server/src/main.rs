//! The `tidings` binary.

use std::io::Write as _;
use std::process::ExitCode;

use tidings_server::commands::{Cli, CommandError};
use tidings_server::explain;

/// The threads of the server allocate and free each other's memory, for which the allocator of glibc
/// locks. SQLite uses this one too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _closed = writeln!(std::io::stderr(), "tidings: {}", explain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), CommandError> {
    let arguments: Vec<_> = std::env::args_os().collect();
    Cli::from_arguments(&arguments)?.run().await
}
