//! Being written.

#[cfg(feature = "conformance")]
pub mod conformance;
mod delivered;
mod error;
mod event;
mod event_id;
mod hub;
mod inbox;
mod memory;
mod notifier;
mod payload;
pub mod presence;
mod read;
mod router;
mod routing;
mod since;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod store;
mod subscription;
mod sweep;
pub mod telemetry;
mod user;

pub use error::{Closed, Error, StoreError};
pub use event::{Draft, Event, EventType};
pub use event_id::{Epoch, EventId, InvalidEventId};
pub use inbox::{DEFAULT_INBOX_LIMIT, InboxPage, InboxQuery, MAX_INBOX_LIMIT};
pub use memory::MemoryStore;
pub use notifier::{
    DEFAULT_BUFFER_SIZE, DEFAULT_POLL_INTERVAL, Notifier, NotifierBuilder, OfflinePolicy, Pushed,
};
pub use payload::{InvalidPayload, MAX_DEPTH, Payload};
pub use presence::{DynPresence, MemoryPresence, Presence};
pub use read::{Marked, ReadChange, ReadScope, ReadUpdate};
pub use router::{DynRouter, RouteError, Router, RoutingInfo};
pub use since::Since;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;
pub use store::{ChangeMark, Changes, DynStore, Head, LogChange, Page, Store};
pub use subscription::{Gap, GapReason, Hello, Item, Subscription};
pub use user::{InvalidName, MAX_NAME_BYTES, UserId};
