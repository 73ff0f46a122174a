//! Reads a JSON object field by field, so that every error names its field.

use serde_json::value::RawValue;
use tidings_notify::InvalidPayload;

use super::entries::Entries;
use super::error::ApiError;
use super::expected::{self, Field};
use super::extract::GIVEN_TWICE;
use crate::wire::code::Code;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The fields of a JSON object that have not been taken yet.
#[derive(Debug)]
pub(crate) struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// Reads a request body, which must be one JSON object.
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, ApiError> {
        let value: &RawValue =
            serde_json::from_slice(body).map_err(|error| malformed(body, &error))?;
        Self::of(value)
    }

    /// Reads a request body that may be empty, or `null`.
    pub(crate) fn parse_optional(body: &'a [u8]) -> Result<Self, ApiError> {
        if body.is_empty() || body.trim_ascii() == b"null" {
            return Ok(Self(Vec::new()));
        }
        Self::parse(body)
    }

    /// Reads a value within a body that must be a JSON object.
    pub(crate) fn of(value: &'a RawValue) -> Result<Self, ApiError> {
        match serde_json::from_str(value.get()) {
            Ok(Entries(fields)) => Ok(Self(fields)),
            Err(_) => Err(ApiError::new(
                Code::InvalidBody,
                if value.get().starts_with('{') {
                    // The value is valid JSON, so only a name can be wrong.
                    format!("the name of a field: {}", InvalidPayload::LoneSurrogate)
                } else {
                    "expected a JSON object".to_owned()
                },
            )),
        }
    }

    /// Takes a field that may be missing; `null` counts as missing.
    pub(crate) fn take<T: Field>(&mut self, name: &'static str) -> Result<Option<T>, ApiError> {
        match self.take_raw(name)? {
            None => Ok(None),
            Some(raw) if raw.get() == "null" => Ok(None),
            Some(raw) => parse(name, raw).map(Some),
        }
    }

    /// Takes a field of which `null` means the default.
    pub(crate) fn take_change<T: Field>(
        &mut self,
        name: &'static str,
    ) -> Result<Change<T>, ApiError> {
        match self.take_raw(name)? {
            None => Ok(Change::Keep),
            Some(raw) if raw.get() == "null" => Ok(Change::Reset),
            Some(raw) => parse(name, raw).map(Change::Set),
        }
    }

    /// Takes a field as the text that was sent, `null` included.
    pub(crate) fn take_raw(
        &mut self,
        name: &'static str,
    ) -> Result<Option<&'a RawValue>, ApiError> {
        let Some(index) = self.0.iter().position(|(key, _)| key == name) else {
            return Ok(None);
        };
        let (_, value) = self.0.swap_remove(index);
        if self.0.iter().any(|(key, _)| key == name) {
            return Err(ApiError::invalid(name, GIVEN_TWICE));
        }
        Ok(Some(value))
    }

    /// Checks that there are no other fields than those that are known by name. Their names are asked for if there are.
    pub(crate) fn allow(
        &self,
        is_known: impl Fn(&str) -> bool,
        names: impl FnOnce() -> Vec<&'static str>,
    ) -> Result<(), ApiError> {
        match self.0.iter().find(|(name, _)| !is_known(name)) {
            None => Ok(()),
            Some((name, _)) => Err(ApiError::unknown("field", name, &names())),
        }
    }
}

/// What a request does with a setting.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change<T> {
    /// The field is missing.
    Keep,
    /// The field is `null`.
    Reset,
    Set(T),
}

impl<T> Change<T> {
    /// Whether the field is missing.
    pub(crate) fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }
}

impl<T: Clone> Change<T> {
    pub(crate) fn apply<S>(&self, setting: &mut S, default: S, convert: impl FnOnce(T) -> S) {
        match self {
            Self::Keep => {}
            Self::Reset => *setting = default,
            Self::Set(value) => *setting = convert(value.clone()),
        }
    }
}

/// Splits a JSON array into its elements without parsing them.
pub(crate) fn elements<'a>(
    field: &'static str,
    value: &'a RawValue,
) -> Result<Vec<&'a RawValue>, ApiError> {
    serde_json::from_str(value.get()).map_err(|_| ApiError::invalid(field, "expected an array"))
}

fn malformed(body: &[u8], error: &serde_json::Error) -> ApiError {
    if body.starts_with(BYTE_ORDER_MARK) {
        return ApiError::new(
            Code::InvalidJson,
            "the body begins with a byte order mark (U+FEFF); expected JSON in UTF-8 without it",
        );
    }
    ApiError::new(
        Code::InvalidJson,
        if body.trim_ascii().is_empty() {
            "the body is empty; expected a JSON object".to_owned()
        } else if error.is_eof() {
            "the body ends before the JSON is complete".to_owned()
        } else {
            let (line, column) = (error.line(), error.column());
            format!("the body is not valid JSON in UTF-8, at line {line}, column {column}")
        },
    )
}

fn parse<T: Field>(name: &str, raw: &RawValue) -> Result<T, ApiError> {
    expected::parse(raw.get())
        .map_err(|mistake| ApiError::invalid(format!("{name}{}", mistake.part), mistake.message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;
    use http_body_util::BodyExt;
    use tidings_notify::UserId;

    async fn text(error: ApiError) -> String {
        let body = error.into_response().into_body().collect().await.unwrap();
        String::from_utf8(body.to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_wrong_type_is_named_without_a_position() {
        let mut fields = Fields::parse(br#"{"user_id": 5}"#).unwrap();
        let error = text(fields.take::<UserId>("user_id").unwrap_err()).await;
        assert!(error.contains(r#""field":"user_id""#), "{error}");
        assert!(error.contains("expected a string"), "{error}");
        assert!(!error.contains("line"), "{error}");
    }

    #[tokio::test]
    async fn an_unknown_field_is_refused_by_name() {
        let fields = Fields::parse(br#"{"user_id":"a","paylod":1}"#).unwrap();
        let names = || vec!["user_id", "payload"];
        let refused = fields.allow(|name| names().contains(&name), names);
        let error = text(refused.unwrap_err()).await;
        assert!(error.contains(r#""field":"paylod""#), "{error}");
        assert!(error.contains("expected user_id, payload\""), "{error}");
        let error = text(fields.allow(|_| false, Vec::new).unwrap_err()).await;
        assert!(error.contains("expected none\""), "{error}");
    }

    #[tokio::test]
    async fn a_repeated_field_is_refused_by_name() {
        let mut fields = Fields::parse(br#"{"user_id":"a","user\u005fid":"b"}"#).unwrap();
        let error = text(fields.take::<UserId>("user_id").unwrap_err()).await;
        assert!(error.contains(r#""field":"user_id""#), "{error}");
    }

    #[test]
    fn only_an_object_is_read() {
        for body in ["", "{", "[]", "5", "\"x\"", "null", "{} {}"] {
            assert!(Fields::parse(body.as_bytes()).is_err(), "{body}");
        }
    }
}
