//! The commands of the `tidings` binary.

mod inbox;
mod listen;
mod remote;
mod send;
mod serve;
mod sse;
mod tail;

use clap::{Parser, Subcommand};

/// A command's failure: its text is for the person at the terminal.
pub type CommandError = Box<dyn std::error::Error + Send + Sync>;

/// Delivers every notification to the places where it is due: open screens, the inbox, webhooks.
#[derive(Debug, Parser)]
#[command(name = "tidings", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the server
    Serve(serve::Serve),
    /// Sends a notification to one or more users
    Send(send::Send),
    /// Shows a user's notifications as they arrive
    Tail(tail::Tail),
    /// Shows a user's inbox, and marks notifications as read
    Inbox(inbox::Inbox),
    /// Receives webhooks on this machine, verifies them and prints them
    Listen(listen::Listen),
}

impl Cli {
    /// Runs the command to its end.
    ///
    /// # Errors
    ///
    /// Whatever the person should read.
    pub async fn run(self) -> Result<(), CommandError> {
        match self.command {
            Command::Serve(command) => command.run().await,
            Command::Send(command) => command.run().await,
            Command::Tail(command) => command.run().await,
            Command::Inbox(command) => command.run().await,
            Command::Listen(command) => command.run().await,
        }
    }
}
