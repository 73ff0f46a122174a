use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;

use jsonschema::Validator;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::http::running::{KEY, Running};

/// A schema of the document, which may refer to its components.
fn validator(document: &Value, schema: &Value) -> Validator {
    let rooted = json!({ "allOf": [schema], "components": document["components"] });
    jsonschema::options()
        .should_validate_formats(true)
        .build(&rooted)
        .unwrap()
}

fn errors(validator: &Validator, value: &Value) -> Vec<String> {
    let errors = validator.iter_errors(value);
    errors
        .map(|error| format!("{} at {}", error, error.instance_path()))
        .collect()
}

/// Every value of the document, with its place.
fn walk(value: &Value, place: &str, see: &mut impl FnMut(&str, &Value)) {
    see(place, value);
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                walk(value, &format!("{place}/{name}"), see);
            }
        }
        Value::Array(elements) => {
            for (index, value) in elements.iter().enumerate() {
                walk(value, &format!("{place}/{index}"), see);
            }
        }
        _ => {}
    }
}

/// Every operation with its method and path.
fn operations(document: &Value) -> Vec<(Method, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let mut found = Vec::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            found.push((method, path.clone(), operation.clone()));
        }
    }
    found
}

/// What a reference leads to, or the value itself.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document
            .pointer(&reference[1..])
            .unwrap_or_else(|| panic!("{reference} leads nowhere")),
        None => value,
    }
}

/// Lets no object of a response have a field that its schema does not name.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.contains_key("properties") && fields.get("type") == Some(&json!("object")) {
                fields.entry("additionalProperties").or_insert(json!(false));
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(elements) => elements.iter_mut().for_each(close),
        _ => {}
    }
}

#[test]
fn every_route_is_described_and_no_other() {
    let document = make();
    assert_eq!(document["openapi"], "3.1.0");
    let described: BTreeSet<_> = operations(&document)
        .into_iter()
        .map(|(method, path, _)| (method.to_string(), path))
        .collect();
    let routes: BTreeSet<_> = routes::all()
        .into_iter()
        .map(|route| (route.method.to_string(), route.path))
        .collect();
    assert_eq!(described, routes);
    let mut names = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let name = operation["operationId"].as_str().unwrap().to_owned();
        assert!(names.insert(name.clone()), "{name} names two operations");
        for part in ["user", "id"] {
            let parameters = operation["parameters"].as_array().unwrap();
            let is_described = parameters
                .iter()
                .any(|it| it["name"] == part && it["in"] == "path");
            let is_there = path.contains(&format!("{{{part}}}"));
            assert_eq!(is_described, is_there, "{method} {path}: {part}");
        }
    }
}

#[test]
fn every_reference_leads_somewhere_and_both_directions_agree_on_types() {
    let document = make();
    walk(&document, "", &mut |place, value| {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            assert!(
                document.pointer(&reference[1..]).is_some(),
                "{place}: {reference}"
            );
        }
    });
    let mut parts = Document::default();
    for route in routes::all() {
        parts.operation(&route);
    }
    let (sent, received) = (parts.responses.definitions(), parts.requests.definitions());
    let shared: Vec<_> = sent
        .keys()
        .filter(|name| received.contains_key(*name))
        .collect();
    assert!(shared.len() > 3, "{shared:?}");
    for name in shared {
        assert_eq!(sent[name], received[name], "{name}");
    }
}

#[test]
fn every_code_is_in_a_response_with_its_status() {
    let document = make();
    let mut found = BTreeMap::new();
    for (name, response) in document["components"]["responses"].as_object().unwrap() {
        let status: u16 = name.split('.').next().unwrap().parse().unwrap();
        let schema = &response["content"]["application/json"]["schema"];
        let codes = &schema["allOf"][1]["properties"]["error"]["properties"]["code"]["enum"];
        for code in codes.as_array().unwrap() {
            found.insert(code.as_str().unwrap().to_owned(), status);
        }
    }
    let coded = Code::ALL.iter().filter(|code| **code != Code::InvalidFrame);
    let coded = coded.map(|code| {
        (
            json!(code).as_str().unwrap().to_owned(),
            code.status().as_u16(),
        )
    });
    assert_eq!(found, coded.collect());
}

#[test]
fn every_example_has_the_shape_of_its_schema() {
    let document = make();
    let mut seen = 0;
    walk(&document, "", &mut |place, value| {
        let Some(schema) = value.get("schema") else {
            return;
        };
        let one = value.get("example").into_iter().cloned();
        let many = value.get("examples").and_then(Value::as_object).into_iter();
        let many = many.flat_map(|examples| examples.values().map(|it| it["value"].clone()));
        for example in one.chain(many) {
            let errors = errors(&validator(&document, schema), &example);
            assert!(errors.is_empty(), "{place}: {errors:?}");
            seen += 1;
        }
    });
    assert!(seen > 80, "{seen}");
}

/// A server with something behind every `{id}`.
struct Filled {
    running: Running,
    document: Value,
    /// What stands for the `{id}` of a path, by how the path begins.
    ids: Vec<(&'static str, String)>,
    /// By the schema. To make one takes longer than all other parts of a check.
    validators: Mutex<HashMap<String, Validator>>,
}

impl Filled {
    async fn start() -> Self {
        let mut filled = Self {
            running: Running::start().await,
            document: make(),
            ids: Vec::new(),
            validators: Mutex::default(),
        };
        close(&mut filled.document["components"]);
        let message = json!({ "user_id": "anna", "message": "Hello" });
        let notification = filled.post("/v1/notifications", message).await;
        let id = text(&notification, "id");
        filled
            .ids
            .push(("/v1/users/{user}/notifications", id.clone()));
        filled.ids.push(("/notifications", id));
        let hook = json!({ "url": "http://127.0.0.1:1/", "schedule": [0, 3600] });
        for owner in ["/v1/endpoints", "/v1/users/anna/endpoints"] {
            let endpoint = filled.post(owner, hook.clone()).await;
            let id = text(&endpoint, "id");
            let path = if owner.contains("anna") {
                "/v1/users/{user}/endpoints"
            } else {
                "/v1/endpoints"
            };
            filled.ids.push((path, id));
        }
        let endpoint = filled.id("/v1/endpoints").to_owned();
        let test = filled
            .post(&format!("/v1/endpoints/{endpoint}/test"), json!({}))
            .await;
        filled
            .ids
            .push(("/v1/deliveries", text(&test, "delivery_id")));
        let endpoint = filled.id("/v1/users/{user}/endpoints").to_owned();
        let test = filled
            .post(
                &format!("/v1/users/anna/endpoints/{endpoint}/test"),
                json!({}),
            )
            .await;
        filled
            .ids
            .push(("/v1/users/{user}/deliveries", text(&test, "delivery_id")));
        filled.ids.push(("/console/", "main.js".to_owned()));
        let (key, _) = filled.running.new_key(tidings_storage::Scope::Read).await;
        filled.ids.push(("/v1/keys", key));
        let bin = text(&filled.post("/v1/bins", json!({})).await, "id");
        for path in ["/v1/bins", "/bins"] {
            filled.ids.push((path, bin.clone()));
        }
        filled
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let request = self.running.client.post(self.running.url(path));
        let response = request.bearer_auth(KEY).json(&body).send().await.unwrap();
        assert!(
            response.status().is_success(),
            "{path}: {}",
            response.status()
        );
        response.json().await.unwrap()
    }

    fn id(&self, path: &str) -> &str {
        let found = self.ids.iter().find(|(begin, _)| path.starts_with(begin));
        found.map_or("", |(_, id)| id)
    }

    fn request(&self, method: &Method, path: &str) -> RequestBuilder {
        let path = path
            .replace("{user}", "anna")
            .replace("{id}", self.id(path));
        let url = self.running.url(&path);
        self.running
            .client
            .request(method.clone(), url)
            .bearer_auth(KEY)
    }

    /// Sends a request, and compares the response with the document. Returns the status, and the body if it is JSON.
    async fn check(
        &self,
        what: &str,
        operation: &Value,
        request: RequestBuilder,
    ) -> (StatusCode, Value) {
        let response = request.send().await.unwrap();
        let status = response.status();
        let described = &operation["responses"][status.as_str()];
        assert!(described.is_object(), "{what}: {status} is not described");
        let described = resolved(&self.document, described);
        for (name, header) in described["headers"].as_object().into_iter().flatten() {
            let header = resolved(&self.document, header);
            if header["required"] == true {
                assert!(response.headers().contains_key(name), "{what}: no {name}");
            }
        }
        let content_type = response.headers().get("content-type");
        let content_type = content_type.map(|it| it.to_str().unwrap().to_owned());
        let content_type = content_type.as_deref().and_then(|it| it.split(';').next());
        let contents = described["content"].as_object();
        match (contents, content_type) {
            (None, None) => return (status, Value::Null),
            (Some(contents), Some(found)) => {
                assert!(
                    contents.contains_key(found),
                    "{what}: {found} is not described"
                );
            }
            other => panic!("{what}: {other:?}"),
        }
        let content = &described["content"][content_type.unwrap_or_default()];
        let Some(schema) = content.get("schema") else {
            return (status, Value::Null);
        };
        let value: Value = response.json().await.unwrap();
        let mut validators = self.validators.lock().unwrap();
        let validator = validators
            .entry(schema.to_string())
            .or_insert_with(|| validator(&self.document, schema));
        let errors = errors(validator, &value);
        assert!(errors.is_empty(), "{what}: {errors:?} in {value}");
        (status, value)
    }
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap().to_owned()
}

/// Deleting comes last, so that there is something for the others: first of what belongs to something, then of that.
fn in_order(document: &Value) -> Vec<(Method, String, Value)> {
    let mut operations = operations(document);
    let deletes = |method: &Method| *method == Method::DELETE;
    operations.sort_by_key(|(method, path, _)| deletes(method).then_some(Reverse(path.len())));
    operations
}

#[tokio::test]
async fn what_a_server_replies_is_described() {
    let filled = Filled::start().await;
    for (method, path, operation) in in_order(&filled.document) {
        let name = format!("{method} {path}");
        let request = || filled.request(&method, &path);
        let body = &operation["requestBody"]["content"]["application/json"]["example"];
        // The id in the examples is that of no notification here.
        let id = filled.id("/notifications");
        let body = body.to_string().replace("6f1c0a52d3e84b97-17", id);
        let with_example = || match body.as_str() {
            "null" => request(),
            body => request().body(body.to_owned()),
        };
        let example = filled.check(&name, &operation, with_example()).await;
        let is_socket = operation["responses"].get("101").is_some();
        let expected = if is_socket {
            StatusCode::UPGRADE_REQUIRED
        } else {
            StatusCode::OK
        };
        let (status, _) = example;
        assert!(
            status == expected || (!is_socket && status.is_success()),
            "{name}: {status}"
        );

        let wrong_origin = request().header("origin", "https://evil.example.com");
        let (status, _) = filled.check(&name, &operation, wrong_origin).await;
        // The client is for pages of every origin.
        let expected = if path == "/tidings.js" {
            StatusCode::OK
        } else {
            StatusCode::FORBIDDEN
        };
        assert_eq!(status, expected, "{name}");
        if operation["security"].as_array().unwrap().is_empty() {
            continue;
        }
        let wrong_key = with_example().header("authorization", "Bearer another");
        let (status, _) = filled.check(&name, &operation, wrong_key).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{name}");
        if path.contains("{user}") {
            let url = filled
                .running
                .url(&path.replace("{user}", "%zz").replace("{id}", "1"));
            let wrong = filled
                .running
                .client
                .request(method.clone(), url)
                .bearer_auth(KEY);
            let (status, value) = filled.check(&name, &operation, wrong).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{name}");
            assert_eq!(value["error"]["field"], "user", "{name}");
        }
        if path.contains("{id}") {
            let url = filled
                .running
                .url(&path.replace("{user}", "anna").replace("{id}", "unknown"));
            let unknown = filled
                .running
                .client
                .request(method.clone(), url)
                .bearer_auth(KEY);
            let (status, _) = filled.check(&name, &operation, unknown).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{name}");
        }
    }
}

#[tokio::test]
async fn a_method_that_a_path_does_not_have_is_refused_as_described() {
    let filled = Filled::start().await;
    let document = &filled.document;
    let refused = json!({ "responses": { "405": { "$ref": "#/components/responses/405.method_not_allowed" } } });
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS"] {
            if item.get(method.to_lowercase()).is_some() {
                continue;
            }
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let request = filled.request(&method, path);
            filled
                .check(&format!("{method} {path}"), &refused, request)
                .await;
        }
    }
    let unknown =
        json!({ "responses": { "404": { "$ref": "#/components/responses/404.unknown_route" } } });
    let request = filled.request(&Method::GET, "/v1/unknown");
    filled.check("an unknown path", &unknown, request).await;
}

#[tokio::test]
async fn regression_a_parameter_that_a_route_does_not_know_is_refused() {
    let filled = Filled::start().await;
    for (method, path, operation) in operations(&filled.document) {
        if !path.starts_with("/v1/") {
            continue;
        }
        let name = format!("{method} {path}");
        let misspelt = filled.request(&method, &format!("{path}?limt=5"));
        let (status, value) = filled.check(&name, &operation, misspelt).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{name}");
        assert_eq!(value["error"]["field"], "limt", "{name}");
    }
}

/// A text that has the form of no parameter.
const NOTHING: &str = "%01";

#[tokio::test]
async fn every_parameter_is_read() {
    let filled = Filled::start().await;
    let mut seen = 0;
    for (method, path, operation) in operations(&filled.document) {
        for parameter in operation["parameters"].as_array().unwrap() {
            let parameter = resolved(&filled.document, parameter);
            let (name, place) = (text(parameter, "name"), text(parameter, "in"));
            // A cursor that is not an id begins a stream with a gap.
            let is_free = name.to_lowercase().replace(['_', '-'], "") == "lasteventid";
            if place == "path" || is_free {
                continue;
            }
            let request = if place == "query" {
                filled.request(&method, &format!("{path}?{name}={NOTHING}"))
            } else {
                filled.request(&method, &path).header(&name, "two words")
            };
            let body = &operation["requestBody"]["content"]["application/json"]["example"];
            let request = if body.is_null() {
                request
            } else {
                request.json(body)
            };
            let what = format!("{method} {path}: {name}");
            let (status, value) = filled.check(&what, &operation, request).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{what}");
            assert_eq!(value["error"]["field"], name, "{what}");
            seen += 1;
        }
    }
    assert!(seen > 15, "{seen}");
}

#[tokio::test]
async fn every_limit_of_a_parameter_is_that_of_the_server() {
    let filled = Filled::start().await;
    let mut seen = 0;
    for (method, path, operation) in operations(&filled.document) {
        for parameter in operation["parameters"].as_array().unwrap() {
            let schema = &parameter["schema"];
            let (Some(least), Some(most)) =
                (schema["minimum"].as_u64(), schema["maximum"].as_u64())
            else {
                continue;
            };
            let name = text(parameter, "name");
            for (value, expected) in [(least, 200), (most, 200), (least - 1, 400), (most + 1, 400)]
            {
                let request = filled.request(&method, &format!("{path}?{name}={value}"));
                let what = format!("{method} {path}?{name}={value}");
                let (status, _) = filled.check(&what, &operation, request).await;
                assert_eq!(status, expected, "{what}");
            }
            seen += 1;
        }
    }
    assert_eq!(seen, 4);
}

/// Values of each JSON type.
fn samples() -> [Value; 6] {
    [
        json!(null),
        json!(true),
        json!(-0.5),
        json!("\u{1}"),
        json!([[]]),
        json!({ "a": {} }),
    ]
}

#[tokio::test]
async fn a_field_that_a_schema_does_not_allow_is_refused() {
    let filled = Filled::start().await;
    // Requests may have other fields where their schema says so.
    let document = make();
    let mut seen = 0;
    for (method, path, operation) in in_order(&document) {
        let body = &operation["requestBody"]["content"]["application/json"];
        let Some(example) = body["example"].as_object() else {
            continue;
        };
        let schema = match body["schema"]["anyOf"].as_array() {
            Some(either) => &either[0],
            None => &body["schema"],
        };
        let properties = resolved(&document, schema)["properties"].as_object();
        let mut wrong: Vec<(String, Value)> = Vec::new();
        for (name, property) in properties.into_iter().flatten() {
            let short = |value: Value| (name.clone(), value);
            wrong.extend(samples().map(short));
            if let Some(most) = property["maxLength"].as_u64() {
                wrong.push(short(json!("x".repeat(usize::try_from(most).unwrap() + 1))));
            }
            if let Some(most) = property["maximum"].as_u64() {
                wrong.push(short(json!(most + 1)));
            }
            if property["minimum"].as_u64() == Some(1) {
                wrong.push(short(json!(0)));
            }
            if let Some(most) = property["maxItems"].as_u64().filter(|most| *most < 1000) {
                let items = (0..=most).map(|number| match property["items"]["type"].as_str() {
                    Some("integer") => json!(number),
                    _ => json!(format!("type{number}")),
                });
                wrong.push(short(items.collect()));
            }
            wrong.push(short(json!([])));
        }
        if resolved(&document, schema)["additionalProperties"] == false {
            wrong.push(("unknown".to_owned(), json!(1)));
        }
        let allowed = validator(&document, schema);
        for (name, value) in wrong {
            let mut body = example.clone();
            body.insert(name.clone(), value.clone());
            let body = Value::Object(body);
            if allowed.is_valid(&body) {
                continue;
            }
            let request = filled.request(&method, &path).json(&body);
            let what = format!("{method} {path} with {name}: {value}");
            let (status, _) = filled.check(&what, &operation, request).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{what}");
            seen += 1;
        }
    }
    assert!(seen > 150, "{seen}");
}

/// What a repeated request changes nothing of, so that a key has no meaning there.
fn is_state(path: &str) -> bool {
    path.starts_with("/v1/users/{user}/notifications/") || path.ends_with("/{id}/read")
}

#[tokio::test]
async fn every_route_that_changes_something_takes_an_idempotency_key_or_refuses_it() {
    let filled = Filled::start().await;
    let mut repeatable = Vec::new();
    for (method, path, operation) in in_order(&filled.document) {
        // A bin shows every request, also a repeated one.
        if method == Method::GET || is_state(&path) || path == "/bins/{id}" {
            continue;
        }
        let what = format!("{method} {path}");
        let body = &operation["requestBody"]["content"]["application/json"]["example"];
        let request = || {
            let key = format!("key{}", path.replace(['/', '{', '}'], "-"));
            let request = filled
                .request(&method, &path)
                .header("idempotency-key", key);
            if body.is_null() {
                request
            } else {
                request.json(body)
            }
        };
        let parameters = operation["parameters"].as_array().unwrap();
        let takes_it = parameters
            .iter()
            .any(|it| resolved(&filled.document, it)["name"] == idempotency::NAME);
        let (status, first) = filled.check(&what, &operation, request()).await;
        if !takes_it {
            assert_eq!(status, StatusCode::BAD_REQUEST, "{what}");
            assert_eq!(first["error"]["field"], idempotency::NAME, "{what}");
            continue;
        }
        assert!(status.is_success(), "{what}: {status}");
        let repeat = filled.check(&what, &operation, request()).await;
        assert_eq!((status, first), repeat, "{what}");
        repeatable.push(path);
    }
    repeatable.sort();
    let expected = [
        "/notifications",
        "/v1/deliveries/{id}/retry",
        "/v1/endpoints",
        "/v1/endpoints/{id}/replay",
        "/v1/endpoints/{id}/secret/rotate",
        "/v1/endpoints/{id}/test",
        "/v1/keys",
        "/v1/notifications",
        "/v1/notifications/batch",
        "/v1/users/{user}/deliveries/{id}/retry",
        "/v1/users/{user}/endpoints",
        "/v1/users/{user}/endpoints/{id}/replay",
        "/v1/users/{user}/endpoints/{id}/secret/rotate",
        "/v1/users/{user}/endpoints/{id}/test",
    ];
    assert_eq!(repeatable, expected);
}
