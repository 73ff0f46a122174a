//! What a route says about itself besides its path. The OpenAPI document is made from it, and a parameter of the
//! query that it does not name is refused.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use crate::wire::code::Code;

/// Makes the schema of a type.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What a route does, takes and returns.
#[derive(Debug)]
pub(super) struct Operation {
    /// The name, which is unique together with the owner in the path.
    pub(super) name: &'static str,
    pub(super) group: Group,
    /// What it does, in a line.
    pub(super) summary: &'static str,
    /// What else there is to know.
    pub(super) description: Option<&'static str>,
    /// What the `{id}` of the path is.
    pub(super) id: Option<SchemaOf>,
    pub(super) query: Vec<Parameter>,
    pub(super) headers: Vec<Parameter>,
    pub(super) body: Option<RequestBody>,
    pub(super) replies: Vec<Reply>,
    /// What can go wrong besides what can go wrong on every route of this kind.
    pub(super) codes: BTreeSet<Code>,
    /// Whether an `Idempotency-Key` makes a request repeatable.
    pub(super) is_repeatable: bool,
}

/// A part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    Notifications,
    Streams,
    Inbox,
    Webhooks,
    Presence,
    Keys,
    Bins,
    Unversioned,
    Operation,
}

impl Group {
    pub(super) const ALL: [Self; 9] = [
        Self::Notifications,
        Self::Streams,
        Self::Inbox,
        Self::Webhooks,
        Self::Presence,
        Self::Keys,
        Self::Bins,
        Self::Unversioned,
        Self::Operation,
    ];

    /// The name, and what the group is.
    pub(super) fn described(self) -> (&'static str, &'static str) {
        match self {
            Self::Notifications => ("notifications", "Accepts notifications for users."),
            Self::Streams => (
                "streams",
                "Delivers notifications live; see /asyncapi.json.",
            ),
            Self::Inbox => ("inbox", "What a user has not read, seen or archived."),
            Self::Webhooks => ("webhooks", "Endpoints, and what was sent to them."),
            Self::Presence => ("presence", "Who has a stream open."),
            Self::Keys => ("keys", "API keys that are kept in the database."),
            Self::Bins => ("bins", "Addresses that show the webhooks that they get."),
            Self::Unversioned => (
                "unversioned",
                "Four routes with simpler shapes, for clients of an earlier service.",
            ),
            Self::Operation => ("operation", "Health, and pages for people."),
        }
    }
}

/// A parameter of the query, or a header.
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) schema: Value,
}

/// What a request has besides its path.
#[derive(Debug)]
pub(super) struct RequestBody {
    pub(super) schema: SchemaOf,
    pub(super) example: Value,
    pub(super) is_required: bool,
}

/// A response that is not an error.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) description: &'static str,
    pub(super) content: Option<Content>,
}

/// The body of a response.
#[derive(Debug)]
pub(super) enum Content {
    Json { schema: SchemaOf, example: Value },
    Text { content_type: &'static str },
}

impl Operation {
    pub(super) fn new(group: Group, name: &'static str, summary: &'static str) -> Self {
        Self {
            name,
            group,
            summary,
            description: None,
            id: None,
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
            replies: Vec::new(),
            codes: BTreeSet::new(),
            is_repeatable: false,
        }
    }

    pub(super) fn description(mut self, description: &'static str) -> Self {
        self.description = Some(description);
        self
    }

    /// The `{id}` of the path names something, which may not exist.
    pub(super) fn of<T: JsonSchema>(self) -> Self {
        self.of_a(SchemaGenerator::subschema_for::<T>)
    }

    /// The same for an id without a type of its own.
    pub(super) fn of_a(mut self, id: SchemaOf) -> Self {
        self.id = Some(id);
        self.fails_with(&[Code::NotFound])
    }

    pub(super) fn query(
        mut self,
        name: &'static str,
        schema: Value,
        description: &'static str,
    ) -> Self {
        self.query.push(Parameter {
            name,
            description,
            schema,
        });
        self
    }

    pub(super) fn header(
        mut self,
        name: &'static str,
        schema: Value,
        description: &'static str,
    ) -> Self {
        self.headers.push(Parameter {
            name,
            description,
            schema,
        });
        self
    }

    pub(super) fn takes<T: JsonSchema>(mut self, example: Value) -> Self {
        self.body = Some(RequestBody {
            schema: SchemaGenerator::subschema_for::<T>,
            example,
            is_required: true,
        });
        self
    }

    /// The body may be missing, empty or `null`.
    pub(super) fn may_take<T: JsonSchema>(mut self, example: Value) -> Self {
        self.body = Some(RequestBody {
            schema: SchemaGenerator::subschema_for::<Option<T>>,
            example,
            is_required: false,
        });
        self
    }

    pub(super) fn replies<T: JsonSchema>(
        self,
        status: StatusCode,
        description: &'static str,
        example: Value,
    ) -> Self {
        let schema: SchemaOf = SchemaGenerator::subschema_for::<T>;
        self.reply(status, description, Some(Content::Json { schema, example }))
    }

    pub(super) fn replies_text(
        self,
        content_type: &'static str,
        description: &'static str,
    ) -> Self {
        let content = Content::Text { content_type };
        self.reply(StatusCode::OK, description, Some(content))
    }

    pub(super) fn replies_nothing(self, status: StatusCode, description: &'static str) -> Self {
        self.reply(status, description, None)
    }

    fn reply(
        mut self,
        status: StatusCode,
        description: &'static str,
        content: Option<Content>,
    ) -> Self {
        self.replies.push(Reply {
            status,
            description,
            content,
        });
        self
    }

    pub(super) fn fails_with(mut self, codes: &[Code]) -> Self {
        self.codes.extend(codes);
        self
    }

    pub(super) fn repeatable(mut self) -> Self {
        self.is_repeatable = true;
        self.fails_with(&[Code::IdempotencyConflict])
    }

    /// The response is kept for a repeat.
    pub(super) fn repeats_its_response(self) -> Self {
        self.repeatable().fails_with(&[Code::ResponseUnreadable])
    }

    /// The same for a request that is not stored in one transaction with its key.
    pub(super) fn carried_out_once(self) -> Self {
        self.repeats_its_response()
            .fails_with(&[Code::RequestRunning])
    }
}
