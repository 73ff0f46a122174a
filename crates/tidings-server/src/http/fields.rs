//! Reading a JSON object field by field, so that every complaint names its field.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::error::ApiError;

/// The fields of a JSON object that nobody has taken yet.
#[derive(Debug)]
pub(crate) struct Fields<'a>(BTreeMap<&'a str, &'a RawValue>);

impl<'a> Fields<'a> {
    /// Reads a request body, which must be one JSON object.
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, ApiError> {
        let value: &RawValue = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
        Self::of(value)
    }

    /// Reads a value within a body that must be a JSON object.
    pub(crate) fn of(value: &'a RawValue) -> Result<Self, ApiError> {
        // Keys with escapes cannot be borrowed; no field of ours has any.
        serde_json::from_str(value.get()).map(Self).map_err(|_| {
            ApiError::new(
                StatusCode::BAD_REQUEST,
                "invalid_body",
                "expected a JSON object whose keys have no escapes",
            )
        })
    }

    /// Takes a field that may be missing; `null` counts as missing.
    pub(crate) fn take<T: DeserializeOwned>(
        &mut self,
        name: &'static str,
    ) -> Result<Option<T>, ApiError> {
        match self.take_raw(name) {
            None => Ok(None),
            Some(raw) if raw.get() == "null" => Ok(None),
            Some(raw) => serde_json::from_str(raw.get())
                .map(Some)
                .map_err(|error| ApiError::invalid(name, reason(&error))),
        }
    }

    /// Takes a field as the text that was sent, `null` included.
    pub(crate) fn take_raw(&mut self, name: &'static str) -> Option<&'a RawValue> {
        self.0.remove(name)
    }

    /// Checks that nothing is left: a misspelt field must not be ignored.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(ApiError::invalid(name, "no such field is known here")),
        }
    }
}

/// Splits a JSON array into its elements without reading them.
pub(crate) fn elements<'a>(
    field: &'static str,
    value: &'a RawValue,
) -> Result<Vec<&'a RawValue>, ApiError> {
    serde_json::from_str(value.get()).map_err(|_| ApiError::invalid(field, "expected an array"))
}

fn malformed(error: &serde_json::Error) -> ApiError {
    ApiError::new(
        StatusCode::BAD_REQUEST,
        "invalid_json",
        format!("the body is not valid JSON: {error}"),
    )
}

/// The parser's complaint without its position, which counts from the start of the field and would
/// mislead.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((reason, _)) => reason.to_owned(),
        None => text,
    }
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
    async fn a_field_that_nobody_knows_is_refused_by_name() {
        let mut fields = Fields::parse(br#"{"user_id":"a","paylod":1}"#).unwrap();
        fields.take::<UserId>("user_id").unwrap();
        let error = text(fields.finish().unwrap_err()).await;
        assert!(error.contains(r#""field":"paylod""#), "{error}");
    }

    #[test]
    fn only_an_object_is_read() {
        for body in ["", "{", "[]", "5", "\"x\"", "null", "{} {}"] {
            assert!(Fields::parse(body.as_bytes()).is_err(), "{body}");
        }
    }
}
