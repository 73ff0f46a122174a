//! Traces, as a collector gets them.

use std::collections::HashMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use reqwest::StatusCode;
use serde_json::json;
use tidings_test_support::{Receiver, Reply};

use crate::support::{Home, http, soon};

fn attributes(values: &[KeyValue]) -> HashMap<&str, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref()?.value.as_ref()? {
        Attribute::StringValue(text) => Some(text.clone()),
        Attribute::IntValue(number) => Some(number.to_string()),
        other => Some(format!("{other:?}")),
    };
    values
        .iter()
        .map(|it| (it.key.as_str(), text(it).unwrap_or_default()))
        .collect()
}

/// Every span that a collector has got.
fn spans(collector: &Receiver) -> Vec<Span> {
    let mut spans = Vec::new();
    for request in collector.requests() {
        assert_eq!(request.head.target, "/otlp/v1/traces");
        assert_eq!(
            request.head.header("content-type"),
            Some("application/x-protobuf")
        );
        let batch = ExportTraceServiceRequest::decode(request.body.clone()).unwrap();
        for resource in batch.resource_spans {
            let of = resource.resource.unwrap();
            assert_eq!(attributes(&of.attributes)["service.name"], "tidings");
            spans.extend(
                resource
                    .scope_spans
                    .into_iter()
                    .flat_map(|scope| scope.spans),
            );
        }
    }
    spans
}

#[tokio::test]
async fn requests_accepting_and_attempts_are_spans_and_a_request_continues_the_trace_of_its_caller()
{
    let collector = Receiver::start(Reply::ok()).await.unwrap();
    let receiver = Receiver::start(Reply::ok()).await.unwrap();
    let home = Home::with(&["--otlp-endpoint", &collector.url("/otlp/")]);
    let server = home.start().await;
    let endpoint = json!({ "url": receiver.url("/a-secret-path?key=secret") });
    assert_eq!(server.post("/v1/endpoints", &endpoint).await.status(), 201);
    let body = json!({ "user_id": "anna", "payload": "a secret payload" });
    let request = http().post(server.at("/v1/notifications?"));
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let response = request
        .header("traceparent", parent)
        .json(&body)
        .send()
        .await;
    assert_eq!(response.unwrap().status(), 201);
    soon("the webhook", receiver.request(1)).await;
    let (status, log) = server.stop("-TERM").await;
    assert!(status.success(), "{log}");
    assert!(!log.contains("WARN"), "{log}");

    let spans = spans(&collector);
    let named = |name: &str| {
        let span = spans.iter().find(|span| span.name == name);
        let names: Vec<_> = spans.iter().map(|span| &span.name).collect();
        span.unwrap_or_else(|| panic!("{name} in {names:?}"))
    };
    let request = named("POST /v1/notifications");
    let trace = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes();
    assert_eq!(request.trace_id, trace);
    assert_eq!(
        request.parent_span_id,
        0xb7ad_6b71_6920_3331_u64.to_be_bytes()
    );
    // A server.
    assert_eq!(request.kind, 2);
    let of_request = attributes(&request.attributes);
    assert_eq!(of_request["http.request.method"], "POST");
    assert_eq!(of_request["http.route"], "/v1/notifications");
    assert_eq!(of_request["http.response.status_code"], "201");
    assert_eq!(of_request["caller"], "operator");
    assert_eq!(of_request["request_id"].len(), 32);
    let accept = named("accept");
    assert_eq!(accept.trace_id, trace);
    assert_eq!(accept.parent_span_id, request.span_id);
    // Another request has a trace of its own.
    assert_ne!(named("POST /v1/endpoints").trace_id, trace);

    let (delivery, attempt) = (named("delivery"), named("attempt"));
    assert_eq!(attempt.parent_span_id, delivery.span_id);
    assert_eq!(
        attributes(&attempt.attributes)["http.response.status_code"],
        "200"
    );
    let everything = format!("{spans:?}");
    assert!(!everything.contains("secret"), "{everything}");
}

#[tokio::test]
async fn a_request_that_the_server_failed_is_a_failed_span_and_one_that_it_refused_is_not() {
    let collector = Receiver::start(Reply::ok()).await.unwrap();
    let home = Home::with(&[
        "--otlp-endpoint",
        &collector.url("/otlp"),
        "--jwt-jwks",
        "http://127.0.0.1:1/keys",
    ]);
    let server = home.start().await;
    // No key set could be loaded that verifies it.
    let token = "eyJhbGciOiJFZERTQSJ9.e30.AA";
    let inbox = http().get(server.at("/v1/users/anna/notifications"));
    let failed = inbox.bearer_auth(token).send().await.unwrap();
    assert_eq!(failed.status(), 503);
    let unknown = http().get(server.at("/v1/nowhere")).send().await.unwrap();
    assert_eq!(unknown.status(), 404);
    server.stop("-TERM").await.0.code().unwrap();
    let spans = spans(&collector);
    let is_failed = |name: &str| {
        let span = spans.iter().find(|span| span.name == name).unwrap();
        // An error.
        span.status.as_ref().is_some_and(|status| status.code == 2)
    };
    assert!(is_failed("GET /v1/users/{user}/notifications"));
    assert!(!is_failed("GET unknown"));
}

#[tokio::test]
async fn a_collector_that_refuses_costs_one_line_and_nothing_else() {
    let refused = Reply::new(StatusCode::SERVICE_UNAVAILABLE);
    let collector = Receiver::start(refused).await.unwrap();
    for url in [collector.url("/otlp"), "http://127.0.0.1:1".to_owned()] {
        let home = Home::with(&["--otlp-endpoint", &url]);
        let server = home.start().await;
        for n in 0..10 {
            server.notify("anna", json!(n)).await;
        }
        let (status, log) = server.stop("-TERM").await;
        assert!(status.success(), "{log}");
        let lines = log.matches("cannot send traces").count();
        assert_eq!(lines, 1, "{log}");
    }
}
