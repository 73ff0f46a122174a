//! From the fan-out straight to the lanes of this instance.
//!
//! A lane that has all that is due in it needs no look at the store for a delivery that is made now. Whether
//! it has is asked before the transaction that makes the delivery, and again afterwards: a look in between
//! may have seen the new row already. What two transactions make at the same time may change places.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::Shared;
use super::lane::{Lane, Ticket};
use crate::store::{Addressed, DueDelivery};
use crate::{DeliveryId, EndpointId};

/// Endpoints that get deliveries now, and tickets of those whose lanes may be handed theirs.
#[derive(Debug)]
pub(crate) struct Tickets(FxHashMap<EndpointId, Option<Ticket>>);

impl Shared {
    /// Tickets for deliveries that are about to be made.
    pub(crate) fn tickets(&self, endpoints: impl IntoIterator<Item = EndpointId>) -> Tickets {
        let lanes = self.lock();
        let ticket = |endpoint| {
            let served = lanes.served.get(&endpoint);
            (endpoint, served.and_then(Lane::ticket))
        };
        Tickets(endpoints.into_iter().map(ticket).collect())
    }

    /// Hands over deliveries that were made, and wakes the lanes that have to read theirs.
    pub(crate) fn made(
        self: &Arc<Self>,
        tickets: &Tickets,
        events: &[Addressed],
        made: &[Option<DeliveryId>],
    ) {
        let now = self.clock.now();
        let addresses = events
            .iter()
            .flat_map(|addressed| addressed.to.iter().map(move |to| (&addressed.event, to)));
        for ((event, (endpoint, due)), made) in addresses.zip(made) {
            let Some(ticket) = tickets.0.get(endpoint).and_then(Option::as_ref) else {
                continue;
            };
            match made {
                // It may be a new delivery all the same.
                None => ticket.lane.add_work(),
                Some(_) if *due > now => ticket.lane.note_due(*due),
                Some(id) => {
                    let delivery = DueDelivery {
                        id: *id,
                        attempts: 0,
                        tries: 0,
                        due_at: *due,
                        event: Ok(event.clone()),
                    };
                    let bytes = event.payload.as_str().len();
                    ticket.lane.hand(ticket, delivery, bytes);
                }
            }
        }
        let mut lanes = self.lock();
        lanes.made_at = Some(Instant::now());
        let (mut rested, mut others) = (Vec::new(), Vec::new());
        for (endpoint, ticket) in &tickets.0 {
            let served = lanes.served.get(endpoint);
            let has_them = |lane: &&Arc<Lane>| {
                // Not if it was given back, and maybe leased again, since the ticket was given.
                (ticket.as_ref()).is_some_and(|ticket| Arc::ptr_eq(lane, &ticket.lane))
            };
            if let Some(lane) = served.filter(has_them) {
                let lane = Arc::clone(lane);
                rested.extend(lanes.resting.remove(endpoint).map(|_| lane));
            } else {
                others.push(*endpoint);
            }
        }
        drop(lanes);
        self.feed_at_once(rested);
        self.wake(others);
    }
}
