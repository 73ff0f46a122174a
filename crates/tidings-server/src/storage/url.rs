use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Which database to use.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatabaseUrl {
    /// A SQLite file: `sqlite:file`, `sqlite:/absolute/file` or `sqlite:///absolute/file`.
    Sqlite(PathBuf),
}

/// The text does not name a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected `sqlite:` and the name of a file")]
pub struct InvalidDatabaseUrl;

impl FromStr for DatabaseUrl {
    type Err = InvalidDatabaseUrl;

    fn from_str(url: &str) -> Result<Self, InvalidDatabaseUrl> {
        let path = url.strip_prefix("sqlite:").ok_or(InvalidDatabaseUrl)?;
        // Between the second slash and the third there would be a host.
        let path = match path.strip_prefix("//") {
            Some(path) if !path.starts_with('/') => return Err(InvalidDatabaseUrl),
            Some(path) => path,
            None => path,
        };
        if path.is_empty() || path.starts_with(':') || path.contains('?') {
            return Err(InvalidDatabaseUrl);
        }
        Ok(Self::Sqlite(path.into()))
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Sqlite(path) = self;
        write!(f, "sqlite:{}", path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_a_file() {
        let parsed = |url: &str| url.parse().ok();
        let file = |path: &str| Some(DatabaseUrl::Sqlite(path.into()));
        assert_eq!(parsed("sqlite:a.db"), file("a.db"));
        assert_eq!(parsed("sqlite:/a/b.db"), file("/a/b.db"));
        assert_eq!(parsed("sqlite:///a/b.db"), file("/a/b.db"));
        for url in [
            "sqlite:",
            "sqlite::memory:",
            "sqlite://a.db",
            "sqlite:a.db?mode=ro",
            "a.db",
        ] {
            assert_eq!(parsed(url), None, "{url}");
        }
    }
}
