//! What a batch of outcomes says about each endpoint.

use std::collections::BTreeMap;

use crate::store::{AfterAttempt, Outcome};
use crate::{DeliveryState, EndpointId};

/// The attempts of one endpoint in a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) succeeded: u32,
    pub(crate) failed: u32,
    pub(crate) ends_with_failure: bool,
}

/// Counts attempts. Outcomes without an attempt, and those of trouble of this machine, say nothing about an
/// endpoint.
pub(crate) fn by_endpoint(outcomes: &[Outcome]) -> BTreeMap<EndpointId, Tally> {
    let mut tallies: BTreeMap<EndpointId, Tally> = BTreeMap::new();
    let counted = |it: &&Outcome| it.attempt.is_some() && !it.is_local;
    for outcome in outcomes.iter().filter(counted) {
        let tally = tallies.entry(outcome.endpoint).or_default();
        let has_failed = !matches!(
            outcome.next,
            AfterAttempt::Finish {
                state: DeliveryState::Delivered,
                ..
            }
        );
        tally.ends_with_failure = has_failed;
        if has_failed {
            tally.failed += 1;
        } else {
            tally.succeeded += 1;
        }
    }
    tallies
}
