/// The tables of one component, on both engines.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// The component's name in the file's list of schemas.
    pub component: &'static str,
    /// The version of its tables in the file that the queries below are for.
    pub version: usize,
    /// The tables of the database whose rows an import would mix with.
    pub data: &'static [&'static str],
    /// By what a running program shows that it uses the database.
    pub lease: Option<Lease>,
    /// The tables, in the order in which they are filled.
    pub tables: &'static [Table],
    /// The numbers that the database gives to new rows.
    pub sequences: &'static [Sequence],
}

/// The rows of the database that a running program keeps valid.
#[derive(Debug, Clone, Copy)]
pub struct Lease {
    /// Their table.
    pub table: &'static str,
    /// The condition that valid rows meet: what follows `WHERE`.
    pub is_valid: &'static str,
}

/// A table of the database, and the rows that it gets.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// The columns that are filled, separated by commas.
    pub columns: &'static str,
    /// What is selected for them from the file, separated by commas. `?1` is the value of
    /// [`Table::with`].
    pub select: &'static str,
    /// Where it is selected from: what follows `FROM`.
    pub from: &'static str,
    /// A query of the database for one `text`, which the select needs.
    pub with: Option<&'static str>,
}

/// A column that the database numbers.
#[derive(Debug, Clone, Copy)]
pub struct Sequence {
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
    /// A query of the file for the last number that was given; NULL or 0 if none was.
    pub last: &'static str,
}
