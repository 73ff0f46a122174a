//! What is wrong with settings although each value alone is allowed.

use tidings_storage::DatabaseUrl;

use super::Settings;
use super::mistakes::Mistake;
use super::origin::Origins;
use crate::telemetry::traces;

/// The settings of keys for tokens.
const JWT_KEYS: &[&str] = &[
    "jwt-secret",
    "jwt-secret-file",
    "jwt-public-key",
    "jwt-jwks",
];

/// Maximum number of attempts of one delivery.
const MAX_ATTEMPTS: usize = 100;

/// A setting that is not allowed, or does not fit to others.
#[derive(Debug)]
pub(crate) struct Contradiction {
    pub(crate) setting: &'static str,
    /// Without a right value of these, it may be none.
    pub(crate) others: &'static [&'static str],
    /// Whether one of those is missing, which a name that is not known may mean.
    pub(crate) is_lack: bool,
    pub(crate) expected: String,
}

impl Contradiction {
    pub(crate) fn mistake(&self, origins: &Origins) -> Mistake {
        let setting = self.setting;
        let text = format!("--{setting}: {}", self.expected);
        let origin = origins.of_setting(setting);
        Mistake::new(setting, origin, origins.say(setting, &text))
    }
}

/// What is not allowed, or does not fit together.
pub(crate) fn contradictions(settings: &Settings) -> Vec<Contradiction> {
    let mut found = Vec::new();
    let mut add = |setting, others, is_lack, expected: String| {
        found.push(Contradiction {
            setting,
            others,
            is_lack,
            expected,
        });
    };
    // Only a loopback address may be open without a key, and only with `--dev`.
    let address = settings.listen.ip();
    if settings.dev && !address.is_loopback() {
        let expected = format!("listens on loopback only; for {address}, use --api-key instead");
        add("dev", &["listen"][..], false, expected);
    }
    if !settings.dev && settings.api_keys.is_empty() {
        let expected = "expected at least one; to try the server on this machine, use --dev";
        add("api-key", &["dev"], true, expected.to_owned());
    }
    let jwt = &settings.jwt;
    if jwt.signing.secret.is_some() && jwt.signing.secret_file.is_some() {
        let expected = "not allowed beside --jwt-secret-file";
        add(
            "jwt-secret",
            &["jwt-secret-file"],
            false,
            expected.to_owned(),
        );
    }
    let needs_keys = [
        ("jwt-issuer", jwt.signing.issuer.is_some()),
        ("jwt-audience", jwt.signing.audience.is_some()),
        ("jwt-cookie", jwt.cookie.is_some()),
    ];
    for (setting, _) in needs_keys
        .iter()
        .filter(|(_, is_given)| *is_given && !jwt.has_keys())
    {
        let expected = "only beside --jwt-secret, --jwt-public-key or --jwt-jwks";
        add(setting, JWT_KEYS, true, expected.to_owned());
    }
    if let DatabaseUrl::Postgres(url) = &settings.database
        && let Some(problem) = url.problem()
    {
        add("database", &[], false, problem);
    }
    if let Some(url) = &settings.redis {
        if let Some(problem) = url.problem() {
            add("redis", &[], false, problem);
        }
        if matches!(settings.database, DatabaseUrl::Sqlite(_)) {
            let expected = "only beside a PostgreSQL database: a file has one instance";
            add("redis", &["database"], true, expected.to_owned());
        }
    }
    if !(1..=MAX_ATTEMPTS).contains(&settings.webhook_schedule.len()) {
        let expected = format!("expected 1 to {MAX_ATTEMPTS} waiting times");
        add("webhook-schedule", &[], false, expected);
    }
    found.extend(unsent_traces(settings, traces::MISSING));
    found
}

/// A collector whose operator would wait for traces in vain.
fn unsent_traces(settings: &Settings, missing: Option<&str>) -> Option<Contradiction> {
    settings.otlp_endpoint.as_ref()?;
    Some(Contradiction {
        setting: "otlp-endpoint",
        others: &[],
        is_lack: false,
        expected: missing?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    #[test]
    fn a_binary_without_traces_refuses_a_collector() {
        let settings = |arguments: &[&str]| {
            let command = Settings::augment_args(Command::new("serve"));
            let matches = command.get_matches_from([&["serve", "--dev"], arguments].concat());
            Settings::from_arg_matches(&matches).unwrap()
        };
        let collector = settings(&["--otlp-endpoint", "http://127.0.0.1:4318"]);
        let refused = unsent_traces(&collector, Some(traces::REFUSAL)).unwrap();
        assert_eq!(refused.setting, "otlp-endpoint");
        assert!(
            refused
                .expected
                .ends_with("build it with `--features otlp`")
        );
        for (settings, missing) in [(&collector, None), (&settings(&[]), Some(traces::REFUSAL))] {
            assert!(unsent_traces(settings, missing).is_none());
        }
    }
}
