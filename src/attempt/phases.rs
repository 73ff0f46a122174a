use std::time::Duration;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

/// Where the time of an attempt went.
///
/// What did not happen, or is not known, is `None`: a connection that was kept took neither `dns`
/// nor `connect` nor `tls`. With a transport that was handed in, only `first_byte` is known.
///
/// As JSON: `dns_ms`, `connect_ms`, `tls_ms` and `first_byte_ms`, in milliseconds with up to three
/// decimals, `null` when absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Phases {
    /// Resolving the host name. A cached result takes next to nothing.
    pub dns: Option<Duration>,
    /// Making the TCP connection, once the address was known.
    pub connect: Option<Duration>,
    /// The TLS handshake.
    pub tls: Option<Duration>,
    /// From the first byte of the request to the complete head of the response. A request without a
    /// body counts from when it got its connection, or from the start.
    pub first_byte: Option<Duration>,
}

impl Serialize for Phases {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fn milliseconds(phase: Option<Duration>) -> Option<f64> {
            phase.map(|phase| (phase.as_secs_f64() * 1e6).round() / 1e3)
        }
        let mut fields = serializer.serialize_struct("Phases", 4)?;
        fields.serialize_field("dns_ms", &milliseconds(self.dns))?;
        fields.serialize_field("connect_ms", &milliseconds(self.connect))?;
        fields.serialize_field("tls_ms", &milliseconds(self.tls))?;
        fields.serialize_field("first_byte_ms", &milliseconds(self.first_byte))?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_written_in_milliseconds_with_up_to_three_decimals() {
        let phases = Phases {
            dns: Some(Duration::from_nanos(1_234_567)),
            connect: Some(Duration::from_secs(2)),
            tls: None,
            first_byte: Some(Duration::ZERO),
        };
        let expected = serde_json::json!({
            "dns_ms": 1.235, "connect_ms": 2000.0, "tls_ms": null, "first_byte_ms": 0.0,
        });
        assert_eq!(serde_json::to_value(phases).unwrap(), expected);
    }
}
