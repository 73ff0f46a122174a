//! The values of the settings as they were given, so that two readings can be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;

use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::limits::LimitSettings;
use super::origin::Origins;
use super::{Settings, file};

/// The settings, and how they were given.
#[derive(Debug, Clone)]
pub(crate) struct GivenSettings {
    pub(crate) settings: Settings,
    pub(crate) given: Given,
    pub(crate) origins: Origins,
}

/// The arguments are those of the settings.
impl Args for GivenSettings {
    fn augment_args(command: Command) -> Command {
        Settings::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Settings::augment_args_for_update(command)
    }
}

impl FromArgMatches for GivenSettings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self {
            settings: Settings::from_arg_matches(matches)?,
            given: Given::of(matches),
            origins: Origins::of(matches, &file::names(matches)),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The values of each setting, by its flag.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Given(BTreeMap<String, Vec<OsString>>);

impl Given {
    fn of(matches: &ArgMatches) -> Self {
        let command = Settings::augment_args(Command::new("serve"));
        let values = command.get_arguments().filter_map(|argument| {
            let flag = argument.get_long()?.to_owned();
            let values = matches.try_get_raw(argument.get_id().as_str()).ok()??;
            Some((flag, values.map(ToOwned::to_owned).collect()))
        });
        Self(values.collect())
    }

    /// The flags whose values differ.
    pub(crate) fn changed_to(&self, other: &Self) -> BTreeSet<String> {
        let flags = self.0.keys().chain(other.0.keys());
        let differs = |flag: &&String| self.0.get(*flag) != other.0.get(*flag);
        flags.filter(differs).cloned().collect()
    }

    /// Takes the values that a running server takes over, and leaves the others.
    pub(crate) fn take_over(&mut self, other: &Self) {
        for flag in reloadable() {
            match other.0.get(&flag) {
                Some(values) => self.0.insert(flag, values.clone()),
                None => self.0.remove(&flag),
            };
        }
    }
}

/// Values may be secret.
impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The flag of the log, which can be changed while the server runs.
const LOG: &str = "log";

/// The flags that a running server takes over: the limits and the log.
pub(crate) fn reloadable() -> BTreeSet<String> {
    let limits = LimitSettings::augment_args(Command::new("serve"));
    let limits = limits.get_arguments().filter_map(|it| it.get_long());
    limits.chain([LOG]).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(flags: &[&str]) -> Given {
        let command = Settings::augment_args(Command::new("serve"));
        let arguments = ["serve"].iter().chain(flags);
        Given::of(&command.try_get_matches_from(arguments).unwrap())
    }

    fn set(flags: &[&str]) -> BTreeSet<String> {
        flags.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn settings_are_compared_by_name_and_only_some_are_taken_over() {
        let mut running = given(&["--dev", "--max-streams=7", "--max-key-requests=5"]);
        let read = given(&["--log=info", "--retention=1h", "--max-streams=8", "--dev"]);
        let all = set(&["log", "max-key-requests", "max-streams", "retention"]);
        assert_eq!(running.changed_to(&read), all);
        assert_eq!(running.changed_to(&running.clone()), set(&[]));
        running.take_over(&read);
        assert_eq!(running.changed_to(&read), set(&["retention"]));
    }

    #[test]
    fn values_are_not_shown() {
        let given = given(&["--api-key=0123456789abcdef"]);
        let shown = format!("{given:?}");
        assert!(
            shown.contains("api-key") && !shown.contains("0123"),
            "{shown}"
        );
    }

    #[test]
    fn the_limits_and_the_log_are_taken_over() {
        let names = reloadable();
        assert!(
            names.contains("log") && names.contains("max-endpoints"),
            "{names:?}"
        );
        assert!(
            names
                .iter()
                .all(|name| name == "log" || name.starts_with("max-")),
            "{names:?}"
        );
    }
}
