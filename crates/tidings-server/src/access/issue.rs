//! Makes a token for trying out, as an application makes it for its users.

use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;
use tidings_notify::UserId;

use crate::settings::jwt::JwtSecret;

/// The claims of a token.
#[derive(Debug, Serialize)]
pub(crate) struct NewToken<'a> {
    sub: &'a UserId,
    iat: i64,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoints: Option<bool>,
}

impl<'a> NewToken<'a> {
    /// A token of this user that is valid from now on for so long.
    pub(crate) fn new(user: &'a UserId, valid: Duration) -> Self {
        let now = Timestamp::now().as_second();
        Self {
            sub: user,
            iat: now,
            exp: now.saturating_add_unsigned(valid.as_secs()),
            iss: None,
            aud: None,
            endpoints: None,
        }
    }

    pub(crate) fn with_issuer(self, iss: Option<&'a str>) -> Self {
        Self { iss, ..self }
    }

    pub(crate) fn with_audience(self, aud: Option<&'a str>) -> Self {
        Self { aud, ..self }
    }

    /// Lets the user manage their endpoints.
    pub(crate) fn with_endpoints(self) -> Self {
        let endpoints = Some(true);
        Self { endpoints, ..self }
    }

    /// Signs the token by HS256.
    pub(crate) fn sign(&self, secret: &JwtSecret) -> jsonwebtoken::errors::Result<String> {
        let key = EncodingKey::from_secret(secret.expose());
        jsonwebtoken::encode(&Header::default(), self, &key)
    }
}
