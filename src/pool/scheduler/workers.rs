use std::time::Duration;

use super::Speed;

/// How slow lanes are kept away from the workers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Isolation {
    /// How long an attempt takes that counts as slow.
    pub(crate) slow_after: Duration,
    /// How many slow attempts may be under way beside those that hold a worker.
    pub(crate) max_slow: usize,
}

/// The limits of a scheduler.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) workers: usize,
    /// Without it, all lanes are quick.
    pub(crate) isolation: Option<Isolation>,
    pub(crate) per_host: Option<usize>,
    /// A group gets one part in so many.
    pub(crate) group_parts: Option<usize>,
}

/// Which lanes hold the workers, and which speed may have another one.
#[derive(Debug)]
pub(super) struct Workers {
    limits: Limits,
    /// Attempts under way, with a worker or beside the workers.
    in_flight: usize,
    /// Attempts that are slow, or were begun as such.
    slow: usize,
    /// Attempts of new lanes that hold a worker.
    new: usize,
}

/// What one attempt counts as.
#[derive(Debug)]
pub(super) struct WorkerPermit {
    is_slow: bool,
    is_new: bool,
    is_late: bool,
}

impl Workers {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            in_flight: 0,
            slow: 0,
            new: 0,
        }
    }

    pub(super) fn isolation(&self) -> Option<Isolation> {
        self.limits.isolation
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether a lane of a speed may begin an attempt.
    pub(super) fn has_permit(&self, speed: Speed) -> bool {
        let workers = self.limits.workers;
        let Some(isolation) = self.limits.isolation else {
            return self.in_flight < workers;
        };
        // Slow attempts hold workers only as far as there are too many of them.
        let is_one_free = self.in_flight - self.slow.min(isolation.max_slow) < workers;
        match speed {
            Speed::Quick => is_one_free,
            Speed::New => is_one_free && self.new < workers.div_ceil(2),
            Speed::Slow => self.slow < isolation.max_slow,
        }
    }

    pub(super) fn acquire(&mut self, speed: Speed) -> WorkerPermit {
        let permit = WorkerPermit {
            is_slow: speed == Speed::Slow,
            is_new: speed == Speed::New,
            is_late: false,
        };
        self.in_flight += 1;
        self.slow += usize::from(permit.is_slow);
        self.new += usize::from(permit.is_new);
        permit
    }

    /// Takes note that an attempt takes long. Returns `false` if it was known already.
    pub(super) fn mark_late(&mut self, permit: &mut WorkerPermit, isolation: Isolation) -> bool {
        if permit.is_late {
            return false;
        }
        permit.is_late = true;
        let gives_its_worker_back = self.slow < isolation.max_slow;
        if !permit.is_slow {
            permit.is_slow = true;
            self.slow += 1;
        }
        if permit.is_new && gives_its_worker_back {
            permit.is_new = false;
            self.new -= 1;
        }
        true
    }

    pub(super) fn release(&mut self, permit: &WorkerPermit) {
        self.in_flight -= 1;
        self.slow -= usize::from(permit.is_slow);
        self.new -= usize::from(permit.is_new);
    }

    #[cfg(test)]
    pub(super) fn are_free(&self) -> bool {
        (self.in_flight, self.slow, self.new) == (0, 0, 0)
    }
}

impl WorkerPermit {
    /// Whether the attempt takes long.
    pub(super) fn is_late(&self) -> bool {
        self.is_late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workers(workers: usize, max_slow: Option<usize>) -> Workers {
        let isolation = max_slow.map(|max_slow| Isolation {
            slow_after: Duration::from_secs(1),
            max_slow,
        });
        Workers::new(Limits {
            workers,
            isolation,
            per_host: None,
            group_parts: None,
        })
    }

    #[test]
    fn without_isolation_there_are_as_many_attempts_as_workers() {
        let mut workers = workers(2, None);
        for _ in 0..2 {
            assert!(workers.has_permit(Speed::Quick));
            workers.acquire(Speed::Quick);
        }
        assert!(!workers.has_permit(Speed::Quick));
        assert_eq!(workers.in_flight(), 2);
    }

    #[test]
    fn a_late_attempt_of_a_new_lane_gives_its_place_back_while_slow_ones_have_room() {
        for (max_slow, gives_back) in [(2, [true, true, false]), (0, [false; 3])] {
            let mut workers = workers(6, Some(max_slow));
            let isolation = workers.isolation().unwrap();
            for expected in gives_back {
                let mut permit = workers.acquire(Speed::New);
                let before = workers.new;
                assert!(workers.mark_late(&mut permit, isolation));
                assert!(!workers.mark_late(&mut permit, isolation));
                assert_eq!(workers.new < before, expected);
            }
        }
    }
}
