//! Environment variables that look like settings and are read by no command.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};

use clap::Command;

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
