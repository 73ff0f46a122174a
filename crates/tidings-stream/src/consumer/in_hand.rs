//! What a message knows of the claim by which a handler has it, so that the handler can settle it in a
//! transaction of its own.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::MessageId;
use crate::engine::{GroupKey, Receipt};

/// The claims of one handler call. Its messages share them, and compare without them.
#[derive(Debug, Clone, Default)]
pub(crate) struct InHand(Option<Arc<Claims>>);

#[derive(Debug)]
#[cfg_attr(
    not(any(feature = "sqlite", feature = "postgres")),
    expect(
        dead_code,
        reason = "the other engines have no transactions of callers"
    )
)]
struct Claims {
    group: GroupKey,
    receipts: Arc<[Receipt]>,
    /// The messages that a transaction has settled. The transaction may not be committed.
    settled: Mutex<Vec<MessageId>>,
}

impl InHand {
    pub(super) fn new(group: &GroupKey, receipts: Arc<[Receipt]>) -> Self {
        Self(Some(Arc::new(Claims {
            group: group.clone(),
            receipts,
            settled: Mutex::default(),
        })))
    }

    /// Whether a transaction has settled the message, which is true once that is committed.
    pub(super) fn may_be_settled(&self, id: MessageId) -> bool {
        let claims = self.0.as_deref();
        claims.is_some_and(|claims| claims.settled.lock().contains(&id))
    }

    /// Whether a transaction has settled any of the messages.
    pub(super) fn any_may_be_settled(&self) -> bool {
        let claims = self.0.as_deref();
        claims.is_some_and(|claims| !claims.settled.lock().is_empty())
    }
}

impl PartialEq for InHand {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for InHand {}

/// For the engines that can settle in a transaction of the handler's.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod settling {
    use super::{Claims, InHand};
    use crate::engine::{GroupKey, Receipt};
    use crate::{Error, Message};

    impl Message {
        /// The claim to settle, which is taken to be settled from now on: a caller that does not get to
        /// know the outcome may still commit it.
        pub(crate) fn begin_settling(&self) -> Result<(&GroupKey, Receipt), Error> {
            let claims = self.claims()?;
            let receipt = claims.receipts.iter().find(|it| it.id == self.id);
            let receipt = receipt.ok_or(NOT_IN_HAND)?;
            claims.settled.lock().push(self.id);
            Ok((&claims.group, *receipt))
        }

        /// Says whether the receipt was obeyed.
        pub(crate) fn end_settling(&self, was_obeyed: bool) -> Result<(), Error> {
            if was_obeyed {
                return Ok(());
            }
            self.claims()?.settled.lock().retain(|id| *id != self.id);
            Err(Error::ClaimLost)
        }

        fn claims(&self) -> Result<&Claims, Error> {
            let InHand(claims) = &self.in_hand;
            claims.as_deref().ok_or(NOT_IN_HAND)
        }
    }

    const NOT_IN_HAND: Error = Error::InvalidOption {
        field: "message",
        expected: "one that a handler was given",
    };
}
