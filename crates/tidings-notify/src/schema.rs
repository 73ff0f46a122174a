//! JSON Schemas of the types whose JSON is a text. The schemas of documents are derived from their types.
//!
//! Lengths are in characters there and in bytes here, so that a schema accepts some texts that the type refuses.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{EventId, EventKey, EventType, MAX_DEPTH, MAX_NAME_BYTES, Payload, UserId};

macro_rules! schema {
    ($type:ident, $schema:tt) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

schema!(UserId, {
    "description": format!(
        "A user: 1 to {MAX_NAME_BYTES} bytes, compared byte by byte. Not allowed: `.` and `..`, a space at either \
         end, control characters, and characters that change the direction of text."
    ),
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_NAME_BYTES,
    "examples": ["anna"],
});

schema!(EventId, {
    "description": "The place of a notification in its user's log.",
    "type": "string",
    "pattern": "^[0-9a-f]{16}-(0|[1-9][0-9]{0,19})$",
    "examples": ["6f1c0a52d3e84b97-17"],
});

schema!(EventType, {
    "description": format!(
        "What happened: 1 to {MAX_NAME_BYTES} bytes without control characters, which do not begin with `tidings.`"
    ),
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_NAME_BYTES,
    "examples": ["comment.created"],
});

schema!(EventKey, {
    "description": format!(
        "What a notification is about: 1 to {MAX_NAME_BYTES} bytes without control characters."
    ),
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_NAME_BYTES,
    "examples": ["order-17"],
});

schema!(Payload, {
    "description": format!(
        "What the application says about it: any JSON, at most {MAX_DEPTH} levels deep."
    ),
    "examples": [{ "text": "Hello" }],
});

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;

    /// The number of examples that the type can read.
    fn readable<T: JsonSchema + DeserializeOwned>() -> usize {
        let schema = T::json_schema(&mut SchemaGenerator::default());
        let examples = schema.get("examples").unwrap().as_array().unwrap();
        for example in examples {
            serde_json::from_value::<T>(example.clone()).unwrap();
        }
        examples.len()
    }

    #[test]
    fn the_types_read_the_examples_of_their_schemas() {
        let found = [
            readable::<UserId>(),
            readable::<EventId>(),
            readable::<EventType>(),
            readable::<EventKey>(),
            readable::<Payload>(),
        ];
        assert!(!found.contains(&0), "{found:?}");
    }
}
