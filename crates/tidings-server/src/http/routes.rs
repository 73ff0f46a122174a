//! Every route, with its handler, what a caller must be allowed to do, and its description: the router and the
//! OpenAPI document are made from this table, and a test calls each of its rows with every kind of wrong caller.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::{self, MethodFilter, MethodRouter};
use schemars::json_schema;
use tidings_notify::{InboxAction, UserId};
use tidings_storage::Scope;

use super::access::{self, Gate};
use super::any_handler::{AnyHandler, Function};
use super::extract::{InPath, NoFields};
use super::operation::Operation;
use super::operations as described;
use super::parameters::Known;
use super::response_room::ResponseRoom;
use super::{
    api_keys, asyncapi, bins, client, console, deliveries, endpoints, health, inbox, metrics,
    notifications, openapi, presence, reference, sse, unversioned, websocket, whoami,
};
use crate::access::Access;
use crate::app::SharedApp;
use crate::limits::Limits;

/// The route that writes to the database although it is a `GET`.
pub(super) const READY: &str = "/health/ready";

/// The route whose `POST` only reads.
pub(super) const QUERY: &str = "/v1/presence/query";

const BINS: &str = "/v1/bins";
const BIN: &str = "/v1/bins/{id}";
const INTO_BIN: &str = "/bins/{id}";

/// What the path of a route of one user begins with. The user has access with a token.
const OF_A_USER: &str = "/v1/users/{user}/";

/// What a route demands of its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Demand {
    /// Nothing: it is open to everyone.
    Nothing,
    /// A valid API key or token, whatever it is for.
    Credential,
    /// An API key with this scope, or the token of the user in the path.
    Scope(Scope),
}

impl From<Scope> for Demand {
    fn from(scope: Scope) -> Self {
        Self::Scope(scope)
    }
}

/// A method of a path.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) demand: Demand,
    pub(super) operation: Operation,
    handler: MethodRouter<SharedApp>,
}

impl Route {
    fn new(
        method: Method,
        path: &str,
        demand: Demand,
        handler: AnyHandler,
        operation: Operation,
    ) -> Self {
        let filter = match method {
            Method::POST => MethodFilter::POST,
            Method::PATCH => MethodFilter::PATCH,
            Method::DELETE => MethodFilter::DELETE,
            _ => MethodFilter::GET,
        };
        Self {
            method,
            path: path.to_owned(),
            demand,
            operation,
            handler: routing::on(filter, handler),
        }
    }

    /// The parameters of the query that the route knows, if it refuses others. The unversioned routes and pages
    /// ignore them.
    fn known_parameters(&self) -> Option<Known> {
        let names = self.operation.query.iter().map(|parameter| parameter.name);
        self.path.starts_with("/v1/").then(|| names.collect())
    }

    /// Whether a user may use the route with a token.
    pub(super) fn is_of_a_user(&self) -> bool {
        self.path.starts_with(OF_A_USER)
    }
}

/// Makes the router.
pub(super) fn router(access: &Arc<Access>, limits: &Arc<Limits>) -> Router<SharedApp> {
    let responses = ResponseRoom::default();
    all().into_iter().fold(Router::new(), |router, route| {
        let handler = if route.demand == Demand::Nothing {
            route.handler
        } else {
            let gate = Gate {
                access: Arc::clone(access),
                limits: Arc::clone(limits),
                responses: responses.clone(),
                parameters: route.known_parameters(),
                demand: route.demand,
                is_of_a_user: route.is_of_a_user(),
            };
            let gate = from_fn_with_state(Arc::new(gate), access::authorize);
            route.handler.route_layer(gate)
        };
        router.route(&route.path, handler)
    })
}

/// The table.
pub(super) fn all() -> Vec<Route> {
    let mut routes = vec![
        post(
            "/v1/notifications",
            Scope::Publish,
            notifications::create,
            described::notifications::create(),
        ),
        post(
            "/v1/notifications/batch",
            Scope::Publish,
            notifications::create_batch,
            described::notifications::create_batch(),
        ),
        post(
            QUERY,
            Scope::Read,
            presence::query,
            described::presence::query(),
        ),
    ];
    routes.extend(of_a_user());
    for all in ["/v1/endpoints", "/v1/users/{user}/endpoints"] {
        routes.extend(of_endpoints(all));
    }
    routes.push(get(
        "/v1/deliveries",
        Scope::Endpoints,
        deliveries::list,
        described::deliveries::list(),
    ));
    for all in ["/v1/deliveries", "/v1/users/{user}/deliveries"] {
        routes.extend(of_deliveries(all));
    }
    routes.extend(of_keys());
    routes.extend(of_bins());
    let metrics = described::metrics::show();
    routes.push(get("/metrics", Scope::Metrics, metrics::show, metrics));
    routes.extend(unversioned());
    routes.extend(open());
    routes
}

/// The inbox, the streams and the presence of a user.
fn of_a_user() -> Vec<Route> {
    use described::{inbox as of_inbox, streams};
    let read = Scope::Read;
    let inbox = "/v1/users/{user}/notifications";
    let count = format!("{inbox}/unread-count");
    let read_all = format!("{inbox}/read-all");
    let seen = format!("{inbox}/seen");
    let presence = described::presence::show();
    let mut routes = vec![
        get(inbox, read, inbox::list, of_inbox::list()),
        get(&count, read, inbox::unread_count, of_inbox::unread_count()),
        post(&read_all, read, inbox::read_all, of_inbox::read_all()),
        post(&seen, read, inbox::seen, of_inbox::seen()),
        get(
            "/v1/users/{user}/events",
            read,
            sse::events,
            streams::events(),
        ),
        get(
            "/v1/users/{user}/ws",
            read,
            websocket::connect,
            streams::socket(),
        ),
        get("/v1/users/{user}/presence", read, presence::show, presence),
    ];
    let actions: [(&str, inbox::OnOne); 4] = [
        ("read", InboxAction::Read),
        ("unread", InboxAction::Unread),
        ("archive", InboxAction::Archive),
        ("unarchive", InboxAction::Unarchive),
    ];
    for (name, action) in actions {
        let handler =
            async move |State(app), InPath::<UserId>(user), InPath::<String>(id), NoFields {}| {
                inbox::on_one(app, user, id, action).await
            };
        let path = format!("{inbox}/{{id}}/{name}");
        routes.push(post(&path, read, handler, of_inbox::on_one(name)));
    }
    routes
}

/// The endpoints of the operator or of a user.
fn of_endpoints(all: &str) -> Vec<Route> {
    use described::endpoints as of;
    let scope = Scope::Endpoints;
    let one = format!("{all}/{{id}}");
    let rotate = format!("{one}/secret/rotate");
    let test = format!("{one}/test");
    let replay = format!("{one}/replay");
    let deliveries = format!("{one}/deliveries");
    vec![
        get(all, scope, endpoints::list, of::list()),
        post(all, scope, endpoints::create, of::create()),
        get(&one, scope, endpoints::show, of::show()),
        patch(&one, scope, endpoints::update, of::update()),
        delete(&one, scope, endpoints::remove, of::remove()),
        post(
            &rotate,
            scope,
            endpoints::rotate_secret,
            of::rotate_secret(),
        ),
        post(&test, scope, endpoints::send_test, of::send_test()),
        post(&replay, scope, endpoints::replay, of::replay()),
        delete(&replay, scope, endpoints::stop_replay, of::stop_replay()),
        get(
            &deliveries,
            scope,
            endpoints::deliveries,
            described::deliveries::list_of_one(),
        ),
    ]
}

/// One delivery to any endpoint, or to one of a user.
fn of_deliveries(all: &str) -> Vec<Route> {
    use described::deliveries as of;
    let scope = Scope::Endpoints;
    let one = format!("{all}/{{id}}");
    let attempts = format!("{one}/attempts");
    let message = format!("{one}/message");
    let retry = format!("{one}/retry");
    vec![
        get(&one, scope, deliveries::show, of::show()),
        get(&attempts, scope, deliveries::attempts, of::attempts()),
        get(&message, scope, deliveries::message, of::message()),
        post(&retry, scope, deliveries::retry, of::retry()),
    ]
}

fn of_keys() -> Vec<Route> {
    use described::keys as of;
    let scope = Scope::Admin;
    vec![
        Route::new(
            Method::GET,
            "/v1/whoami",
            Demand::Credential,
            AnyHandler::new(whoami::show),
            of::whoami(),
        ),
        get("/v1/keys", scope, api_keys::list, of::list()),
        post("/v1/keys", scope, api_keys::create, of::create()),
        delete("/v1/keys/{id}", scope, api_keys::revoke, of::revoke()),
    ]
}

/// Request bins. Where they take requests is open to everyone who has their id.
fn of_bins() -> Vec<Route> {
    use described::bins as of;
    let scope = Scope::Endpoints;
    vec![
        get(BINS, scope, bins::list, of::list()),
        post(BINS, scope, bins::create, of::create()),
        get(BIN, scope, bins::show, of::show()),
        patch(BIN, scope, bins::update, of::update()),
        delete(BIN, scope, bins::remove, of::remove()),
        Route::new(
            Method::POST,
            INTO_BIN,
            Demand::Nothing,
            AnyHandler::new(bins::take),
            of::take(),
        ),
    ]
}

/// The four routes of the service that Tidings replaces.
fn unversioned() -> Vec<Route> {
    use described::unversioned as of;
    let (publish, read) = (Scope::Publish, Scope::Read);
    let all = "/notifications/{user}";
    let one = "/notifications/{user}/{id}/read";
    vec![
        post("/notifications", publish, unversioned::create, of::create()),
        get(all, read, unversioned::list, of::list()),
        post(one, read, unversioned::read, of::read()),
        get("/ws/{user}", read, unversioned::connect, of::socket()),
    ]
}

/// The routes that are open to everyone.
fn open() -> Vec<Route> {
    use described::open as of;
    let html = "text/html";
    let css = "text/css";
    let script = "text/javascript";
    let described = of::document("getOpenApi", "Describes every route (OpenAPI 3.1)");
    let streams = of::document("getAsyncApi", "Describes the streams (AsyncAPI 3)");
    vec![
        open_to_all("/health/live", health::live, of::live()),
        open_to_all(READY, health::ready, of::ready()),
        open_to_all("/openapi.json", openapi::document, described),
        open_to_all("/asyncapi.json", asyncapi::document, streams),
        open_to_all(
            "/docs",
            reference::page,
            of::page("getDocs", "Shows this interface", html),
        ),
        open_to_all(
            "/docs/docs.css",
            reference::style,
            of::page("getDocsStyle", "The style of that page", css),
        ),
        open_to_all(
            "/docs/docs.js",
            reference::script,
            of::page("getDocsScript", "The script of that page", script),
        ),
        open_to_all(
            client::PATH,
            client::script,
            of::page("getClient", "The client for browsers", script),
        ),
        open_to_all(
            "/",
            console::page,
            of::page("getConsole", "Shows the console", html),
        ),
        open_to_all(
            "/console/console.css",
            console::style,
            of::page("getConsoleStyle", "The style of the console", css),
        ),
        open_to_all(
            "/console/{id}",
            console::script,
            of::page("getConsoleScript", "A script of the console", script)
                .of_a(|_| json_schema!({ "type": "string" })),
        ),
    ]
}

fn get<T>(path: &str, scope: Scope, handler: impl Function<T>, operation: Operation) -> Route {
    let handler = AnyHandler::new(handler);
    Route::new(Method::GET, path, scope.into(), handler, operation)
}

fn post<T>(path: &str, scope: Scope, handler: impl Function<T>, operation: Operation) -> Route {
    let handler = AnyHandler::new(handler);
    Route::new(Method::POST, path, scope.into(), handler, operation)
}

fn patch<T>(path: &str, scope: Scope, handler: impl Function<T>, operation: Operation) -> Route {
    let handler = AnyHandler::new(handler);
    Route::new(Method::PATCH, path, scope.into(), handler, operation)
}

fn delete<T>(path: &str, scope: Scope, handler: impl Function<T>, operation: Operation) -> Route {
    let handler = AnyHandler::new(handler);
    Route::new(Method::DELETE, path, scope.into(), handler, operation)
}

fn open_to_all<T>(path: &str, handler: impl Function<T>, operation: Operation) -> Route {
    let handler = AnyHandler::new(handler);
    Route::new(Method::GET, path, Demand::Nothing, handler, operation)
}

#[cfg(test)]
mod tests;
