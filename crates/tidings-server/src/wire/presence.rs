//! Who is online.

use schemars::JsonSchema;
use serde::Serialize;
use tidings_notify::UserId;

/// Whether a user has a stream open.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct UserPresence {
    pub(crate) user_id: UserId,
    pub(crate) online: bool,
}
