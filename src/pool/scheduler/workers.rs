use std::time::Duration;

use super::Standing;

/// How slow lanes are kept away from the workers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Isolation {
    /// What counts as long.
    pub(crate) slow_after: Duration,
    /// How many slow attempts may be under way besides those that hold a worker.
    pub(crate) max_slow: usize,
}

/// The limits of a scheduler.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) workers: usize,
    /// Without it, all lanes are quick.
    pub(crate) isolation: Option<Isolation>,
    pub(crate) per_host: Option<usize>,
}

/// Who holds the workers, and which standing may have another one.
#[derive(Debug)]
pub(super) struct Workers {
    limits: Limits,
    /// Attempts under way, with a worker or beside them.
    in_flight: usize,
    /// Those that are slow, or were begun as such.
    slow: usize,
    /// Those of new lanes that hold a worker.
    new: usize,
}

/// What one attempt counts as.
#[derive(Debug)]
pub(super) struct Hold {
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

    /// Whether a lane of a standing may begin an attempt.
    pub(super) fn has_room(&self, standing: Standing) -> bool {
        let workers = self.limits.workers;
        let Some(isolation) = self.limits.isolation else {
            return self.in_flight < workers;
        };
        // Slow attempts hold workers only as far as there are too many of them.
        let is_one_free = self.in_flight - self.slow.min(isolation.max_slow) < workers;
        match standing {
            Standing::Quick => is_one_free,
            Standing::New => is_one_free && self.new < workers.div_ceil(2),
            Standing::Slow => self.slow < isolation.max_slow,
        }
    }

    pub(super) fn began(&mut self, standing: Standing) -> Hold {
        let hold = Hold {
            is_slow: standing == Standing::Slow,
            is_new: standing == Standing::New,
            is_late: false,
        };
        self.in_flight += 1;
        self.slow += usize::from(hold.is_slow);
        self.new += usize::from(hold.is_new);
        hold
    }

    /// Takes note that an attempt takes long, the first time that it is told.
    pub(super) fn is_late(&mut self, hold: &mut Hold, isolation: Isolation) -> bool {
        if std::mem::replace(&mut hold.is_late, true) {
            return false;
        }
        let gives_its_worker_back = self.slow < isolation.max_slow;
        if !std::mem::replace(&mut hold.is_slow, true) {
            self.slow += 1;
        }
        if gives_its_worker_back && std::mem::replace(&mut hold.is_new, false) {
            self.new -= 1;
        }
        true
    }

    pub(super) fn ended(&mut self, hold: &Hold) {
        self.in_flight -= 1;
        self.slow -= usize::from(hold.is_slow);
        self.new -= usize::from(hold.is_new);
    }

    #[cfg(test)]
    pub(super) fn are_free(&self) -> bool {
        (self.in_flight, self.slow, self.new) == (0, 0, 0)
    }
}

impl Hold {
    /// Whether the attempt was said to take long.
    pub(super) fn is_late(&self) -> bool {
        self.is_late
    }
}
