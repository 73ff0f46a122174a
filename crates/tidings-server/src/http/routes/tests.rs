use jsonwebtoken::{EncodingKey, Header};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tidings_storage::Scope;

use super::{Demand, all};
use crate::http::running::{KEY, Running, SECRET};

fn token(user: &str, seconds: i64, more: &Value) -> String {
    let exp = jiff::Timestamp::now().as_second() + seconds;
    let mut claims = json!({ "sub": user, "exp": exp });
    let fields = claims.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap()
}

async fn status(request: RequestBuilder) -> StatusCode {
    request.send().await.unwrap().status()
}

/// The routes that every caller may call: a new one must be named here too.
const OPEN: [&str; 12] = [
    "/health/live",
    "/health/ready",
    "/openapi.json",
    "/asyncapi.json",
    "/docs",
    "/docs/docs.css",
    "/docs/docs.js",
    "/tidings.js",
    "/",
    "/console/console.css",
    "/console/{id}",
    "/bins/{id}",
];

/// What a key must be allowed to do, by the method and the path: the table must say the same.
fn scope_of(method: &Method, path: &str) -> Scope {
    let publishes = [
        "/v1/notifications",
        "/v1/notifications/batch",
        "/notifications",
    ];
    match path {
        "/metrics" => Scope::Metrics,
        _ if path.starts_with("/v1/keys") => Scope::Admin,
        _ if path.starts_with("/v1/bins") => Scope::Endpoints,
        _ if path.contains("/endpoints") || path.contains("/deliveries") => Scope::Endpoints,
        _ if method == Method::POST && publishes.contains(&path) => Scope::Publish,
        _ => Scope::Read,
    }
}

#[tokio::test]
async fn no_route_lets_a_wrong_caller_through() {
    let running = Running::start().await;
    let endpoints = json!({ "endpoints": true });
    let nothing = json!({});
    let refused = StatusCode::UNAUTHORIZED;
    let mut keys = Vec::new();
    for scope in Scope::ALL {
        let (_, key) = running.new_key(scope).await;
        keys.push(key);
    }
    let (id, revoked) = running.new_key(Scope::Read).await;
    let url = running.url(&format!("/v1/keys/{id}"));
    let revoke = running.client.delete(url).bearer_auth(KEY);
    assert_eq!(status(revoke).await, StatusCode::NO_CONTENT);
    for route in all() {
        let name = format!("{} {}", route.method, route.path);
        if route.demand == Demand::Nothing {
            assert!(OPEN.contains(&route.path.as_str()), "{name}");
            // There is no such bin.
            let expected = if route.path == "/bins/{id}" { 404 } else { 200 };
            let status = status(running.request(&route)).await;
            assert_eq!(status, expected, "{name}");
            continue;
        }
        // Every caller with a valid credential may ask.
        let needed = (route.path != "/v1/whoami").then(|| scope_of(&route.method, &route.path));
        let is_of_a_user = route.path.starts_with("/v1/users/{user}/");
        let with = |key: &str| status(running.request(&route).bearer_auth(key));
        assert_eq!(status(running.request(&route)).await, refused, "{name}");
        assert_eq!(with("a-wrong-key-0123456789").await, refused, "{name}");
        assert_eq!(
            with(&token("anna", -60, &endpoints)).await,
            refused,
            "{name}"
        );
        let forged = token("anna", 60, &endpoints).replace('.', "..");
        assert_eq!(with(&forged).await, refused, "{name}");
        let is_let_through =
            |status: StatusCode| status != refused && status != StatusCode::FORBIDDEN;
        let of_another = with(&token("ben", 60, &endpoints)).await;
        assert_eq!(
            is_let_through(of_another),
            needed.is_none(),
            "{name}: {of_another}"
        );
        let is_for_tokens = is_of_a_user || needed.is_none();
        let own = with(&token("anna", 60, &endpoints)).await;
        assert_eq!(is_let_through(own), is_for_tokens, "{name}: {own}");
        let needs_claim = needed == Some(Scope::Endpoints);
        let plain = with(&token("anna", 60, &nothing)).await;
        let expected = is_for_tokens && !needs_claim;
        assert_eq!(is_let_through(plain), expected, "{name}: {plain}");
        let key = with(KEY).await;
        assert!(is_let_through(key), "{name}: {key}");
        for (scope, key) in Scope::ALL.into_iter().zip(&keys) {
            let status = with(key).await;
            let expected = needed.is_none_or(|needed| needed == scope);
            assert_eq!(
                is_let_through(status),
                expected,
                "{name}, {scope}: {status}"
            );
        }
        assert_eq!(with(&revoked).await, refused, "{name}");
    }
}

#[tokio::test]
async fn every_route_of_one_user_is_that_users() {
    let of_users = all()
        .into_iter()
        .filter(|route| route.path.starts_with("/v1/users/"));
    for route in of_users {
        assert!(route.is_of_a_user(), "{}", route.path);
        assert!(matches!(route.demand, Demand::Scope(_)), "{}", route.path);
    }
}
