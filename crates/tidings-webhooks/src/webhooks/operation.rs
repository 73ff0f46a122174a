//! Operations on endpoints and deliveries within the caller's own transaction: checked before, applied in it,
//! announced after its commit.

use std::time::Duration;

use jiff::Timestamp;
use tidings::signing::Secret;

use super::Webhooks;
use super::manage::{addressees, check_overlap};
use crate::clock::Clock;
use crate::endpoint::SECRET_ROTATED_EVENT;
use crate::store::{Addressed, NewReplay, Notice, StoredEndpoint};
use crate::{Delivery, DeliveryId, Endpoint, EndpointId, Error, Replay};

/// A checked operation, to be applied within the caller's own transaction by `sqlite::apply_in` or
/// `postgres::apply_in`. After the commit, [`Webhooks::announce_operation`] announces it.
#[derive(Debug, Clone)]
#[must_use]
pub struct Operation {
    pub(crate) kind: Kind,
    clock: Clock,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// Replaces an endpoint by one with another secret.
    Rotate {
        new: StoredEndpoint,
        now: Timestamp,
        notice: Option<Notice>,
    },
    /// Sends one event to one endpoint.
    Test {
        endpoint: EndpointId,
        event: Addressed,
        at: Timestamp,
    },
    Replay {
        replay: NewReplay,
        now: Timestamp,
    },
    Retry {
        delivery: DeliveryId,
        now: Timestamp,
    },
}

/// What became of an [`Operation`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum OperationOutcome {
    /// It is done. After a test or a retry, the delivery as it is now.
    Done(Option<Delivery>),
    /// Nothing was written: there is no such endpoint or delivery, or the endpoint is disabled.
    Refused,
    /// Nothing was written: the endpoint was changed after the operation was prepared. Prepare it again.
    Contended,
}

impl Operation {
    /// It is done, and this is its delivery as a store keeps it.
    pub(crate) fn done(&self, delivery: Option<Delivery>) -> OperationOutcome {
        OperationOutcome::Done(delivery.map(|mut delivery| {
            self.clock.show(&mut delivery);
            delivery
        }))
    }
}

impl Webhooks {
    /// Prepares what [`rotate_secret`](Self::rotate_secret) does. `None` when there is no such endpoint.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSetting`] for `overlap_ms`, [`Error::Store`], [`Error::Unreadable`].
    pub async fn prepare_rotation(
        &self,
        id: EndpointId,
        secret: Secret,
        overlap: Duration,
    ) -> Result<Option<Operation>, Error> {
        check_overlap(overlap)?;
        let Some(stored) = self.inner.store.endpoint(id).await? else {
            return Ok(None);
        };
        let mut endpoint = Endpoint::from_stored(&stored, self.keys())?;
        endpoint.rotate(secret, self.inner.clock.wall.now(), overlap);
        let notice = self.notice(SECRET_ROTATED_EVENT, &endpoint).await?;
        let new = endpoint.to_stored(stored.revision, self.keys())?;
        let now = self.inner.clock.now();
        Ok(Some(self.operation(Kind::Rotate { new, now, notice })))
    }

    /// Prepares what [`send_test`](Self::send_test) does. `None` when there is no such endpoint or it is
    /// disabled.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn prepare_test(&self, id: EndpointId) -> Result<Option<Operation>, Error> {
        let event = self.test_event(id).await?;
        let at = self.inner.clock.wall.now();
        let test = |event| {
            self.operation(Kind::Test {
                endpoint: id,
                event,
                at,
            })
        };
        Ok(event.map(test))
    }

    /// Prepares what [`replay`](Self::replay) does.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidSetting`] for the range and the rate, [`Error::Store`].
    pub async fn prepare_replay(&self, id: EndpointId, replay: Replay) -> Result<Operation, Error> {
        let replay = self.checked_replay(id, replay).await?;
        let now = self.inner.clock.now();
        Ok(self.operation(Kind::Replay { replay, now }))
    }

    /// Prepares what [`retry`](Self::retry) does.
    pub fn prepare_retry(&self, id: DeliveryId) -> Operation {
        let now = self.inner.clock.now();
        self.operation(Kind::Retry { delivery: id, now })
    }

    /// Announces an operation: makes the lanes look at what it has left for them. Call it after the commit of the transaction in
    /// which the operation was done, with the delivery that it has returned.
    pub fn announce_operation(&self, operation: &Operation, delivery: Option<&Delivery>) {
        let lanes = &self.inner.lanes;
        match &operation.kind {
            Kind::Rotate { new, notice, .. } => {
                lanes.unblock(new.id);
                lanes.wake(addressees(notice.as_ref()));
            }
            Kind::Test { endpoint, .. } => lanes.wake([*endpoint]),
            Kind::Replay { replay, .. } => lanes.wake([replay.endpoint]),
            Kind::Retry { .. } => {
                if let Some(delivery) = delivery {
                    lanes.unblock(delivery.endpoint_id);
                }
            }
        }
    }

    fn operation(&self, kind: Kind) -> Operation {
        let clock = self.inner.clock.clone();
        Operation { kind, clock }
    }
}
