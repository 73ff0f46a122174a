//! What requests about endpoints have.

use std::convert::identity;
use std::num::NonZeroU32;
use std::time::Duration;

use tidings::retry::MAX_DELAY;
use tidings_webhooks::{
    EndpointSettings, EventPattern, Format, MAX_OVERLAP, MAX_PATTERNS, MAX_RATE_LIMIT,
    MAX_REPLAY_RATE, MAX_WAITS, SignatureScheme,
};

use crate::http::expected::{Milliseconds, Seconds, Texts, Time, Whole};
use crate::http::fields::Change;
use crate::http::request::request;

type Overlap = Milliseconds<0, { MAX_OVERLAP.as_secs() * 1000 }>;
type PerSecond = Whole<1, MAX_REPLAY_RATE>;
type RateLimit = Whole<1, MAX_RATE_LIMIT>;
type Timeout = Milliseconds<1, { tidings::MAX_TIMEOUT.as_secs() * 1000 }>;
type Wait = Seconds<0, { MAX_DELAY.as_secs() }>;

request! {
    /// An endpoint to create.
    #[schemars(deny_unknown_fields)]
    struct NewEndpointFields {
        /// Where events are posted, at most 2,048 bytes.
        #[schemars(required, length(min = 1), extend("format" = "uri"))]
        "url" url: Option<String>,
        /// Whether anything is sent; `true` if it is missing.
        "enabled" enabled: Option<bool>,
        /// What signs the requests: `whsec_` and 24 to 64 bytes in base64. Made by the server if it is missing.
        "secret" secret: Option<String>,
        ..changes: Changes,
    }
}

request! {
    /// What to change of an endpoint; `null` resets a field to its default.
    #[schemars(deny_unknown_fields)]
    struct ChangedEndpointFields {
        /// Where events are posted, at most 2,048 bytes; cannot be `null`.
        #[schemars(with = "Option<String>", extend("type" = "string", "format" = "uri"))]
        "url" url: Change<String>,
        /// Whether anything is sent. `true` enables a disabled endpoint.
        #[schemars(with = "Option<bool>")]
        "enabled" enabled: Change<bool>,
        ..changes: Changes,
    }
}

request! {
    /// A new secret.
    #[schemars(deny_unknown_fields)]
    struct Rotation {
        /// `whsec_` and 24 to 64 bytes in base64. Made by the server if it is missing.
        "secret" secret: Option<String>,
        /// How long the old secret signs too, in milliseconds: at most 30 days, a day if it is missing.
        "overlap_ms" overlap: Option<Overlap>,
    }
}

request! {
    /// What to send again.
    #[schemars(deny_unknown_fields)]
    struct NewReplay {
        /// The time of the first event; in the past.
        #[schemars(required)]
        "since" since: Option<Time>,
        /// The time after the last event; all of them if it is missing.
        "until" until: Option<Time>,
        /// Most requests per second; 10 if it is missing.
        "per_second" per_second: Option<PerSecond>,
    }
}

request! {
    /// The settings of an endpoint.
    #[derive(PartialEq, Eq)]
    struct Changes {
        /// A note for its owner, at most 1,000 bytes.
        #[schemars(with = "Option<String>", length(max = 1000))]
        "description" description: Change<String>,
        /// Which types of events; empty means every type.
        #[schemars(with = "Option<Vec<EventPattern>>", length(max = MAX_PATTERNS), extend("uniqueItems" = true))]
        "event_types" event_types: Change<Vec<EventPattern>>,
        /// What a body looks like.
        #[schemars(with = "Option<Format>")]
        "format" format: Change<Format>,
        /// Additional headers of each request: at most 32, of 8 KiB together.
        #[schemars(with = "Option<Texts>")]
        "headers" headers: Change<Texts>,
        /// How requests are signed.
        #[schemars(with = "Option<Vec<SignatureScheme>>", length(min = 1, max = 2), extend("uniqueItems" = true))]
        "signatures" signatures: Change<Vec<SignatureScheme>>,
        /// Most requests per second; `null` means no limit.
        #[schemars(with = "Option<RateLimit>")]
        "rate_limit" rate_limit: Change<RateLimit>,
        /// Longest time for one request in milliseconds: at most 60,000 for an endpoint of a user, and an hour for one
        /// of the operator; `null` means that of the server.
        #[schemars(with = "Option<Timeout>")]
        "timeout_ms" timeout_ms: Change<Timeout>,
        /// The wait before each attempt in seconds: at most 100 waits of at most 30 days; `null` means the schedule
        /// of the server.
        #[schemars(with = "Option<Vec<Wait>>", length(min = 1, max = MAX_WAITS))]
        "schedule" schedule: Change<Vec<Wait>>,
    }
}

impl Changes {
    /// Whether every setting stays as it is.
    pub(super) fn is_empty(&self) -> bool {
        let Self {
            description,
            event_types,
            format,
            headers,
            signatures,
            rate_limit,
            timeout_ms,
            schedule,
        } = self;
        description.is_keep()
            && event_types.is_keep()
            && format.is_keep()
            && headers.is_keep()
            && signatures.is_keep()
            && rate_limit.is_keep()
            && timeout_ms.is_keep()
            && schedule.is_keep()
    }

    /// Changes the settings.
    pub(super) fn apply(&self, settings: &mut EndpointSettings) {
        let default = EndpointSettings::new(String::new());
        let limit = |limit: RateLimit| NonZeroU32::new(limit.get());
        let timeout = |timeout: Timeout| Some(Duration::from_millis(timeout.get()));
        let wait = |wait: Wait| Duration::from_secs(wait.get());
        let waits = |waits: Vec<Wait>| Some(waits.into_iter().map(wait).collect());
        self.description
            .apply(&mut settings.description, default.description, identity);
        self.event_types
            .apply(&mut settings.event_types, default.event_types, identity);
        self.format
            .apply(&mut settings.format, default.format, identity);
        self.headers
            .apply(&mut settings.headers, default.headers, |Texts(headers)| {
                headers
            });
        self.signatures
            .apply(&mut settings.signatures, default.signatures, identity);
        self.rate_limit.apply(&mut settings.rate_limit, None, limit);
        self.timeout_ms.apply(&mut settings.timeout, None, timeout);
        self.schedule.apply(&mut settings.schedule, None, waits);
    }
}
