use crate::http::operation::{Group, Operation};
use crate::wire::code::Code;

pub(in crate::http) fn show() -> Operation {
    Operation::new(
        Group::Operation,
        "getMetrics",
        "Shows the metrics of this instance to Prometheus",
    )
    .replies_text(
        "text/plain",
        "The metrics, in the text format of Prometheus.",
    )
    .fails_with(&[Code::NotFound])
}
