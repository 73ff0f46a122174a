use std::io::{IsTerminal, Write};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use tidings_import::Progress;
use tokio::time::Instant;

use super::CommandError;
use crate::counted::counted;
use crate::settings::Unshown;
use crate::storage::{DatabaseUrl, Imported, import};

/// Cells of the bar on a terminal.
const CELLS: u64 = 30;

/// How often a terminal is written to, and how often a log is.
const ON_TERMINAL: Duration = Duration::from_millis(100);
const IN_LOG: Duration = Duration::from_secs(1);

/// Moves everything in a SQLite file to an empty PostgreSQL database.
#[derive(Debug, Args)]
#[command(
    after_help = "Stop all servers on the file and on the database first. Nothing in the file changes but a mark, by which a server on it warns. If an import is interrupted, run the same command again: it begins anew. No server starts on the database until an import has ended."
)]
pub(super) struct Import {
    /// The file, for instance `sqlite:tidings.db`
    #[arg(long, value_name = "URL", value_parser = Unshown(DatabaseUrl::from_str))]
    from: DatabaseUrl,

    /// The database, `postgres://user:password@host/database`
    #[arg(
        long,
        env = "TIDINGS_DATABASE",
        value_name = "URL",
        hide_env_values = true,
        value_parser = Unshown(DatabaseUrl::from_str)
    )]
    to: DatabaseUrl,
}

impl Import {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        let DatabaseUrl::Sqlite(from) = &self.from else {
            return Err("--from: expected `sqlite:` and the name of a file".into());
        };
        let DatabaseUrl::Postgres(to) = &self.to else {
            return Err("--to: expected `postgres://` and where the database is".into());
        };
        let mut bar = Bar::new();
        let imported = import(from, to, |progress| bar.show(progress)).await;
        bar.end();
        let Imported { rows, marked } = imported?;
        let mut out = std::io::stdout().lock();
        writeln!(
            out,
            "Imported {} from {} to {}",
            counted(rows, "row"),
            self.from,
            self.to
        )?;
        writeln!(
            out,
            "Start servers with --database and the URL of the database. Do not start one on the file again: it would \
             send webhooks that the others send too"
        )?;
        if let Err(error) = marked {
            let reason = crate::explain(&error);
            writeln!(
                out,
                "A server on the file will not warn of that, because the file cannot be written: {reason}"
            )?;
        }
        Ok(())
    }
}

/// What is shown on standard error: a bar on a terminal, otherwise a line a second.
struct Bar {
    is_terminal: bool,
    /// When the last line was written.
    shown: Option<Instant>,
    /// What was reported since.
    latest: Option<Progress>,
}

impl Bar {
    fn new() -> Self {
        Self {
            is_terminal: std::io::stderr().is_terminal(),
            shown: None,
            latest: None,
        }
    }

    fn show(&mut self, progress: Progress) {
        self.latest = Some(progress);
        let pause = if self.is_terminal {
            ON_TERMINAL
        } else {
            IN_LOG
        };
        if self.shown.is_some_and(|shown| shown.elapsed() < pause) {
            return;
        }
        self.shown = Some(Instant::now());
        self.write();
    }

    fn write(&mut self) {
        let Some(progress) = self.latest.take() else {
            return;
        };
        let Progress {
            table, rows, of, ..
        } = progress;
        let line = line(table, rows, of, self.is_terminal);
        // An import does not end because its progress cannot be written.
        let _written = write!(std::io::stderr(), "{line}");
    }

    /// A log gets what was reported last; a terminal is cleared.
    fn end(&mut self) {
        if !self.is_terminal {
            self.write();
        } else if self.shown.is_some() {
            let _written = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(table: &str, rows: u64, of: u64, is_terminal: bool) -> String {
    let of = of.max(1);
    let text = format!("{} % · {rows} of {of} rows · {table}", rows * 100 / of);
    if !is_terminal {
        return format!("{text}\n");
    }
    let full = CELLS * rows.min(of) / of;
    let cells = (0..CELLS).map(|cell| if cell < full { '█' } else { '░' });
    format!("\r\x1b[K[{}] {text}", cells.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_a_bar_on_a_terminal_and_a_line_in_a_log() {
        assert_eq!(line("t", 1, 4, false), "25 % · 1 of 4 rows · t\n");
        assert_eq!(line("t", 0, 0, false), "0 % · 0 of 1 rows · t\n");
        let bar = line("t", 3, 4, true);
        assert_eq!(bar.matches('█').count(), 22);
        assert_eq!(bar.matches('░').count(), 8);
        assert!(bar.starts_with('\r') && bar.ends_with("] 75 % · 3 of 4 rows · t"));
    }
}
