//! Calls of many callers that are done together.
//!
//! **Internal to Tidings: no semver promise.** Use `tidings-stream`, `tidings-notify` and their siblings;
//! this crate is published because they depend on it.
//!
//! A server, or a disk, takes a batch about as fast as one request. What is called while a batch is under
//! way makes the next one: a caller that comes alone does not wait, and no delay is added to fill a batch.
//!
//! ```text
//! callers ──▶ Queue ──▶ Calls: one task ──▶ next_batch: a, b, c … ──▶ each its own reply
//! ```
//!
//! It knows neither what the calls are nor who does them. The task that has the [`Calls`] waits, takes
//! batches, does them and replies:
//!
//! ```
//! use tidings_group_commit::{Request, queue};
//!
//! #[derive(Debug)]
//! struct Add(u32);
//!
//! impl Request for Add {
//!     fn items(&self) -> usize {
//!         1
//!     }
//!     fn bytes(&self) -> usize {
//!         4
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let (queue, mut calls) = queue::<Add, u32>();
//! let adding = tokio::spawn(async move {
//!     let mut sum = 0;
//!     while calls.wait().await {
//!         while let Some(batch) = calls.next_batch() {
//!             // One commit would be here.
//!             for call in batch {
//!                 sum += call.request.0;
//!                 call.reply(sum);
//!             }
//!         }
//!     }
//! });
//! let (one, two) = tokio::join!(queue.call(Add(1)), queue.call(Add(2)));
//! assert_eq!((one.unwrap(), two.unwrap()), (1, 3));
//! # drop(queue);
//! # adding.await.unwrap();
//! # }
//! ```

#![doc(test(attr(deny(unused_imports))))]

mod call;
mod calls;

pub use call::{Call, NotDone, Queue, Reply};
pub use calls::Calls;

/// Most items of one batch, unless a single request has more.
pub const MAX_ITEMS: usize = 1000;

/// Most bytes of one batch, unless a single request has more.
pub const MAX_BYTES: usize = 4 << 20;

/// Callers that may wait in a queue before the next one waits to get in.
const QUEUE: usize = 1024;

/// What one caller wants.
pub trait Request {
    /// How many things it is about.
    fn items(&self) -> usize;

    /// How many bytes they have.
    fn bytes(&self) -> usize;

    /// Whether it can be done together with an earlier one. By default any two can.
    fn fits(&self, earlier: &Self) -> bool {
        let _ = earlier;
        true
    }
}

/// A queue, and the calls that come through it.
pub fn queue<Q, R>() -> (Queue<Q, R>, Calls<Q, R>) {
    let (sender, receiver) = tokio::sync::mpsc::channel(QUEUE);
    (Queue::new(sender), Calls::new(receiver))
}
