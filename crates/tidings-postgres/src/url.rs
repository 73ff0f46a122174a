//! What a URL says beyond what the client library reads: TLS as libpq knows it, and which servers will
//! do.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use tokio_postgres::config::{ChannelBinding, Host, SslMode, TargetSessionAttrs};

use crate::certificates::{self, Verification};
use crate::{Cause, Error};

/// Parameters that are read here; the client library reads all others, or refuses them by name.
const OWN: [&str; 11] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslcompression",
    "sslsni",
    "channel_binding",
    "gssencmode",
    "client_encoding",
    "fallback_application_name",
    "target_session_attrs",
];

/// Parameters and their values.
type Pairs = Vec<(String, String)>;

/// A URL that has been read.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) config: tokio_postgres::Config,
    /// How TLS is made; `None` if there is none.
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    /// Whether a connection may have no TLS where the one with TLS cannot be made.
    pub(crate) falls_back: bool,
}

/// Reads a URL or a connection string; `field` is what an error calls it.
pub(crate) fn parse(field: &'static str, url: &str) -> Result<Target, Error> {
    let (rest, own) = split(url).unwrap_or_else(|| (Cow::Borrowed(url), Vec::new()));
    let mut config: tokio_postgres::Config = rest.parse().map_err(|it| invalid(field, it))?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(invalid(field, "it has no host"));
    }
    if config.get_hosts().is_empty() {
        // TLS needs something to be called by.
        for address in config.get_hostaddrs().to_vec() {
            config.host(address.to_string());
        }
    }
    let own = |name: &str| {
        let found = own.iter().rev().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    };
    if config.get_application_name().is_none() {
        let name = own("fallback_application_name").unwrap_or("tidings");
        config.application_name(name);
    }
    config.target_session_attrs(session_attributes(own("target_session_attrs"))?);
    for (name, accepted, expected) in [
        (
            "gssencmode",
            &["disable", "allow", "prefer"][..],
            "`disable`, `allow` or `prefer`",
        ),
        ("sslcompression", &["0"], "`0`"),
        ("sslsni", &["1"], "`1`"),
        (
            "client_encoding",
            &["auto", "utf8", "utf-8", "unicode"],
            "`auto`, `UTF8` or `UNICODE`",
        ),
    ] {
        if own(name).is_some_and(|value| !accepted.contains(&value.to_lowercase().as_str())) {
            return Err(expected_value(name, expected));
        }
    }
    let tls = tls(&own, &mut config)?;
    let binding = match own("channel_binding") {
        None | Some("prefer") => ChannelBinding::Prefer,
        Some("disable") => ChannelBinding::Disable,
        Some("require") if config.get_ssl_mode() == SslMode::Require => ChannelBinding::Require,
        Some(_) => {
            let values = "`disable`, `prefer`, or `require` with an `sslmode` that demands TLS";
            return Err(expected_value("channel_binding", values));
        }
    };
    config.channel_binding(binding);
    // Who names an authority wants it to be verified.
    let falls_back = config.get_ssl_mode() == SslMode::Prefer && own("sslrootcert").is_none();
    Ok(Target {
        config,
        tls,
        falls_back,
    })
}

/// Applies `sslmode` as the documentation of [`Config`](crate::Config) has it.
fn tls<'a>(
    own: &impl Fn(&str) -> Option<&'a str>,
    config: &mut tokio_postgres::Config,
) -> Result<Option<Arc<rustls::ClientConfig>>, Error> {
    let roots = own("sslrootcert")
        .filter(|it| *it != "system")
        .map(Path::new);
    let (mode, verification) = match own("sslmode") {
        None | Some("prefer" | "allow") if own("sslrootcert").is_none() => {
            (SslMode::Prefer, Verification::Nothing)
        }
        None | Some("prefer" | "allow") => (SslMode::Prefer, Verification::ChainAndName),
        Some("disable") => {
            config.ssl_mode(SslMode::Disable);
            return Ok(None);
        }
        Some("require") if roots.is_some() => (SslMode::Require, Verification::Chain),
        Some("require" | "verify-full") => (SslMode::Require, Verification::ChainAndName),
        Some("verify-ca") => (SslMode::Require, Verification::Chain),
        Some(_) => {
            let modes = "`disable`, `allow`, `prefer`, `require`, `verify-ca` or `verify-full`";
            return Err(expected_value("sslmode", modes));
        }
    };
    // As for libpq, TLS is not for Unix sockets.
    let is_unix = |host: &Host| !matches!(host, Host::Tcp(_));
    if config.get_hosts().iter().all(is_unix) {
        config.ssl_mode(SslMode::Disable);
        return Ok(None);
    }
    config.ssl_mode(mode);
    let identity = match (own("sslcert"), own("sslkey")) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        (None, Some(_)) => return Err(expected_value("sslkey", "given with `sslcert`")),
        (Some(_), None) => return Err(expected_value("sslcert", "given with `sslkey`")),
    };
    let negotiation = config.get_ssl_negotiation();
    let tls = certificates::client_config(verification, roots, identity, negotiation)?;
    Ok(Some(Arc::new(tls)))
}

/// Everything is written by some call or other, and a server that is not the primary takes no writes: a
/// host that leads to one is not the right one, unless the URL says otherwise.
fn session_attributes(value: Option<&str>) -> Result<TargetSessionAttrs, Error> {
    match value {
        None | Some("read-write" | "primary") => Ok(TargetSessionAttrs::ReadWrite),
        Some("any") => Ok(TargetSessionAttrs::Any),
        Some(_) => Err(expected_value(
            "target_session_attrs",
            "`read-write`, `primary` or `any`",
        )),
    }
}

/// Takes our own parameters out of a URL or a connection string. `None` when it is neither: the client
/// library says what is wrong.
fn split(url: &str) -> Option<(Cow<'_, str>, Pairs)> {
    let is_url = url.starts_with("postgres://") || url.starts_with("postgresql://");
    if !is_url {
        let (own, rest): (Vec<_>, Vec<_>) = pairs(url)?.into_iter().partition(is_own);
        let quote = |value: &str| value.replace('\\', r"\\").replace('\'', r"\'");
        let rest = rest
            .iter()
            .map(|(key, value)| format!("{key}='{}'", quote(value)));
        let rest: Vec<_> = rest.collect();
        return Some((rest.join(" ").into(), own));
    }
    // A password may contain a question mark.
    let end = url.find('@').map_or(0, |at| at + 1);
    let Some(mark) = url[end..].find('?').map(|mark| end + mark) else {
        return Some((url.into(), Vec::new()));
    };
    let (before, query) = url.split_at(mark);
    let (mut own, mut rest) = (Vec::new(), Vec::new());
    for parameter in query[1..].split('&') {
        let pair = parameter.split_once('=');
        let pair = pair.and_then(|(key, value)| Some((decode(key)?, decode(value)?)));
        match pair {
            Some(pair) if is_own(&pair) => own.push(pair),
            _ => rest.push(parameter),
        }
    }
    let question = if rest.is_empty() { "" } else { "?" };
    Some((format!("{before}{question}{}", rest.join("&")).into(), own))
}

fn is_own((key, _): &(String, String)) -> bool {
    OWN.contains(&key.as_str())
}

fn decode(text: &str) -> Option<String> {
    let decoded = percent_decode_str(text).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

/// The parameters of a connection string, as libpq
/// [reads](https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-KEYWORD-VALUE)
/// them.
fn pairs(text: &str) -> Option<Pairs> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        let mut characters = after.trim_start().chars();
        let is_quoted = characters.as_str().starts_with('\'');
        if is_quoted {
            characters.next();
        }
        let mut value = String::new();
        loop {
            match characters.next() {
                Some('\\') => value.push(characters.next()?),
                Some('\'') if is_quoted => break,
                Some(it) if it.is_whitespace() && !is_quoted => break,
                Some(it) => value.push(it),
                None if is_quoted => return None,
                None => break,
            }
        }
        pairs.push((key.trim().to_owned(), value));
        rest = characters.as_str().trim_start();
    }
    Some(pairs)
}

fn invalid(
    field: &'static str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Error::Invalid {
        field,
        expected: "`postgres://user@host:port/database`",
        source: Some(Cause::new(source)),
    }
}

fn expected_value(field: &'static str, expected: &'static str) -> Error {
    Error::Invalid {
        field,
        expected,
        source: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Target, Error> {
        super::parse("the URL", url)
    }

    #[test]
    fn usual_urls_are_read() {
        for url in [
            "postgres://u:p%40ss%2F%3F@h/d",
            "postgresql://u@h:5433/d?sslmode=disable",
            "postgres://u@h/d?sslmode=allow&connect_timeout=3",
            "postgres://u@h/d?sslmode=prefer&application_name=shop",
            "postgres://u@h/d?sslmode=require&channel_binding=prefer",
            "postgres://u@h/d?sslmode=verify-full&channel_binding=require",
            "postgres://u@h/d?sslmode=verify-ca",
            "postgres://u@h/d?sslmode=verify-full&sslrootcert=system",
            "postgres://u@one:1,two:2/d?target_session_attrs=primary",
            "postgres://u@one:1,two:2/d?target_session_attrs=read-write&load_balance_hosts=random",
            "postgres://u@[::1]:5432/d",
            "postgres:///d?host=/var/run/postgresql&user=u",
            "postgres://u@%2Fvar%2Frun%2Fpostgresql/d?sslmode=verify-full",
            "postgres://u@h/d?options=-csearch_path%3Da%20-cwork_mem%3D1MB",
            "postgres://u@h/d?gssencmode=disable&client_encoding=UTF8&sslsni=1",
            "postgres://u:what?ever@h/d?sslmode=disable",
            "host=h user=u dbname=d sslmode=verify-full",
            "host = h user = u password = 'a b\\'c' sslmode = disable",
            "host=/var/run/postgresql user=u",
        ] {
            if let Err(error) = parse(url) {
                panic!("{url}: {error}: {:?}", std::error::Error::source(&error));
            }
        }
        let both = parse("postgres://u@one:1,two:2/d").unwrap().config;
        assert_eq!((both.get_hosts().len(), both.get_ports()), (2, &[1, 2][..]));
        let kept = parse("host=h user=u password='a b\\'c' options='-c a=b' sslmode=allow");
        let kept = kept.unwrap().config;
        assert_eq!(kept.get_password(), Some(&b"a b'c"[..]));
        assert_eq!(kept.get_options(), Some("-c a=b"));
        let kept = parse("postgres://u:what?ever@h/d?sslmode=disable").unwrap();
        assert_eq!(kept.config.get_password(), Some(&b"what?ever"[..]));
        assert_eq!(kept.config.get_ssl_mode(), SslMode::Disable);
        let name = parse("postgres://u@h/d?fallback_application_name=shop").unwrap();
        assert_eq!(name.config.get_application_name(), Some("shop"));
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (name, value) in [
            ("sslmode", "verify"),
            ("sslmode", "REQUIRE"),
            ("target_session_attrs", "standby"),
            ("target_session_attrs", "prefer-standby"),
            ("gssencmode", "require"),
            ("channel_binding", "require"),
            ("client_encoding", "latin1"),
            ("sslrootcert", "/does/not/exist.pem"),
            ("sslkey", "/does/not/exist.pem"),
            ("passfile", "/home/me/.pgpass"),
            ("service", "shop"),
        ] {
            for url in [
                format!("postgres://u:secret@h/d?{name}={value}"),
                format!("host=h user=u password=secret {name}={value}"),
            ] {
                let error = parse(&url).unwrap_err();
                let mut said = error.to_string();
                let mut cause = std::error::Error::source(&error);
                while let Some(next) = cause {
                    said = format!("{said}: {next}");
                    cause = next.source();
                }
                assert!(said.contains(name), "{url}: {said}");
                assert!(!format!("{said} {error:?}").contains("secret"));
            }
        }
    }

    #[test]
    fn modes_that_verify_demand_tls() {
        for (mode, demanded) in [
            ("disable", SslMode::Disable),
            ("allow", SslMode::Prefer),
            ("prefer", SslMode::Prefer),
            ("require", SslMode::Require),
            ("verify-ca", SslMode::Require),
            ("verify-full", SslMode::Require),
        ] {
            let target = parse(&format!("postgres://u@h/d?sslmode={mode}")).unwrap();
            assert_eq!(target.config.get_ssl_mode(), demanded, "{mode}");
            assert_eq!(target.tls.is_none(), mode == "disable", "{mode}");
        }
    }
}
