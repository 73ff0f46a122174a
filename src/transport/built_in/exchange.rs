use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;

use http::Extensions;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{CaptureConnection, Connected};

use super::connections::{Connection, Lease};
use super::{HttpVersions, failure};
use crate::ErrorKind;
use crate::resolver::GuardedResolver;
use crate::sender::Progress;
use crate::transport::RequestBody;

/// One request and the connection that it got.
///
/// Dropped before its end, because the attempt's time is up or because its caller gave up, it takes
/// care that the connection is not used again. Over HTTP/1 that would end with the
/// request anyway; over HTTP/2 it would stay in the pool, although it may lead nowhere.
pub(super) struct Exchange {
    captured: CaptureConnection,
    progress: Arc<Progress>,
    has_empty_body: bool,
    lease: Option<Lease>,
    resolver: GuardedResolver,
    host: String,
    versions: HttpVersions,
    is_over: bool,
}

impl Exchange {
    pub(super) fn new(
        captured: CaptureConnection,
        body: &RequestBody,
        resolver: &GuardedResolver,
        host: String,
        versions: HttpVersions,
    ) -> Self {
        Self {
            captured,
            progress: Arc::clone(body.progress()),
            has_empty_body: body.is_empty(),
            lease: None,
            resolver: resolver.clone(),
            host,
            versions,
            is_over: false,
        }
    }

    /// Polls the request to its end, and notices when it gets a connection.
    pub(super) async fn watch<F: Future>(&mut self, mut request: Pin<&mut F>) -> F::Output {
        poll_fn(|context| {
            let polled = request.as_mut().poll(context);
            if self.lease.is_none() {
                self.lease = self.connection().map(Connection::lease);
                if self.has_empty_body && self.lease.is_some() {
                    self.progress.assume_sent();
                }
            }
            polled
        })
        .await
    }

    /// The head of the response is there. The connection is in use until the lease is dropped.
    pub(super) fn succeed(mut self) -> Option<Lease> {
        self.is_over = true;
        let lease = self.lease.take();
        if let Some(lease) = &lease {
            lease.responded();
        }
        lease
    }

    /// Whether the connection ended because it was flooded. The error does not say so over HTTP/2.
    pub(super) fn is_flooded(&self) -> bool {
        let lease = self.lease.as_ref();
        lease.is_some_and(|lease| lease.connection().is_flooded())
    }

    /// There will be no response. Returns whether that is because a kept connection ended before
    /// the first byte of one.
    pub(super) fn fail(mut self, kind: ErrorKind, error: &legacy::Error) -> bool {
        self.is_over = true;
        if kind.is_connect() {
            // The host may have moved: the next attempt looks its name up again.
            self.resolver.forget(&self.host);
        }
        if kind != ErrorKind::Reset {
            return false;
        }
        // Another connection than the leased one was tried without anything being sent over it.
        let Some(lease) = self.lease.as_ref() else {
            return false;
        };
        let is_same = self
            .connection()
            .is_some_and(|last| last.is_same(lease.connection()));
        // Over HTTP/2, what was read may belong to other requests; there the error says it.
        let got_nothing = if self.is_http2() {
            failure::is_refused(error) || failure::ends_connection(error)
        } else {
            lease.read_nothing()
        };
        is_same && lease.is_kept() && got_nothing
    }

    fn is_http2(&self) -> bool {
        let connected = self.captured.connection_metadata();
        let is_negotiated = (connected.as_ref()).is_some_and(Connected::is_negotiated_h2);
        is_negotiated || self.versions == HttpVersions::Http2
    }

    fn connection(&self) -> Option<Connection> {
        let connected = self.captured.connection_metadata();
        let mut extras = Extensions::new();
        connected.as_ref()?.get_extras(&mut extras);
        extras.remove::<Connection>()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        match &*self.captured.connection_metadata() {
            Some(connected) => connected.poison(),
            None => self.resolver.forget(&self.host),
        }
    }
}
