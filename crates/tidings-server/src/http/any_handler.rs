//! A handler of any type as one type: what the router puts around a handler is compiled once, and not for each.

use std::pin::Pin;
use std::sync::Arc;

use axum::extract::Request;
use axum::handler::Handler;
use axum::response::Response;

use crate::app::SharedApp;

/// What handlers that are functions return.
type Responding = Pin<Box<dyn Future<Output = Response> + Send>>;

/// A function that is a handler.
pub(super) trait Function<T>: Handler<T, SharedApp, Future = Responding> {}

impl<H, T> Function<T> for H where H: Handler<T, SharedApp, Future = Responding> {}

#[derive(Clone)]
pub(super) struct AnyHandler(Arc<dyn Fn(Request, SharedApp) -> Responding + Send + Sync>);

impl AnyHandler {
    pub(super) fn new<T>(handler: impl Function<T>) -> Self {
        Self(Arc::new(move |request, app| {
            handler.clone().call(request, app)
        }))
    }
}

impl Handler<(), SharedApp> for AnyHandler {
    type Future = Responding;

    fn call(self, request: Request, app: SharedApp) -> Responding {
        (self.0)(request, app)
    }
}
