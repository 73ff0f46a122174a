use std::collections::BTreeMap;

use super::{LaneId, Standing};

/// The lanes that may go, by standing, in the order of their turns.
#[derive(Debug)]
pub(super) struct Turns {
    queues: [BTreeMap<u64, LaneId>; 3],
    /// Which standing is asked first next time.
    next_queue: usize,
    next_turn: u64,
}

/// A place in the order, by which a lane can be taken out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    standing: Standing,
    number: u64,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            queues: [const { BTreeMap::new() }; 3],
            next_queue: 0,
            next_turn: 0,
        }
    }

    /// Puts a lane at the end.
    pub(super) fn push(&mut self, standing: Standing, lane: LaneId) -> Turn {
        let number = self.next_turn;
        self.next_turn += 1;
        self.queues[standing as usize].insert(number, lane);
        Turn { standing, number }
    }

    pub(super) fn remove(&mut self, turn: Turn) {
        self.queues[turn.standing as usize].remove(&turn.number);
    }

    /// Whether there is a lane among the standings that may go.
    pub(super) fn has_next(&self, may_go: impl Fn(Standing) -> bool) -> bool {
        (Standing::ALL.into_iter())
            .any(|standing| !self.queues[standing as usize].is_empty() && may_go(standing))
    }

    /// The lane whose turn it is, among the standings that may go. These take turns as well.
    pub(super) fn next(&mut self, may_go: impl Fn(Standing) -> bool) -> Option<LaneId> {
        for offset in 0..Standing::ALL.len() {
            let index = (self.next_queue + offset) % Standing::ALL.len();
            let standing = Standing::ALL[index];
            let queue = &mut self.queues[standing as usize];
            if !queue.is_empty() && may_go(standing) {
                self.next_queue = index + 1;
                return queue.pop_first().map(|(_, lane)| lane);
            }
        }
        None
    }
}

impl Turn {
    pub(super) fn standing(self) -> Standing {
        self.standing
    }
}
