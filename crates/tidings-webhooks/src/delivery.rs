use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};

use crate::{DeliveryId, EndpointId, Owner};

/// How far a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum DeliveryState {
    /// There will be another attempt.
    Pending,
    /// The endpoint has accepted it.
    Delivered,
    /// The attempts are used up, or the endpoint is gone.
    Failed,
    /// Its endpoint was removed or disabled first.
    Cancelled,
}

impl DeliveryState {
    pub(crate) const ALL: [Self; 4] = [
        Self::Pending,
        Self::Delivered,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The state as a number, for stores.
    pub fn as_i16(self) -> i16 {
        match self {
            Self::Pending => 0,
            Self::Delivered => 1,
            Self::Failed => 2,
            Self::Cancelled => 3,
        }
    }

    /// The state that a store kept as this number.
    pub fn from_i16(number: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_i16() == number)
    }

    /// The word for it, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == word)
    }
}

/// One event to one endpoint, until its final outcome and after it.
///
/// As JSON: `{"id","message_id","type","endpoint_id","user_id","state","attempts",
/// "next_attempt_at","created_at","finished_at"}`, and `reason` when there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[non_exhaustive]
pub struct Delivery {
    /// Its name.
    pub id: DeliveryId,
    /// The id of the event, which the endpoint sees as `webhook-id`.
    #[serde(rename = "message_id")]
    pub event_id: String,
    /// The type of the event.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Where it goes.
    pub endpoint_id: EndpointId,
    /// Who the endpoint belongs to.
    #[serde(rename = "user_id")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<tidings_notify::UserId>"))]
    pub owner: Owner,
    /// How far it is.
    pub state: DeliveryState,
    /// How many attempts were made.
    pub attempts: u32,
    /// When the next attempt is made at the earliest, by the wall clock: when it is due, or when what it waits for is
    /// over, which `reason` says. In the past while it is being sent or waits for its turn; `None` if it is not known, as
    /// while another instance serves the endpoint.
    pub next_attempt_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it had its outcome.
    pub finished_at: Option<Timestamp>,
    /// Why it ended, or what it waits for, where the attempts do not say so. In words for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One request of a delivery, as recorded.
///
/// As JSON: `{"number","started_at","duration_ms","status","error","response"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "Attempt"))]
#[non_exhaustive]
pub struct AttemptRecord {
    /// Which attempt it was, counted from 1.
    pub number: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took.
    #[serde(rename = "duration_ms", serialize_with = "as_milliseconds")]
    #[cfg_attr(feature = "schema", schemars(with = "f64"))]
    pub duration: Duration,
    /// The status, when there was a response.
    pub status: Option<u16>,
    /// Why there was none, or where a redirect leads, in words for a person.
    pub error: Option<String>,
    /// The head of the response's body, as text.
    pub response: String,
}

fn as_milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    // Whole microseconds: the digits after them are those of the conversion.
    serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e3)
}

impl AttemptRecord {
    /// A record of an attempt.
    pub fn new(number: u32, started_at: Timestamp, duration: Duration) -> Self {
        Self {
            number,
            started_at,
            duration,
            status: None,
            error: None,
            response: String::new(),
        }
    }

    /// Says what status came back.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }
}

/// Which deliveries to list: the newest first.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DeliveryQuery {
    /// Only those to this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Only those in this state.
    pub state: Option<DeliveryState>,
    /// Only those made before this one, which need not exist any more.
    pub before: Option<DeliveryId>,
    /// At most so many.
    pub limit: usize,
}

impl DeliveryQuery {
    /// Asks for the newest deliveries, at most so many.
    pub fn newest(limit: usize) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// Only those to this endpoint.
    #[must_use]
    pub fn to(mut self, endpoint: EndpointId) -> Self {
        self.endpoint = Some(endpoint);
        self
    }

    /// Only those in this state.
    #[must_use]
    pub fn in_state(mut self, state: DeliveryState) -> Self {
        self.state = Some(state);
        self
    }

    /// Only those made before this one.
    #[must_use]
    pub fn before(mut self, delivery: DeliveryId) -> Self {
        self.before = Some(delivery);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_at_most_three_decimals() {
        for (nanoseconds, milliseconds) in
            [(12_345_678, "12.346"), (100, "0.0"), (7_000_000, "7.0")]
        {
            let record =
                AttemptRecord::new(1, Timestamp::UNIX_EPOCH, Duration::from_nanos(nanoseconds));
            let json = serde_json::to_string(&record).unwrap();
            let expected = format!(r#""duration_ms":{milliseconds},"#);
            assert!(json.contains(&expected), "{json}");
        }
    }

    #[test]
    fn states_read_back_as_written() {
        for state in DeliveryState::ALL {
            assert_eq!(DeliveryState::from_i16(state.as_i16()), Some(state));
            assert_eq!(DeliveryState::parse(state.as_str()), Some(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert_eq!(DeliveryState::from_i16(4), None);
        assert_eq!(DeliveryState::parse("Pending"), None);
    }
}
