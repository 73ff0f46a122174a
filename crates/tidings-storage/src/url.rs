use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Which database to use.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatabaseUrl {
    /// A SQLite file: `sqlite:file`, `sqlite:/absolute/file` or `sqlite:///absolute/file`.
    Sqlite(PathBuf),
    /// A PostgreSQL database: `postgres://user:password@host:port/database`.
    Postgres(PostgresUrl),
}

/// The URL of a PostgreSQL database. `Debug` and `Display` show neither its user nor its password.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl(String);

/// The text does not name a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.expected())]
pub struct InvalidDatabaseUrl(Problem);

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Problem {
    /// It begins as no database does, or has no name.
    NoDatabase,
    /// `sqlite::memory:`.
    InMemory,
    /// `sqlite:a.db?mode=rwc`.
    Parameters,
    /// `sqlite://a.db`.
    Host,
}

impl Problem {
    /// Says what is expected without the text, which may have a password in it.
    fn expected(self) -> &'static str {
        match self {
            Self::NoDatabase => {
                "expected `sqlite:` and the name of a file, or `postgres://` and where the database is"
            }
            Self::InMemory => {
                "expected `sqlite:` and the name of a file: a database in memory would be lost with the process, and is \
                 not supported"
            }
            Self::Parameters => {
                "expected `sqlite:` and the name of a file, without parameters (`?` and what follows): a server makes a \
                 file that does not exist"
            }
            Self::Host => {
                "expected an absolute path after `sqlite://`, as in `sqlite:///var/lib/tidings/tidings.db`; a path from \
                 the current folder follows `sqlite:`, as in `sqlite:tidings.db`"
            }
        }
    }
}

/// The URL of a Redis server: `redis://user:password@host:port/number`, `rediss://…` for TLS, or
/// `redis+unix:///path`. `Debug` and `Display` show neither its user nor its password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

/// The text does not name a Redis server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected `redis://`, `rediss://` or `redis+unix://`, and where the server is")]
pub struct InvalidRedisUrl;

const POSTGRES: [&str; 2] = ["postgres://", "postgresql://"];
/// The scheme of a Redis server at a Unix socket.
const UNIX: &str = "redis+unix";
const REDIS: [&str; 3] = ["redis://", "rediss://", "redis+unix://"];

impl FromStr for DatabaseUrl {
    type Err = InvalidDatabaseUrl;

    /// Does not look into the URL of a PostgreSQL database: an error of the command line repeats the
    /// refused text, with the password that is in it.
    fn from_str(url: &str) -> Result<Self, InvalidDatabaseUrl> {
        if POSTGRES.iter().any(|scheme| url.starts_with(scheme)) {
            return Ok(Self::Postgres(PostgresUrl(url.to_owned())));
        }
        let refused = |problem| Err(InvalidDatabaseUrl(problem));
        let Some(path) = url.strip_prefix("sqlite:") else {
            return refused(Problem::NoDatabase);
        };
        let after_slashes = path.strip_prefix("//");
        let path = after_slashes.unwrap_or(path);
        match path {
            path if path.starts_with(':') => refused(Problem::InMemory),
            // Between the second slash and the third there would be a host.
            path if after_slashes.is_some() && !path.starts_with('/') => refused(Problem::Host),
            "" => refused(Problem::NoDatabase),
            path if path.contains('?') => refused(Problem::Parameters),
            path => Ok(Self::Sqlite(path.into())),
        }
    }
}

impl PostgresUrl {
    /// The URL itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Why the URL cannot be used, if so.
    pub fn problem(&self) -> Option<String> {
        let error = tidings_postgres::Config::new(&self.0).err()?;
        Some(crate::explain::explain(&error))
    }
}

impl FromStr for RedisUrl {
    type Err = InvalidRedisUrl;

    /// Does not look into the URL, as with a database.
    fn from_str(url: &str) -> Result<Self, InvalidRedisUrl> {
        if !REDIS.iter().any(|scheme| url.starts_with(scheme)) {
            return Err(InvalidRedisUrl);
        }
        Ok(Self(url.to_owned()))
    }
}

impl RedisUrl {
    /// The URL itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Why the URL cannot be used, if so.
    pub fn problem(&self) -> Option<String> {
        let error = tidings_redis::Config::new(&self.0).err()?;
        Some(crate::explain::explain(&error))
    }
}

/// Writes a URL without the user, the password and the parameters.
fn write_place(f: &mut fmt::Formatter<'_>, url: &str) -> fmt::Result {
    let (scheme, place) = url.split_once("://").unwrap_or_default();
    if scheme == UNIX {
        // It has everything in parameters, also the number of the database.
        let (path, parameters) = place.split_once('?').unwrap_or((place, ""));
        let number = parameters.split('&').find_map(|it| it.strip_prefix("db="));
        let number = number.and_then(|number| number.parse::<u64>().ok());
        // A host is not allowed, and what looks like one may have a password.
        let path = if path.starts_with('/') { path } else { "" };
        write!(f, "{scheme}://{path}")?;
        return number.map_or(Ok(()), |number| write!(f, "?db={number}"));
    }
    // Up to the last `@` there may be a password, whatever it is written with.
    let place = place.rsplit('@').next().unwrap_or_default();
    let place = place.split('?').next().unwrap_or_default();
    write!(f, "{scheme}://{place}")
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, &self.0)
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, &self.0)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({self})")
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => url.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_a_file_or_a_server() {
        let parsed = |url: &str| url.parse().ok();
        let file = |path: &str| Some(DatabaseUrl::Sqlite(path.into()));
        assert_eq!(parsed("sqlite:a.db"), file("a.db"));
        assert_eq!(parsed("sqlite:/a/b.db"), file("/a/b.db"));
        assert_eq!(parsed("sqlite:///a/b.db"), file("/a/b.db"));
        for url in ["postgres://127.0.0.1/tidings", "postgresql:///tidings"] {
            let server = DatabaseUrl::Postgres(PostgresUrl(url.to_owned()));
            assert_eq!(parsed(url), Some(server));
        }
    }

    #[test]
    fn a_text_that_names_no_database_is_refused_with_what_is_wrong_with_it() {
        for (url, says) in [
            ("sqlite:", "or `postgres://`"),
            ("a.db", "or `postgres://`"),
            ("postgres:tidings", "or `postgres://`"),
            ("sqlite::memory:", "a database in memory"),
            ("sqlite://:memory:", "a database in memory"),
            ("sqlite:a.db?mode=ro", "without parameters"),
            ("sqlite:///a.db?mode=ro", "without parameters"),
            ("sqlite://a.db", "an absolute path after `sqlite://`"),
            ("sqlite://", "an absolute path after `sqlite://`"),
            (
                "sqlite://a.db?mode=ro",
                "an absolute path after `sqlite://`",
            ),
        ] {
            let error = url.parse::<DatabaseUrl>().unwrap_err().to_string();
            assert!(error.starts_with("expected "), "{url}: {error}");
            assert!(error.contains(says), "{url}: {error}");
        }
    }

    #[test]
    fn the_password_of_a_database_is_never_shown() {
        for (url, shown) in [
            (
                "postgres://anna:secret@host:5432/db",
                "postgres://host:5432/db",
            ),
            ("postgres://anna:se/cr?et@host/db", "postgres://host/db"),
            (
                "postgres://anna:s@secret@a,b:1/db?x=1",
                "postgres://a,b:1/db",
            ),
            (
                "postgresql://host/db?password=secret",
                "postgresql://host/db",
            ),
            ("postgres:///db", "postgres:///db"),
        ] {
            let url: DatabaseUrl = url.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("secret"), "{url:?}");
        }
        let url: RedisUrl = "rediss://:se@cret@host:1/2".parse().unwrap();
        assert_eq!(url.to_string(), "rediss://host:1/2");
        assert_eq!(format!("{url:?}"), "RedisUrl(rediss://host:1/2)");
        for (parameters, shown) in [
            ("?db=3&user=anna&pass=s@secret", "?db=3"),
            ("?pass=s@secret&db=3", "?db=3"),
            ("?pass=secret?db=secret", ""),
            ("", ""),
        ] {
            let url: RedisUrl = format!("redis+unix:///a@b{parameters}").parse().unwrap();
            assert_eq!(url.to_string(), format!("redis+unix:///a@b{shown}"));
        }
        for place in [
            ":s@secret@localhost/a",
            ":s/secret@localhost/a",
            ":s?secret@a",
        ] {
            let url: RedisUrl = format!("redis+unix://{place}").parse().unwrap();
            assert_eq!(url.to_string(), "redis+unix://", "{place}");
        }
    }

    #[test]
    fn a_redis_server_is_named_by_its_url() {
        assert_eq!("host:6379".parse::<RedisUrl>(), Err(InvalidRedisUrl));
        let url = |text: &str| text.parse::<RedisUrl>().unwrap();
        assert_eq!(url("redis://anna:secret@host/1").problem(), None);
        let problem = url("redis://anna:secret@host/one").problem().unwrap();
        assert!(!problem.contains("secret"), "{problem}");
    }

    #[test]
    fn a_url_that_cannot_be_used_says_why_without_its_password() {
        let problem = |url: &str| match url.parse().unwrap() {
            DatabaseUrl::Postgres(url) => url.problem(),
            DatabaseUrl::Sqlite(_) => None,
        };
        assert_eq!(problem("postgres://anna:secret@host/db"), None);
        let port = problem("postgres://anna:secret@host:port/db").unwrap();
        assert!(port.contains("URL") && !port.contains("secret"), "{port}");
    }
}
