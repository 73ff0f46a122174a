//! JSON Schemas of the types whose JSON is a text. The schemas of documents are derived from their types.
//!
//! **Internal to Tidings: no semver promise.**
//!
//! Lengths are in characters there and in bytes here, so that a schema accepts some texts that the type refuses.

use schemars::{JsonSchema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{EventId, EventKey, EventType, MAX_DEPTH, MAX_NAME_BYTES, Payload, UserId};

/// Gives a type whose JSON is a text its schema.
#[doc(hidden)]
#[macro_export]
macro_rules! text_schema {
    ($type:ident, $schema:tt) => {
        impl ::schemars::JsonSchema for $type {
            fn schema_name() -> ::std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_generator: &mut ::schemars::SchemaGenerator) -> ::schemars::Schema {
                ::schemars::json_schema!($schema)
            }
        }
    };
}

text_schema!(UserId, {
    "description": format!(
        "A user: 1 to {MAX_NAME_BYTES} bytes, compared byte by byte. Not allowed: `.` and `..`, a space at either \
         end, control characters, and characters that change the direction of text."
    ),
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_NAME_BYTES,
    "examples": ["anna"],
});

text_schema!(EventId, {
    "description": "The place of a notification in its user's log.",
    "type": "string",
    "pattern": "^[0-9a-f]{16}-(0|[1-9][0-9]{0,19})$",
    "examples": ["6f1c0a52d3e84b97-17"],
});

text_schema!(EventType, {
    "description": format!(
        "What happened: 1 to {MAX_NAME_BYTES} bytes without control characters, which do not begin with `tidings.`"
    ),
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_NAME_BYTES,
    "examples": ["comment.created"],
});

text_schema!(EventKey, {
    "description": format!(
        "What a notification is about: 1 to {MAX_NAME_BYTES} bytes without control characters."
    ),
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_NAME_BYTES,
    "examples": ["order-17"],
});

text_schema!(Payload, {
    "description": format!(
        "What the application says about it: any JSON, at most {MAX_DEPTH} levels deep."
    ),
    "examples": [{ "text": "Hello" }],
});

/// Returns how many examples the schema of a type has, all of which the type reads.
///
/// # Errors
///
/// Those of the first example that the type does not read.
pub fn read_examples<T: JsonSchema + DeserializeOwned>() -> Result<usize, serde_json::Error> {
    let schema = T::json_schema(&mut SchemaGenerator::default());
    let examples = schema.get("examples").and_then(Value::as_array);
    let examples = examples.into_iter().flatten();
    examples
        .map(|example| serde_json::from_value::<T>(example.clone()).map(drop))
        .collect::<Result<Vec<()>, _>>()
        .map(|read| read.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_types_read_the_examples_of_their_schemas() {
        let found = [
            read_examples::<UserId>(),
            read_examples::<EventId>(),
            read_examples::<EventType>(),
            read_examples::<EventKey>(),
            read_examples::<Payload>(),
        ];
        let has_some = |read: &Result<usize, _>| matches!(read, Ok(1..));
        assert!(found.iter().all(has_some), "{found:?}");
    }
}
