//! The file of `--config`: its values become the defaults of the flags, so that a flag and a variable
//! override them and every value is checked as if it were given on the command line.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgMatches, Args, Command, Id};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Settings;
use super::mistakes::Mistake;
use super::origin::Origin;
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

/// The settings of a file.
#[derive(Debug, Default)]
pub(crate) struct FromFile {
    /// The right ones: the flag of each, its name, and its values as they would stand on the command line.
    values: Vec<(Id, String, Vec<String>)>,
    pub(crate) mistakes: Vec<Mistake>,
    /// Whether it is not known what the file has.
    pub(crate) is_unusable: bool,
}

impl FromFile {
    /// Reads the settings of a command.
    pub(crate) fn read(command: &Command, path: &Path) -> Result<Self, FileError> {
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
        let mut found = Self::default();
        // In the order of the file.
        let mut entries: Vec<_> = table.get_ref().iter().collect();
        entries.sort_unstable_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let (name, position) = (key.get_ref().as_ref(), key.span().end);
            match setting(command, name, value) {
                Ok((flag, values)) => found.values.push((flag, name.to_owned(), values)),
                Err((at, message)) => {
                    let error = malformed(at.unwrap_or(position), message);
                    let mistake = Mistake::new(name, Origin::File, error.to_string());
                    found.mistakes.push(mistake);
                }
            }
        }
        Ok(found)
    }

    /// A file that cannot be read, or is not TOML.
    pub(crate) fn unusable(error: &FileError) -> Self {
        let mistake = Mistake::new(
            "config",
            Origin::File,
            tidings_storage::explain::explain(error),
        );
        Self {
            values: Vec::new(),
            mistakes: vec![mistake],
            is_unusable: true,
        }
    }

    /// The names of the settings that are right.
    pub(crate) fn names(&self) -> HashSet<String> {
        self.values
            .iter()
            .map(|(_, name, _)| name.clone())
            .collect()
    }

    /// Makes the values that are right the defaults of the command's flags.
    pub(crate) fn apply(self, mut command: Command) -> Command {
        let mut names = Vec::new();
        for (flag, name, values) in self.values {
            command = command.mut_arg(flag, |flag| flag.default_values(values));
            names.push(name);
        }
        // The file itself may be a pipe, which can be read once.
        command.arg(Arg::new(NAMES).long(NAMES).hide(true).default_values(names))
    }
}

/// The flag of a setting, and its values. The error is what is wrong, and where if that is not its name.
fn setting(
    command: &Command,
    name: &str,
    value: &Spanned<DeValue<'_>>,
) -> Result<(Id, Vec<String>), (Option<usize>, String)> {
    let flag = command
        .get_arguments()
        .find(|flag| flag.get_long() == Some(name) && is_setting(name))
        .ok_or_else(|| (None, unknown(name)))?;
    if is_switch(flag) && !matches!(value.get_ref(), DeValue::Boolean(_)) {
        let message = format!("{name}: expected true or false, without quotation marks");
        return Err((None, message));
    }
    let values = texts(value).map_err(|at| {
        let message = format!("{name}: expected a text, a whole number, true or false");
        (Some(at), message)
    })?;
    check(command, name, &values).map_err(|error| (None, first_line(&error)))?;
    Ok((flag.get_id().clone(), values))
}

/// The settings that a file gave which was [applied](FromFile::apply).
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

fn unknown(name: &str) -> String {
    let hint = similar(name).map(|similar| format!(", did you mean `{similar}`?"));
    format!("unknown setting `{name}`{}", hint.unwrap_or_default())
}

/// The setting that may be meant by this name. Environment variables are spelt with underscores, flags and keys with
/// hyphens.
pub(super) fn similar(name: &str) -> Option<String> {
    let hyphens = name.to_lowercase().replace('_', "-");
    if is_setting(&hyphens) {
        return Some(hyphens);
    }
    // As for a flag.
    let settings = Settings::augment_args(Command::new("settings"));
    let refused = settings.try_get_matches_from(["settings", &format!("--{hyphens}")]);
    match refused.err()?.get(ContextKind::SuggestedArg)? {
        ContextValue::String(flag) => {
            let similar = flag.strip_prefix("--")?;
            is_setting(similar).then(|| similar.to_owned())
        }
        _ => None,
    }
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

/// Parses the values as a command line would.
pub(super) fn check(
    command: &Command,
    name: &str,
    values: &[impl AsRef<OsStr>],
) -> Result<(), clap::Error> {
    let flags = values.iter().map(|value| as_flag(name, value.as_ref()));
    let arguments = std::iter::once("serve".into()).chain(flags);
    command.clone().try_get_matches_from(arguments).map(drop)
}

/// A value as it would stand on the command line.
pub(super) fn as_flag(name: &str, value: &OsStr) -> OsString {
    let mut flag = OsString::from(format!("--{name}="));
    flag.push(value);
    flag
}

/// What the library says, without the usage and its hints.
pub(crate) fn first_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}
