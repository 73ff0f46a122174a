//! The Tidings server: accepts notifications over HTTP, keeps them on one SQLite file, and delivers
//! them to open streams, the inbox and webhooks.
//!
//! This package is a binary first; the library exists so that tests and other programs can run a
//! [`Server`] in their own process.
//!
//! ```text
//! POST /v1/notifications ─▶ accept: one transaction ─┬─ the user's log and inbox counters
//!                                                    ├─ webhook deliveries and their queue
//!                                                    └─ the idempotency key
//!                               after the commit ────┬─ wake: SSE and WebSocket streams read on
//!                                                    └─ wake: webhook workers claim deliveries
//! ```
//!
//! | module | knows |
//! |---|---|
//! | `settings`, `config` | flags, environment and file, merged; then checked, once |
//! | `server` | the order of starting and stopping |
//! | `accept` | the transaction that a 201 stands for |
//! | `endpoints`, `deliveries`, `idempotency` | their own tables |
//! | `dispatch` | webhook attempts, and what follows from each |
//! | `shares` | how many workers one endpoint may hold |
//! | `readiness` | whether the storage can be written |
//! | `retention` | forgetting what is old |
//! | `http` | routes, shapes, streams, errors |
//! | `commands` | what a person does by hand |

mod accept;
mod app;
pub mod commands;
pub mod config;
mod deliveries;
mod dispatch;
mod endpoints;
mod explain;
mod http;
mod idempotency;
mod readiness;
mod retention;
mod server;
pub mod settings;
mod shares;

pub use config::Config;
pub use explain::explain;
pub use server::{Leftovers, Server, StartError};
pub use settings::Settings;
