//! `/v1/users/{user}/presence` and `/v1/presence/query`: who has a stream open.

use std::collections::HashSet;

use axum::Json;
use axum::extract::State;
use tidings_notify::UserId;

use super::body::Body;
use super::error::ApiError;
use super::extract::{InPath, NoIdempotencyKey};
use super::fields::Fields;
use super::request::{FromFields, request};
use crate::app::SharedApp;
use crate::wire::Data;
use crate::wire::presence::UserPresence;

/// Most users in one question.
const MAX_USERS: usize = 10_000;

request! {
    /// Who is asked about.
    #[schemars(deny_unknown_fields)]
    struct PresenceQuery {
        /// The users, in the order of the response.
        #[schemars(required, length(max = MAX_USERS))]
        "user_ids" users: Option<Vec<UserId>>,
    }
}

pub(crate) async fn show(
    State(app): State<SharedApp>,
    InPath(user): InPath<UserId>,
) -> Result<Json<UserPresence>, ApiError> {
    let online = app.storage.presence.is_online(&user).await?;
    Ok(Json(UserPresence {
        user_id: user,
        online,
    }))
}

pub(crate) async fn query(
    State(app): State<SharedApp>,
    _: NoIdempotencyKey,
    Body(body): Body,
) -> Result<Json<Data<Vec<UserPresence>>>, ApiError> {
    let PresenceQuery { users } = PresenceQuery::read(Fields::parse(&body)?)?;
    let users = users.ok_or_else(|| ApiError::invalid("user_ids", "expected an array of users"))?;
    if users.len() > MAX_USERS {
        return Err(ApiError::invalid(
            "user_ids",
            format!("expected at most {MAX_USERS} users, got {}", users.len()),
        ));
    }
    let online = app.storage.presence.online_users(&users).await?;
    let online: HashSet<UserId> = online.into_iter().collect();
    let data = users.into_iter().map(|user_id| UserPresence {
        online: online.contains(&user_id),
        user_id,
    });
    Ok(Json(Data {
        data: data.collect(),
    }))
}
