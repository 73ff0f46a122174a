//! Who calls.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidings_notify::UserId;
use tidings_storage::Scope;

use crate::access::Caller;

/// Who calls, and what they may do.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct WhoAmI {
    pub(crate) kind: Kind,
    /// The name of the API key, if it is one of the database.
    pub(crate) name: Option<String>,
    /// The user whose token it is.
    pub(crate) user_id: Option<UserId>,
    /// What the caller may do; with a token, on the routes of that user only.
    pub(crate) scopes: Vec<Scope>,
    /// Until when the server accepts the API key or the token.
    pub(crate) expires_at: Option<Timestamp>,
}

/// What a caller is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// An API key of the configuration, or nothing, on a server with `--dev` and without keys.
    Operator,
    /// An API key of the database.
    Key,
    /// The token of a user.
    User,
}

impl From<&Caller> for WhoAmI {
    fn from(caller: &Caller) -> Self {
        let scopes = caller.scopes();
        match caller {
            Caller::Operator => Self {
                kind: Kind::Operator,
                name: None,
                user_id: None,
                scopes,
                expires_at: None,
            },
            Caller::Key(known) => Self {
                kind: Kind::Key,
                name: Some(known.key.name.clone()),
                user_id: None,
                scopes,
                expires_at: known.key.expires_at,
            },
            Caller::User(token) => Self {
                kind: Kind::User,
                name: None,
                user_id: Some(token.user.clone()),
                scopes,
                expires_at: Some(token.expires_at),
            },
        }
    }
}
