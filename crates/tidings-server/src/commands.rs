//! The commands of the `tidings` binary.

mod bench;
mod delivery;
mod doctor;
mod document;
mod endpoint;
mod import;
mod inbox;
mod interrupts;
mod key;
mod listen;
mod notification;
mod progress;
mod receiving;
mod remote;
mod send;
mod serve;
mod sse;
mod tail;
mod token;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, ErrorKind, StdoutLock, Write};
use std::pin::Pin;

use clap::{Parser, Subcommand};
use tidings_storage::explain::said_by_system;

use crate::Settings;
use crate::config::{self, ConfigError};

/// A command's failure: its text is for the person at the terminal.
pub type CommandError = Box<dyn std::error::Error + Send + Sync>;

/// A command has failed, and has said why.
#[derive(Debug, thiserror::Error)]
#[error("the command has failed")]
pub struct Reported;

/// Most events that a command can be asked to wait for.
const MAX_COUNT: u64 = 1_000_000_000;

/// A command of the `tidings` binary, with its arguments.
#[derive(Debug)]
pub struct Cli {
    command: Command,
}

// Not public, because all that is derived for an argument is compiled then, and half of it is never called.
/// Delivers each notification to a user's open screens, inbox and webhooks
#[derive(Debug, Parser)]
#[command(name = "tidings", version, max_term_width = 100)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the server
    Serve(Box<serve::Serve>),
    /// Sends a notification to one or more users
    Send(send::Send),
    /// Prints a user's notifications as they arrive
    Tail(tail::Tail),
    /// Prints a user's inbox, or marks notifications as read
    Inbox(inbox::Inbox),
    /// Receives webhooks on this machine, verifies and prints them
    Listen(listen::Listen),
    /// Manages webhook endpoints
    Endpoint(endpoint::Endpoint),
    /// Shows what was sent to webhook endpoints, and sends it again
    Delivery(delivery::Delivery),
    /// Manages API keys
    Key(key::Key),
    /// Puts load on a running server, and measures it
    Bench(bench::Bench),
    /// Looks for what is wrong with the settings, the database, this machine or a running server
    Doctor(Box<doctor::Doctor>),
    #[command(skip)]
    UnusableDoctor(doctor::Unusable),
    /// Makes a token of a user, for trying out
    Token(token::Token),
    /// Moves everything in a SQLite file to an empty PostgreSQL database
    Import(import::Import),
}

/// Prints what a change has returned. If that cannot be written, the error says what was done, such as "the notification
/// was sent": a script that takes the change for failed would make it again.
fn print_done(
    done: &str,
    print: impl FnOnce(&mut StdoutLock<'static>) -> io::Result<()>,
) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    match print(&mut out).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        // The reader has seen enough, which is no failure.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(error.into()),
        Err(error) => {
            let problem = said_by_system(&error);
            Err(format!("cannot write the output: {problem}; {done}").into())
        }
    }
}

/// Says on standard error what was done. A command that has done it does not fail because that cannot be written.
fn note(done: fmt::Arguments<'_>) {
    let _written = writeln!(io::stderr(), "{done}");
}

/// Prints a secret alone on a line, for scripts.
fn print_secret(secret: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{secret}")?;
    out.flush()
}

impl CommandLine {
    fn settings(&self) -> Option<&Settings> {
        match &self.command {
            Command::Serve(serve) => Some(&serve.given.settings),
            Command::Doctor(doctor) => Some(doctor.settings()),
            _ => None,
        }
    }
}

impl Cli {
    /// Parses a command line, including the file that `--config` names. Exits on a mistake, and
    /// after `--help`.
    ///
    /// # Errors
    ///
    /// When the file cannot be used.
    pub fn from_arguments(arguments: &[OsString]) -> Result<Self, CommandError> {
        let error = match config::parse(arguments, CommandLine::settings) {
            Ok(CommandLine { command }) => return Ok(Self { command }),
            Err(error) => error,
        };
        if let Some(doctor) = doctor::Unusable::of(arguments, &error) {
            let command = Command::UnusableDoctor(doctor);
            return Ok(Self { command });
        }
        match error {
            ConfigError::Flag(error) => error.exit(),
            error => Err(error.into()),
        }
    }

    /// Runs the command to its end.
    ///
    /// # Errors
    ///
    /// What went wrong, for the person at the terminal.
    pub fn run(self) -> Pin<Box<dyn Future<Output = Result<(), CommandError>> + Send>> {
        // The body of a future is compiled where it is first polled. Here that is this library, which has
        // most of it already, and not the binary.
        Box::pin(self.run_here())
    }

    async fn run_here(self) -> Result<(), CommandError> {
        match self.command {
            Command::Serve(command) => command.run().await,
            Command::Send(command) => command.run().await,
            Command::Tail(command) => command.run().await,
            Command::Inbox(command) => command.run().await,
            Command::Listen(command) => command.run().await,
            Command::Endpoint(command) => command.run().await,
            Command::Delivery(command) => command.run().await,
            Command::Key(command) => command.run().await,
            Command::Bench(command) => command.run().await,
            Command::Doctor(command) => command.run().await,
            Command::UnusableDoctor(command) => command.run(),
            Command::Token(command) => command.run(),
            Command::Import(command) => command.run().await,
        }
    }
}
