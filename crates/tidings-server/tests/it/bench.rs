//! The load generator of the command line.

use std::process::Stdio;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::process::Child;
use tokio::time::timeout;

use crate::support::{Home, Server, binary, run, said_by, signal_process, soon};
use crate::webhooks::Webhooks;

/// Runs the command for a second with these arguments; gives its figures, and what it said on standard error.
async fn measured(server: &Server, arguments: &[&str]) -> (bool, Value, String) {
    let arguments = [&["bench", "--duration", "1s", "--json"], arguments].concat();
    let (ok, shown, said) = run(server, &arguments).await;
    let figures = serde_json::from_str(&shown).unwrap_or_else(|_| panic!("{shown}{said}"));
    (ok, figures, said)
}

#[tokio::test]
async fn accepts_streams_and_webhooks_are_measured_and_the_endpoints_removed() {
    let home = Home::new();
    let server = home.start().await;
    let arguments = [
        "--connections=4",
        "--users=3",
        "--streams=2",
        "--webhooks=127.0.0.1:0",
    ];
    let (ok, figures, said) = measured(&server, &arguments).await;
    assert!(ok, "{said}");
    let count = |path: &str| figures[path]["count"].as_u64().unwrap();
    let accepted = count("accept");
    assert!(accepted > 0);
    assert_eq!(figures["failed"], 0);
    // Each user has two streams and one endpoint.
    assert_eq!(count("live"), 2 * accepted);
    assert_eq!(count("webhooks"), accepted);
    for path in ["accept", "live", "webhooks"] {
        let millis = |name: &str| figures[path][name].as_f64().unwrap();
        assert!(millis("p50_ms") > 0.0, "{path}: {figures}");
        // A quantile is exact to one percent.
        assert!(millis("p50_ms") <= millis("p99_ms") * 1.02, "{figures}");
        assert!(millis("p99_ms") <= millis("max_ms") * 1.02, "{figures}");
    }
    for path in ["live", "webhooks"] {
        assert_eq!(figures[path]["missing"], 0);
        assert_eq!(figures[path]["repeated"], 0);
    }

    let deliveries = server.get("/v1/deliveries?limit=1").await;
    let user = deliveries["data"][0]["user_id"].as_str().unwrap();
    let name = user.rsplit_once('-').unwrap().0;
    for user in 0..3 {
        let endpoints = server
            .get(&format!("/v1/users/{name}-{user}/endpoints"))
            .await;
        assert_eq!(endpoints["data"], json!([]), "{user}");
        let inbox = server
            .get(&format!("/v1/users/{name}-{user}/notifications?limit=1"))
            .await;
        let payload = inbox["data"][0]["payload"].to_string();
        assert_eq!(payload.len(), 256, "{payload}");
    }
}

#[tokio::test]
async fn a_run_sends_to_no_endpoint_of_the_operator_unless_told_to() {
    let mut webhooks = Webhooks::start().await;
    let home = Home::new();
    let server = home.start().await;
    // Neither one that is disabled nor one for other events is reached.
    for endpoint in [
        json!({ "url": "http://127.0.0.1:1/", "enabled": false }),
        json!({ "url": "http://127.0.0.1:1/", "event_types": ["order.*"] }),
    ] {
        assert_eq!(server.post("/v1/endpoints", &endpoint).await.status(), 201);
    }
    let (ok, _, said) = measured(&server, &["--streams=0"]).await;
    assert!(ok, "{said}");

    let endpoint = json!({ "url": webhooks.url(), "event_types": ["bench"] });
    let created = server.post("/v1/endpoints", &endpoint).await;
    let created: Value = created.json().await.unwrap();
    let (ok, shown, said) = run(&server, &["bench", "--duration=1s"]).await;
    assert!(!ok && shown.is_empty(), "{shown}");
    assert!(said.contains(created["id"].as_str().unwrap()), "{said}");
    assert!(said.contains("--to-operator-endpoints"), "{said}");
    let before = server.get("/v1/deliveries?state=delivered").await;
    assert_eq!(before["data"], json!([]));
    let (ok, _, said) = measured(&server, &["--streams=0", "--to-operator-endpoints"]).await;
    assert!(ok, "{said}");
    webhooks.next().await;
}

/// A run with webhooks, at a server of its own.
struct Running {
    home: Home,
    server: Server,
    process: Child,
}

impl Running {
    async fn begin(arguments: &[&str]) -> Self {
        let home = Home::new();
        let server = home.start().await;
        let mut command = binary();
        command
            .args(["bench", "--webhooks=127.0.0.1:0", "--url", &server.url])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let process = command.spawn().unwrap();
        Self {
            home,
            server,
            process,
        }
    }

    /// Endpoints that the server has.
    fn endpoints(&self) -> u64 {
        let database = Connection::open(self.home.database()).unwrap();
        let count = "SELECT count(*) FROM webhook_endpoint WHERE removed = 0";
        database.query_row(count, [], |row| row.get(0)).unwrap()
    }

    async fn until_endpoints(&self, reached: fn(u64) -> bool) {
        soon("the endpoints", async {
            while !reached(self.endpoints()) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    async fn until_webhooks(&self) {
        soon("the webhooks", async {
            let mut deliveries = Value::Null;
            while deliveries["data"][0].is_null() {
                deliveries = self.server.get("/v1/deliveries?limit=1").await;
            }
        })
        .await;
    }

    async fn signal(&self, signal: &str) {
        assert!(signal_process(signal, self.process.id().unwrap()).await);
    }

    /// Waits for the end; gives whether it succeeded, what it said on standard output and error, and how many endpoints
    /// it has left.
    async fn end(&mut self) -> (bool, String, String, u64) {
        let (mut shown, mut said) = (String::new(), String::new());
        let mut out = self.process.stdout.take().unwrap();
        let mut err = self.process.stderr.take().unwrap();
        let ended = async {
            tokio::join!(
                out.read_to_string(&mut shown),
                err.read_to_string(&mut said),
                self.process.wait()
            )
        };
        let (_, _, status) = soon("the end", ended).await;
        (status.unwrap().success(), shown, said, self.endpoints())
    }
}

#[tokio::test]
async fn a_run_that_is_interrupted_removes_its_endpoints_and_shows_what_it_has_measured() {
    for signal in ["-INT", "-TERM"] {
        let mut run = Running::begin(&["--duration=1h", "--users=3"]).await;
        run.until_webhooks().await;
        run.signal(signal).await;
        let (ok, shown, said, left) = run.end().await;
        assert!(ok && left == 0, "{signal}: {left} {said}");
        assert!(shown.contains("webhooks"), "{signal}: {shown}");
    }
}

/// It has not posted anything yet.
#[tokio::test]
async fn regression_a_run_that_is_interrupted_while_it_begins_removes_its_endpoints() {
    for signal in ["-INT", "-TERM"] {
        let mut run = Running::begin(&["--users=10000", "--streams=0"]).await;
        run.until_endpoints(|count| count > 0).await;
        run.signal(signal).await;
        let (ok, shown, said, left) = run.end().await;
        assert!(
            !ok && shown.is_empty() && left == 0,
            "{signal}: {left} {shown}"
        );
        let reason = "tidings: interrupted before the first notification was posted\n";
        assert_eq!(said, reason, "{signal}");
    }
}

#[tokio::test]
async fn one_interrupt_does_not_end_the_removal_of_endpoints() {
    let mut run = Running::begin(&["--duration=1s", "--users=200"]).await;
    run.until_webhooks().await;
    run.until_endpoints(|count| count < 200).await;
    run.signal("-INT").await;
    let (ok, _, said, left) = run.end().await;
    assert!(ok && left == 0, "{left} {said}");
}

#[tokio::test]
async fn a_run_at_a_server_that_hangs_is_ended_by_interrupts_and_says_what_is_left() {
    let mut run = Running::begin(&["--duration=1h", "--users=3"]).await;
    run.until_webhooks().await;
    run.server.signal("-STOP").await;
    soon("the end", async {
        loop {
            run.signal("-INT").await;
            // Those that come sooner are one.
            let wait = timeout(Duration::from_millis(100), run.process.wait());
            if wait.await.is_ok() {
                break;
            }
        }
    })
    .await;
    run.server.signal("-CONT").await;
    let (ok, _, said, left) = run.end().await;
    let reason = "and 2 of other users were not removed: interrupted";
    assert!(!ok && left == 3 && said.contains(reason), "{left} {said}");
}

#[tokio::test]
async fn a_rate_is_kept_over_all_connections() {
    let home = Home::new();
    let server = home.start().await;
    let (ok, figures, said) = measured(&server, &["--rate=20", "--connections=5"]).await;
    assert!(ok, "{said}");
    // One connection alone posts four times. More is never posted; a machine that is busy posts less.
    let accepted = figures["accept"]["count"].as_u64().unwrap();
    assert!((1..=21).contains(&accepted), "{figures}");
}

#[tokio::test]
async fn what_the_server_refuses_is_counted_and_its_reason_shown() {
    let home = Home::with(&["--max-user-notifications=1"]);
    let server = home.start().await;
    let arguments = ["--users=1", "--streams=0"];
    let (ok, figures, said) = measured(&server, &arguments).await;
    assert!(!ok);
    assert!(figures["failed"].as_u64().unwrap() > 0, "{figures}");
    assert_eq!(figures["live"], Value::Null);
    assert!(
        said.contains("were not accepted; the first: the server replied 429"),
        "{said}"
    );
}

#[tokio::test]
async fn a_run_that_cannot_begin_says_why() {
    let (ok, shown, said) = said_by(binary().args(["bench", "--url=http://127.0.0.1:1"])).await;
    assert!(!ok && shown.is_empty());
    assert!(
        said.starts_with("tidings: no server at http://127.0.0.1:1/"),
        "{said}"
    );

    let home = Home::with(&["--max-streams-per-user=1"]);
    let server = home.start().await;
    let (ok, _, said) = run(&server, &["bench", "--streams=2"]).await;
    assert!(
        !ok && said.contains("the server refused a stream: "),
        "{said}"
    );

    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (ok, _, said) = run(&server, &["bench", "--webhooks", &address]).await;
    assert!(
        !ok && said.contains(&format!("cannot listen on {address}")),
        "{said}"
    );
}
