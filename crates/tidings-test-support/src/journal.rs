//! What a receiver has seen, for tests to look at and to wait for.

use std::collections::VecDeque;
use std::fmt;

use tokio::sync::watch;

use crate::{Closed, PATIENCE, Request};

/// How many requests, and ended connections, are usually kept for a look back.
pub(crate) const KEPT: usize = 10_000;

/// A log to which connections add, and in which tests wait.
#[derive(Debug)]
pub(crate) struct Journal(watch::Sender<State>);

#[derive(Debug)]
struct State {
    connections: u64,
    requests: Recent<Request>,
    closed: Recent<Closed>,
}

impl Journal {
    /// Keeps so many of the last requests, and of the last ended connections.
    pub(crate) fn new(kept: usize) -> Self {
        Self(watch::Sender::new(State {
            connections: 0,
            requests: Recent::new(kept),
            closed: Recent::new(kept),
        }))
    }

    /// Counts a new connection and returns its number.
    pub(crate) fn add_connection(&self) -> u64 {
        let mut number = 0;
        self.0.send_modify(|state| {
            state.connections += 1;
            number = state.connections;
        });
        number
    }

    pub(crate) fn add_request(&self, request: Request) {
        self.0.send_modify(|state| state.requests.push(request));
    }

    pub(crate) fn add_closed(&self, closed: Closed) {
        self.0.send_modify(|state| state.closed.push(closed));
    }

    pub(crate) fn connections(&self) -> u64 {
        self.0.borrow().connections
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.0.borrow().requests.items.iter().cloned().collect()
    }

    pub(crate) async fn connected(&self, number: u64) {
        self.wait("connection", number, |state| {
            (state.connections >= number).then_some(())
        })
        .await;
    }

    pub(crate) async fn request(&self, number: u64) -> Request {
        self.wait("request", number, |state| state.requests.nth(number))
            .await
    }

    pub(crate) async fn closed(&self, number: u64) -> Closed {
        self.wait("end of a connection", number, |state| {
            state.closed.nth(number)
        })
        .await
    }

    /// Waits until `find` finds something.
    async fn wait<T: Send>(
        &self,
        what: &str,
        number: u64,
        find: impl Fn(&State) -> Option<T> + Send + Sync,
    ) -> T {
        let mut changes = self.0.subscribe();
        let search = async {
            loop {
                if let Some(found) = find(&changes.borrow_and_update()) {
                    return found;
                }
                // It fails only without a sender, and `self` is one.
                let _changed = changes.changed().await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, search).await;
        found.unwrap_or_else(|_| {
            let seen = self.0.borrow();
            panic!(
                "waited {PATIENCE:?} for {what} number {number}; the receiver saw {}",
                *seen
            )
        })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} connections, {} requests, and {} connections end",
            self.connections,
            self.requests.count(),
            self.closed.count()
        )
    }
}

/// The last items of a growing list.
#[derive(Debug)]
struct Recent<T> {
    kept: usize,
    forgotten: u64,
    items: VecDeque<T>,
}

impl<T: Clone> Recent<T> {
    fn new(kept: usize) -> Self {
        Self {
            kept,
            forgotten: 0,
            items: VecDeque::new(),
        }
    }

    fn push(&mut self, item: T) {
        self.items.push_back(item);
        if self.items.len() > self.kept {
            self.items.pop_front();
            self.forgotten += 1;
        }
    }

    fn count(&self) -> u64 {
        self.forgotten + self.items.len() as u64
    }

    /// The item of this number, counted from 1, or nothing while it has not come.
    fn nth(&self, number: u64) -> Option<T> {
        assert!(
            number > self.forgotten,
            "items are counted from 1, and the last {} are kept: number {number} is not",
            self.kept
        );
        let index = usize::try_from(number - self.forgotten - 1).ok()?;
        self.items.get(index).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_are_kept_and_numbers_stay() {
        let mut recent = Recent::new(KEPT);
        for number in 1..=KEPT as u64 + 5 {
            recent.push(number);
        }
        assert_eq!(recent.items.len(), KEPT);
        assert_eq!(recent.count(), KEPT as u64 + 5);
        assert_eq!(recent.nth(6), Some(6));
        assert_eq!(recent.nth(KEPT as u64 + 5), Some(KEPT as u64 + 5));
        assert_eq!(recent.nth(KEPT as u64 + 6), None);
    }

    #[test]
    #[should_panic(expected = "number 1 is not")]
    fn asking_for_a_forgotten_item_says_so() {
        let mut recent = Recent::new(KEPT);
        for number in 0..=KEPT {
            recent.push(number);
        }
        recent.nth(1);
    }
}
