//! Shares: how many attempts are under way for all lanes that have something in common, and which
//! lanes wait for one of them to end.
//!
//! A lane has a list of the shares that it takes part in, and begins an attempt if each of them has
//! room. If one has none, it waits there, whatever room the others have.

mod rule;

use std::collections::HashMap;
use std::sync::Arc;

use super::ready::{Position, ReadyQueue};
use super::{LaneId, Limits, Speed};
pub(super) use rule::Attempts;
use rule::Rule;

/// The shares of all lanes that have work.
#[derive(Debug)]
pub(super) struct Shares {
    of_host: Option<Rule>,
    of_group: Option<Rule>,
    of_group_at_host: Option<Rule>,
    known: HashMap<Common, Share>,
}

/// What lanes were promised that may try again: an entry for each in a list of shares.
pub(super) type PromisedOfEach = [Attempts; 3];

/// What lanes that have a share together have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Common {
    Host(Arc<str>),
    Group(Arc<str>),
    /// Both: the group, and the host.
    GroupAtHost(Arc<str>, Arc<str>),
}

#[derive(Debug)]
struct Share {
    under_way: Attempts,
    blocked: ReadyQueue,
}

/// The right to an attempt in each of a lane's shares, and what it counts as there.
#[derive(Debug)]
pub(super) struct SharePermit {
    pub(super) of: Arc<[Common]>,
    speed: Speed,
}

/// Where a lane waits: in which of its shares, and from which place it can be taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Waiting {
    share: usize,
    position: Position,
}

impl Shares {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            of_host: Rule::of_host(limits),
            of_group: Rule::of_group(limits),
            of_group_at_host: Rule::of_group_at_host(limits),
            known: HashMap::new(),
        }
    }

    /// What a lane has in common with others, as far as that has a limit. The narrowest is the first:
    /// where a group has enough, it waits among itself, and not in front of others.
    pub(super) fn of(&self, host: &Arc<str>, group: Option<&Arc<str>>) -> Arc<[Common]> {
        let of_host = Common::Host(Arc::clone(host));
        let Some(group) = group else {
            return self.with_rule([of_host]);
        };
        let at_host = Common::GroupAtHost(Arc::clone(group), Arc::clone(host));
        self.with_rule([at_host, Common::Group(Arc::clone(group)), of_host])
    }

    /// Which share has no room for another attempt beside those that were promised, if one has none.
    pub(super) fn full(
        &self,
        of: &[Common],
        speed: Speed,
        promised: &PromisedOfEach,
    ) -> Option<usize> {
        (of.iter().zip(promised)).position(|(common, promised)| {
            let taken = || self.under_way(common).and(*promised);
            self.rule(common)
                .is_some_and(|rule| !rule.has_room(taken(), speed))
        })
    }

    pub(super) fn acquire(&mut self, of: &Arc<[Common]>, speed: Speed) -> SharePermit {
        for common in of.iter() {
            self.share(common).under_way.add(speed);
        }
        SharePermit {
            of: Arc::clone(of),
            speed,
        }
    }

    /// Takes note that an attempt takes long.
    pub(super) fn mark_late(&mut self, permit: &mut SharePermit) {
        let speed = std::mem::replace(&mut permit.speed, Speed::Slow);
        for common in permit.of.iter() {
            if let Some(share) = self.known.get_mut(common) {
                share.under_way.remove(speed);
                share.under_way.add(Speed::Slow);
            }
        }
    }

    pub(super) fn release(&mut self, permit: &SharePermit) {
        for common in permit.of.iter() {
            if let Some(share) = self.known.get_mut(common) {
                share.under_way.remove(permit.speed);
            }
            self.forget_unused(common);
        }
    }

    /// Lets a lane wait in one of its shares.
    pub(super) fn block(
        &mut self,
        of: &[Common],
        share: usize,
        speed: Speed,
        lane: LaneId,
    ) -> Waiting {
        let blocked = &mut self.share(&of[share]).blocked;
        let position = blocked.push(speed, lane);
        Waiting { share, position }
    }

    /// Moves a lane that waits to the queue of another speed.
    pub(super) fn requeue(
        &mut self,
        of: &[Common],
        waiting: Waiting,
        speed: Speed,
        lane: LaneId,
    ) -> Waiting {
        let blocked = &mut self.share(&of[waiting.share]).blocked;
        blocked.remove(waiting.position);
        let position = blocked.push(speed, lane);
        Waiting {
            position,
            ..waiting
        }
    }

    /// Takes a lane out that no longer waits.
    pub(super) fn unblock(&mut self, of: &[Common], waiting: Waiting) {
        let common = &of[waiting.share];
        if let Some(share) = self.known.get_mut(common) {
            share.blocked.remove(waiting.position);
        }
        self.forget_unused(common);
    }

    /// Takes the next lane that may try again beside those that were promised a permit. Call it
    /// until there is none, whenever a permit may have been left unused.
    pub(super) fn next_unblocked(&mut self, common: &Common, promised: Attempts) -> Option<LaneId> {
        let rule = self.rule(common)?;
        let share = self.known.get_mut(common)?;
        let taken = share.under_way.and(promised);
        let lane = (share.blocked).pop(|speed| rule.has_room(taken, speed))?;
        self.forget_unused(common);
        Some(lane)
    }

    #[cfg(test)]
    pub(super) fn in_flight(&self, common: &Common) -> usize {
        self.under_way(common).all
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn with_rule<const N: usize>(&self, of: [Common; N]) -> Arc<[Common]> {
        of.into_iter()
            .filter(|common| self.rule(common).is_some())
            .collect()
    }

    fn rule(&self, common: &Common) -> Option<Rule> {
        match common {
            Common::Host(_) => self.of_host,
            Common::Group(_) => self.of_group,
            Common::GroupAtHost(..) => self.of_group_at_host,
        }
    }

    fn under_way(&self, common: &Common) -> Attempts {
        (self.known.get(common)).map_or_else(Attempts::default, |share| share.under_way)
    }

    fn share(&mut self, common: &Common) -> &mut Share {
        self.known.entry(common.clone()).or_insert_with(|| Share {
            under_way: Attempts::default(),
            blocked: ReadyQueue::new(),
        })
    }

    fn forget_unused(&mut self, common: &Common) {
        let unused = |share: &Share| share.under_way.all == 0 && !share.blocked.has_next(|_| true);
        if self.known.get(common).is_some_and(unused) {
            self.known.remove(common);
        }
    }
}

impl Waiting {
    pub(super) fn speed(self) -> Speed {
        self.position.speed()
    }
}

#[cfg(test)]
mod tests;
