use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidings::retry::{MAX_DELAY, Schedule};

use crate::{Error, EventPattern, Format, Owner, pattern};

/// Most headers of one endpoint, and most bytes of their names and values.
const MAX_HEADERS: usize = 32;
const MAX_HEADER_BYTES: usize = 8 << 10;

/// Longest description, in bytes.
const MAX_DESCRIPTION_BYTES: usize = 1000;

/// Most waits of the schedule of an endpoint, the one before the first attempt included.
pub const MAX_WAITS: usize = 100;

/// Longest timeout of an endpoint that belongs to a user: a stranger's endpoint that does not reply must not hold an
/// attempt for longer.
pub const MAX_USER_TIMEOUT: Duration = Duration::from_secs(60);

/// Highest rate limit of an endpoint, in requests per second.
pub const MAX_RATE_LIMIT: u32 = 1_000_000;

/// Longest URL, in bytes.
const MAX_URL_BYTES: usize = 2048;

/// What the owner of an endpoint chooses.
///
/// As JSON: `{"url","description","event_types","format","headers","signatures","rate_limit",
/// "timeout_ms","schedule"}`, in which everything but `url` may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct EndpointSettings {
    /// Where events are posted.
    pub url: String,
    /// What it is for, in the owner's words.
    #[serde(default)]
    pub description: String,
    /// Which types of events; empty means every type.
    #[serde(default)]
    pub event_types: Vec<EventPattern>,
    /// What a body looks like.
    #[serde(default)]
    pub format: Format,
    /// Headers that every request carries besides our own.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// How requests are signed. Never empty.
    #[serde(default = "standard_alone")]
    pub signatures: Vec<SignatureScheme>,
    /// Most requests per second, at most [`MAX_RATE_LIMIT`]; `None` means no limit.
    #[serde(default)]
    pub rate_limit: Option<NonZeroU32>,
    /// The deadline of one attempt: at most an hour, and for an endpoint of a user [`MAX_USER_TIMEOUT`]; `None` means
    /// that of the [options](crate::Options).
    #[serde(default, rename = "timeout_ms", with = "milliseconds")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<u64>"))]
    pub timeout: Option<Duration>,
    /// The wait before each attempt, the first one included, in whole seconds; `None` means the
    /// schedule of the [options](crate::Options).
    #[serde(default, with = "seconds")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<Vec<u64>>"))]
    pub schedule: Option<Vec<Duration>>,
}

/// How a request is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub enum SignatureScheme {
    /// By Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature`.
    Standard,
    /// By a timestamp header and `sha256=<hex>` over `timestamp.body`.
    Timestamped,
}

fn standard_alone() -> Vec<SignatureScheme> {
    vec![SignatureScheme::Standard]
}

impl EndpointSettings {
    /// Every event, as an envelope, signed by Standard Webhooks.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            description: String::new(),
            event_types: Vec::new(),
            format: Format::default(),
            headers: BTreeMap::new(),
            signatures: standard_alone(),
            rate_limit: None,
            timeout: None,
            schedule: None,
        }
    }

    /// Checks what an endpoint must not get any more, although one that is stored may have it.
    pub(crate) fn check_new(&self) -> Result<(), Error> {
        let is_bare = |it: &EventPattern| it.as_str() == pattern::RESERVED_PREFIX;
        if let Some(index) = self.event_types.iter().position(is_bare) {
            let expected = "`tidings.*` for all events about endpoints, got `tidings.`";
            return Err(Error::invalid(format!("event_types[{index}]"), expected));
        }
        let mut names = HashSet::new();
        for name in self.headers.keys() {
            if !names.insert(name.to_ascii_lowercase()) {
                let expected = "each header once, in upper or lower case";
                return Err(Error::invalid(format!("headers.{name}"), expected));
            }
        }
        let waits = self.schedule.as_ref().map_or(0, Vec::len);
        if waits > MAX_WAITS {
            let expected = format!("at most {MAX_WAITS} waits, got {waits}");
            return Err(Error::invalid("schedule", expected));
        }
        Ok(())
    }

    /// Checks that the owner may get events of these types: those about endpoints go to the operator alone.
    pub(crate) fn check_owner(&self, owner: &Owner) -> Result<(), Error> {
        let is_reserved = |it: &EventPattern| it.as_str().starts_with(pattern::RESERVED_PREFIX);
        match (owner, self.event_types.iter().position(is_reserved)) {
            (Owner::User(_), Some(index)) => {
                let expected = format!(
                    "types of the application: events about endpoints go to endpoints of the operator only, got \
                     `{}`",
                    self.event_types[index]
                );
                Err(Error::invalid(format!("event_types[{index}]"), expected))
            }
            _ => Ok(()),
        }
    }

    /// Checks that the owner may have this timeout.
    pub(crate) fn check_timeout(&self, owner: &Owner) -> Result<(), Error> {
        match (owner, self.timeout) {
            (Owner::User(_), Some(timeout)) if timeout > MAX_USER_TIMEOUT => {
                let expected = format!(
                    "at most {} milliseconds: only endpoints of the operator may have more, got {}",
                    MAX_USER_TIMEOUT.as_millis(),
                    timeout.as_millis()
                );
                Err(Error::invalid("timeout_ms", expected))
            }
            _ => Ok(()),
        }
    }

    /// The timeout that counts, of an endpoint that may have been stored with more than its owner may have.
    pub(crate) fn timeout_of(&self, owner: &Owner) -> Option<Duration> {
        match owner {
            Owner::User(_) => self.timeout.map(|timeout| timeout.min(MAX_USER_TIMEOUT)),
            Owner::Operator => self.timeout,
        }
    }

    /// Checks what does not depend on the options, in which the URL is written as it is called.
    pub(crate) fn check(&self) -> Result<(), Error> {
        pattern::check(&self.event_types)?;
        if self.url.len() > MAX_URL_BYTES {
            return Err(Error::invalid("url", "at most 2048 bytes"));
        }
        if self.description.len() > MAX_DESCRIPTION_BYTES {
            return Err(Error::invalid("description", "at most 1000 bytes"));
        }
        let bytes: usize = self.headers.iter().map(|(n, v)| n.len() + v.len()).sum();
        if self.headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
            return Err(Error::invalid("headers", "at most 32 headers of 8 KiB"));
        }
        let signatures = &self.signatures;
        if signatures.is_empty() {
            let expected = "`standard`, `timestamped`, or both";
            return Err(Error::invalid("signatures", expected));
        }
        if let Some(double) = first_double(signatures) {
            let expected = "each scheme once";
            return Err(Error::invalid(format!("signatures[{double}]"), expected));
        }
        if let Some(rate) = self.rate_limit.filter(|rate| rate.get() > MAX_RATE_LIMIT) {
            let expected = format!("1 to {MAX_RATE_LIMIT} requests per second, got {rate}");
            return Err(Error::invalid("rate_limit", expected));
        }
        if let Some(schedule) = &self.schedule {
            check_schedule(schedule)?;
        }
        Ok(())
    }
}

/// Refuses a schedule without an attempt, or with a wait that no clock can hold.
pub(crate) fn check_schedule(waits: &[Duration]) -> Result<(), Error> {
    let Some((_, rest)) = waits.split_first() else {
        return Err(Error::invalid("schedule", "at least one attempt"));
    };
    if let Some(index) = waits.iter().position(|wait| *wait > MAX_DELAY) {
        let expected = format!("at most {} seconds (30 days)", MAX_DELAY.as_secs());
        return Err(Error::invalid(format!("schedule[{index}]"), expected));
    }
    let _rest = Schedule::new(rest.iter().copied())?;
    Ok(())
}

/// Where the first value stands that is in the list before.
pub(crate) fn first_double<T: PartialEq>(values: &[T]) -> Option<usize> {
    (1..values.len()).find(|index| values[..*index].contains(&values[*index]))
}

mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(
        timeout: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let whole = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        timeout.map(whole).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
    }
}

mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(
        schedule: &Option<Vec<Duration>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let whole = |waits: &Vec<Duration>| waits.iter().map(Duration::as_secs).collect::<Vec<_>>();
        schedule.as_ref().map(whole).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<Duration>>, D::Error> {
        let schedule = Option::<Vec<u64>>::deserialize(deserializer)?;
        Ok(schedule.map(|waits| waits.into_iter().map(Duration::from_secs).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(change: impl FnOnce(&mut EndpointSettings)) -> String {
        let mut settings = EndpointSettings::new("https://example.com");
        change(&mut settings);
        let error = settings.check().err();
        let field = error.as_ref().and_then(|error| error.field());
        field.unwrap_or_default().to_owned()
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        assert_eq!(field(|_| ()), "");
        assert_eq!(field(|it| it.signatures.clear()), "signatures");
        assert_eq!(field(|it| it.schedule = Some(vec![])), "schedule");
        let endless = vec![Duration::from_secs(u64::MAX)];
        assert_eq!(field(|it| it.schedule = Some(endless)), "schedule[0]");
        let twice = vec![SignatureScheme::Standard; 2];
        assert_eq!(field(|it| it.signatures = twice), "signatures[1]");
        let long = "x".repeat(3000);
        assert_eq!(field(|it| it.description.clone_from(&long)), "description");
        assert_eq!(field(|it| it.url.clone_from(&long)), "url");
        let headers = (0..33).map(|n| (n.to_string(), String::new())).collect();
        assert_eq!(field(|it| it.headers = headers), "headers");
    }

    #[test]
    fn what_matches_nothing_or_is_given_twice_is_refused_of_new_settings() {
        let mut settings = EndpointSettings::new("https://example.com");
        assert!(settings.check_new().is_ok());
        settings.event_types = vec![EventPattern::new("tidings.").unwrap()];
        let error = settings.check_new().unwrap_err();
        assert_eq!(error.field(), Some("event_types[0]"));
        settings.event_types.clear();
        settings.headers = ["X-Team", "x-team"]
            .map(|name| (name.into(), "a".into()))
            .into();
        let error = settings.check_new().unwrap_err();
        assert_eq!(error.field(), Some("headers.x-team"));
        assert!(error.to_string().contains("each header once"), "{error}");
    }

    #[test]
    fn a_new_schedule_has_a_hundred_waits_at_most() {
        let mut settings = EndpointSettings::new("https://example.com");
        settings.schedule = Some(vec![Duration::from_secs(1); 100]);
        assert!(settings.check_new().is_ok() && settings.check().is_ok());
        settings.schedule = Some(vec![Duration::from_secs(1); 101]);
        let error = settings.check_new().unwrap_err();
        assert_eq!(error.field(), Some("schedule"));
    }

    #[test]
    fn regression_a_rate_limit_beyond_the_highest_is_refused_and_not_lowered() {
        let mut settings = EndpointSettings::new("https://example.com");
        settings.rate_limit = NonZeroU32::new(MAX_RATE_LIMIT);
        settings.check().unwrap();
        settings.rate_limit = NonZeroU32::new(MAX_RATE_LIMIT + 1);
        let error = settings.check().unwrap_err();
        assert_eq!(error.field(), Some("rate_limit"));
        assert!(error.to_string().contains("1000001"), "{error}");
    }

    #[test]
    fn everything_but_the_url_may_be_left_out() {
        let read: EndpointSettings =
            serde_json::from_str(r#"{"url":"https://a.example"}"#).unwrap();
        assert_eq!(read, EndpointSettings::new("https://a.example"));
    }

    #[test]
    fn settings_are_written_in_the_documented_shape() {
        let mut settings = EndpointSettings::new("https://a.example/");
        settings.event_types = vec![EventPattern::new("order.*").unwrap()];
        settings.timeout = Some(Duration::from_millis(1500));
        settings.schedule = Some(vec![Duration::ZERO, Duration::from_secs(5)]);
        settings.rate_limit = NonZeroU32::new(10);
        let json = serde_json::to_string(&settings).unwrap();
        assert_eq!(
            json,
            r#"{"url":"https://a.example/","description":"","event_types":["order.*"],"format":"envelope","headers":{},"signatures":["standard"],"rate_limit":10,"timeout_ms":1500,"schedule":[0,5]}"#
        );
        assert_eq!(
            serde_json::from_str::<EndpointSettings>(&json).unwrap(),
            settings
        );
    }
}
