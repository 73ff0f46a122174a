//! URLs of Redis, and what is wrong with them.

use redis::{ConnectionInfo, IntoConnectionInfo, ProtocolVersion};
use url::{ParseError, Url};

/// Reads a URL. From RESP3 on, messages can share a connection with replies.
pub(crate) fn read(url: &str) -> Result<ConnectionInfo, Fault> {
    if has_mark_in_credentials(url) {
        return Err(Fault::Password);
    }
    let parsed = Url::parse(url)?;
    check(&parsed)?;
    let info = parsed
        .into_connection_info()
        .map_err(|_the_library_says_no_more| Fault::Other)?;
    let settings = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP3);
    Ok(info.set_redis_settings(settings))
}

/// What is wrong with a URL. No text shows the URL, because it may have a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("it does not begin with `redis://`, `rediss://` or `redis+unix://`")]
    Scheme,
    #[error("it has no host")]
    NoHost,
    #[error("its host is not a name or an address")]
    Host,
    #[error("its host is an address to listen at, not one to connect to")]
    Wildcard,
    #[error("its port is not a number up to 65535")]
    Port,
    #[error("in its password, `/`, `#` and `?` must be written as `%2F`, `%23` and `%3F`")]
    Password,
    #[error("the number of its database is not a whole number from 0")]
    Database,
    #[error("it has no path to a socket")]
    NoPath,
    #[error("its user or password is not text in UTF-8")]
    Credentials,
    #[error("it has a part after `#` (write `#` in a password as `%23`)")]
    Fragment,
    #[error(
        "it has a parameter after `?` that is not supported: a path to a socket has `db`, `user` and `pass`, a host has none"
    )]
    Parameter,
    #[error("it is not a URL")]
    Other,
}

impl From<ParseError> for Fault {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::RelativeUrlWithoutBase => Self::Scheme,
            ParseError::EmptyHost => Self::NoHost,
            ParseError::InvalidPort => Self::Port,
            ParseError::IdnaError
            | ParseError::InvalidIpv4Address
            | ParseError::InvalidIpv6Address
            | ParseError::InvalidDomainCharacter => Self::Host,
            _ => Self::Other,
        }
    }
}

/// Whether a character that ends the host stands before the last `@`: then a part of the password would be
/// taken for the host. What leads to a Unix socket has its password behind the path.
fn has_mark_in_credentials(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else {
        return false;
    };
    let credentials = rest.rsplit_once('@').map_or("", |(before, _)| before);
    !scheme.ends_with("unix") && credentials.contains(['/', '#', '?'])
}

fn check(url: &Url) -> Result<(), Fault> {
    let mut parameters: &[&str] = &[];
    let database = match url.scheme() {
        "redis" | "rediss" | "valkey" | "valkeys" => {
            match url.host_str() {
                None | Some("") => return Err(Fault::NoHost),
                Some("0.0.0.0" | "[::]") => return Err(Fault::Wildcard),
                Some(_) => {}
            }
            url.path().trim_matches('/').to_owned()
        }
        "unix" | "redis+unix" | "valkey+unix" => {
            if url.to_file_path().is_err() {
                return Err(Fault::NoPath);
            }
            parameters = &["db", "user", "pass"];
            let database = url.query_pairs().find(|(key, _)| key == "db");
            database.map_or_else(String::new, |(_, value)| value.into_owned())
        }
        _ => return Err(Fault::Scheme),
    };
    if !database.is_empty() && database.parse::<u32>().is_err() {
        return Err(Fault::Database);
    }
    if url
        .query_pairs()
        .any(|(name, _)| !parameters.contains(&&*name))
    {
        return Err(Fault::Parameter);
    }
    if url.fragment().is_some_and(|it| it != "insecure") {
        return Err(Fault::Fragment);
    }
    let is_text = |part: &str| {
        let decoded = percent_encoding::percent_decode_str(part);
        decoded.decode_utf8().is_ok()
    };
    if !is_text(url.username()) || !is_text(url.password().unwrap_or_default()) {
        return Err(Fault::Credentials);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_of_a_url_is_named() {
        for (url, expected) in [
            ("", Fault::Scheme),
            ("127.0.0.1", Fault::Scheme),
            ("127.0.0.1:6379", Fault::Scheme),
            ("localhost:6379", Fault::Scheme),
            ("http://:secret@host/", Fault::Scheme),
            ("postgres://host/", Fault::Scheme),
            ("redis:", Fault::NoHost),
            ("redis://", Fault::NoHost),
            ("redis:///1", Fault::NoHost),
            ("redis://:secret@", Fault::NoHost),
            ("redis://[::1", Fault::Host),
            ("redis://0.0.0.0:6379/", Fault::Wildcard),
            ("redis://[::]:6379/", Fault::Wildcard),
            ("redis://host:port/", Fault::Port),
            ("redis://host:65536/", Fault::Port),
            ("redis://:sec/ret@host/", Fault::Password),
            ("redis://user:sec#ret@host/", Fault::Password),
            ("redis://user:123?ret@host/1", Fault::Password),
            ("redis://host/two", Fault::Database),
            ("redis://host/-1", Fault::Database),
            ("redis+unix:///run/redis?db=two", Fault::Database),
            ("redis+unix://host", Fault::NoPath),
            ("redis://host/?timeout=secret", Fault::Parameter),
            ("redis://host?db=1", Fault::Parameter),
            ("rediss://host/1?protocol=resp2", Fault::Parameter),
            ("unix:///run/redis?db=1&timeout=secret", Fault::Parameter),
            ("redis://:%ff@host/", Fault::Credentials),
            ("rediss://host/#secret", Fault::Fragment),
            ("redis://host/#secret", Fault::Fragment),
        ] {
            let fault = read(url).unwrap_err();
            assert_eq!(fault, expected, "{url}");
            assert!(!fault.to_string().contains("secret"));
        }
    }

    #[test]
    fn usual_urls_are_read() {
        for (url, database) in [
            ("redis://host", 0),
            ("redis://user:p%40ss@host:6380/15", 15),
            ("rediss://:secret@host/1", 1),
            ("valkey://[::1]:6379/", 0),
            ("redis+unix:///run/redis?db=3&user=u&pass=p@ss", 3),
            ("unix:///run/redis", 0),
        ] {
            let info = read(url).unwrap_or_else(|fault| panic!("{url}: {fault}"));
            assert_eq!(info.redis_settings().db(), database, "{url}");
        }
    }
}
