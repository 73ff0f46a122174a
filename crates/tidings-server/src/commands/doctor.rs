mod machine;
mod report;
mod server;
mod sockets;

use std::ffi::OsString;

use clap::Args;
use clap::error::ErrorKind;
use reqwest::Url;
use tidings_storage::finding::Finding;
use tidings_storage::inspection::{self, Secrets};
use tidings_webhooks::encryption::EncryptionKeys;

use self::report::Report;
use super::CommandError;
use super::remote::{Remote, server_url};
use crate::config::ConfigError;
use crate::settings::Unshown;
use crate::settings::origin::Resolved;
use crate::{Config, Settings};

/// What a finding about the settings is about.
const SETTINGS: &str = "settings";

/// The variable `TIDINGS_URL` may be set for the other commands.
const NOT_CHECKED: &str =
    "those of this machine are not checked: the server of --url (TIDINGS_URL) is checked instead";

/// Looks for what is wrong, and changes nothing: one line for each check, with ok, warning or error. It takes the
/// settings of `serve`, and starts no server.
#[derive(Debug, Args)]
#[command(
    after_help = "With --url alone, only that server is asked: the settings of this machine are checked if one of them is given, too. Requests use the first key of --api-key, with its scopes; streams need the scope `read`. Exits with 1 after an error."
)]
pub(super) struct Doctor {
    /// Running server to ask, through whatever proxy is in front of it: whether it is ready, holds back streams, and
    /// lets WebSockets through. Takes as long as the server's ping interval
    #[arg(long, env = "TIDINGS_URL", value_name = "URL", hide_env_values = true,
          value_parser = Unshown(server_url))]
    url: Option<Url>,

    /// Prints one JSON object a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    resolved: Resolved,
}

/// A doctor whose settings cannot be used.
#[derive(Debug)]
pub(super) struct Unusable {
    json: bool,
    problems: Vec<String>,
}

impl Unusable {
    /// Whether the doctor was called, and the error is what it looks for: a wrong value in the file, in a variable or
    /// of a flag.
    pub(super) fn of(arguments: &[OsString], error: &ConfigError) -> Option<Self> {
        let is_doctor = arguments.get(1).is_some_and(|name| name == "doctor");
        let is_for_values = match error {
            ConfigError::Flag(error) => matches!(
                error.kind(),
                ErrorKind::ValueValidation | ErrorKind::InvalidValue | ErrorKind::InvalidUtf8
            ),
            _ => true,
        };
        (is_doctor && is_for_values).then(|| Self {
            json: arguments.iter().any(|argument| argument == "--json"),
            problems: error.problems(),
        })
    }

    pub(super) fn run(self) -> Result<(), CommandError> {
        let mut report = Report::new(self.json);
        for problem in self.problems {
            report.add(&Finding::error(SETTINGS, problem))?;
        }
        report.end()
    }
}

impl Doctor {
    pub(super) fn settings(&self) -> &Settings {
        &self.resolved.settings
    }

    pub(super) async fn run(self) -> Result<(), CommandError> {
        let mut report = Report::new(self.json);
        if self.url.is_none() || self.resolved.origins.are_of_this_machine() {
            self.check_machine(&mut report).await?;
        } else {
            report.add(&Finding::ok(SETTINGS, NOT_CHECKED))?;
        }
        if let Some(url) = self.url {
            let keys = &self.resolved.settings.api_keys;
            let key = keys.first().map(|key| key.expose().to_owned());
            server::check(&Remote::new(url, key), &mut report).await?;
        }
        report.end()
    }

    async fn check_machine(&self, report: &mut Report) -> Result<(), CommandError> {
        for setting in self.resolved.all() {
            report.setting(setting)?;
        }
        for finding in machine::check_variables() {
            report.add(&finding)?;
        }
        let settings = self.resolved.settings.clone();
        match Config::checked(settings, &self.resolved.origins) {
            Ok(config) => {
                for finding in machine::check(&config).await {
                    report.add(&finding)?;
                }
            }
            Err(error) => {
                for problem in error.problems() {
                    report.add(&Finding::error(SETTINGS, problem))?;
                }
            }
        }
        let settings = &self.resolved.settings;
        let keys = EncryptionKeys::new(settings.encryption_keys.iter().cloned());
        let looked = inspection::inspect(&settings.database, Secrets::new(keys));
        let (mut findings, secrets) = looked.await;
        findings.extend(secrets.findings(settings.dev));
        for finding in findings {
            report.add(&finding)?;
        }
        if let Some(url) = &self.resolved.settings.redis {
            for finding in inspection::inspect_redis(url).await {
                report.add(&finding)?;
            }
        }
        Ok(())
    }
}
