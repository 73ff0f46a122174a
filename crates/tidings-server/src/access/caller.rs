//! Who calls, and what they may do.

use std::borrow::Cow;
use std::sync::Arc;

use tidings_notify::UserId;
use tidings_storage::Scope;

use super::stored_keys::KnownKey;
use super::token::Token;
use super::validity::Validity;

/// Who calls.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// A server with an API key of the configuration, or anything on this machine with `--dev`.
    Operator,
    /// A server with an API key of the database.
    Key(Arc<KnownKey>),
    /// A user with a token.
    User(Token),
}

/// Why a caller may not use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Forbidden {
    #[error("the API key does not have the scope `{0}`")]
    NoScope(Scope),
    #[error("a token is only for /v1/whoami and the routes below /v1/users/{{sub}}")]
    NotForUsers,
    #[error("the token is of another user than the one in the path")]
    AnotherUser,
    #[error("the token has no claim `\"endpoints\": true`")]
    NoEndpoints,
}

impl Caller {
    /// Whether the caller may use a route with this scope; `user` is the user in its path, if the route
    /// belongs to that user.
    pub(crate) fn check(&self, scope: Scope, user: Option<&UserId>) -> Result<(), Forbidden> {
        let token = match self {
            Self::Operator => return Ok(()),
            Self::Key(known) if known.key.scopes.contains(scope) => return Ok(()),
            Self::Key(_) => return Err(Forbidden::NoScope(scope)),
            Self::User(token) => token,
        };
        let user = user.ok_or(Forbidden::NotForUsers)?;
        if *user != token.user {
            return Err(Forbidden::AnotherUser);
        }
        if scope == Scope::Endpoints && !token.has_endpoints {
            return Err(Forbidden::NoEndpoints);
        }
        Ok(())
    }

    /// What the caller may do; with a token, on the routes of its user.
    pub(crate) fn scopes(&self) -> Vec<Scope> {
        match self {
            Self::Operator => Scope::ALL.to_vec(),
            Self::Key(known) => known.key.scopes.to_vec(),
            Self::User(token) if token.has_endpoints => vec![Scope::Read, Scope::Endpoints],
            Self::User(_) => vec![Scope::Read],
        }
    }

    /// How long a stream of the caller may be open.
    pub(crate) fn validity(&self) -> Validity {
        match self {
            Self::Operator => Validity::new(None, None),
            Self::Key(known) => Validity::new(known.key.expires_at, Some(known.revoked.clone())),
            Self::User(token) => Validity::new(Some(token.expires_at), None),
        }
    }

    /// What the log calls the caller.
    pub(crate) fn name(&self) -> Cow<'static, str> {
        match self {
            Self::Operator => "operator".into(),
            Self::Key(known) => format!("key {}", known.key.name).into(),
            Self::User(_) => "user".into(),
        }
    }

    /// What the idempotency keys of a caller begin with, so that they differ from those of others. No key has a space in it.
    pub(crate) fn namespace(&self) -> String {
        match self {
            Self::Operator => String::new(),
            Self::Key(known) => format!("key {} ", known.key.id),
            Self::User(token) => format!("user {} ", token.user),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    #[test]
    fn a_user_may_use_their_own_routes_and_endpoints_with_a_claim() {
        let token = |has_endpoints| {
            Caller::User(Token {
                user: user("anna"),
                expires_at: Timestamp::MAX,
                has_endpoints,
            })
        };
        let (anna, ben) = (user("anna"), user("ben"));
        let plain = token(false);
        assert_eq!(plain.check(Scope::Read, Some(&anna)), Ok(()));
        let another = plain.check(Scope::Read, Some(&ben));
        assert_eq!(another, Err(Forbidden::AnotherUser));
        let other = plain.check(Scope::Publish, None);
        assert_eq!(other, Err(Forbidden::NotForUsers));
        let endpoints = plain.check(Scope::Endpoints, Some(&anna));
        assert_eq!(endpoints, Err(Forbidden::NoEndpoints));
        assert_eq!(token(true).check(Scope::Endpoints, Some(&anna)), Ok(()));
        let another = token(true).check(Scope::Endpoints, Some(&ben));
        assert_eq!(another, Err(Forbidden::AnotherUser));
        assert_eq!(Caller::Operator.check(Scope::Publish, None), Ok(()));
    }
}
