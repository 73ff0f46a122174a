//! `/metrics`: what Prometheus reads.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::{Method, StatusCode};
use serde_json::json;
use tidings_test_support::{Receiver, Reply};

use crate::api_keys::create;
use crate::raw::RawSocket;
use crate::support::{Home, Server, http, soon};
use crate::tokens::KEY;

pub(crate) async fn metrics(server: &Server) -> String {
    let response = http().get(server.at("/metrics")).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.headers()["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    response.text().await.unwrap()
}

/// The value of a series, if it is there.
fn value(text: &str, series: &str) -> Option<f64> {
    let mut samples = text.lines().filter_map(|line| line.rsplit_once(' '));
    let (_, value) = samples.find(|(name, _)| *name == series)?;
    Some(value.parse().unwrap())
}

/// Waits until a series has a value.
pub(crate) async fn until(server: &Server, series: &str, expected: f64) -> String {
    soon(series, async {
        loop {
            let text = metrics(server).await;
            if value(&text, series) == Some(expected) {
                return text;
            }
        }
    })
    .await
}

/// Every series, without its value.
fn series(text: &str) -> BTreeSet<&str> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(series, _)| series)
        .collect()
}

/// The row of each metric in the documentation: kind, labels, meaning.
fn documented() -> BTreeMap<&'static str, [&'static str; 3]> {
    let page = include_str!("../../../../docs/operations.md");
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<_> = line.strip_prefix("| `")?.split(" | ").collect();
        let [name, kind, labels, text] = cells[..] else {
            return None;
        };
        let text = text.strip_suffix(" |")?;
        Some((name.strip_suffix('`')?, [kind, labels, text]))
    });
    rows.collect()
}

/// Compares what is shown with the documentation: names, kinds, labels and meanings.
fn check(text: &str) {
    let documented = documented();
    let mut kinds = BTreeMap::new();
    let mut meanings = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<_> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "TYPE", name, kind] => assert_eq!(kinds.insert(name, kind), None, "{name}"),
            ["#", "HELP", name, help] => assert_eq!(meanings.insert(name, help), None, "{name}"),
            _ => {}
        }
    }
    for (name, kind) in &kinds {
        let row = documented.get(name);
        let [documented, _, meaning] = row.unwrap_or_else(|| panic!("{name} is not documented"));
        assert_eq!(kind, documented, "{name}");
        assert_eq!(meanings.get(name), Some(meaning), "{name}");
    }
    for series in series(text) {
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let parts = ["_bucket", "_sum", "_count"];
        let base = parts.iter().find_map(|part| name.strip_suffix(part));
        let name = base.filter(|base| kinds.contains_key(base)).unwrap_or(name);
        let [_, documented, _] = documented[name];
        for label in labels.trim_end_matches('}').split("\",") {
            let Some((label, _)) = label.split_once('=') else {
                continue;
            };
            let is_documented = documented.contains(&format!("`{label}`"));
            assert!(is_documented || label == "le", "{name}: {label}");
        }
    }
}

#[tokio::test]
async fn webhooks_that_wait_in_the_database_are_counted_over_a_restart() {
    let receiver = Receiver::start(Reply::new(StatusCode::SERVICE_UNAVAILABLE))
        .await
        .unwrap();
    let home = Home::new();
    let server = home.start().await;
    let endpoint = json!({ "url": receiver.url("/"), "schedule": [0, 3600] });
    assert_eq!(server.post("/v1/endpoints", &endpoint).await.status(), 201);
    for number in 0..3 {
        server.notify("anna", json!(number)).await;
    }
    soon("the first attempts", receiver.request(3)).await;
    let pending = "tidings_webhooks_deliveries_pending";
    until(&server, pending, 3.0).await;
    server.kill().await;
    let server = home.start().await;
    let text = until(&server, pending, 3.0).await;
    check(&text);
}

#[tokio::test]
async fn requests_notifications_streams_and_webhooks_are_counted() {
    let receiver = Receiver::start(Reply::ok()).await.unwrap();
    let home = Home::with(&["--max-streams-per-user", "1"]);
    let server = home.start().await;
    let endpoint = json!({ "url": receiver.url("/") });
    assert_eq!(server.post("/v1/endpoints", &endpoint).await.status(), 201);
    let mut events = server.events("anna", "").await;
    events.until("tidings.caught_up").await;
    let mut refused = server.events("anna", "").await;
    refused.until("tidings.bye").await;
    server.notify("anna", json!(1)).await;
    events.next().await;
    soon("the webhook", receiver.request(1)).await;

    let delivered = "tidings_webhooks_deliveries_ended_total{state=\"delivered\"}";
    until(&server, delivered, 1.0).await;
    let acknowledged = "tidings_stream_settled_total{\
        messaging_destination_name=\"app.default.webhook-events\",\
        messaging_consumer_group_name=\"fan-out\",tidings_stream_outcome=\"acknowledged\"}";
    let text = until(&server, acknowledged, 1.0).await;
    for (series, expected) in [
        ("tidings_notification_accepted_total", 1.0),
        ("tidings_accept_duration_seconds_count", 1.0),
        ("tidings_subscription_active", 1.0),
        ("tidings_notification_delivered_total", 1.0),
        (
            "tidings_server_streams_refused_total{tidings_limit=\"user\"}",
            1.0,
        ),
        ("tidings_webhooks_deliveries_added_total", 1.0),
        ("tidings_delivery_attempts_bucket{le=\"1\"}", 1.0),
        (
            "tidings_attempt_duration_seconds_count{http_response_status_code=\"200\"}",
            1.0,
        ),
        (
            "http_server_request_duration_seconds_count{http_request_method=\"POST\",\
             http_route=\"/v1/notifications\",http_response_status_code=\"201\"}",
            1.0,
        ),
    ] {
        assert_eq!(value(&text, series), Some(expected), "{series} in {text}");
    }
    check(&text);

    // The connection of the stream and that of the scraper.
    assert!(value(&text, "tidings_server_connections") >= Some(2.0));
    drop((events, refused));
    until(&server, "tidings_subscription_active", 0.0).await;
    until(&server, "tidings_server_connections", 1.0).await;
}

#[tokio::test]
async fn each_try_of_a_webhook_counts_as_a_delivery_of_one_request() {
    let unavailable = Reply::new(reqwest::StatusCode::SERVICE_UNAVAILABLE);
    let receiver = Receiver::start(unavailable).await.unwrap();
    let home = Home::new();
    let server = home.start().await;
    let endpoint = json!({ "url": receiver.url("/"), "schedule": [0, 1] });
    assert_eq!(server.post("/v1/endpoints", &endpoint).await.status(), 201);
    server.notify("anna", json!(1)).await;
    let failed = "tidings_webhooks_deliveries_ended_total{state=\"failed\"}";
    let text = until(&server, failed, 1.0).await;
    for series in [
        "tidings_delivery_attempts_bucket{le=\"1\"}",
        "tidings_delivery_attempts_count",
        "tidings_delivery_duration_seconds_count{error_type=\"503\"}",
    ] {
        assert_eq!(value(&text, series), Some(2.0), "{series} in {text}");
    }
    let documented = documented();
    for name in [
        "tidings_delivery_attempts",
        "tidings_delivery_duration_seconds",
    ] {
        let [_, _, meaning] = documented[name];
        assert!(meaning.contains("each try"), "{name}: {meaning}");
    }
    check(&text);
}

/// A rate over a counter misses what it began with.
#[tokio::test]
async fn regression_counters_are_there_before_their_first_count() {
    let home = Home::new();
    let server = home.start().await;
    let settled = |outcome| {
        format!(
            "tidings_stream_settled_total{{messaging_destination_name=\"app.default.webhook-events\",\
             messaging_consumer_group_name=\"fan-out\",tidings_stream_outcome=\"{outcome}\"}}"
        )
    };
    // Once the instance makes deliveries.
    let text = until(&server, &settled("dead_lettered"), 0.0).await;
    for outcome in ["acknowledged", "retried", "released", "stale"] {
        let series = settled(outcome);
        assert_eq!(value(&text, &series), Some(0.0), "{series} in {text}");
    }
    let without = documented().into_iter().filter(|(_, [kind, labels, _])| {
        // A label of which the values are many.
        *kind == "counter" && !labels.contains("error_type")
    });
    let series = series(&text);
    let has = |name: &str| {
        let labelled = format!("{name}{{");
        let mut all = series.iter();
        all.any(|it| *it == name || it.starts_with(&labelled))
    };
    let missing: Vec<_> = without
        .map(|(name, _)| name)
        .filter(|it| !has(it))
        .collect();
    assert!(missing.is_empty(), "{missing:?} in {text}");
    for labels in [
        "tidings_server_streams_refused_total{tidings_limit=\"server\"}",
        "tidings_server_streams_refused_total{tidings_limit=\"user\"}",
        "tidings_webhooks_deliveries_ended_total{state=\"failed\"}",
        "tidings_circuit_changes_total{tidings_circuit_state=\"half_open\"}",
    ] {
        assert_eq!(value(&text, labels), Some(0.0), "{labels} in {text}");
    }
    check(&text);
}

/// Each metric of an expression with its labels, as `name{label="value"}`.
fn selectors(expression: &str) -> Vec<(&str, Vec<&str>)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = expression.match_indices("tidings_").filter(|(at, _)| {
        let before = expression[..*at].chars().next_back();
        before.is_none_or(|c| "(+ ".contains(c))
    });
    let selector = |(at, _)| {
        let text: &str = &expression[at..];
        let end = text.find(|c| !is_name(c)).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let labels = rest.strip_prefix('{').and_then(|it| it.split_once('}'));
        let labels = labels.map(|(labels, _)| labels.split(',').collect());
        (name, labels.unwrap_or_default())
    };
    starts.map(selector).collect()
}

#[tokio::test]
async fn what_the_documentation_advises_to_watch_is_there() {
    let page = include_str!("../../../../docs/operations.md");
    let (_, section) = page.split_once("\n## Alerts\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let expressions = rows.filter_map(|row| row.split_once('`'));
    let selectors: Vec<_> = expressions.flat_map(|(it, _)| selectors(it)).collect();
    assert!(selectors.len() > 6, "{selectors:?}");

    let receiver = Receiver::start(Reply::ok()).await.unwrap();
    let home = Home::new();
    let server = home.start().await;
    let endpoint = json!({ "url": receiver.url("/") });
    assert_eq!(server.post("/v1/endpoints", &endpoint).await.status(), 201);
    server.notify("anna", json!(1)).await;
    let delivered = "tidings_webhooks_deliveries_ended_total{state=\"delivered\"}";
    let text = until(&server, delivered, 1.0).await;
    let series = series(&text);
    for (name, labels) in selectors {
        let is_it = |series: &&str| {
            let (found, rest) = series.split_once('{').unwrap_or((series, ""));
            found == name && labels.iter().all(|label| rest.contains(label))
        };
        assert!(series.iter().any(is_it), "{name} {labels:?} in {text}");
    }
}

#[tokio::test]
async fn a_websocket_is_a_connection_until_it_ends() {
    let home = Home::new();
    let server = home.start().await;
    let mut socket = RawSocket::open(&server, "/v1/users/anna/ws").await;
    socket.until("caught_up").await;
    until(&server, "tidings_server_connections", 2.0).await;
    drop(socket);
    until(&server, "tidings_server_connections", 1.0).await;
}

#[tokio::test]
async fn labels_are_bounded_whatever_callers_send() {
    let home = Home::new();
    let server = home.start().await;
    let client = http();
    let send = async |n: usize| {
        let method = Method::from_bytes(format!("M{n}").as_bytes()).unwrap();
        for (method, path) in [
            (Method::GET, format!("/v1/users/user-{n}/notifications")),
            (Method::GET, format!("/v1/endpoints/{n}")),
            (Method::GET, format!("/path-{n}")),
            (
                Method::POST,
                format!("/v1/users/user-{n}/notifications/{n}/read?id={n}"),
            ),
            (method, "/v1/notifications".to_owned()),
        ] {
            let request = client.request(method, server.at(&path));
            let request = request.header("x-request-id", format!("id-{n}"));
            request.send().await.unwrap();
        }
    };
    send(0).await;
    // A request for the metrics is counted when it was made.
    metrics(&server).await;
    let before = metrics(&server).await;
    for n in 1..20 {
        send(n).await;
    }
    let after = metrics(&server).await;
    assert_eq!(series(&before), series(&after));
    for text in ["user-", "path-", "id-", "M1"] {
        assert!(!after.contains(text), "{text} in {after}");
    }
    let unknown = "http_server_request_duration_seconds_count{http_request_method=\"GET\",\
                   http_route=\"unknown\",http_response_status_code=\"404\"}";
    assert_eq!(value(&after, unknown), Some(20.0));
    check(&after);
}

#[tokio::test]
async fn a_key_of_a_scraper_reads_metrics_and_nothing_else() {
    let home = Home::with(&["--api-key", KEY]);
    let server = home.start().await;
    let status = async |path: &str, key: &str| {
        let request = http().get(server.at(path)).bearer_auth(key);
        request.send().await.unwrap().status().as_u16()
    };
    let none = http().get(server.at("/metrics")).send().await.unwrap();
    assert_eq!(none.status(), 401);
    assert_eq!(status("/metrics", KEY).await, 200);
    let created = create(&server, &["metrics"]).await;
    let scraper = created["key"].as_str().unwrap();
    assert_eq!(status("/metrics", scraper).await, 200);
    for path in ["/v1/keys", "/v1/endpoints", "/v1/users/anna/notifications"] {
        assert_eq!(status(path, scraper).await, 403, "{path}");
    }
}

#[tokio::test]
async fn many_scrapers_at_once_delay_no_other_request() {
    let home = Home::new();
    let server = home.start().await;
    let client = http();
    let scrape = || {
        let request = client.get(server.at("/metrics"));
        tokio::spawn(async move { request.send().await.unwrap().text().await.unwrap() })
    };
    let scrapers: Vec<_> = (0..200).map(|_| scrape()).collect();
    for n in 0..20 {
        server.notify("anna", json!(n)).await;
    }
    for scraper in scrapers {
        let text = soon("the metrics", scraper).await.unwrap();
        assert!(text.contains("tidings_server_connections"), "{text}");
    }
}
