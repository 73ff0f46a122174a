//! The names of fields that spans and events carry.
//!
//! Those without the prefix `tidings.` are of the OpenTelemetry semantic conventions
//! (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>).

/// The method of the request, always `POST`.
pub const HTTP_REQUEST_METHOD: &str = "http.request.method";
/// How many attempts came before this one; absent from the first.
pub const HTTP_REQUEST_RESEND_COUNT: &str = "http.request.resend_count";
/// The status that the endpoint answered.
pub const HTTP_RESPONSE_STATUS_CODE: &str = "http.response.status_code";
/// The host of the endpoint.
pub const SERVER_ADDRESS: &str = "server.address";
/// The URL of the endpoint without its query.
pub const URL_FULL: &str = "url.full";
/// What kind of error it was, one of a small set of words, or a status.
pub const ERROR_TYPE: &str = "error.type";
/// The id of the message, the same for all attempts of a delivery.
pub const MESSAGE_ID: &str = "tidings.message.id";
/// What kind of thing the message says has happened.
pub const MESSAGE_TYPE: &str = "tidings.message.type";
/// The number of the attempt, counted from 1.
pub const ATTEMPT: &str = "tidings.attempt";
/// The name that a dispatcher knows the endpoint by.
pub const ENDPOINT_ID: &str = "tidings.endpoint.id";
