//! The checked settings that a server runs on.

use std::ffi::OsString;
use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches, Parser};
use tidings::AddressPolicy;

use crate::settings::Settings;
use crate::settings::contradictions::contradictions;
use crate::settings::environment;
use crate::settings::file::{FileError, FromFile, first_line};
use crate::settings::given::GivenSettings;
use crate::settings::mistakes::{Mistake, Raw};
use crate::settings::origin::{Origin, Origins};

/// The checked settings that a [`Server`](crate::Server) runs on.
#[derive(Debug, Clone)]
pub struct Config {
    settings: Settings,
    max_connections: usize,
    read_period: Duration,
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The configuration file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// A flag is unknown, or its value is malformed or out of its range.
    #[error(transparent)]
    Flag(#[from] clap::Error),
    /// Values are not allowed, or contradict others.
    #[error("{}", said_of(.0))]
    Mistakes(Vec<Mistake>),
}

fn said_of(mistakes: &[Mistake]) -> String {
    if let [mistake] = mistakes {
        return mistake.to_string();
    }
    let lines = mistakes.iter().map(|it| format!("\n  {it}"));
    let lines: String = lines.collect();
    format!("{} settings cannot be used:{lines}", mistakes.len())
}

impl ConfigError {
    /// Each thing that is wrong, in a line.
    pub(crate) fn problems(&self) -> Vec<String> {
        match self {
            Self::Mistakes(mistakes) => mistakes.iter().map(ToString::to_string).collect(),
            Self::Flag(error) => vec![first_line(error)],
            Self::File(_) => vec![tidings_storage::explain::explain(self)],
        }
    }
}

/// Connections beyond the streams: requests that come and go.
const EXTRA_CONNECTIONS: usize = 1024;

/// Descriptors for the database, for webhooks beyond the workers (up to 256 that are slow), and everything else beside
/// connections.
const OTHER_DESCRIPTORS: usize = 512;

/// How long a client may take for each part of a large response: as long as one that reads nothing.
const READ_PERIOD: Duration = Duration::from_secs(60);

impl Config {
    /// Parses the flags of `tidings serve`, with environment variables and the file of `--config`.
    ///
    /// ```
    /// let config = tidings_server::Config::from_flags(["--dev", "--listen=127.0.0.1:0"]).unwrap();
    /// assert!(config.dev);
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the setting and what was expected.
    pub fn from_flags<F: Into<OsString>>(
        flags: impl IntoIterator<Item = F>,
    ) -> Result<Self, ConfigError> {
        #[derive(Parser)]
        struct Flags {
            #[command(flatten)]
            settings: Settings,
        }
        let arguments: Vec<OsString> = std::iter::once("serve".into())
            .chain(flags.into_iter().map(Into::into))
            .collect();
        let flags: Flags = parse(&arguments, |flags: &Flags| Some(&flags.settings))?;
        flags.settings.try_into()
    }

    /// Checks what concerns more than one value.
    pub(crate) fn checked(settings: Settings, origins: &Origins) -> Result<Self, ConfigError> {
        let mistakes = contradictions(&settings);
        if !mistakes.is_empty() {
            let mistakes = mistakes.iter().map(|it| it.mistake(origins));
            return Err(ConfigError::Mistakes(mistakes.collect()));
        }
        Ok(Self {
            max_connections: settings.limits.max_streams + EXTRA_CONNECTIONS,
            read_period: READ_PERIOD,
            settings,
        })
    }

    /// Maximum number of connections. More wait in the operating system's queue.
    pub(crate) fn max_connections(&self) -> usize {
        self.max_connections
    }

    /// How long a client may take for each part of a large response.
    pub(crate) fn read_period(&self) -> Duration {
        self.read_period
    }

    /// With less patience for clients that read slowly.
    #[cfg(test)]
    pub(crate) fn with_read_period(mut self, period: Duration) -> Self {
        self.read_period = period;
        self
    }

    /// Descriptors that the process needs at these limits.
    pub(crate) fn needed_descriptors(&self) -> usize {
        self.max_connections + self.other_descriptors()
    }

    /// Lowers the limits of connections and streams to what a process with this number of descriptors can
    /// serve. Some are kept for everything else, and some connections for requests.
    pub(crate) fn fit_into(&mut self, descriptors: usize) {
        if descriptors >= self.needed_descriptors() {
            return;
        }
        let others = self.other_descriptors().min(descriptors / 2);
        self.max_connections = self.max_connections.min(descriptors - others).max(1);
        let most_streams = (self.max_connections / 4 * 3).max(1);
        let max_streams = &mut self.settings.limits.max_streams;
        *max_streams = (*max_streams).min(most_streams);
    }

    fn other_descriptors(&self) -> usize {
        self.webhook_workers + OTHER_DESCRIPTORS
    }

    /// Which addresses webhooks may be sent to.
    pub(crate) fn address_policy(&self) -> AddressPolicy {
        if self.webhook_private_addresses.unwrap_or(self.dev) {
            AddressPolicy::Any
        } else {
            AddressPolicy::PublicOnly
        }
    }
}

/// Parses a command line; if it names a file, with the file's values as defaults. The settings are those of the
/// command that is called, or of the only one.
pub(crate) fn parse<P: Parser>(
    arguments: &[OsString],
    settings: fn(&P) -> Option<&Settings>,
) -> Result<P, ConfigError> {
    let matches = matches(arguments, settings)?;
    Ok(P::from_arg_matches(&matches)?)
}

/// Reads the settings of `serve` as [`parse`] does.
pub(crate) fn parse_settings<P: Parser>(
    arguments: &[OsString],
    settings: fn(&P) -> Option<&Settings>,
) -> Result<GivenSettings, ConfigError> {
    let matches = matches(arguments, settings)?;
    let matches = matches.subcommand_matches("serve").unwrap_or(&matches);
    Ok(GivenSettings::from_arg_matches(matches)?)
}

fn matches<P: Parser>(
    arguments: &[OsString],
    settings: fn(&P) -> Option<&Settings>,
) -> Result<ArgMatches, ConfigError> {
    let arguments = &negative_values(arguments);
    let parsed = <P as CommandFactory>::command().try_get_matches_from_mut(arguments);
    // Without what parsing has added to it, such as `--help`.
    let mut command = <P as CommandFactory>::command();
    let matches = match parsed {
        Ok(matches) => matches,
        Err(error) => return Err(refusal(error, command, arguments)),
    };
    let parsed = P::from_arg_matches(&matches)?;
    let Some(path) = settings(&parsed).and_then(|settings| settings.config.as_deref()) else {
        return Ok(matches);
    };
    let called = matches.subcommand_name();
    let of_called = called.and_then(|name| command.find_subcommand(name));
    let file = FromFile::read(of_called.unwrap_or(&command), path)?;
    if !file.mistakes.is_empty() {
        let wrong = file.mistakes.clone();
        let raw = Raw::of(&command, arguments);
        let all = raw.map(|raw| raw.mistakes(Some(file)));
        return Err(ConfigError::Mistakes(all.unwrap_or(wrong)));
    }
    match called.and_then(|name| command.find_subcommand_mut(name)) {
        Some(called) => *called = file.apply(called.clone()),
        None => command = file.apply(command),
    }
    Ok(command.try_get_matches_from(arguments)?)
}

/// What is said of a command line that cannot be parsed. If it is for a value, all that is wrong with values.
fn refusal(error: clap::Error, mut command: Command, arguments: &[OsString]) -> ConfigError {
    let is_for_value = matches!(
        error.kind(),
        ErrorKind::InvalidUtf8 | ErrorKind::InvalidValue | ErrorKind::ValueValidation
    );
    let raw = Raw::of(&command, arguments).filter(|_| is_for_value);
    let mistakes = raw.map(|raw| raw.mistakes(raw.file()));
    let mistakes = mistakes.unwrap_or_default();
    let one = |text: &dyn fmt::Display| {
        clap::Error::raw(error.kind(), format!("{text}\n")).with_cmd(&command)
    };
    let is_not_text = error.kind() == ErrorKind::InvalidUtf8;
    match &mistakes[..] {
        [] if is_not_text => one(&"expected arguments in UTF-8").into(),
        // The library names the flag or the argument.
        [] => environment::show_whole_usage(error, &mut command, arguments).into(),
        [mistake] if mistake.origin() == Origin::CommandLine && !is_not_text => {
            environment::show_whole_usage(error, &mut command, arguments).into()
        }
        [mistake] => one(mistake).into(),
        _ => ConfigError::Mistakes(mistakes),
    }
}

/// Joins each flag with a negative value behind it, which the library would take for another flag.
fn negative_values(arguments: &[OsString]) -> Vec<OsString> {
    let is_flag = |text: &str| text.starts_with("--") && text.len() > 2 && !text.contains('=');
    let is_negative = |text: &str| {
        let number = text.strip_prefix('-');
        number.is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()))
    };
    let mut joined: Vec<OsString> = Vec::with_capacity(arguments.len());
    for (index, argument) in arguments.iter().enumerate() {
        // What follows `--` is no flag.
        if argument == "--" {
            joined.extend_from_slice(&arguments[index..]);
            break;
        }
        match joined.last_mut() {
            Some(flag)
                if flag.to_str().is_some_and(is_flag)
                    && argument.to_str().is_some_and(is_negative) =>
            {
                flag.push("=");
                flag.push(argument);
            }
            _ => joined.push(argument.clone()),
        }
    }
    joined
}

impl Deref for Config {
    type Target = Settings;

    fn deref(&self) -> &Settings {
        &self.settings
    }
}

impl TryFrom<Settings> for Config {
    type Error = ConfigError;

    /// Checks what concerns more than one value; [`ConfigError::Mistakes`] names the settings and what
    /// was expected.
    fn try_from(settings: Settings) -> Result<Self, ConfigError> {
        Self::checked(settings, &Origins::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use tidings::retry::Schedule;

    use crate::settings::ApiKey;

    fn accepted(flags: &[&str]) -> Config {
        Config::from_flags(flags).unwrap()
    }

    fn refused(flags: &[&str]) -> String {
        tidings_storage::explain::explain(&Config::from_flags(flags).unwrap_err())
    }

    /// A file with this text, and the flag that names it.
    fn file(text: &str) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tidings.toml");
        std::fs::write(&path, text).unwrap();
        (folder, format!("--config={}", path.display()))
    }

    #[test]
    fn limits_follow_the_descriptors() {
        let mut config = accepted(&["--dev"]);
        config.fit_into(config.needed_descriptors());
        assert_eq!(
            (config.limits.max_streams, config.max_connections()),
            (10_000, 11_024)
        );
        config.fit_into(4096);
        assert_eq!(
            (config.limits.max_streams, config.max_connections()),
            (2640, 3520)
        );
        config.fit_into(256);
        assert_eq!(
            (config.limits.max_streams, config.max_connections()),
            (96, 128)
        );
        config.fit_into(0);
        assert_eq!(
            (config.limits.max_streams, config.max_connections()),
            (1, 1)
        );
    }

    #[test]
    fn the_file_fills_in_and_flags_win() {
        let (_folder, flag) = file(
            "dev = true\nretention = \"30d\"\nmax-streams = 7\nwebhook-schedule = [\"0s\", \"1m\"]\n",
        );
        let config = accepted(&[&flag, "--max-streams=8"]);
        assert!(config.dev);
        assert_eq!(config.limits.max_streams, 8);
        assert_eq!(config.retention, Duration::from_secs(30 * 24 * 60 * 60));
        assert_eq!(config.webhook_schedule.len(), 2);
    }

    #[test]
    fn an_unknown_key_in_the_file_is_refused() {
        for key in ["lisen", "config", "help"] {
            let (_folder, flag) = file(&format!("{key} = \"127.0.0.1:1\""));
            let refused = refused(&[&flag, "--dev"]);
            assert!(refused.contains("line 1"), "{refused}");
            assert!(refused.contains(key), "{refused}");
        }
        let (_folder, flag) = file("API_KEY = \"0123456789abcdef\"");
        let refused = refused(&[&flag, "--dev"]);
        let says = "line 1: unknown setting `API_KEY`, did you mean `api-key`?";
        assert!(refused.ends_with(says), "{refused}");
        for (key, hint) in [
            ("lisen", ", did you mean `listen`?"),
            ("max_steams", ", did you mean `max-streams`?"),
            // A flag, and no setting.
            ("confg", ""),
            ("colour", ""),
        ] {
            let (_folder, flag) = file(&format!("{key} = 1"));
            let refused = self::refused(&[&flag, "--dev"]);
            let says = format!("line 1: unknown setting `{key}`{hint}");
            assert!(refused.ends_with(&says), "{refused}");
        }
    }

    #[test]
    fn regression_a_name_that_is_not_known_adds_no_other_mistake() {
        let redis = "--redis=redis://127.0.0.1";
        for (text, flags) in [
            ("api_key = \"0123456789abcdef\"", &[][..]),
            ("databse = \"postgres://host/db\"", &["--dev", redis]),
            ("colour = \"0123456789abcdef\"", &[]),
            ("colour = \"postgres://host/db\"", &["--dev", redis]),
            ("jwt-keys = \"a.json\"", &["--dev", "--jwt-issuer=a"]),
        ] {
            let (_folder, flag) = file(text);
            let refused = refused(&[&[&flag[..]], flags].concat());
            assert!(refused.starts_with("the configuration file"), "{refused}");
            assert!(refused.contains("line 1: unknown setting"), "{refused}");
            assert_eq!(refused.lines().count(), 1, "{refused}");
        }
        // What does not fit, whatever the name means.
        let (_folder, flag) = file("colour = 1");
        let key = "--api-key=0123456789abcdef";
        let refused = refused(&[&flag, "--dev", "--listen=0.0.0.0:1", key]);
        assert!(refused.contains("--dev: listens on loopback"), "{refused}");
    }

    #[test]
    fn regression_a_file_that_cannot_be_used_adds_no_other_mistake() {
        let (_folder, flag) = file("api-key: 0123456789abcdef");
        for flag in [&flag[..], "--config=/no/such/file"] {
            let refused = refused(&[flag, "--max-streams=0", "--redis=redis://127.0.0.1"]);
            let says = "2 settings cannot be used:";
            assert!(refused.starts_with(says), "{refused}");
            assert_eq!(refused.lines().count(), 3, "{refused}");
        }
    }

    #[test]
    fn regression_a_secret_beside_a_file_with_one_is_named_with_the_others() {
        let secret = "--jwt-secret=0123456789abcdef0123456789abcdef";
        let twice = ["--jwt-secret-file=/run/secret", secret];
        let refused = refused(&[&twice[..], &["--redis=redis://127.0.0.1"]].concat());
        let says = "3 settings cannot be used:";
        assert!(refused.starts_with(says), "{refused}");
        let says = "--jwt-secret: not allowed beside --jwt-secret-file";
        assert!(refused.contains(says), "{refused}");
        assert!(!refused.contains("0123456789"), "{refused}");
    }

    #[cfg(unix)]
    #[test]
    fn regression_a_value_that_is_not_utf_8_is_wrong_only_where_text_is_expected() {
        use std::os::unix::ffi::OsStringExt;
        let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let path = text(b"--jwt-secret-file=/etc/caf\xe9");
        let flags = ["--dev".into(), "--max-streams=0".into(), path];
        let refused = tidings_storage::explain::explain(&Config::from_flags(flags).unwrap_err());
        assert!(refused.contains("'--max-streams <COUNT>'"), "{refused}");
        assert!(!refused.contains("UTF-8"), "{refused}");
        let flags = ["--max-streams=0".into(), text(b"--listen=\xe9")];
        let refused = tidings_storage::explain::explain(&Config::from_flags(flags).unwrap_err());
        let says = "the command line: --listen: expected text in UTF-8";
        assert!(refused.contains(says), "{refused}");
    }

    #[test]
    fn a_setting_that_the_file_has_twice_is_refused_by_its_name() {
        let (_folder, flag) = file("listen = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"");
        let refused = refused(&[&flag]);
        assert!(
            refused.ends_with("line 2: listen: given more than once"),
            "{refused}"
        );
    }

    #[test]
    fn a_wrong_value_in_the_file_is_refused_with_its_line() {
        for (value, reason) in [
            ("ping-interval = \"1h\"", "expected 1s to 25s"),
            ("ping-interval = 5", "duration such as 30s"),
            ("listen = [\"127.0.0.1:1\", \"127.0.0.1:2\"]", "--listen"),
            (
                "max-streams = 1.5",
                "--max-streams <COUNT>': expected 1 to 1000000",
            ),
            (
                "max-streams = {}",
                "max-streams: expected a text, a whole number, true or false",
            ),
            (
                "api-key = [1]",
                "--api-key <KEY>': expected at least 16 visible ASCII characters",
            ),
            (
                "api-key = [\"\"]",
                "--api-key <KEY>': expected at least 16 visible ASCII characters",
            ),
            (
                "log-format = \"xml\"",
                "--log-format <FORMAT>': expected text or json",
            ),
            (
                "jwt-secret = \"short\"",
                "--jwt-secret <SECRET>': expected at least 32 bytes",
            ),
            ("max-streams = -1", "expected 1 to 1000000"),
            ("max-streams = ", ""),
        ] {
            let (_folder, flag) = file(&format!("dev = true\n{value}\n"));
            let refused = refused(&[&flag]);
            assert!(refused.contains("line 2"), "{refused}");
            assert!(refused.contains(reason), "{refused}");
        }
    }

    #[test]
    fn a_blank_may_follow_the_comma_of_a_list() {
        let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let config = accepted(&[
            "--api-key=0123456789abcdef, fedcba9876543210",
            "--allow-origin=https://a.example, https://b.example",
            &format!("--encryption-key={key}, {key}"),
            "--webhook-schedule=0s, 1m",
            "--jwt-public-key=a.pem, b.pem",
        ]);
        let keys: Vec<_> = config.api_keys.iter().map(ApiKey::expose).collect();
        assert_eq!(keys, ["0123456789abcdef", "fedcba9876543210"]);
        let origins = ["https://a.example", "https://b.example"];
        assert_eq!(config.allow_origins, origins);
        assert_eq!(config.encryption_keys.len(), 2);
        assert_eq!(config.webhook_schedule[1], Duration::from_secs(60));
        let files = ["a.pem", "b.pem"].map(std::path::PathBuf::from);
        assert_eq!(config.jwt.public_keys, files);
        let refused = refused(&["--api-key=0123456789abcdef,"]);
        assert!(refused.contains("16 visible ASCII characters"), "{refused}");
    }

    #[test]
    fn a_negative_value_is_a_value() {
        for (flag, value, expected) in [
            ("--max-streams", "-1", "expected 1 to 1000000"),
            ("--ping-interval", "-5s", "expected a duration"),
            ("--dev", "-1", "expected true or false"),
        ] {
            let refused = refused(&[flag, value]);
            let says = format!("'{flag}");
            assert!(
                refused.contains(&says) && refused.contains(expected),
                "{refused}"
            );
        }
        let joined = |arguments: &[&str]| {
            let arguments: Vec<_> = arguments.iter().map(OsString::from).collect();
            negative_values(&arguments)
        };
        assert_eq!(
            joined(&["send", "--type", "-1", "-2"]),
            ["send", "--type=-1", "-2"]
        );
        assert_eq!(
            joined(&["send", "--", "--x", "-1"]),
            ["send", "--", "--x", "-1"]
        );
        assert_eq!(joined(&["--x", "--", "-1"]), ["--x", "--", "-1"]);
    }

    #[test]
    fn only_true_and_false_switch_a_setting_in_the_file() {
        for value in ["\"true\"", "\"yes\"", "\"on\"", "1", "[true]", "\"\""] {
            for name in ["dev", "webhook-private-addresses"] {
                let (_folder, flag) = file(&format!("\n{name} = {value}\n"));
                let refused = refused(&[&flag, "--dev"]);
                let says =
                    format!("line 2: {name}: expected true or false, without quotation marks");
                assert!(refused.ends_with(&says), "{refused}");
            }
        }
    }

    #[test]
    fn a_file_that_is_not_a_configuration_is_refused_in_plain_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tidings.toml");
        let flag = format!("--config={}", path.display());
        let refusal = |says: &str| {
            let refused = refused(&[&flag, "--dev"]);
            assert!(refused.ends_with(says), "{refused}");
        };
        refusal(": no such file or folder");
        std::fs::write(&path, b"# f\xfcr\n").unwrap();
        refusal("line 1: expected text in UTF-8");
        std::fs::write(&path, b"max-streams = 7\n# \xff").unwrap();
        refusal("line 2: expected text in UTF-8");
        for text in ["listen: 127.0.0.1:0", "{\"listen\": 1}", "listen = \"127"] {
            std::fs::write(&path, text).unwrap();
            let refused = refused(&[&flag, "--dev"]);
            assert!(refused.contains(": expected TOML: "), "{refused}");
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        refusal(": expected a file, got a folder");
    }

    #[test]
    fn a_mistake_in_the_file_shows_no_key() {
        for keys in ["[\"a-secret-0123456789\", {}]", "[\"secret\"]"] {
            let (_folder, flag) = file(&format!("dev = true\napi-key = {keys}\n"));
            let refused = refused(&[&flag]);
            assert!(refused.contains("api-key"), "{refused}");
            assert!(!refused.contains("secret"), "{refused}");
        }
    }

    #[test]
    fn dev_is_open_on_loopback_and_nowhere_else() {
        assert!(accepted(&["--dev"]).api_keys.is_empty());
        let everywhere = "--listen=0.0.0.0:8080";
        let key = "--api-key=0123456789abcdef";
        assert!(refused(&["--dev", everywhere]).contains("loopback only"));
        assert!(refused(&["--dev", everywhere, key]).contains("loopback only"));
        accepted(&[everywhere, key]);
    }

    #[test]
    fn without_dev_a_key_is_demanded() {
        assert!(refused(&[]).contains("--api-key"));
        let short = refused(&["--api-key=short"]);
        assert!(short.contains("16") && !short.contains("short"), "{short}");
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        for flag in [
            "--max-body-bytes=0",
            "--max-streams=0",
            "--max-streams-per-user=0",
            "--max-address-connections=0",
            "--max-key-requests=0",
            "--max-user-requests=1000001",
            "--max-user-notifications=-1",
            "--max-endpoints=0",
            "--ping-interval=0s",
            "--retention=0s",
            "--webhook-workers=0",
            "--webhook-schedule=8d",
            "--database=tidings.db",
            "--redis=localhost:6379",
            "--redis=redis://localhost/",
            "--allow-origin=example.com",
            "--allow-origin=null",
        ] {
            let (name, _) = flag.split_once('=').unwrap();
            assert!(refused(&["--dev", flag]).contains(name), "{flag}");
        }
        let (_folder, flag) = file("dev = true\nwebhook-schedule = []\n");
        assert!(refused(&[&flag]).starts_with("--webhook-schedule"));
    }

    #[test]
    fn the_default_schedule_is_that_of_standard_webhooks() {
        let retries = Schedule::standard_webhooks();
        let expected = [&[Duration::ZERO], retries.delays()].concat();
        assert_eq!(accepted(&["--dev"]).webhook_schedule, expected);
    }
}
