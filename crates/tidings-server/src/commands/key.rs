use std::io::Write;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::value::to_raw_value;
use tidings_storage::explain::said_by_system;
use tidings_storage::{Scope, Scopes};

use super::remote::Remote;
use super::{CommandError, note, print_secret};
use crate::settings::{DAY, time};
use crate::wire::Data;
use crate::wire::api_key::{ApiKey, CreatedApiKey, NewApiKey};

/// Manages the API keys that a server keeps in its database. It calls the server, which has the file of
/// its database to itself.
#[derive(Debug, Args)]
pub(super) struct Key {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a key and prints it; it is shown only now
    Create(Create),
    /// Lists the keys, oldest first
    List(List),
    /// Revokes a key: every server stops accepting it within seconds
    Revoke(Revoke),
}

#[derive(Debug, Args)]
struct Create {
    /// What the key is for
    #[arg(value_name = "NAME")]
    name: String,

    /// What the key may do; may be given several times, or several separated by commas
    #[arg(
        long = "scope",
        value_name = "SCOPE",
        value_delimiter = ',',
        required = true
    )]
    scopes: Vec<Scope>,

    /// How long it is valid, up to 3650d [default: until it is revoked]
    #[arg(long = "for", value_name = "DURATION", value_parser = time(1, 3650 * DAY))]
    valid: Option<Duration>,

    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Args)]
struct List {
    /// Prints one JSON object a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Args)]
struct Revoke {
    /// The id of the key, from its list
    #[arg(value_name = "ID", value_parser = id)]
    id: String,

    #[command(flatten)]
    remote: Remote,
}

impl Key {
    pub(super) async fn run(self) -> Result<(), CommandError> {
        match self.command {
            Command::Create(create) => create.run().await,
            Command::List(list) => list.run().await,
            Command::Revoke(revoke) => revoke.run().await,
        }
    }
}

impl Create {
    async fn run(self) -> Result<(), CommandError> {
        let body = NewApiKey {
            name: &self.name,
            scopes: Scopes::new(self.scopes).ok_or("--scope: expected each scope once")?,
            expires_at: self.valid.map(|valid| Timestamp::now() + valid),
        };
        let url = self.remote.address(&["v1", "keys"])?;
        let body = to_raw_value(&body)?;
        let created: CreatedApiKey = self.remote.create(url, &body).await?;
        if let Err(error) = print_secret(&created.key) {
            return Err(self.remote.take_back(&created.described.id, &error).await);
        }
        note(format_args!(
            "created {}",
            line(&created.described, Timestamp::now())
        ));
        Ok(())
    }
}

impl Remote {
    /// Revokes a key that could not be shown, since it will not be shown again; returns the error to report.
    async fn take_back(&self, id: &str, error: &std::io::Error) -> CommandError {
        let problem = format!("cannot write the key: {}", said_by_system(error));
        match self.revoke(id).await {
            Ok(()) => format!("{problem}; it is revoked again").into(),
            Err(_) => format!("{problem}; revoke it: tidings key revoke {id}").into(),
        }
    }

    async fn revoke(&self, id: &str) -> Result<(), CommandError> {
        let url = self.address(&["v1", "keys", id])?;
        self.change(Method::DELETE, url, None).await?;
        Ok(())
    }
}

impl List {
    async fn run(self) -> Result<(), CommandError> {
        let url = self.remote.address(&["v1", "keys"])?;
        let Data::<Vec<ApiKey>> { data } = self.remote.get(url).await?;
        if data.is_empty() && !self.json {
            writeln!(std::io::stderr(), "no keys")?;
        }
        let now = Timestamp::now();
        let mut out = std::io::stdout().lock();
        for key in &data {
            if self.json {
                writeln!(out, "{}", serde_json::to_string(key)?)?;
            } else {
                writeln!(out, "{}", line(key, now))?;
            }
        }
        Ok(())
    }
}

impl Revoke {
    async fn run(self) -> Result<(), CommandError> {
        self.remote.revoke(&self.id).await?;
        note(format_args!("revoked {}", self.id));
        Ok(())
    }
}

/// Without one, the path would be that of all keys.
fn id(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        Err("expected the id of a key")
    } else {
        Ok(text.to_owned())
    }
}

/// A key in one line: the name is last, because it may have spaces.
fn line(key: &ApiKey, now: Timestamp) -> String {
    let time = |at: Option<Timestamp>, otherwise: &str| {
        at.map_or_else(|| otherwise.to_owned(), |at| format!("{at:.0}"))
    };
    let is_over = key.expires_at.is_some_and(|end| end <= now);
    format!(
        "{}  {}…  {}  {} {}  used {}  {:?}",
        key.id,
        key.prefix,
        key.scopes,
        if is_over { "expired" } else { "expires" },
        time(key.expires_at, "never"),
        time(key.last_used_at, "never"),
        key.name
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_key_that_has_expired_is_shown_as_such() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let of = |expires_at| ApiKey {
            id: "key_00ae3a1b2c3d4e5f".to_owned(),
            name: "a shop".to_owned(),
            prefix: "tdk_0000".to_owned(),
            scopes: Scopes::new(vec![Scope::Read]).unwrap(),
            created_at: now,
            expires_at,
            last_used_at: None,
        };
        let second = Duration::from_secs(1);
        for (end, says) in [
            (None, "  expires never  "),
            (Some(now + second), "  expires 2027-01-15T08:00:01Z  "),
            (Some(now), "  expired 2027-01-15T08:00:00Z  "),
            (Some(now - second), "  expired 2027-01-15T07:59:59Z  "),
        ] {
            let line = line(&of(end), now);
            assert!(line.contains(says), "{line}");
        }
    }
}
