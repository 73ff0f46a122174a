use std::collections::BTreeMap;

use super::{LaneId, Speed};

/// The lanes that may go, by speed, each in the order in which it goes.
#[derive(Debug)]
pub(super) struct ReadyQueue {
    queues: [Queue; 3],
    /// Which speed comes first next time.
    next_queue: usize,
    next_number: u64,
}

/// The lanes of one speed.
#[derive(Debug, Default)]
struct Queue {
    /// Those that keep room, and all others. Both take turns: keepers come in quickly, because their
    /// room is idle meanwhile, and however many come, the others go on.
    keeping: BTreeMap<u64, LaneId>,
    others: BTreeMap<u64, LaneId>,
    others_are_next: bool,
}

/// A place in the order, by which a lane can be taken out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    speed: Speed,
    keeps: bool,
    number: u64,
}

impl ReadyQueue {
    pub(super) fn new() -> Self {
        Self {
            queues: Default::default(),
            next_queue: 0,
            next_number: 0,
        }
    }

    /// Puts a lane at the end that keeps no room.
    #[cfg(test)]
    pub(super) fn push(&mut self, speed: Speed, lane: LaneId) -> Position {
        self.push_as(speed, false, lane)
    }

    /// Puts a lane at the end of those that keep room, or of all others.
    pub(super) fn push_as(&mut self, speed: Speed, keeps: bool, lane: LaneId) -> Position {
        let number = self.next_number;
        self.next_number += 1;
        self.queues[speed as usize]
            .lanes(keeps)
            .insert(number, lane);
        Position {
            speed,
            keeps,
            number,
        }
    }

    pub(super) fn remove(&mut self, position: Position) {
        let queue = &mut self.queues[position.speed as usize];
        queue.lanes(position.keeps).remove(&position.number);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.iter().all(Queue::is_empty)
    }

    /// How often a lane was put into it.
    #[cfg(test)]
    pub(super) fn pushed(&self) -> u64 {
        self.next_number
    }

    /// Whether there is a lane among the speeds that may go.
    pub(super) fn has_next(&self, may_go: impl Fn(Speed) -> bool) -> bool {
        (Speed::ALL.into_iter())
            .any(|speed| !self.queues[speed as usize].is_empty() && may_go(speed))
    }

    /// Takes the lane that is next among the speeds that may go. The speeds take turns as well.
    pub(super) fn pop(&mut self, may_go: impl Fn(Speed) -> bool) -> Option<LaneId> {
        self.pop_unless(may_go, |_| false)
    }

    /// Takes the lane that is next, except for those that keep room where they have to wait.
    pub(super) fn pop_unless(
        &mut self,
        may_go: impl Fn(Speed) -> bool,
        keepers_wait: impl Fn(Speed) -> bool,
    ) -> Option<LaneId> {
        for offset in 0..Speed::ALL.len() {
            let index = (self.next_queue + offset) % Speed::ALL.len();
            let speed = Speed::ALL[index];
            let queue = &mut self.queues[speed as usize];
            if !queue.is_empty()
                && may_go(speed)
                && let Some(lane) = queue.pop(keepers_wait(speed))
            {
                self.next_queue = index + 1;
                return Some(lane);
            }
        }
        None
    }
}

impl Queue {
    fn lanes(&mut self, keeps: bool) -> &mut BTreeMap<u64, LaneId> {
        if keeps {
            &mut self.keeping
        } else {
            &mut self.others
        }
    }

    fn is_empty(&self) -> bool {
        self.others.is_empty() && self.keeping.is_empty()
    }

    fn pop(&mut self, keepers_wait: bool) -> Option<LaneId> {
        let keeps = !keepers_wait
            && !self.keeping.is_empty()
            && (self.others.is_empty() || !self.others_are_next);
        self.others_are_next = keeps;
        self.lanes(keeps).pop_first().map(|(_, lane)| lane)
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

    #[test]
    fn lanes_that_keep_room_take_turns_with_the_others_of_their_speed() {
        let mut ready = ReadyQueue::new();
        for lane in 1..=3 {
            ready.push(Speed::Quick, LaneId(lane));
        }
        for lane in 4..=5 {
            ready.push_as(Speed::Quick, true, LaneId(lane));
        }
        assert_eq!(ready.pop_unless(|_| true, |_| true), Some(LaneId(1)));
        let order = [4, 2, 5, 3].map(|lane| Some(LaneId(lane)));
        assert_eq!([(); 4].map(|()| ready.pop(|_| true)), order);
        assert!(ready.is_empty());
    }
}
