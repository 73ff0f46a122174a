//! JSON Schemas of the types whose JSON is a text. The schemas of documents are derived from their types.

use tidings_notify::{MAX_NAME_BYTES, text_schema};

use crate::{DeliveryId, EndpointId, EventPattern};

text_schema!(EndpointId, {
    "description": "The name of an endpoint.",
    "type": "string",
    "pattern": "^ep_[0-7][0-9a-f]{15}$",
    "examples": ["ep_00ae3a1b2c3d4e5f"],
});

text_schema!(DeliveryId, {
    "description": "The name of a delivery. Later ones are larger.",
    "type": "string",
    "pattern": "^dlv_[0-7][0-9a-f]{15}$",
    "examples": ["dlv_0000000000000017"],
});

text_schema!(EventPattern, {
    "description": "Types of events: one type, `order.*` for all that begin with `order.`, or `*` for all that do \
        not begin with `tidings.`",
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_NAME_BYTES,
    "examples": ["order.*"],
});

#[cfg(test)]
mod tests {
    use tidings_notify::schema::read_examples;

    use super::*;

    #[test]
    fn the_types_read_the_examples_of_their_schemas() {
        let found = [
            read_examples::<EndpointId>(),
            read_examples::<DeliveryId>(),
            read_examples::<EventPattern>(),
        ];
        let has_some = |read: &Result<usize, _>| matches!(read, Ok(1..));
        assert!(found.iter().all(has_some), "{found:?}");
    }
}
