use std::io::Write;
use std::str::FromStr;

use clap::Args;
use tidings_import::Progress;
use tidings_storage::{DatabaseUrl, Imported, counted, import};

use super::progress::Bar;
use super::{CommandError, print_done};
use crate::settings::Unshown;

/// Moves everything in a SQLite file to an empty PostgreSQL database.
#[derive(Debug, Args)]
#[command(
    after_help = "Stop all servers on the file and on the database first. Nothing in the file changes but a mark, by which a server on it warns. If an import is interrupted, run the same command again: it starts again from the beginning. No server starts on the database until an import has ended."
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
        let show = |progress| {
            let Progress {
                table, rows, of, ..
            } = progress;
            bar.show(rows, of, format!("{rows} of {of} rows · {table}"));
        };
        let imported = import(from, to, show).await;
        bar.end();
        let Imported { rows, marked } = imported?;
        print_done("the import has ended", |out| {
            writeln!(
                out,
                "Imported {} from {} to {}",
                counted(rows, "row"),
                self.from,
                self.to
            )?;
            writeln!(
                out,
                "Start servers with --database and the URL of the database. Do not start one on the file again: it \
                 would send webhooks that the others send too"
            )?;
            if let Err(error) = marked {
                let reason = tidings_storage::explain::explain(&error);
                writeln!(
                    out,
                    "A server on the file will not warn of that, because the file cannot be written: {reason}"
                )?;
            }
            Ok(())
        })
    }
}
