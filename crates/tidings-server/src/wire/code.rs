//! The codes of errors, each with its status.

use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

macro_rules! codes {
    ($($code:ident = $status:ident: $meaning:literal;)*) => {
        /// What went wrong, for programs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        #[schemars(rename = "ErrorCode")]
        pub(crate) enum Code {
            $(#[doc = $meaning] $code,)*
        }

        impl Code {
            /// Every code.
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$code),*];

            /// The status of a response with this code.
            pub(crate) fn status(self) -> StatusCode {
                match self {
                    $(Self::$code => StatusCode::$status,)*
                }
            }

            /// What it means, for people.
            pub(crate) fn meaning(self) -> &'static str {
                match self {
                    $(Self::$code => $meaning,)*
                }
            }
        }
    };
}

codes! {
    InvalidJson = BAD_REQUEST: "the body is not JSON";
    InvalidBody = BAD_REQUEST: "the body is not a JSON object";
    InvalidField = BAD_REQUEST: "a field, a parameter, a header or a part of the path is not valid";
    IncompleteBody = BAD_REQUEST: "the connection broke off before the end of the body";
    InvalidChunks = BAD_REQUEST: "the chunks of the body (Transfer-Encoding: chunked) cannot be read";
    InvalidFrame = BAD_REQUEST: "a WebSocket frame of the client cannot be read";
    Unauthorized = UNAUTHORIZED: "it is not known who calls";
    Forbidden = FORBIDDEN: "the caller may not use this route";
    OriginNotAllowed = FORBIDDEN: "pages of this origin may not call";
    HostNotAllowed = FORBIDDEN: "a server with --dev does not reply to this host name";
    NotFound = NOT_FOUND: "what the path names does not exist";
    UnknownRoute = NOT_FOUND: "there is no such route";
    MethodNotAllowed = METHOD_NOT_ALLOWED: "the route does not support this method; see the Allow header";
    BodyTimeout = REQUEST_TIMEOUT: "the body did not arrive in time";
    TooManyEndpoints = CONFLICT: "the owner has as many endpoints as allowed";
    TooManyKeys = CONFLICT: "there are as many API keys as allowed";
    TooManyBins = CONFLICT: "there are as many request bins as allowed";
    RequestRunning = CONFLICT: "a request with this idempotency key is being carried out";
    ResponseUnreadable = CONFLICT: "the request was made before, and its response cannot be decrypted";
    EndpointDisabled = CONFLICT: "the endpoint is disabled or removed";
    BodyTooLarge = PAYLOAD_TOO_LARGE: "the body is larger than the server allows";
    UnsupportedEncoding = UNSUPPORTED_MEDIA_TYPE: "the body has a Content-Encoding";
    IdempotencyConflict = UNPROCESSABLE_ENTITY: "the idempotency key was used for another request";
    UpgradeRequired = UPGRADE_REQUIRED: "the route is for WebSockets";
    TooManyRequests = TOO_MANY_REQUESTS: "the caller has sent too many requests";
    TooManyNotifications = TOO_MANY_REQUESTS: "a user gets too many notifications";
    TooManyConnections = TOO_MANY_REQUESTS: "the address has too many connections";
    Internal = INTERNAL_SERVER_ERROR: "the server failed; the cause is in its log";
    TokenKeysUnavailable = SERVICE_UNAVAILABLE: "the key set for tokens was never loaded";
    Busy = SERVICE_UNAVAILABLE: "too many large bodies arrive at the same time, or too many large responses were not read yet";
    Stopping = SERVICE_UNAVAILABLE: "the server is stopping";
    StorageFull = SERVICE_UNAVAILABLE: "the disk of the server is full; nothing was stored";
    StorageUnavailable = SERVICE_UNAVAILABLE: "the database is not available; nothing was stored";
    Locked = SERVICE_UNAVAILABLE: "another transaction holds the log of a user, or the idempotency key";
    PresenceUnavailable = SERVICE_UNAVAILABLE: "the Redis server, which knows who is online, is not available";
    OutcomeUnknown = SERVICE_UNAVAILABLE: "stored or not: repeat it with the same idempotency key";
    NotReady = SERVICE_UNAVAILABLE: "the database cannot be written";
    Contended = SERVICE_UNAVAILABLE: "other requests are changing this endpoint at the same time";
    TooSlow = SERVICE_UNAVAILABLE: "the list took longer than the server allows";
}
