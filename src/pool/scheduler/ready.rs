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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_that_is_taken_out_does_not_go() {
        let mut ready = ReadyQueue::new();
        let [first, second] = [1, 2].map(LaneId);
        let position = ready.push(Speed::Quick, first);
        ready.push(Speed::Quick, second);
        ready.remove(position);
        assert_eq!(ready.pop(|_| true), Some(second));
        assert_eq!(ready.pop(|_| true), None);
    }

    #[test]
    fn only_lanes_of_the_speeds_that_may_go_are_next() {
        let mut ready = ReadyQueue::new();
        assert!(!ready.has_next(|_| true));
        ready.push(Speed::Slow, LaneId(1));
        assert!(!ready.has_next(|speed| speed == Speed::Quick));
        assert_eq!(ready.pop(|speed| speed == Speed::Quick), None);
        assert!(ready.has_next(|speed| speed == Speed::Slow));
        assert!(!ready.has_next(|_| false));
    }

    #[test]
    fn the_speeds_take_turns() {
        let mut ready = ReadyQueue::new();
        for (speed, lanes) in Speed::ALL.into_iter().zip([[1, 2], [3, 4], [5, 6]]) {
            for lane in lanes {
                ready.push(speed, LaneId(lane));
            }
        }
        let order = [1, 3, 5, 2, 4, 6].map(|lane| Some(LaneId(lane)));
        assert_eq!([(); 6].map(|()| ready.pop(|_| true)), order);
    }
}
