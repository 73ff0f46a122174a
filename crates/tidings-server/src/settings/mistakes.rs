//! Everything that is wrong with the values that a command was given, so that all of it is named at once.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::Path;

use clap::builder::{Resettable, ValueParser};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, FromArgMatches};

use super::Settings;
use super::contradictions::{Contradiction, contradictions};
use super::environment::subcommand;
use super::file::{FromFile, as_flag, check, first_line, similar};
use super::origin::{Origin, Origins};

/// What is said of a value that is not UTF-8, and no path.
const NO_TEXT: &str = "expected text in UTF-8";

/// What is wrong with a setting, where it is from, and what was expected. It shows no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    setting: String,
    origin: Origin,
    text: String,
}

impl Mistake {
    pub(crate) fn new(setting: &str, origin: Origin, text: String) -> Self {
        Self {
            setting: setting.to_owned(),
            origin,
            text,
        }
    }

    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The values that a command line and the environment give to a command, before they are parsed. Some are secret.
pub(crate) struct Raw<'a> {
    command: &'a Command,
    /// Without variables, and with nothing that must be given.
    alone: Command,
    values: ArgMatches,
}

impl<'a> Raw<'a> {
    /// The values of the command that is called; `None` if the command line is wrong in another way.
    pub(crate) fn of(command: &'a Command, arguments: &'a [OsString]) -> Option<Self> {
        let (command, arguments) = subcommand(command, arguments.get(1..)?);
        // What else is missing is not the fault of a value.
        let optional = |arg: Arg| {
            arg.required(false)
                .required_unless_present(Resettable::Reset)
        };
        let unparsed = command.clone().mut_args(|arg| {
            let takes_values = arg.get_action().takes_values();
            let arg = optional(arg);
            if takes_values {
                arg.value_parser(ValueParser::os_string())
            } else {
                arg
            }
        });
        let name = OsString::from(command.get_name());
        let arguments = std::iter::once(&name).chain(arguments);
        Some(Self {
            values: unparsed.try_get_matches_from(arguments).ok()?,
            alone: (command.clone()).mut_args(|arg| optional(arg).env(None::<&str>)),
            command,
        })
    }

    /// What the file of `--config` has, if the command takes settings.
    pub(crate) fn file(&self) -> Option<FromFile> {
        let path = self.values.try_get_one::<OsString>("config").ok()?;
        let Some(path) = path.filter(|path| !path.is_empty()) else {
            return Some(FromFile::default());
        };
        let file = FromFile::read(&self.alone, Path::new(path));
        Some(file.unwrap_or_else(|error| FromFile::unusable(&error)))
    }

    /// All mistakes: of the values, of the file, and what does not fit together in the rest.
    pub(crate) fn mistakes(&self, file: Option<FromFile>) -> Vec<Mistake> {
        let given = self.command.get_arguments().filter_map(|arg| {
            let source = self.values.value_source(arg.get_id().as_str())?;
            let is_given = [ValueSource::CommandLine, ValueSource::EnvVariable].contains(&source);
            Some((arg, arg.get_long()?, source)).filter(|_| is_given)
        });
        let mut mistakes = Vec::new();
        let mut right = Vec::new();
        let mut is_remote = false;
        for (arg, flag, source) in given {
            is_remote |= flag == "url";
            let variable = arg.get_env().filter(|_| source == ValueSource::EnvVariable);
            let (origin, from) = match variable.map(OsStr::display) {
                Some(name) => (
                    Origin::Environment,
                    format!("the environment variable {name}"),
                ),
                None => (Origin::CommandLine, "the command line".to_owned()),
            };
            match self.check(arg, flag, variable) {
                Ok(values) => right.extend(values),
                Err(why) => mistakes.push(Mistake::new(flag, origin, format!("{from}: {why}"))),
            }
        }
        let Some(file) = file else { return mistakes };
        let origins = Origins::of(&self.values, &file.names());
        mistakes.extend(file.mistakes.iter().cloned());
        // Beside the address of a server, whose settings are asked for, those of this machine may be none.
        if file.is_unusable || (is_remote && !origins.are_of_this_machine()) {
            return mistakes;
        }
        // What a name that is not known may mean is wrong, too.
        let meant = file.mistakes.iter();
        let meant: Vec<_> = meant.map(|it| similar(&it.setting)).collect();
        let is_clear = !meant.contains(&None);
        let wrong = mistakes.iter().map(|it| it.setting.clone());
        let wrong: BTreeSet<_> = wrong.chain(meant.into_iter().flatten()).collect();
        let rest = file.apply(self.alone.clone());
        let name = self.command.get_name().to_owned();
        let rest = rest.try_get_matches_from(std::iter::once(name.into()).chain(right));
        let rest = rest.and_then(|rest| Settings::from_arg_matches(&rest));
        let contradictions = rest.map(|rest| contradictions(&rest));
        // One with a wrong value is only its consequence.
        let is_real = |it: &Contradiction| {
            let mut about = it.others.iter().chain([&it.setting]);
            !about.any(|name| wrong.contains(*name)) && (is_clear || !it.is_lack)
        };
        let contradictions = contradictions.unwrap_or_default().into_iter();
        mistakes.extend(
            contradictions
                .filter(is_real)
                .map(|it| it.mistake(&origins)),
        );
        mistakes
    }

    /// The values of a flag as they would stand on the command line, or what is wrong with them.
    fn check(
        &self,
        arg: &Arg,
        flag: &str,
        variable: Option<&OsStr>,
    ) -> Result<Vec<OsString>, String> {
        if !arg.get_action().takes_values() {
            return Ok(Vec::new());
        }
        if let Some(name) = variable
            && std::env::var_os(name).is_some_and(|value| value.is_empty())
        {
            let name = name.display();
            return Err(format!(
                "expected a value, got an empty text; without a value, remove it (`unset {name}`)"
            ));
        }
        let values = self.values.get_raw(arg.get_id().as_str());
        let values: Vec<_> = values.into_iter().flatten().collect();
        check(&self.alone, flag, &values).map_err(|error| match error.kind() {
            ErrorKind::InvalidUtf8 if variable.is_none() => format!("--{flag}: {NO_TEXT}"),
            ErrorKind::InvalidUtf8 => NO_TEXT.to_owned(),
            _ => first_line(&error),
        })?;
        Ok(values.iter().map(|value| as_flag(flag, value)).collect())
    }
}
