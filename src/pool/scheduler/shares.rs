//! Shares: how many attempts are under way for all lanes that have something in common, and which
//! lanes wait for one of them to end.
//!
//! A lane has a list of the shares that it takes part in, from the narrowest to the widest, and
//! begins an attempt if each of them has room. If one has none, it waits there, in the order in which
//! the lanes of its speed came. Meanwhile the others are left to other lanes: a host where everything
//! stalls must not hold the workers of a group whose lanes wait for it.
//!
//! # Why no lane waits for ever
//!
//! Shares have room at different times. A lane could be let in by its group whenever its host is
//! full, and by its host whenever its group is full, and would never go. So a lane that was let in by
//! a share, and does not find room there or in a narrower one when it is its turn, begins again at
//! the narrowest share and *keeps* the room that it gets, until its attempt begins:
//!
//! - It takes its shares in their order, and a worker last. So of the lanes that keep room, the one
//!   that has come farthest waits only for attempts, and these end: no deadlock.
//! - In each share, one lane of each speed keeps room at a time, and the next one waits for its turn.
//!   So a stalled host holds no more than that of a group.
//! - Those that keep room and the others of their speed take turns, and so do the speeds.
//!
//! Hence a lane waits at most once in each of its shares before it is sent back, and once in each of
//! them, and for a worker, after that. How often it changes its queue before its attempt begins is
//! bounded by the number of its shares, however many lanes there are.

mod rule;

use std::collections::HashMap;
use std::sync::Arc;

use super::ready::{Position, ReadyQueue};
use super::slot::Turn;
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
    /// Those that are under way, and those for which a lane keeps room.
    under_way: Attempts,
    /// Whether a lane keeps room, for each speed.
    kept: [bool; 3],
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
            let at_host = || self.at_host_of(common);
            self.rule(common)
                .is_some_and(|rule| !rule.has_room(taken(), speed, at_host))
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

    /// Keeps room in shares that have some, from the first on to where another lane of the speed
    /// keeps room already. Returns in how many.
    pub(super) fn keep(&mut self, of: &[Common], speed: Speed) -> usize {
        let is_free = |common: &&Common| {
            let share = self.known.get(*common);
            share.is_none_or(|share| !share.kept[speed as usize])
        };
        let count = of.iter().take_while(is_free).count();
        for common in &of[..count] {
            let share = self.share(common);
            share.under_way.add(speed);
            share.kept[speed as usize] = true;
        }
        count
    }

    /// Gives back the room that a lane keeps in its shares.
    pub(super) fn give_back(&mut self, of: &[Common], turn: Turn) {
        let Turn::Keeps(count, speed) = turn else {
            return;
        };
        for common in &of[..count] {
            if let Some(share) = self.known.get_mut(common) {
                share.under_way.remove(speed);
                share.kept[speed as usize] = false;
            }
            self.forget_unused(common);
        }
    }

    /// Lets a lane wait in one of its shares that keeps no room.
    #[cfg(test)]
    pub(super) fn block(
        &mut self,
        of: &[Common],
        share: usize,
        speed: Speed,
        lane: LaneId,
    ) -> Waiting {
        self.block_as(of, share, speed, false, lane)
    }

    /// Lets a lane wait in one of its shares that keeps room in those before it, or does not.
    pub(super) fn block_as(
        &mut self,
        of: &[Common],
        share: usize,
        speed: Speed,
        keeps: bool,
        lane: LaneId,
    ) -> Waiting {
        let blocked = &mut self.share(&of[share]).blocked;
        let position = blocked.push_as(speed, keeps, lane);
        Waiting { share, position }
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
        if self.known.get(common)?.blocked.is_empty() {
            return None;
        }
        let (rule, at_host) = (self.rule(common)?, self.at_host_of(common));
        let share = self.known.get_mut(common)?;
        let taken = share.under_way.and(promised);
        let lane = share.blocked.pop_unless(
            |speed| rule.has_room(taken, speed, || at_host),
            |speed| share.kept[speed as usize],
        )?;
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

    /// How many attempts of all are under way at the host of a group's share there.
    fn at_host_of(&self, common: &Common) -> usize {
        let Common::GroupAtHost(_, host) = common else {
            return 0;
        };
        self.under_way(&Common::Host(Arc::clone(host))).all
    }

    fn share(&mut self, common: &Common) -> &mut Share {
        self.known.entry(common.clone()).or_insert_with(|| Share {
            under_way: Attempts::default(),
            kept: [false; 3],
            blocked: ReadyQueue::new(),
        })
    }

    fn forget_unused(&mut self, common: &Common) {
        let unused = |share: &Share| share.under_way.all == 0 && share.blocked.is_empty();
        if self.known.get(common).is_some_and(unused) {
            self.known.remove(common);
        }
    }
}

impl Waiting {
    /// Which of its shares a lane waits in.
    pub(super) fn share(self) -> usize {
        self.share
    }

    pub(super) fn speed(self) -> Speed {
        self.position.speed()
    }
}

#[cfg(test)]
mod tests;
