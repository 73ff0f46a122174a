//! Environment variables that look like settings and are read by no command.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};

use clap::Command;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue};

use super::file;

/// What the name of every variable begins with.
const PREFIX: &str = "TIDINGS_";

/// Variables with the address of a Kubernetes service that is called `tidings`.
const OF_KUBERNETES: [&str; 2] = ["TIDINGS_SERVICE_", "TIDINGS_PORT"];

/// The names that begin as those of settings do, and that neither this command nor one of its subcommands
/// reads: most likely they are misspelt. Each with that of a setting which may be meant.
pub(crate) fn unknown(
    command: &Command,
    names: impl IntoIterator<Item = OsString>,
) -> Vec<(String, Option<String>)> {
    let known = variables(command);
    let is_unknown = |name: &String| {
        name.starts_with(PREFIX)
            && !OF_KUBERNETES.iter().any(|prefix| name.starts_with(prefix))
            && !known.contains(OsStr::new(name))
    };
    let names = names.into_iter().filter_map(|name| name.into_string().ok());
    let mut unknown: Vec<_> = names.filter(is_unknown).collect();
    unknown.sort();
    let with_hint = |name: String| {
        let similar = file::similar(&name[PREFIX.len()..]);
        (name, similar.map(|setting| variable(&setting)))
    };
    unknown.into_iter().map(with_hint).collect()
}

/// The variable of a setting.
pub(super) fn variable(setting: &str) -> String {
    format!("{PREFIX}{}", setting.to_uppercase().replace('-', "_"))
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

/// The subcommand that the arguments name, and its own arguments.
pub(super) fn subcommand<'a>(
    command: &'a Command,
    arguments: &'a [OsString],
) -> (&'a Command, &'a [OsString]) {
    let name = arguments.first();
    match name.and_then(|name| command.find_subcommand(name)) {
        Some(found) => subcommand(found, &arguments[1..]),
        None => (command, arguments),
    }
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
    use crate::commands::CommandLine;

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
            "TIDINGS_COLOUR",
            "PATH",
        ];
        let unknown = unknown(&CommandLine::command(), names.map(OsString::from));
        let expected = [
            ("TIDINGS_API_KEYS", Some("TIDINGS_API_KEY")),
            ("TIDINGS_COLOUR", None),
            ("TIDINGS_RETENTON", Some("TIDINGS_RETENTION")),
        ];
        let text = |name: &str| name.to_owned();
        let expected = expected.map(|(name, similar)| (text(name), similar.map(text)));
        assert_eq!(unknown, expected);
    }
}
