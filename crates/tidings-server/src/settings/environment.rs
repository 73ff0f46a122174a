//! Environment variables that look like settings and are read by no command.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};

use clap::Command;
use clap::builder::{Resettable, StyledStr};
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::file;

/// What the name of every variable begins with.
const PREFIX: &str = "TIDINGS_";

/// Variables with the address of a Kubernetes service that is called `tidings`.
const OF_KUBERNETES: [&str; 2] = ["TIDINGS_SERVICE_", "TIDINGS_PORT"];

/// The names that begin as those of settings do, and that neither this command nor one of its subcommands
/// reads: most likely they are misspelt.
pub(crate) fn unknown(command: &Command, names: impl IntoIterator<Item = OsString>) -> Vec<String> {
    let known = variables(command);
    let is_unknown = |name: &String| {
        name.starts_with(PREFIX)
            && !OF_KUBERNETES.iter().any(|prefix| name.starts_with(prefix))
            && !known.contains(OsStr::new(name))
    };
    let names = names.into_iter().filter_map(|name| name.into_string().ok());
    let mut unknown: Vec<_> = names.filter(is_unknown).collect();
    unknown.sort();
    unknown
}

/// Names the variable in an error about its value, which the library calls a value of the flag.
pub(crate) fn name_variable(
    error: clap::Error,
    command: &Command,
    arguments: &[OsString],
) -> clap::Error {
    match error.kind() {
        ErrorKind::InvalidUtf8 => not_text(command),
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            wrong_value(command, arguments).unwrap_or(error)
        }
        _ => error,
    }
}

/// Makes an error show how the command is used in general, if it shows that at all. The library lists the flags that
/// were given beside those that must be, and takes a variable for a flag that was given: so with `TIDINGS_URL` set,
/// `--url` seems to be needed.
pub(crate) fn show_whole_usage(
    mut error: clap::Error,
    command: &mut Command,
    arguments: &[OsString],
) -> clap::Error {
    if error.get(ContextKind::Usage).is_some() {
        // Gives the subcommands their whole names.
        command.build();
        let usage = usage(command, arguments.get(1..).unwrap_or_default());
        error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
    }
    error
}

/// How the subcommand is used that the arguments name.
fn usage(command: &mut Command, arguments: &[OsString]) -> StyledStr {
    if let Some((name, rest)) = arguments.split_first()
        && let Some(found) = command.find_subcommand_mut(name)
    {
        return usage(found, rest);
    }
    command.render_usage()
}

/// The error about the first variable with a wrong value. One that a flag overrides is not looked at.
fn wrong_value(command: &Command, arguments: &[OsString]) -> Option<clap::Error> {
    let (command, arguments) = subcommand(command, arguments.get(1..)?);
    // What else is missing or wrong is not the fault of a variable.
    let alone = command.clone().mut_args(|arg| {
        arg.env(None::<&str>)
            .required(false)
            .required_unless_present(Resettable::Reset)
    });
    command.get_arguments().find_map(|arg| {
        let (flag, variable) = (arg.get_long()?, arg.get_env()?);
        let value = std::env::var_os(variable)?;
        if is_given(flag, arguments) {
            return None;
        }
        let reason = file::check(&alone, flag, &[value.into_string().ok()?]).err()?;
        let text = format!(
            "the environment variable {}: {reason}\n",
            variable.display()
        );
        Some(clap::Error::raw(ErrorKind::ValueValidation, text).with_cmd(command))
    })
}

/// The subcommand that the arguments name, and its own arguments.
fn subcommand<'a>(
    command: &'a Command,
    arguments: &'a [OsString],
) -> (&'a Command, &'a [OsString]) {
    let name = arguments.first();
    match name.and_then(|name| command.find_subcommand(name)) {
        Some(found) => subcommand(found, &arguments[1..]),
        None => (command, arguments),
    }
}

fn is_given(flag: &str, arguments: &[OsString]) -> bool {
    let mut given = arguments.iter().filter_map(|argument| {
        let name = argument.to_str()?.strip_prefix("--")?;
        Some(name.split_once('=').map_or(name, |(name, _)| name))
    });
    given.any(|name| name == flag)
}

/// The error about a variable, or an argument, that is not UTF-8.
fn not_text(command: &Command) -> clap::Error {
    let is_no_text = |name: &&OsStr| std::env::var_os(name).is_some_and(|it| it.to_str().is_none());
    let text = match variables(command).into_iter().filter(is_no_text).min() {
        Some(name) => format!(
            "the environment variable {}: expected text in UTF-8\n",
            name.display()
        ),
        None => "expected arguments in UTF-8\n".to_owned(),
    };
    clap::Error::raw(ErrorKind::InvalidUtf8, text).with_cmd(command)
}

fn variables(command: &Command) -> HashSet<&OsStr> {
    let own = command.get_arguments().filter_map(clap::Arg::get_env);
    own.chain(command.get_subcommands().flat_map(variables))
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::commands::Cli;

    #[test]
    fn only_variables_that_no_command_reads_are_unknown() {
        let names = [
            "TIDINGS_RETENTON",
            "TIDINGS_RETENTION",
            "TIDINGS_URL",
            "TIDINGS_SERVICE_HOST",
            "TIDINGS_PORT_8080_TCP",
            "TIDING_RETENTION",
            "TIDINGS_API_KEYS",
            "PATH",
        ];
        let unknown = unknown(&Cli::command(), names.map(OsString::from));
        assert_eq!(unknown, ["TIDINGS_API_KEYS", "TIDINGS_RETENTON"]);
    }
}
