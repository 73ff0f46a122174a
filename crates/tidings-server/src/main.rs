//! The `tidings` binary.

use std::process::ExitCode;

use clap::Parser;
use tidings_server::commands::Cli;
use tidings_server::explain;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidings: {}", explain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
