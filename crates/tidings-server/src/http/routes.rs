//! Every route, with its handler and what a caller must be allowed to do: the router is made from this
//! table, and a test calls each of its rows with every kind of wrong caller.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::{self, MethodFilter, MethodRouter};
use tidings_notify::{InboxAction, UserId};

use super::access::{self, Gate};
use super::extract::{InPath, NoFields};
use super::rate_limit;
use super::{
    api_keys, console, deliveries, endpoints, health, inbox, notifications, presence, sse,
    unversioned, websocket,
};
use crate::access::{Access, Scope};
use crate::app::SharedApp;
use crate::limits::Limits;

/// The route that writes to the database although it is a `GET`.
pub(super) const READY: &str = "/health/ready";

/// What the path of a route of one user begins with. The user has access with a token.
const OF_A_USER: &str = "/v1/users/{user}/";

/// A method of a path.
pub(super) struct Route {
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the handler has it; the test calls by it")
    )]
    pub(super) method: Method,
    pub(super) path: String,
    /// `None` if the route is open to everyone.
    pub(super) scope: Option<Scope>,
    handler: MethodRouter<SharedApp>,
}

impl Route {
    fn new<H, T>(method: Method, path: &str, scope: Option<Scope>, handler: H) -> Self
    where
        H: Handler<T, SharedApp>,
        T: 'static,
    {
        let filter = match method {
            Method::POST => MethodFilter::POST,
            Method::PATCH => MethodFilter::PATCH,
            Method::DELETE => MethodFilter::DELETE,
            _ => MethodFilter::GET,
        };
        Self {
            method,
            path: path.to_owned(),
            scope,
            handler: routing::on(filter, handler),
        }
    }

    /// Whether a user may use the route with a token.
    pub(super) fn is_of_a_user(&self) -> bool {
        self.path.starts_with(OF_A_USER)
    }
}

/// Makes the router.
pub(super) fn router(access: &Arc<Access>, limits: &Arc<Limits>) -> Router<SharedApp> {
    all().into_iter().fold(Router::new(), |router, route| {
        let gate = route.scope.map(|scope| Gate {
            access: Arc::clone(access),
            scope,
            is_of_a_user: route.is_of_a_user(),
        });
        let handler = match gate {
            Some(gate) => route
                .handler
                // The caller is known by then.
                .route_layer(from_fn_with_state(Arc::clone(limits), rate_limit::limit))
                .route_layer(from_fn_with_state(gate, access::authorize)),
            None => route.handler,
        };
        router.route(&route.path, handler)
    })
}

/// The table.
pub(super) fn all() -> Vec<Route> {
    let mut routes = vec![
        post("/v1/notifications", Scope::Publish, notifications::create),
        post(
            "/v1/notifications/batch",
            Scope::Publish,
            notifications::create_batch,
        ),
        post("/v1/presence/query", Scope::Read, presence::query),
    ];
    routes.extend(of_a_user());
    for all in ["/v1/endpoints", "/v1/users/{user}/endpoints"] {
        routes.extend(of_endpoints(all));
    }
    routes.extend(of_deliveries());
    routes.extend(of_keys());
    routes.extend(unversioned());
    routes.extend(open());
    routes
}

/// The inbox, the streams and the presence of a user.
fn of_a_user() -> Vec<Route> {
    let read = Scope::Read;
    let inbox = "/v1/users/{user}/notifications";
    let mut routes = vec![
        get(inbox, read, inbox::list),
        get(&format!("{inbox}/unread-count"), read, inbox::unread_count),
        post(&format!("{inbox}/read-all"), read, inbox::read_all),
        post(&format!("{inbox}/seen"), read, inbox::seen),
        get("/v1/users/{user}/events", read, sse::events),
        get("/v1/users/{user}/ws", read, websocket::connect),
        get("/v1/users/{user}/presence", read, presence::show),
    ];
    let actions: [(&str, inbox::OnOne); 4] = [
        ("read", InboxAction::Read),
        ("unread", InboxAction::Unread),
        ("archive", InboxAction::Archive),
        ("unarchive", InboxAction::Unarchive),
    ];
    for (name, action) in actions {
        let handler =
            async move |State(app), InPath::<UserId>(user), InPath::<String>(id), NoFields| {
                inbox::on_one(app, user, id, action).await
            };
        routes.push(post(&format!("{inbox}/{{id}}/{name}"), read, handler));
    }
    routes
}

/// The endpoints of the operator or of a user.
fn of_endpoints(all: &str) -> Vec<Route> {
    let scope = Scope::Endpoints;
    let one = format!("{all}/{{id}}");
    vec![
        get(all, scope, endpoints::list),
        post(all, scope, endpoints::create),
        get(&one, scope, endpoints::show),
        Route::new(Method::PATCH, &one, Some(scope), endpoints::update),
        Route::new(Method::DELETE, &one, Some(scope), endpoints::remove),
        post(
            &format!("{one}/secret/rotate"),
            scope,
            endpoints::rotate_secret,
        ),
        post(&format!("{one}/test"), scope, endpoints::send_test),
        post(&format!("{one}/replay"), scope, endpoints::replay),
    ]
}

fn of_deliveries() -> Vec<Route> {
    let scope = Scope::Endpoints;
    let one = "/v1/deliveries/{id}";
    vec![
        get("/v1/deliveries", scope, deliveries::list),
        get(one, scope, deliveries::show),
        get(&format!("{one}/attempts"), scope, deliveries::attempts),
        post(&format!("{one}/retry"), scope, deliveries::retry),
    ]
}

fn of_keys() -> Vec<Route> {
    let scope = Scope::Admin;
    let one = "/v1/keys/{id}";
    vec![
        get("/v1/keys", scope, api_keys::list),
        post("/v1/keys", scope, api_keys::create),
        Route::new(Method::DELETE, one, Some(scope), api_keys::revoke),
    ]
}

/// The four routes of the service that Tidings replaces.
fn unversioned() -> Vec<Route> {
    let one = "/notifications/{user}/{id}/read";
    vec![
        post("/notifications", Scope::Publish, unversioned::create),
        get("/notifications/{user}", Scope::Read, unversioned::list),
        post(one, Scope::Read, unversioned::read),
        get("/ws/{user}", Scope::Read, unversioned::connect),
    ]
}

/// The routes that are open to everyone.
fn open() -> Vec<Route> {
    vec![
        open_to_all("/health/live", health::live),
        open_to_all(READY, health::ready),
        open_to_all("/", console::page),
        open_to_all("/console/console.css", console::style),
        open_to_all("/console/console.js", console::script),
    ]
}

fn get<H, T>(path: &str, scope: Scope, handler: H) -> Route
where
    H: Handler<T, SharedApp>,
    T: 'static,
{
    Route::new(Method::GET, path, Some(scope), handler)
}

fn post<H, T>(path: &str, scope: Scope, handler: H) -> Route
where
    H: Handler<T, SharedApp>,
    T: 'static,
{
    Route::new(Method::POST, path, Some(scope), handler)
}

fn open_to_all<H, T>(path: &str, handler: H) -> Route
where
    H: Handler<T, SharedApp>,
    T: 'static,
{
    Route::new(Method::GET, path, None, handler)
}

#[cfg(test)]
mod tests;
