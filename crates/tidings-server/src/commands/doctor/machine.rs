//! What a server would need of this machine.

use std::io::ErrorKind;
use std::net::TcpListener;

use clap::CommandFactory;
use tidings_storage::counted;
use tidings_storage::explain::{explain, said_by_system};
use tidings_storage::finding::Finding;

use super::SETTINGS;
use crate::Config;
use crate::access::{count_keys_in_set, read_public_keys};
use crate::commands::CommandLine;
use crate::settings::environment;
use crate::settings::jwt::JwksSource;

/// Variables that look like settings and have no effect.
pub(super) fn check_variables() -> Vec<Finding> {
    let names = std::env::vars_os().map(|(name, _)| name);
    let unknown = environment::unknown(&CommandLine::command(), names);
    let finding = |(name, similar): (String, Option<String>)| {
        let hint = similar.map(|similar| format!(", did you mean {similar}?"));
        let hint = hint.unwrap_or_default();
        Finding::warning(SETTINGS, format!("the variable {name} has no effect{hint}"))
    };
    unknown.into_iter().map(finding).collect()
}

/// Everything that does not need the database.
pub(super) async fn check(config: &Config) -> Vec<Finding> {
    let mut findings = vec![Finding::ok(SETTINGS, "they fit together")];
    findings.extend(check_keys(config).await);
    findings.push(check_address(config));
    findings.push(check_descriptors(config));
    findings
}

async fn check_keys(config: &Config) -> Vec<Finding> {
    const KEYS: &str = "keys";
    let mut findings = Vec::new();
    match config.jwt.signing.read_secret() {
        Ok(Some(_)) => findings.push(Finding::ok(KEYS, "the secret of tokens can be used")),
        Ok(None) => {}
        Err(error) => findings.push(Finding::error(KEYS, explain(&error))),
    }
    for path in &config.jwt.public_keys {
        findings.push(match read_public_keys(path) {
            Ok(keys) => {
                let keys = counted(keys.len(), "public key");
                let message = format!("{}: {keys} of tokens", path.display());
                Finding::ok(KEYS, message)
            }
            Err(error) => Finding::error(KEYS, explain(&error)),
        });
    }
    if let Some(source) = &config.jwt.jwks {
        findings.push(match (count_keys_in_set(source).await, source) {
            (Ok(count), _) => Finding::ok(
                KEYS,
                format!("{source}: {} of tokens", counted(count, "key")),
            ),
            (Err(error), JwksSource::File(_)) => Finding::error(KEYS, explain(&error)),
            (Err(error), JwksSource::Url(_)) => {
                let message = format!(
                    "{}; a server starts without them and loads them later",
                    explain(&error)
                );
                Finding::warning(KEYS, message)
            }
        });
    }
    findings
}

fn check_address(config: &Config) -> Finding {
    const LISTEN: &str = "listen";
    let address = config.listen;
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok(LISTEN, format!("{address} can be listened on")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Finding::ok(
            LISTEN,
            format!("a program listens on {address}: a server that runs, or another one"),
        ),
        Err(error) => {
            let reason = said_by_system(&error);
            Finding::error(LISTEN, format!("cannot listen on {address}: {reason}"))
        }
    }
}

fn check_descriptors(config: &Config) -> Finding {
    const DESCRIPTORS: &str = "descriptors";
    let needed = config.needed_descriptors();
    let (soft, hard) = match rlimit::Resource::NOFILE.get() {
        Ok(limits) => limits,
        Err(error) => {
            let reason = said_by_system(&error);
            let message = format!("cannot read the limit of open files: {reason}");
            return Finding::warning(DESCRIPTORS, message);
        }
    };
    let open = usize::try_from(hard).unwrap_or(usize::MAX);
    if open >= needed {
        let message = format!("{needed} open files are needed, {hard} are allowed (now {soft})");
        return Finding::ok(DESCRIPTORS, message);
    }
    let mut fitting = config.clone();
    fitting.fit_into(open);
    let message = format!(
        "{needed} open files are needed and {open} are allowed (ulimit -Hn), so at most {} and {} are served",
        counted(fitting.limits.max_streams, "stream"),
        counted(fitting.max_connections(), "connection")
    );
    Finding::warning(DESCRIPTORS, message)
}
