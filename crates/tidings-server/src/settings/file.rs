//! The file of `--config`: its values become the defaults of the flags, so that a flag and a variable
//! override them and every value is checked as if it were given on the command line.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Args, Command};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Settings;
use crate::small_file;

/// The flag by which the names of the settings of a file are handed on. It cannot be given: before a file is applied, there is
/// none.
const NAMES: &str = "settings-of-the-file";

/// The largest file.
const MAX_BYTES: u64 = 1 << 20;

/// Why the configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system reported.
        source: std::io::Error,
    },
    /// The file is not TOML, or has an unknown key or a wrong value. The line itself is not shown: it
    /// may contain a key.
    #[error("the configuration file {}, line {line}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
}

/// Makes the values of the file the defaults of the command's flags.
pub(crate) fn apply(mut command: Command, path: &Path) -> Result<Command, FileError> {
    let bytes = small_file::read(path, MAX_BYTES).map_err(|source| FileError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let malformed = |position: usize, message: String| FileError::Malformed {
        path: path.to_owned(),
        line: bytes[..position].split(|byte| *byte == b'\n').count(),
        message,
    };
    let text = std::str::from_utf8(&bytes)
        .map_err(|error| malformed(error.valid_up_to(), "expected text in UTF-8".to_owned()))?;
    let table = DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or_default();
        let message = match text.get(span.clone()) {
            Some(name) if error.message() == "duplicate key" => {
                format!("{name}: given more than once")
            }
            _ => format!("expected TOML: {}", error.message()),
        };
        malformed(span.start, message)
    })?;
    let mut names = Vec::new();
    for (key, value) in table.get_ref() {
        let (name, position) = (key.get_ref().as_ref(), key.span().end);
        let flag = command
            .get_arguments()
            .find(|flag| flag.get_long() == Some(name) && is_setting(name))
            .ok_or_else(|| malformed(position, unknown(&command, name)))?;
        if is_switch(flag) && !matches!(value.get_ref(), DeValue::Boolean(_)) {
            let message = format!("{name}: expected true or false, without quotation marks");
            return Err(malformed(position, message));
        }
        let flag = flag.get_id().clone();
        let values = texts(value).map_err(|at| {
            malformed(
                at,
                format!("{name}: expected a text, a whole number, true or false"),
            )
        })?;
        check(&command, name, &values).map_err(|message| malformed(position, message))?;
        command = command.mut_arg(flag, |flag| flag.default_values(values));
        names.push(name.to_owned());
    }
    // The file itself may be a pipe, which can be read once.
    let names = Arg::new(NAMES).long(NAMES).hide(true).default_values(names);
    Ok(command.arg(names))
}

/// The settings that a file gave which was [applied](apply).
pub(crate) fn names(matches: &ArgMatches) -> HashSet<String> {
    let names = matches.try_get_many::<String>(NAMES);
    names
        .ok()
        .flatten()
        .into_iter()
        .flatten()
        .cloned()
        .collect()
}

/// Whether a flag is one of the settings, and not of the command alone. A file names no other.
fn is_setting(name: &str) -> bool {
    let settings = Settings::augment_args(Command::new("settings"));
    let is_named = |flag: &Arg| flag.get_long() == Some(name);
    name != "config" && settings.get_arguments().any(is_named)
}

/// Whether a setting is on or off. Its flag needs no value.
fn is_switch(flag: &Arg) -> bool {
    flag.get_num_args()
        .is_some_and(|values| values.min_values() == 0)
}

/// Environment variables are spelt with underscores, flags and keys with hyphens.
fn unknown(command: &Command, name: &str) -> String {
    let hyphens = name.to_lowercase().replace('_', "-");
    let is_flag = command
        .get_arguments()
        .any(|flag| flag.get_long() == Some(&hyphens) && hyphens != name);
    let hint = if is_flag {
        format!(", expected `{hyphens}`")
    } else {
        String::new()
    };
    format!("unknown setting `{name}`{hint}")
}

/// A value, or the values of an array, as they would stand on the command line; the error is the
/// position of a value that cannot stand there.
fn texts(value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, usize> {
    match value.get_ref() {
        DeValue::Array(values) => {
            let texts = values.iter().map(texts).collect::<Result<Vec<_>, _>>()?;
            Ok(texts.concat())
        }
        DeValue::String(text) => Ok(vec![text.clone().into_owned()]),
        DeValue::Integer(number) => Ok(vec![number.to_string()]),
        // No setting is a fraction: the flag says what it expects.
        DeValue::Float(number) => Ok(vec![number.to_string()]),
        DeValue::Boolean(value) => Ok(vec![value.to_string()]),
        _ => Err(value.span().end),
    }
}

/// Parses the values as a command line would; the error is clap's first line.
pub(super) fn check(command: &Command, name: &str, values: &[String]) -> Result<(), String> {
    let flags = values.iter().map(|value| format!("--{name}={value}"));
    let arguments = std::iter::once("serve".to_owned()).chain(flags);
    match command.clone().try_get_matches_from(arguments) {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = error.render().to_string();
            let line = text.lines().next().unwrap_or_default();
            Err(line.trim_start_matches("error: ").to_owned())
        }
    }
}
