//! A binary that was built without the feature `otlp`, whose operator wants traces.

use serde_json::Value;

use crate::support::{Home, binary, said_by};

const COLLECTOR: &str = "http://127.0.0.1:4318";
const REFUSAL: &str = "--otlp-endpoint: this binary cannot send traces, because it was built without the feature \
                       `otlp`; build it with `--features otlp`";

#[tokio::test]
async fn a_server_that_cannot_send_traces_refuses_a_collector_wherever_it_is_named() {
    let home = Home::new();
    let file = home.path().join("tidings.toml");
    std::fs::write(&file, format!("otlp-endpoint = \"{COLLECTOR}\"\n")).unwrap();
    let file = file.to_str().unwrap();
    for (flag, variable, from) in [
        (
            &["--otlp-endpoint", COLLECTOR][..],
            None,
            "the command line: ".to_owned(),
        ),
        (
            &[],
            Some(COLLECTOR),
            "the environment variable TIDINGS_OTLP_ENDPOINT: ".to_owned(),
        ),
        (
            &["--config", file],
            None,
            format!("the configuration file {file}: "),
        ),
    ] {
        let given = |name: &str| {
            let database = format!("sqlite:{}", home.database().display());
            let mut command = binary();
            command
                .args([name, "--dev", "--listen", "127.0.0.1:0"])
                .args(["--database", &database])
                .args(flag)
                .envs(variable.map(|url| ("TIDINGS_OTLP_ENDPOINT", url)));
            command
        };
        let (started, shown, said) = said_by(&mut given("serve")).await;
        assert!(!started, "{shown}");
        assert_eq!(said, format!("tidings: {from}{REFUSAL}\n"));

        let (sound, shown, _) = said_by(given("doctor").arg("--json")).await;
        assert!(!sound, "{shown}");
        let findings = shown
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        let errors: Vec<Value> = findings
            .filter(|it: &Value| it["status"] == "error")
            .collect();
        let [error] = &errors[..] else {
            panic!("{errors:?}");
        };
        assert_eq!(error["check"], "settings");
        assert_eq!(error["message"], format!("{from}{REFUSAL}"));
    }
}
