//! Flags, their variables, and what is said of wrong ones.

use crate::support::{Home, Server, binary, run, said_by, soon};

#[tokio::test]
async fn regression_a_variable_does_not_look_like_a_flag_that_is_needed() {
    for (arguments, usage) in [
        (
            &["send", "anna"][..],
            "tidings send [OPTIONS] <USER> <TEXT>",
        ),
        (&["key", "revoke"], "tidings key revoke [OPTIONS] <ID>"),
        (
            &["tail", "anna", "--nothing"],
            "tidings tail [OPTIONS] <USER>",
        ),
        (&["doctor", "extra"], "tidings doctor [OPTIONS]"),
    ] {
        for variable in [None, Some("http://127.0.0.1:1")] {
            let mut command = binary();
            command.args(arguments);
            command.envs(variable.map(|url| ("TIDINGS_URL", url)));
            let (ok, _, complaint) = said_by(&mut command).await;
            let usage = format!("\nUsage: {usage}\n");
            assert!(!ok && complaint.contains(&usage), "{complaint}");
        }
    }
}

#[tokio::test]
async fn mistakes_are_explained_in_one_line() {
    let home = Home::new();
    let server = home.start().await;
    let (ok, _, complaint) = run(&server, &["inbox", "anna", "--read", "nonsense"]).await;
    assert!(!ok);
    assert!(
        complaint.starts_with("tidings: the server replied 404"),
        "{complaint}"
    );
    assert_eq!(complaint.lines().count(), 1);
    let refused = binary()
        .args(["send", "anna", "x", "--url", "http://127.0.0.1:1"])
        .output()
        .await
        .unwrap();
    let complaint = String::from_utf8(refused.stderr).unwrap();
    assert!(
        complaint.contains("no server at http://127.0.0.1:1"),
        "{complaint}"
    );
    let tls = server.url.replace("http:", "https:");
    for (url, says) in [
        (tls.as_str(), "no TLS at https://"),
        (
            "http://no.invalid",
            "cannot connect to http://no.invalid/: the host of the URL has no address that can be found\n",
        ),
    ] {
        let command = binary().args(["send", "anna", "x", "--url", url]).output();
        let complaint = String::from_utf8(command.await.unwrap().stderr).unwrap();
        assert!(complaint.contains(says), "{complaint}");
        assert!(!complaint.contains("start one with"), "{complaint}");
    }
    for arguments in [["send", "anna,,ben", "x"], ["send", "anna, ,ben", "x"]] {
        let (ok, _, complaint) = run(&server, &arguments).await;
        assert!(
            !ok && complaint.contains("a user is missing between two commas"),
            "{complaint}"
        );
    }
    let (ok, _, complaint) = run(&server, &["send", "anna"]).await;
    assert!(
        !ok && complaint.contains("not provided:\n  <TEXT>"),
        "{complaint}"
    );
    for url in ["127.0.0.1:8080", "ftp://127.0.0.1/", "localhost"] {
        let command = binary().args(["send", "anna", "x", "--url", url]).output();
        let complaint = String::from_utf8(command.await.unwrap().stderr).unwrap();
        assert!(
            complaint.contains("such as http://127.0.0.1:8080"),
            "{complaint}"
        );
    }
    let bad = binary()
        .args(["serve", "--dev", "--database", "mysql://x"])
        .output()
        .await
        .unwrap();
    let complaint = String::from_utf8(bad.stderr).unwrap();
    assert!(complaint.contains("--database"), "{complaint}");
}

/// Arguments with a wrong value, and what the error says of it. No text of a library reaches a user.
const WRONG_ARGUMENTS: &[(&[&str], &str)] = &[
    (&["listen", "--port", "x"], "expected 0 to 65535"),
    (&["listen", "--port", "65536"], "expected 0 to 65535"),
    (&["listen", "--status", "99"], "expected 200 to 599"),
    (&["listen", "--count", "x"], "expected 1 to 1000000000"),
    (&["tail", "a", "--count", "0"], "expected 1 to 1000000000"),
    (&["inbox", "a", "--limit", "x"], "expected 1 to 1000"),
    (&["inbox", "a", "--limit", "1001"], "expected 1 to 1000"),
    (
        &["listen", "--port", "0", "--secret", "abc"],
        "'--secret <whsec_…>': expected 24 to 64 bytes, got 2, as if it were cut off; a secret is `whsec_` and 24 to 64 bytes in base64",
    ),
    (
        &["listen", "--port", "0", "--secret", "whsec_!"],
        "; a secret is `whsec_` and 24 to 64 bytes in base64",
    ),
    (&["serve", "--dev=maybe"], "expected true or false"),
    (&["serve", "--dev=yes"], "expected true or false"),
    (&["serve", "--max-streams", "-1"], "expected 1 to 1000000"),
    (&["serve", "--retention", "-5d"], "expected a duration"),
    (&["tail", "a", "--count", "-1"], "expected 1 to 1000000000"),
    (&["bench", "--rate", "0"], "expected 1 to 1000000"),
    (&["bench", "--size", "63"], "expected 64 to 65536"),
    (&["bench", "--duration", "2h"], "expected 1s to 1h"),
    (
        &["bench", "--webhooks", "0.0.0.0:9000"],
        "expected the IP address of this machine",
    ),
    (&["serve", "--log-format", "xml"], "expected text or json"),
    (&["serve", "--log", ""], "expected error, warn, info"),
    (&["serve", "--log", "5"], "expected error, warn, info"),
    (
        &["serve", "--log", "info,tidings_server=4"],
        "expected error, warn, info",
    ),
    (
        &["serve", "--webhook-private-addresses=2"],
        "expected true or false",
    ),
    (&["serve", "--log", "wran"], "expected error, warn, info"),
    // Filters of spans and their fields are not known.
    (
        &["serve", "--log", "tidings_server[request]=debug"],
        "expected error, warn, info",
    ),
    (
        &["serve", "--log", "info,tidings_server"],
        "expected error, warn, info",
    ),
    (
        &["serve", "--log", "tidings_server=debgu"],
        "expected error, warn, info",
    ),
    (&["serve", "--max-streams", "x"], "expected 1 to 1000000"),
    (
        &["serve", "--listen", "example.com:80"],
        "such as 127.0.0.1:8080 or localhost:8080; no other name is looked up",
    ),
    (
        &["serve", "--api-key", "short"],
        "'--api-key <KEY>': expected at least 16 visible ASCII characters",
    ),
    (
        &["send", "a", "x", "--api-key", ""],
        "'--api-key <KEY>': expected an API key, got an empty text",
    ),
    (
        &["send", "a", "x", "--api-key", ",second"],
        "'--api-key <KEY>': expected visible ASCII characters",
    ),
    (
        &["send", "a", "x", "--idempotency-key", "two words"],
        "'--idempotency-key <KEY>': expected 1 to 255 visible ASCII characters",
    ),
    (&["key", "revoke", ""], "expected the id of a key"),
    (
        &["endpoint", "show", "ep_1"],
        "expected `ep_` and sixteen hexadecimal digits",
    ),
    (
        &["endpoint", "create", "http://a", "--header", "x"],
        "expected a name, a colon and a value",
    ),
    (
        &[
            "endpoint",
            "create",
            "http://a",
            "--header=x:1",
            "--header=X:2",
        ],
        "--header: expected each header once, got X twice",
    ),
    (
        &["endpoint", "create", "http://a", "--format", "xml"],
        "expected envelope or raw",
    ),
    (
        &["endpoint", "create", "http://a", "--signature", "none"],
        "expected standard or timestamped",
    ),
    (
        &["endpoint", "create", "http://a", "--schedule", "1.5s"],
        "--schedule: expected whole seconds",
    ),
    (
        &["endpoint", "create", "http://a", "--timeout", "1us"],
        "--timeout: expected whole milliseconds",
    ),
    (
        &["endpoint", "create", "http://a", "--rate-limit", "0"],
        "expected 1 to 1000000",
    ),
    (
        &["endpoint", "create", "http://a", "--secret-file", "/none"],
        "--secret-file: cannot read /none: no such file or folder",
    ),
    (
        &["endpoint", "create", "http://a", "--user", " a"],
        "--user <USER>",
    ),
    (
        &["endpoint", "update", "ep_0000000000000001"],
        "expected a setting to change",
    ),
    (
        &[
            "endpoint",
            "update",
            "ep_0000000000000001",
            "--type=a",
            "--reset=type",
        ],
        "--reset: not allowed for type beside --type",
    ),
    (
        &[
            "endpoint",
            "rotate",
            "ep_0000000000000001",
            "--overlap",
            "31d",
        ],
        "expected 0s to 30d",
    ),
    (
        &["endpoint", "replay", "ep_0000000000000001"],
        "--since <TIME>",
    ),
    (
        &[
            "endpoint",
            "replay",
            "ep_0000000000000001",
            "--stop",
            "--per-second=1",
        ],
        "the argument '--stop' cannot be used with '--per-second <COUNT>'",
    ),
    (
        &["delivery", "show", "ep_0000000000000001"],
        "expected `dlv_` and sixteen hexadecimal digits",
    ),
    (
        &["delivery", "list", "--state", "sent"],
        "expected pending, delivered, failed or cancelled",
    ),
    (&["delivery", "list", "--limit", "501"], "expected 1 to 500"),
    (
        &["inbox", "a", "--read-all", "--unread"],
        "the argument '--read-all' cannot be used with '--unread'",
    ),
    (
        &["inbox", "a", "--read", "x", "--limit", "5"],
        "cannot be used with '--limit <COUNT>'",
    ),
    (
        &[
            "serve",
            "--dev",
            "--database",
            "postgres://h/d",
            "--redis",
            "redis://h/?timeout=5",
        ],
        "--redis: ",
    ),
    (&["serve", "--retention", "5m"], "expected 1h to 36500d"),
    (&["serve", "--lease", "1d"], "expected 1s to 5m"),
    (&["serve", "--shutdown-timeout", "1d"], "expected 0s to 10m"),
];

#[tokio::test]
async fn every_wrong_argument_is_refused_in_words_of_ours() {
    for (arguments, says) in WRONG_ARGUMENTS {
        let command = binary().args(*arguments).output();
        let output = soon("the refusal", command).await.unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(complaint.contains(says), "{arguments:?}: {complaint}");
    }
}

#[tokio::test]
async fn a_url_that_is_refused_is_not_repeated_with_its_password() {
    for (setting, url) in [
        ("TIDINGS_DATABASE", "mysql://anna:hunter2@host/db"),
        ("TIDINGS_DATABASE", "POSTGRES://anna:hunter2@host/db"),
        ("TIDINGS_REDIS", "http://anna:hunter2@host/1"),
    ] {
        let command = binary().args(["serve", "--dev"]).env(setting, url).output();
        let output = soon("the refusal", command).await.unwrap();
        assert!(!output.status.success(), "{url}");
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(complaint.contains("expected `"), "{complaint}");
        assert!(!complaint.contains("hunter2"), "{complaint}");
    }
    // What an address of a server has besides is sent nowhere.
    for (url, says) in [
        ("http://anna:hunter2@127.0.0.1:1", "without a user name"),
        ("http://hunter2@127.0.0.1:1/", "without a user name"),
        ("http://127.0.0.1:1/?key=hunter2", "without a query"),
        ("http://127.0.0.1:1/#hunter2", "without a fragment"),
        ("http://anna:hunter2@:1", "an address such as"),
    ] {
        for arguments in [&["inbox", "anna"][..], &["doctor"]] {
            for by_flag in [true, false] {
                let mut command = binary();
                command.args(arguments);
                if by_flag {
                    command.args(["--url", url]);
                } else {
                    command.env("TIDINGS_URL", url);
                }
                let (ok, shown, said) = said_by(&mut command).await;
                let complaint = format!("{shown}{said}");
                assert!(!ok && complaint.contains(says), "{url}: {complaint}");
                assert!(!complaint.contains("hunter2"), "{complaint}");
            }
        }
    }
    let mut help = binary();
    help.args(["inbox", "--help"]);
    help.env("TIDINGS_URL", "http://anna:hunter2@127.0.0.1:1");
    let (ok, shown, _) = said_by(&mut help).await;
    assert!(ok && !shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn a_variable_with_a_wrong_value_is_named_and_a_key_is_not_shown() {
    for (arguments, name, value, says) in [
        (
            &["serve", "--dev"][..],
            "TIDINGS_MAX_STREAMS",
            "0",
            "invalid value '0' for '--max-streams <COUNT>': expected 1 to 1000000",
        ),
        (&["serve"], "TIDINGS_DEV", "yes", "expected true or false"),
        (
            &["serve", "--dev"],
            "TIDINGS_API_KEY",
            "hidden",
            "expected at least 16 visible ASCII characters",
        ),
        (
            &["serve", "--dev"],
            "TIDINGS_JWT_SECRET",
            "hidden",
            "expected at least 32 bytes",
        ),
        (
            &["key", "list"],
            "TIDINGS_URL",
            "localhost",
            "expected an address such as http://127.0.0.1:8080",
        ),
    ] {
        let command = binary().args(arguments).env(name, value).output();
        let output = soon("the refusal", command).await.unwrap();
        assert!(!output.status.success(), "{name}");
        let complaint = String::from_utf8(output.stderr).unwrap();
        let variable = format!("the environment variable {name}: ");
        assert!(complaint.contains(&variable), "{complaint}");
        assert!(complaint.contains(says), "{complaint}");
        assert!(!complaint.contains("hidden"), "{complaint}");
    }
    // A right variable is not blamed for an argument, whatever else the command needs.
    for (arguments, says) in [
        (
            &["endpoint", "show", "nope"][..],
            "invalid value 'nope' for '<ID>'",
        ),
        (
            &["endpoint", "replay", "nope", "--stop"],
            "invalid value 'nope' for '<ID>'",
        ),
        (
            &["inbox", "anna", "--limit", "0"],
            "invalid value '0' for '--limit",
        ),
        (&["send", "", "x"], "invalid value '' for '<USER>'"),
        (
            &["token", "anna", "--for", "1000d"],
            "invalid value '1000d' for '--for",
        ),
        (
            &["key", "create", "x", "--scope", "y"],
            "invalid value 'y' for '--scope",
        ),
    ] {
        let command = binary()
            .args(arguments)
            .env("TIDINGS_URL", "http://127.0.0.1:18080")
            .env("TIDINGS_API_KEY", "a key of 16 bytes".replace(' ', "-"))
            .env("TIDINGS_JWT_SECRET", "s".repeat(32))
            .output();
        let output = soon("the refusal", command).await.unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(complaint.contains(says), "{complaint}");
        assert!(!complaint.contains("TIDINGS_"), "{complaint}");
    }
    // A flag overrides the variable, so it is the flag that is wrong.
    let command = binary()
        .args(["serve", "--max-streams", "x"])
        .env("TIDINGS_MAX_STREAMS", "0")
        .output();
    let output = soon("the refusal", command).await.unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(complaint.contains("'x' for '--max-streams"), "{complaint}");
    assert!(!complaint.contains("variable"), "{complaint}");
}

/// A command says which variable it cannot read.
#[tokio::test]
async fn a_variable_that_is_not_text_is_named() {
    use std::os::unix::ffi::OsStrExt;
    let wrong = std::ffi::OsStr::from_bytes(b"\xff0123456789abcdef");
    for (arguments, name) in [
        (&["serve", "--dev"][..], "TIDINGS_RETENTION"),
        (&["serve", "--dev"], "TIDINGS_LOG"),
        (&["inbox", "anna"], "TIDINGS_URL"),
        (&["inbox", "anna"], "TIDINGS_API_KEY"),
    ] {
        let command = binary().args(arguments).env(name, wrong).output();
        let output = soon("the refusal", command).await.unwrap();
        assert!(!output.status.success(), "{name}");
        let complaint = String::from_utf8(output.stderr).unwrap();
        let says = format!("the environment variable {name}: expected text in UTF-8");
        assert!(complaint.contains(&says), "{complaint}");
    }
}

#[tokio::test]
async fn a_misspelt_variable_is_named_at_the_start() {
    let home = Home::new();
    let mut command = home.command();
    command
        .env("TIDINGS_RETENTON", "1d")
        .env("TIDINGS_URL", "x");
    let server = Server::of(command).await;
    let (_, said) = server.stop("-TERM").await;
    assert!(said.contains("TIDINGS_RETENTON"), "{said}");
    assert!(!said.contains("TIDINGS_URL"), "{said}");
}

#[tokio::test]
async fn every_flag_has_a_variable_and_an_explanation() {
    let help = binary().args(["serve", "--help"]).output().await.unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for flag in help
        .lines()
        .filter(|line| line.trim_start().starts_with("--"))
    {
        let name = flag.trim().split(' ').next().unwrap();
        let variable = name
            .trim_start_matches("--")
            .replace('-', "_")
            .to_uppercase();
        let named = |end: char| help.contains(&format!("[env: TIDINGS_{variable}{end}"));
        // Where the value is hidden, the name is all there is.
        assert!(named('=') || named(']'), "{name} has no variable: {help}");
    }
    let mut by_variable = Home::new().command();
    by_variable.env("TIDINGS_MAX_STREAMS", "0");
    let (_, _, refused) = said_by(&mut by_variable).await;
    assert!(refused.contains("--max-streams"), "{refused}");
}

/// So that a variable that lacks its value, as in `KEY=$KEY`, does not switch off what it is for.
#[tokio::test]
async fn an_empty_variable_is_refused_by_its_name_by_every_command() {
    for arguments in [
        &["serve"][..],
        &["doctor"],
        &["send", "anna", "x"],
        &["listen"],
        &["endpoint", "list"],
        &["key", "list"],
        &["token", "anna"],
        &["import"],
        &["bench"],
    ] {
        let help = binary().args(arguments).arg("--help").output().await;
        let help = String::from_utf8(help.unwrap().stdout).unwrap();
        let names = help.split("[env: ").skip(1);
        let names: Vec<_> = names
            .map(|it| it.split([']', '=']).next().unwrap())
            .collect();
        assert!(!names.is_empty(), "{help}");
        for name in names {
            let mut command = binary();
            let (ok, shown, said) = soon(
                "the refusal",
                said_by(command.args(arguments).env(name, "")),
            )
            .await;
            let says = format!(
                "the environment variable {name}: expected a value, got an empty text; without a value, remove it \
                 (`unset {name}`)\n"
            );
            let complaint = format!("{shown}{said}");
            assert!(
                !ok && complaint.contains(&says),
                "{arguments:?}: {complaint}"
            );
        }
    }
    // What a flag overrides is not looked at.
    let mut command = binary();
    command.args(["inbox", "anna", "--url", "http://127.0.0.1:1"]);
    let (_, _, said) = said_by(command.env("TIDINGS_URL", "")).await;
    assert!(said.contains("no server at http://127.0.0.1:1"), "{said}");
}

#[tokio::test]
async fn every_wrong_setting_is_named_at_once_with_where_it_is_from() {
    let home = Home::new();
    let path = home.path().join("tidings.toml");
    let text = "max-streams = 0\nmax-steams = 1\nretention = \"5m\"\nlisten = \"127.0.0.1:0\"\n";
    std::fs::write(&path, text).unwrap();
    let file = format!("the configuration file {}, line", path.display());
    let wrong = [
        "the command line: invalid value '1h' for '--ping-interval <DURATION>': expected 1s to 25s",
        "the command line: invalid value '0' for '--webhook-workers <COUNT>': expected 1 to 1024",
        "the environment variable TIDINGS_API_KEY: invalid value for '--api-key <KEY>': expected at least 16 \
         visible ASCII characters",
        "the environment variable TIDINGS_LEASE: invalid value '1d' for '--lease <DURATION>': expected 1s to 5m",
        "the environment variable TIDINGS_LOG_FORMAT: expected a value, got an empty text; without a value, \
         remove it (`unset TIDINGS_LOG_FORMAT`)",
        "the environment variable TIDINGS_JWT_COOKIE: --jwt-cookie: only beside --jwt-secret, --jwt-public-key or \
         --jwt-jwks",
        &format!("{file} 1: invalid value '0' for '--max-streams <COUNT>': expected 1 to 1000000"),
        &format!("{file} 2: unknown setting `max-steams`, did you mean `max-streams`?"),
        &format!(
            "{file} 3: invalid value '5m' for '--retention <DURATION>': expected 1h to 36500d"
        ),
    ];
    for name in ["serve", "doctor"] {
        let mut command = binary();
        command
            .args([name, "--ping-interval", "1h", "--webhook-workers=0"])
            .arg("--config")
            .arg(&path)
            .env("TIDINGS_LEASE", "1d")
            .env("TIDINGS_API_KEY", "hidden")
            .env("TIDINGS_JWT_COOKIE", "session")
            .env("TIDINGS_LOG_FORMAT", "");
        let (ok, shown, said) = said_by(&mut command).await;
        let complaint = if name == "serve" { said } else { shown };
        assert!(!ok && !complaint.contains("hidden"), "{complaint}");
        for says in wrong {
            let count = complaint
                .lines()
                .filter(|line| line.ends_with(says))
                .count();
            assert_eq!(count, 1, "{name}: {says}: {complaint}");
        }
        let first = usize::from(name == "serve");
        assert_eq!(
            complaint.lines().count(),
            wrong.len() + first,
            "{complaint}"
        );
    }
}

#[tokio::test]
async fn settings_that_contradict_each_other_are_all_named() {
    for name in ["serve", "doctor"] {
        let home = Home::new();
        let mut command = binary();
        command
            .args([name, "--redis", "redis://h/", "--listen", "127.0.0.1:0"])
            .arg("--database")
            .arg(format!("sqlite:{}", home.database().display()))
            .env("TIDINGS_JWT_ISSUER", "shop");
        let (ok, shown, said) = said_by(&mut command).await;
        let complaint = if name == "serve" { said } else { shown };
        assert!(!ok);
        for says in [
            "--api-key: expected at least one; to try the server on this machine, use --dev",
            "the environment variable TIDINGS_JWT_ISSUER: --jwt-issuer: only beside",
            "the command line: --redis: only beside a PostgreSQL database",
        ] {
            let count = complaint.lines().filter(|line| line.contains(says)).count();
            assert_eq!(count, 1, "{name}: {says}: {complaint}");
        }
    }
}
