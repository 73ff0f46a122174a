//! From the fan-out straight to the lanes of this instance, where that is the order of the store too.
//!
//! A lane that has all that is due in it needs no look at the store for a delivery that is made now. Whether
//! it has is asked before the transaction that makes the delivery, and again afterwards: a look in between
//! may have seen the new row already.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::Shared;
use super::lane::Ticket;
use crate::store::{Addressed, DueDelivery};
use crate::{DeliveryId, EndpointId};

/// Endpoints that get deliveries now, and tickets of those whose lanes may be handed theirs.
#[derive(Debug)]
pub(crate) struct Tickets(HashMap<EndpointId, Option<Ticket>>);

impl Shared {
    /// Tickets for deliveries that are about to be made.
    pub(crate) fn tickets(&self, endpoints: impl IntoIterator<Item = EndpointId>) -> Tickets {
        let lanes = self.lock();
        let ticket = |endpoint| {
            let served = lanes.served.get(&endpoint);
            (endpoint, served.and_then(|served| served.0.ticket()))
        };
        Tickets(endpoints.into_iter().map(ticket).collect())
    }

    /// Hands over deliveries that were made, and wakes the other lanes that got some.
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
            let ticket = tickets.0.get(endpoint).and_then(Option::as_ref);
            let (Some(ticket), Some(id)) = (ticket, made) else {
                continue;
            };
            if *due > now {
                ticket.lane.note_due(*due);
                continue;
            }
            let delivery = DueDelivery {
                id: *id,
                attempts: 0,
                tries: 0,
                event: Ok(event.clone()),
            };
            ticket
                .lane
                .hand(ticket, delivery, event.payload.as_str().len());
        }
        let has_ticket = |(_, ticket): &(_, &Option<Ticket>)| ticket.is_some();
        let (with, without): (Vec<_>, Vec<_>) = tickets.0.iter().partition(has_ticket);
        let mut lanes = self.lock();
        lanes.made_at = Some(Instant::now());
        for (endpoint, _) in with {
            self.resume(&mut lanes, *endpoint);
        }
        drop(lanes);
        self.wake(without.into_iter().map(|(endpoint, _)| *endpoint));
    }
}
