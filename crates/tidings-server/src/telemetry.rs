//! Metrics and traces: the metrics of the server itself, and the recorder that makes text for Prometheus of the metrics of all
//! packages. `docs/operations.md` lists them.
//!
//! Every label has a small set of values: a route is the one of the table, not the path of the request, and neither
//! users nor endpoints are labels.
//!
//! The recorder may be one of the embedding program. If it panics, that costs a figure, and not what it is about.

pub(crate) mod prometheus;
mod recorded;
pub(crate) mod traces;

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use crate::panics::catch;
use axum::http::{Method, StatusCode};
use metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

use tidings_storage::{Accepted, StorageError};
use tidings_webhooks::FanOutLag;

use crate::permits::Full;

/// Histogram of requests, up to the head of the response.
pub(crate) const REQUEST_DURATION: &str = "http.server.request.duration";
/// Gauge that is always 1, and names the process by its labels.
const INFO: &str = "tidings.server.info";
/// Gauge of connections of clients.
const CONNECTIONS: &str = "tidings.server.connections";
/// Counter of connections that were refused because their address had as many as allowed.
const CONNECTIONS_REFUSED: &str = "tidings.server.connections.refused";
/// Counter of streams that were refused for lack of room.
const STREAMS_REFUSED: &str = "tidings.server.streams.refused";
/// Histogram of the calls that store notifications.
const ACCEPT_DURATION: &str = "tidings.accept.duration";
/// Counter of notifications that were stored.
const ACCEPTED: &str = "tidings.notification.accepted";
/// Gauge of messages with accepted events that wait for their deliveries.
const FAN_OUT_LAG: &str = "tidings.webhooks.fan_out.lag";
/// Gauge of how long the oldest of them has waited.
const FAN_OUT_LAG_DURATION: &str = "tidings.webhooks.fan_out.lag.duration";
/// Gauge of deliveries that wait or are under way.
const DELIVERIES_PENDING: &str = "tidings.webhooks.deliveries.pending";
/// Counter of responses that the database is the reason of.
const DATABASE_FAILED: &str = "tidings.server.database.failed";
/// Label: the method, `_OTHER` if no route has it.
const METHOD: &str = "http.request.method";
/// Label: the route, [`UNKNOWN_ROUTE`] if there is none.
const ROUTE: &str = "http.route";
/// Label: the status of the response.
const STATUS: &str = "http.response.status_code";
/// Label: which limit was reached.
const LIMIT: &str = "tidings.limit";
/// Label: what this process is called among those of the database.
const INSTANCE: &str = "tidings.instance";
/// Label: the version of the server.
const VERSION: &str = "tidings.version";
/// Label: why something failed.
const ERROR_TYPE: &str = "error.type";

/// What a path without a route is called.
pub(crate) const UNKNOWN_ROUTE: &str = "unknown";

/// The histograms of requests. Each is looked up once, because its labels are made of text: that takes longer than
/// to record a duration.
#[derive(Debug, Default)]
pub(crate) struct Requests(RwLock<HashMap<String, Vec<RequestsOf>>>);

/// Requests of a route with the same method and status.
#[derive(Debug, Clone)]
struct RequestsOf {
    method: &'static str,
    status: StatusCode,
    durations: Histogram,
}

impl Requests {
    /// A request got its response.
    pub(crate) fn finished(
        &self,
        method: &Method,
        route: &str,
        status: StatusCode,
        duration: Duration,
    ) {
        let method = method_label(method);
        // The recorder is not called under a lock.
        let known = self.known(method, route, status);
        catch(|| {
            let durations = known.unwrap_or_else(|| self.learn(method, route, status));
            durations.record(duration);
        });
    }

    fn known(&self, method: &'static str, route: &str, status: StatusCode) -> Option<Histogram> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut of_route = known.get(route)?.iter();
        let same = of_route.find(|known| (known.method, known.status) == (method, status))?;
        Some(same.durations.clone())
    }

    fn learn(&self, method: &'static str, route: &str, status: StatusCode) -> Histogram {
        let labels = [
            (METHOD, method.to_owned()),
            (ROUTE, route.to_owned()),
            (STATUS, status.as_str().to_owned()),
        ];
        let durations = histogram!(REQUEST_DURATION, &labels);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.entry(route.to_owned()).or_default().push(RequestsOf {
            method,
            status,
            durations: durations.clone(),
        });
        durations
    }
}

/// A server has started under this name.
pub(crate) fn started(instance: &str) {
    let labels = [
        (INSTANCE, instance.to_owned()),
        (VERSION, env!("CARGO_PKG_VERSION").to_owned()),
    ];
    catch(|| gauge!(INFO, &labels).set(1.0));
}

/// How far the making of deliveries was behind when the metrics were read.
pub(crate) fn fan_out_lag(lag: FanOutLag) {
    let age = lag.age.unwrap_or_default();
    catch(|| {
        gauge!(FAN_OUT_LAG).set(as_value(lag.messages));
        gauge!(FAN_OUT_LAG_DURATION).set(age.as_secs_f64());
    });
}

/// How many deliveries waited in the database when the metrics were read.
pub(crate) fn deliveries_pending(count: u64) {
    catch(|| gauge!(DELIVERIES_PENDING).set(as_value(count)));
}

#[expect(clippy::cast_precision_loss, reason = "there are less than 2^52")]
fn as_value(count: u64) -> f64 {
    count as f64
}

/// What is counted of the calls that store notifications. It is looked up once, because that takes longer than to count.
#[derive(Debug)]
pub(crate) struct Accepts {
    stored: Counter,
    durations: Histogram,
}

impl Accepts {
    /// To be called once the recorder is installed: what a later one gets is not these.
    pub(crate) fn new() -> Self {
        Self {
            stored: catch(|| counter!(ACCEPTED)).unwrap_or_else(Counter::noop),
            durations: catch(|| histogram!(ACCEPT_DURATION)).unwrap_or_else(Histogram::noop),
        }
    }

    /// A call to store notifications has returned.
    pub(crate) fn finished(&self, accepted: &Result<Accepted, StorageError>, duration: Duration) {
        let error = match accepted {
            Ok(Accepted::Stored { events, .. }) => {
                catch(|| self.stored.increment(events.len() as u64));
                None
            }
            Ok(Accepted::Repeated(_)) => None,
            Ok(Accepted::Conflict) => Some("idempotency_conflict"),
            Err(error) => Some(error.kind()),
        };
        catch(|| match error {
            None => self.durations.record(duration),
            Some(error) => histogram!(ACCEPT_DURATION, ERROR_TYPE => error).record(duration),
        });
    }
}

/// The database could not do what a request needed.
pub(crate) fn database_failed() {
    catch(|| counter!(DATABASE_FAILED).increment(1));
}

/// A connection was refused, or a request through a trusted proxy, because its address had as many as allowed.
pub(crate) fn connection_refused() {
    catch(|| counter!(CONNECTIONS_REFUSED).increment(1));
}

/// A stream was refused.
pub(crate) fn stream_refused(limit: Full) {
    catch(|| counter!(STREAMS_REFUSED, LIMIT => limit_label(limit)).increment(1));
}

fn limit_label(limit: Full) -> &'static str {
    match limit {
        Full::Server => "server",
        Full::User => "user",
    }
}

/// A connection of a client, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenConnection(());

impl OpenConnection {
    pub(crate) fn new() -> Self {
        catch(|| gauge!(CONNECTIONS).increment(1.0));
        Self(())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        catch(|| gauge!(CONNECTIONS).decrement(1.0));
    }
}

/// A caller may send any method.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    }
}

/// Has counters begin at zero, so that a rate over them has their first count. Those of other packages begin where
/// they are described, except these.
fn begin_at_zero() {
    use tidings_notify::telemetry as notify;
    for counter in [
        CONNECTIONS_REFUSED,
        DATABASE_FAILED,
        notify::NOTIFICATION_DELIVERED,
        notify::SUBSCRIPTION_GAPS,
        notify::SWEEP_FAILED,
    ] {
        counter!(counter).increment(0);
    }
    for limit in [Full::Server, Full::User] {
        counter!(STREAMS_REFUSED, LIMIT => limit_label(limit)).increment(0);
    }
}

/// Describes the metrics of all packages to the recorder that is installed.
fn describe_metrics() {
    begin_at_zero();
    tidings::telemetry::describe_metrics();
    tidings_notify::telemetry::describe_metrics();
    tidings_stream::telemetry::describe_metrics();
    tidings_webhooks::telemetry::describe_metrics();
    describe_histogram!(
        REQUEST_DURATION,
        Unit::Seconds,
        "How long a request took, up to the head of the response."
    );
    describe_gauge!(INFO, Unit::Count, "Always 1: its labels name the instance.");
    describe_gauge!(
        CONNECTIONS,
        Unit::Count,
        "Connections of clients that are open."
    );
    describe_counter!(
        CONNECTIONS_REFUSED,
        Unit::Count,
        "Connections, and requests through a trusted proxy, that were refused because their address had as many as allowed."
    );
    describe_counter!(
        STREAMS_REFUSED,
        Unit::Count,
        "Streams that were refused because as many as allowed were open."
    );
    describe_histogram!(
        ACCEPT_DURATION,
        Unit::Seconds,
        "How long it took to store the notifications of a request, up to the commit."
    );
    describe_counter!(
        ACCEPTED,
        Unit::Count,
        "Notifications that were stored, one for each user."
    );
    describe_gauge!(
        FAN_OUT_LAG,
        Unit::Count,
        "Messages with accepted events that wait for their deliveries, of all instances."
    );
    describe_gauge!(
        FAN_OUT_LAG_DURATION,
        Unit::Seconds,
        "How long the oldest of them has waited."
    );
    describe_gauge!(
        DELIVERIES_PENDING,
        Unit::Count,
        "Deliveries that wait or are under way, of all instances, and events whose deliveries are yet to be made because \
         they are many; each is counted up to 100,000."
    );
    describe_counter!(
        DATABASE_FAILED,
        Unit::Count,
        "Requests that were refused because the database did not work."
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_that_no_route_has_is_one_value() {
        let own = Method::from_bytes(b"MADE-UP").unwrap();
        for (method, label) in [
            (Method::GET, "GET"),
            (Method::PUT, "_OTHER"),
            (own, "_OTHER"),
        ] {
            assert_eq!(method_label(&method), label);
        }
    }
}
