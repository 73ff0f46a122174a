//! Everything that goes over the wire, each JSON shape and each name once.
//!
//! What a stream sends is in [`tidings_notify::wire`]. Handlers and commands write and read these types
//! only. `docs/http.md` and `docs/protocol.md` repeat some of it for people; the tests below compare them with the types.
//!
//! | module | has |
//! |---|---|
//! | [`api_key`] | API keys |
//! | [`bin`] | request bins |
//! | [`code`] | the codes of errors |
//! | [`notification`] | a notification, the list of the inbox, what accepting returns |
//! | [`presence`] | who is online |
//! | [`unversioned`] | the shape of the four unversioned routes |
//! | [`webhook`] | endpoints, deliveries, attempts |
//! | [`whoami`] | who calls |

pub(crate) mod api_key;
pub(crate) mod bin;
pub(crate) mod code;
pub(crate) mod notification;
pub(crate) mod presence;
pub(crate) mod unversioned;
pub(crate) mod webhook;
pub(crate) mod whoami;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::code::Code;

/// A list in an object, so that more can stand beside it: `{"data":[…]}`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Data<T> {
    pub(crate) data: T,
}

/// A page of a list; `next` is the `cursor` of the page after it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Page<T> {
    pub(crate) data: Vec<T>,
    pub(crate) next: Option<String>,
}

/// `{"status":"live"}` and `{"status":"ready"}`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Health {
    pub(crate) status: &'static str,
}

/// The body of every response that is an error.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Error")]
pub(crate) struct ErrorBody<E> {
    pub(crate) error: E,
}

/// An error: a code for programs, a message for people, and the field that it is about.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct ErrorDescription {
    pub(crate) code: Code,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) field: Option<String>,
    /// What the request is called in the log of the server; in errors of the server, with a status from 500 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<String>,
}

/// The parts of an error that a command shows.
#[derive(Debug, Deserialize)]
pub(crate) struct ReadError {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) field: Option<String>,
}

#[cfg(test)]
pub(crate) mod tests;
