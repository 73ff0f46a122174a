//! One step of a replay: about as many events as may be sent in a second.

use std::time::Duration;

use jiff::Timestamp;

use super::Shared;
use crate::clock::later;
use crate::endpoint::TEST_EVENT;
use crate::pattern::any_matches;
use crate::store::{ReplayStep, StoredEndpoint};
use crate::{EndpointId, EventPattern, StoreError};

/// Most events of one step.
const MAX_STEP: usize = 500;

/// Makes the next deliveries of a replay. Returns when the next step is due, if there is one.
pub(super) async fn step(
    shared: &Shared,
    endpoint: EndpointId,
    stored: &StoredEndpoint,
) -> Result<Option<Timestamp>, StoreError> {
    let Some(page) = shared.store.replay_page(endpoint, MAX_STEP).await? else {
        return Ok(None);
    };
    let patterns: Vec<EventPattern> = serde_json::from_str(&stored.event_types).unwrap_or_default();
    let now = shared.clock.now();
    let per_second = page.per_second.max(1);
    let in_a_second = usize::try_from(per_second).unwrap_or(usize::MAX);
    let spacing = Duration::from_secs(1) / per_second;
    let mut events = Vec::new();
    let mut position = page.to;
    let mut has_more = page.more;
    let mut before = page.from;
    for event in page.events {
        if events.len() == in_a_second {
            has_more = true;
            position = before;
            break;
        }
        before = event.number;
        // A test is of one endpoint, which has had it.
        let is_test = event.event_type == TEST_EVENT;
        if !is_test && any_matches(&patterns, &event.event_type) {
            let count = u32::try_from(events.len()).unwrap_or(u32::MAX);
            events.push((event.number, later(now, spacing.saturating_mul(count))));
        }
    }
    let count = u32::try_from(events.len()).unwrap_or(u32::MAX);
    let next = has_more.then(|| (position, later(now, spacing.saturating_mul(count))));
    let step = ReplayStep {
        endpoint,
        from: page.from,
        due: page.due,
        events,
        cursor: next,
    };
    shared.store.replay(step, shared.clock.wall.now()).await?;
    Ok(next.map(|(_, due)| due))
}
