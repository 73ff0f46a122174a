use super::{Limits, Speed};

/// How many attempts may be under way for all who have a share together.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule {
    Host {
        limit: usize,
    },
    Group {
        /// Attempts that hold a worker.
        workers: usize,
        /// Slow attempts that hold none.
        slow: usize,
    },
    GroupAtHost {
        limit: usize,
        /// Only so many while others have much under way there.
        beside_others: usize,
    },
}

/// Attempts of one share, and what they count as.
#[derive(Debug, Clone, Copy, Default)]
pub(in super::super) struct Attempts {
    pub(super) all: usize,
    new: usize,
    /// Those that are slow, or were begun as such.
    slow: usize,
}

impl Rule {
    pub(super) fn of_host(limits: Limits) -> Option<Self> {
        let limit = limits.per_host?;
        Some(Self::Host { limit })
    }

    pub(super) fn of_group(limits: Limits) -> Option<Self> {
        let parts = limits.group_parts?;
        let max_slow = limits.isolation.map_or(0, |isolation| isolation.max_slow);
        Some(Self::Group {
            workers: (limits.workers / parts).max(1),
            slow: (max_slow / parts / 2).max(1),
        })
    }

    /// A group that is alone at a host has a whole part there. But groups must not add up to the
    /// limit of the host: all attempts that are under way may turn late. So what groups have beyond a
    /// third of a part each is one part at most, together with all others at the host, and with the
    /// defaults four groups (16 + 5 + 5 + 5) leave one of the 32 attempts that slow endpoints may
    /// have.
    pub(super) fn of_group_at_host(limits: Limits) -> Option<Self> {
        let (per_host, parts) = (limits.per_host?, limits.group_parts?);
        Some(Self::GroupAtHost {
            limit: (per_host / parts).max(1),
            beside_others: (per_host / parts / 3).max(1),
        })
    }

    /// Whether an attempt of a speed may begin beside others, and beside so many at the same host.
    pub(super) fn has_room(
        self,
        taken: Attempts,
        speed: Speed,
        at_host: impl FnOnce() -> usize,
    ) -> bool {
        match self {
            Self::Host { limit } => taken.leave_room_at_host(speed, limit),
            Self::Group { workers, slow } => taken.leave_room_in_group(speed, workers, slow),
            Self::GroupAtHost {
                limit,
                beside_others,
            } => taken.all < beside_others || (taken.all < limit && at_host() < limit),
        }
    }
}

impl Attempts {
    /// Slow ones get half of the limit, and with those of new lanes three quarters, so that however
    /// many endpoints of a host are stalled, the others continue.
    fn leave_room_at_host(self, speed: Speed, limit: usize) -> bool {
        let half = limit.div_ceil(2);
        let three_quarters = limit - limit / 4;
        let may_begin = match speed {
            Speed::Quick => true,
            Speed::New => self.new + self.slow < three_quarters,
            Speed::Slow => self.slow < half && self.new + self.slow < three_quarters,
        };
        may_begin && self.all < limit
    }

    /// Like the workers and the slow places of all lanes: slow attempts hold workers only as far as
    /// there are too many of them.
    fn leave_room_in_group(self, speed: Speed, workers: usize, slow: usize) -> bool {
        match speed {
            Speed::Quick | Speed::New => self.all - self.slow.min(slow) < workers,
            Speed::Slow => self.slow < slow,
        }
    }

    pub(in super::super) fn add(&mut self, speed: Speed) {
        self.all += 1;
        self.new += usize::from(speed == Speed::New);
        self.slow += usize::from(speed == Speed::Slow);
    }

    pub(super) fn remove(&mut self, speed: Speed) {
        self.all -= 1;
        self.new -= usize::from(speed == Speed::New);
        self.slow -= usize::from(speed == Speed::Slow);
    }

    pub(super) fn and(self, others: Self) -> Self {
        Self {
            all: self.all + others.all,
            new: self.new + others.new,
            slow: self.slow + others.slow,
        }
    }
}
