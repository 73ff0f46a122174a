//! JSON Schemas of the types whose JSON is a text. The schemas of documents are derived from their types.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use tidings_notify::MAX_NAME_BYTES;

use crate::{DeliveryId, EndpointId, EventPattern};

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

schema!(EndpointId, {
    "description": "The name of an endpoint.",
    "type": "string",
    "pattern": "^ep_[0-7][0-9a-f]{15}$",
    "examples": ["ep_00ae3a1b2c3d4e5f"],
});

schema!(DeliveryId, {
    "description": "The name of a delivery. Later ones are larger.",
    "type": "string",
    "pattern": "^dlv_[0-7][0-9a-f]{15}$",
    "examples": ["dlv_0000000000000017"],
});

schema!(EventPattern, {
    "description": "Types of events: one type, `order.*` for all that begin with `order.`, or `*` for all that do \
        not begin with `tidings.`",
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_NAME_BYTES,
    "examples": ["order.*"],
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
            readable::<EndpointId>(),
            readable::<DeliveryId>(),
            readable::<EventPattern>(),
        ];
        assert!(!found.contains(&0), "{found:?}");
    }
}
