use std::collections::BTreeMap;

use super::{LaneId, Speed};

/// The lanes that may go, by speed, each in the order in which it goes.
#[derive(Debug)]
pub(super) struct ReadyQueue {
    queues: [BTreeMap<u64, LaneId>; 3],
    /// Which speed comes first next time.
    next_queue: usize,
    next_number: u64,
}

/// A place in the order, by which a lane can be taken out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    speed: Speed,
    number: u64,
}

impl ReadyQueue {
    pub(super) fn new() -> Self {
        Self {
            queues: [const { BTreeMap::new() }; 3],
            next_queue: 0,
            next_number: 0,
        }
    }

    /// Puts a lane at the end.
    pub(super) fn push(&mut self, speed: Speed, lane: LaneId) -> Position {
        let number = self.next_number;
        self.next_number += 1;
        self.queues[speed as usize].insert(number, lane);
        Position { speed, number }
    }

    pub(super) fn remove(&mut self, position: Position) {
        self.queues[position.speed as usize].remove(&position.number);
    }

    /// Whether there is a lane among the speeds that may go.
    pub(super) fn has_next(&self, may_go: impl Fn(Speed) -> bool) -> bool {
        (Speed::ALL.into_iter())
            .any(|speed| !self.queues[speed as usize].is_empty() && may_go(speed))
    }

    /// Takes the lane that is next among the speeds that may go. The speeds take turns as well.
    pub(super) fn pop(&mut self, may_go: impl Fn(Speed) -> bool) -> Option<LaneId> {
        for offset in 0..Speed::ALL.len() {
            let index = (self.next_queue + offset) % Speed::ALL.len();
            let speed = Speed::ALL[index];
            let queue = &mut self.queues[speed as usize];
            if !queue.is_empty() && may_go(speed) {
                self.next_queue = index + 1;
                return queue.pop_first().map(|(_, lane)| lane);
            }
        }
        None
    }
}

impl Position {
    pub(super) fn speed(self) -> Speed {
        self.speed
    }
}
