//! The settings with where each comes from, for people to read.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use serde::Serialize;

use super::environment::variable;
use super::{Settings, file};

/// The settings, and where they come from.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    pub(crate) settings: Settings,
    pub(crate) origins: Origins,
    all: Vec<Setting>,
}

/// A setting as it counts. A secret is not shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Setting {
    pub(crate) name: String,
    /// `None` if it is not set, and has no default.
    pub(crate) value: Option<String>,
    pub(crate) origin: Origin,
}

/// Where a setting comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Origin {
    Default,
    File,
    Environment,
    CommandLine,
}

/// Where the settings come from that are not defaults.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origins {
    all: BTreeMap<String, Origin>,
    file: PathBuf,
}

impl Origins {
    /// Those of parsed values, or of values as they were given; and the settings of the file.
    pub(crate) fn of(matches: &ArgMatches, in_file: &HashSet<String>) -> Self {
        let settings = Settings::augment_args(Command::new("settings"));
        let origin = |flag: &Arg| {
            let name = flag.get_long()?.to_owned();
            let origin = match matches.value_source(flag.get_id().as_str()) {
                Some(ValueSource::CommandLine) => Origin::CommandLine,
                Some(ValueSource::EnvVariable) => Origin::Environment,
                // The values of the file are the defaults of the flags.
                _ if in_file.contains(&name) => Origin::File,
                _ => return None,
            };
            Some((name, origin))
        };
        let file = matches.try_get_raw("config").ok().flatten();
        let file = file.and_then(|mut path| path.next());
        Self {
            all: settings.get_arguments().filter_map(origin).collect(),
            file: file.map(PathBuf::from).unwrap_or_default(),
        }
    }

    /// Whether one is given that is not of callers, too: `--api-key` alone is for the server that is called.
    pub(crate) fn are_of_this_machine(&self) -> bool {
        self.all.keys().any(|name| name != "api-key")
    }

    pub(crate) fn of_setting(&self, name: &str) -> Origin {
        self.all.get(name).copied().unwrap_or(Origin::Default)
    }

    /// What is said of a setting, after where it comes from.
    pub(crate) fn say(&self, setting: &str, text: &str) -> String {
        match self.of_setting(setting) {
            Origin::Default => text.to_owned(),
            Origin::File => {
                format!("the configuration file {}: {text}", self.file.display())
            }
            Origin::Environment => {
                format!("the environment variable {}: {text}", variable(setting))
            }
            Origin::CommandLine => format!("the command line: {text}"),
        }
    }
}

impl Resolved {
    /// The settings in the order of their help.
    pub(crate) fn all(&self) -> &[Setting] {
        &self.all
    }
}

/// The arguments are those of the settings.
impl Args for Resolved {
    fn augment_args(command: Command) -> Command {
        Settings::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Settings::augment_args_for_update(command)
    }
}

impl FromArgMatches for Resolved {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let settings = Settings::from_arg_matches(matches)?;
        let origins = Origins::of(matches, &file::names(matches));
        let command = Settings::augment_args(Command::new("settings"));
        let all = command.get_arguments().filter_map(|flag| {
            let name = flag.get_long()?.to_owned();
            let origin = origins.of_setting(&name);
            let value = shown(&settings, flag, matches);
            Some(Setting {
                name,
                value,
                origin,
            })
        });
        Ok(Self {
            all: all.collect(),
            settings,
            origins,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The value as it is written, without what is secret in it.
fn shown(settings: &Settings, flag: &Arg, matches: &ArgMatches) -> Option<String> {
    let values = matches.get_raw(flag.get_id().as_str())?;
    if !flag.is_hide_env_values_set() {
        let texts: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
        return Some(texts.join(","));
    }
    match flag.get_long() {
        Some("database") => Some(settings.database.to_string()),
        Some("redis") => settings.redis.as_ref().map(ToString::to_string),
        Some("otlp-endpoint") => settings.otlp_endpoint.as_ref().map(ToString::to_string),
        Some("jwt-jwks") => settings.jwt.jwks.as_ref().map(ToString::to_string),
        _ => Some("[hidden]".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::Parser;

    use super::*;
    use crate::config;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        resolved: Resolved,
    }

    fn resolved(flags: &[&str]) -> Vec<Setting> {
        let arguments: Vec<OsString> = ["serve"].iter().chain(flags).map(Into::into).collect();
        let parsed = config::parse(&arguments, |it: &Flags| Some(&it.resolved.settings));
        parsed.unwrap().resolved.all
    }

    fn of(all: &[Setting], name: &str) -> (Option<String>, Origin) {
        let found = all.iter().find(|it| it.name == name).unwrap();
        (found.value.clone(), found.origin)
    }

    #[test]
    fn a_setting_has_its_value_and_its_origin_and_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tidings.toml");
        let text = "max-streams = 7\nmax-endpoints = 9\nwebhook-schedule = [\"0s\", \"1m\"]\n\
                    encryption-key = \"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\"\n";
        std::fs::write(&path, text).unwrap();
        let config = format!("--config={}", path.display());
        let all = resolved(&[
            &config,
            "--max-streams=8",
            "--api-key=hunter2-hunter2-hunter2",
            "--database=postgres://anna:hunter2@host/db",
            "--redis=redis://:hunter2@host/1",
            "--jwt-secret=hunter2-hunter2-hunter2-hunter2-hunter2",
            "--jwt-jwks=https://id.example.com/keys?key=hunter2",
        ]);
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(of(&all, "max-streams"), (text("8"), Origin::CommandLine));
        assert_eq!(of(&all, "max-endpoints"), (text("9"), Origin::File));
        assert_eq!(of(&all, "webhook-schedule"), (text("0s,1m"), Origin::File));
        assert_eq!(of(&all, "retention"), (text("90d"), Origin::Default));
        assert_eq!(of(&all, "max-key-requests"), (None, Origin::Default));
        assert_eq!(of(&all, "encryption-key"), (text("[hidden]"), Origin::File));
        let database = text("postgres://host/db");
        assert_eq!(of(&all, "database"), (database, Origin::CommandLine));
        assert_eq!(of(&all, "redis").0, text("redis://host/1"));
        assert_eq!(of(&all, "jwt-jwks").0, text("https://id.example.com/keys"));
        assert_eq!(of(&all, "api-key").0, text("[hidden]"));
        let everything = format!("{all:?}");
        assert!(!everything.contains("hunter2"), "{everything}");
        assert!(!everything.contains("MDEy"), "{everything}");
    }
}
