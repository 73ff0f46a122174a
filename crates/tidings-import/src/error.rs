/// Why an import did not take place, or did not end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file has no tables of this program.
    #[error("the file has no data of Tidings")]
    NoData,
    /// The file was last used by an earlier version.
    #[error(
        "the file is of an earlier version (`{component}` has version {found} of {known}): start the server of \
         this version on the file once, stop it, and import then"
    )]
    OlderSource {
        /// The component whose tables are old.
        component: &'static str,
        /// The version in the file.
        found: usize,
        /// The version that this program imports.
        known: usize,
    },
    /// The file was used by a later version.
    #[error(
        "the file is of a later version (`{component}` has version {found}, and this program knows versions up \
         to {known}): import it with that version"
    )]
    NewerSource {
        /// The component whose tables are new.
        component: &'static str,
        /// The version in the file.
        found: usize,
        /// The version that this program imports.
        known: usize,
    },
    /// The database has data already.
    #[error("the database has data of `{component}` already: import into an empty database")]
    NotEmpty {
        /// The component whose data was found.
        component: &'static str,
    },
    /// A running server uses the database.
    #[error("a server uses the database: stop it first")]
    InUse,
    /// An import into the same database is running.
    #[error("an import into the database is running")]
    Running,
    /// An earlier import into the database was interrupted.
    #[error("an import into the database was not finished: run it again")]
    Unfinished,
    /// An import of another file into the database was interrupted.
    #[error(
        "an import of {file} into the database was not finished: run it again, or make the database anew"
    )]
    OtherFile {
        /// The other file.
        file: String,
    },
    /// The connection was lost at the end of the import, and the database does not say what became of it.
    #[error(
        "the database did not confirm the end of the import: start a server on it, which refuses if the import was \
         not finished; then run the import again"
    )]
    Unconfirmed(#[source] tidings_postgres::Error),
    /// The file cannot be read.
    #[error("cannot read the file")]
    Source(#[from] tidings_sqlite::Error),
    /// The database failed, or the connection to it.
    #[error("cannot write to the database")]
    Target(#[from] tidings_postgres::Error),
}

impl Error {
    pub(crate) fn statement(error: tidings_postgres::tokio_postgres::Error) -> Self {
        Self::Target(tidings_postgres::Error::of_statement(error))
    }
}
