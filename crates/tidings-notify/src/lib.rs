//! Being written.

mod event;
mod event_id;
mod payload;
mod router;
mod user;

pub use event::{Draft, Event, EventType};
pub use event_id::{Epoch, EventId, InvalidEventId};
pub use payload::{InvalidPayload, MAX_DEPTH, Payload};
pub use router::{DynRouter, RouteError, Router, RoutingInfo};
pub use user::{InvalidName, MAX_NAME_BYTES, UserId};
