//! Reads the settings again when the process gets `SIGHUP`: the file, below the variables and flags that the process
//! was started with.

use std::ffi::OsString;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidings_storage::explain::explain;
use tokio::signal::unix::Signal;
use tokio::time::timeout;

use super::log::Log;
use super::{CommandError, CommandLine, fit_into_file_limit};
use crate::config::{self, ConfigError};
use crate::settings::given::Given;
use crate::{Config, Server};

/// How long the settings may take to be read before the log says so.
const NOTICE: Duration = Duration::from_secs(10);

/// The settings of a running server, as they were given.
#[derive(Debug)]
pub(super) struct Reload {
    arguments: Vec<OsString>,
    /// That of `--config`.
    file: Option<PathBuf>,
    running: Given,
}

impl Reload {
    /// Remembers the settings that the server starts with.
    pub(super) fn new(arguments: Vec<OsString>, file: Option<PathBuf>, running: Given) -> Self {
        Self {
            arguments,
            file,
            running,
        }
    }

    /// Reloads at each signal, one time after the other. Never returns: dropping the future ends a reload that waits for a
    /// file system that does not reply.
    pub(super) async fn run(&mut self, hang_up: &mut Signal, server: &Server, log: &Log) {
        while hang_up.recv().await.is_some() {
            self.reload(server, log).await;
        }
        pending::<()>().await;
    }

    /// Takes over what can change, and names what cannot. Settings that are not valid leave everything as it was.
    async fn reload(&mut self, server: &Server, log: &Log) {
        let (arguments, file) = (self.arguments.clone(), self.file.clone());
        let read = move || read(&arguments, file.as_deref());
        let mut reading = tokio::task::spawn_blocking(read);
        let read = if let Ok(read) = timeout(NOTICE, &mut reading).await {
            read
        } else {
            tracing::warn!(
                "reading the settings again takes long: the file system of --config may not reply"
            );
            reading.await
        };
        let result = match read {
            Ok(Ok((config, given))) => self.take_over(config, &given, server, log),
            Ok(Err(error)) => Err(error),
            Err(panic) => Err(panic.into()),
        };
        if let Err(error) = result {
            let reason = match error.downcast_ref() {
                Some(error) => ConfigError::problems(error).join("; "),
                None => explain(&*error),
            };
            tracing::error!(reason, "cannot reload the settings, all stay as they were");
        }
    }

    fn take_over(
        &mut self,
        mut config: Config,
        given: &Given,
        server: &Server,
        log: &Log,
    ) -> Result<(), CommandError> {
        log.change(&config.log)?;
        fit_into_file_limit(&mut config);
        server.change_limits(&config);
        let changed = self.running.changed_to(given);
        self.running.take_over(given);
        let waiting = self.running.changed_to(given);
        let applied: Vec<_> = changed.difference(&waiting).map(String::as_str).collect();
        let applied = match &applied[..] {
            [] => "no setting that a running server takes over has changed".to_owned(),
            flags => flags.join(", "),
        };
        log.note(&format!("reloaded: {applied}"));
        if !waiting.is_empty() {
            let settings = Vec::from_iter(waiting).join(", ");
            tracing::warn!(
                settings,
                "some changed settings take effect at the next start"
            );
        }
        Ok(())
    }
}

fn read(arguments: &[OsString], file: Option<&Path>) -> Result<(Config, Given), CommandError> {
    if let Some(file) = file
        && std::fs::metadata(file).is_ok_and(|found| !found.is_file())
    {
        return Err("--config: expected a regular file, which can be read again".into());
    }
    let read = config::parse_settings(arguments, CommandLine::settings)?;
    let config = Config::checked(read.settings, &read.origins)?;
    Ok((config, read.given))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipe without a writer would be waited for without end, and one that was read is empty.
    #[test]
    fn a_configuration_that_can_be_read_once_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let mut flag = OsString::from("--config=");
        flag.push(&pipe);
        let arguments = ["tidings".into(), "serve".into(), "--dev".into(), flag];
        let refused = read(&arguments, Some(&pipe)).unwrap_err();
        assert!(refused.to_string().contains("regular file"), "{refused}");
    }
}
