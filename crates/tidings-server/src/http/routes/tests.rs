use jsonwebtoken::{EncodingKey, Header};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use super::{Route, all};
use crate::access::Scope;
use crate::{Config, Server};

const KEY: &str = "a-key-for-this-test-0123456789";
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A server with a key and a secret, in this process.
struct Running {
    server: Server,
    client: Client,
    _folder: tempfile::TempDir,
}

impl Running {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("tidings.db");
        let flags = [
            "--listen=127.0.0.1:0".to_owned(),
            format!("--database=sqlite:{}", database.display()),
            format!("--api-key={KEY}"),
            format!("--jwt-secret={SECRET}"),
        ];
        let config = Config::from_flags(flags).unwrap();
        Self {
            server: Server::start(config).await.unwrap(),
            client: Client::builder().tls_certs_only([]).build().unwrap(),
            _folder: folder,
        }
    }

    /// A request to a route, of the user anna if it has one.
    fn request(&self, route: &Route) -> RequestBuilder {
        let path = route.path.replace("{user}", "anna").replace("{id}", "1");
        self.client.request(route.method.clone(), self.url(&path))
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address())
    }

    /// Makes a key with this scope; gives its id, and the key.
    async fn new_key(&self, scope: Scope) -> (String, String) {
        let body = json!({ "name": "test", "scopes": [scope] });
        let request = self.client.post(self.url("/v1/keys")).bearer_auth(KEY);
        let response = request.json(&body).send().await.unwrap();
        let created: Value = response.json().await.unwrap();
        let text = |name: &str| created[name].as_str().unwrap().to_owned();
        (text("id"), text("key"))
    }
}

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
const OPEN: [&str; 5] = [
    "/health/live",
    "/health/ready",
    "/",
    "/console/console.css",
    "/console/console.js",
];

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
        if route.scope.is_none() {
            assert!(OPEN.contains(&route.path.as_str()), "{name}");
            assert_eq!(status(running.request(&route)).await, 200, "{name}");
            continue;
        }
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
        let of_another = with(&token("ben", 60, &endpoints)).await;
        assert_eq!(of_another, StatusCode::FORBIDDEN, "{name}");

        let is_let_through =
            |status: StatusCode| status != refused && status != StatusCode::FORBIDDEN;
        let own = with(&token("anna", 60, &endpoints)).await;
        assert_eq!(is_let_through(own), route.is_of_a_user(), "{name}: {own}");
        let needs_claim = route.scope == Some(Scope::Endpoints);
        let plain = with(&token("anna", 60, &nothing)).await;
        let expected = route.is_of_a_user() && !needs_claim;
        assert_eq!(is_let_through(plain), expected, "{name}: {plain}");
        let key = with(KEY).await;
        assert!(is_let_through(key), "{name}: {key}");
        for (scope, key) in Scope::ALL.into_iter().zip(&keys) {
            let status = with(key).await;
            let expected = route.scope == Some(scope);
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
        assert!(route.scope.is_some(), "{}", route.path);
    }
}
