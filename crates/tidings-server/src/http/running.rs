//! A server in this process, for tests of all routes.

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tidings_storage::Scope;

use super::routes::Route;
use crate::telemetry::prometheus;
use crate::{Config, Server};

pub(super) const KEY: &str = "a-key-for-this-test-0123456789";
pub(super) const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A server with a key and a secret, in this process.
pub(super) struct Running {
    server: Server,
    pub(super) client: Client,
    folder: tempfile::TempDir,
}

impl Running {
    pub(super) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With these settings, too.
    pub(super) async fn start_with(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("tidings.db");
        let flags = [
            "--listen=127.0.0.1:0".to_owned(),
            format!("--database=sqlite:{}", database.display()),
            format!("--api-key={KEY}"),
            format!("--jwt-secret={SECRET}"),
            "--webhook-private-addresses=true".to_owned(),
        ];
        let flags = flags
            .into_iter()
            .chain(more.iter().map(ToString::to_string));
        let config = Config::from_flags(flags).unwrap();
        prometheus::install().unwrap();
        Self {
            server: Server::start(config).await.unwrap(),
            client: Client::builder().tls_certs_only([]).build().unwrap(),
            folder,
        }
    }

    /// A request to a route, of the user anna if it has one. Only a script is there.
    pub(super) fn request(&self, route: &Route) -> RequestBuilder {
        let path = route
            .path
            .replace("/console/{id}", "/console/main.js")
            .replace("{user}", "anna")
            .replace("{id}", "1");
        self.client.request(route.method.clone(), self.url(&path))
    }

    /// Takes the file of the database away: reading goes on, and nothing can be written.
    pub(super) fn remove_database(&self) {
        std::fs::remove_file(self.folder.path().join("tidings.db")).unwrap();
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address())
    }

    /// Makes a key with this scope; gives its id, and the key.
    pub(super) async fn new_key(&self, scope: Scope) -> (String, String) {
        let body = json!({ "name": "test", "scopes": [scope] });
        let request = self.client.post(self.url("/v1/keys")).bearer_auth(KEY);
        let response = request.json(&body).send().await.unwrap();
        let created: Value = response.json().await.unwrap();
        let text = |name: &str| created[name].as_str().unwrap().to_owned();
        (text("id"), text("key"))
    }
}
