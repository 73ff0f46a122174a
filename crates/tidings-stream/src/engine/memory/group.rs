use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::lease::Lease;
use super::log::Log;
use crate::engine::{self, Claimed, ClaimedMessage, ConsumerKey, Receipt};
use crate::stats::Place;
use crate::{GroupName, GroupStats, Member, MessageId, PendingMessage};

/// One consumer group.
#[derive(Debug)]
pub(super) struct Group {
    /// The newest message that was claimed.
    cursor: u64,
    /// The number of the next claim.
    next_claim: u64,
    /// The claims of new messages, by their numbers: in the order of their messages, too.
    leases: BTreeMap<u64, Lease>,
    /// The leases by the time at which they expire.
    expiring: BTreeSet<(Instant, u64)>,
    /// The messages that come again, or have.
    retries: BTreeMap<u64, Retry>,
    /// The retries by the time at which they may be claimed again.
    due: BTreeSet<(Instant, u64)>,
    /// Until when each consumer is taken to be alive.
    members: BTreeMap<Arc<str>, Instant>,
    dead_lettered: u64,
    lost_to_trim: u64,
}

/// A message that waits for another attempt, or is claimed for one.
#[derive(Debug)]
struct Retry {
    attempts: u32,
    /// The claim that holds it; `None` while it waits.
    claim: Option<Claim>,
    /// When it was claimed, or put back.
    since: Instant,
    due: Instant,
    last_error: Option<String>,
}

#[derive(Debug, Clone)]
struct Claim {
    number: u64,
    consumer: Arc<str>,
}

impl Group {
    /// A group that begins after a message.
    pub(super) fn new(cursor: u64) -> Self {
        Self {
            cursor,
            next_claim: engine::first_claim(),
            leases: BTreeMap::new(),
            expiring: BTreeSet::new(),
            retries: BTreeMap::new(),
            due: BTreeSet::new(),
            members: BTreeMap::new(),
            dead_lettered: 0,
            lost_to_trim: 0,
        }
    }

    pub(super) fn seek(&mut self, cursor: u64) {
        self.cursor = cursor;
        self.leases.clear();
        self.expiring.clear();
        self.retries.clear();
        self.due.clear();
    }

    /// Whether [`claim`](Self::claim) would find something, a loss included.
    pub(super) fn is_ready(&self, log: &Log) -> bool {
        let is_due = self.next_due().is_some_and(|due| due <= Instant::now());
        is_due || self.cursor < log.head()
    }

    /// When the next message may be claimed again, unless it is settled before.
    fn next_due(&self) -> Option<Instant> {
        let retry = self.due.first().map(|(due, _)| *due);
        let lease = self.expiring.first().map(|(due, _)| *due);
        retry.into_iter().chain(lease).min()
    }

    pub(super) fn claim(
        &mut self,
        log: &Log,
        consumer: &ConsumerKey,
        max: usize,
        visibility: Duration,
    ) -> Claimed {
        let now = Instant::now();
        self.explode_expired_leases(now);
        let claim = Claim {
            number: self.next_claim,
            consumer: Arc::clone(&consumer.consumer),
        };
        self.next_claim += 1;
        let mut messages = Vec::with_capacity(max.min(log.len() + self.due.len()));
        let mut hand_out = |number: u64, attempt: u32, last_error: Option<String>| {
            let message = log.get(number)?;
            messages.push(ClaimedMessage {
                message: message.to_message(&consumer.group.stream, number, attempt),
                receipt: Receipt {
                    id: MessageId::from_u64(number),
                    claim: claim.number,
                },
                last_error,
            });
            Some(())
        };
        let mut room = max;
        while room > 0
            && let Some(&(due, number)) = self.due.first()
            && due <= now
        {
            self.reschedule(number, visibility, |retry| {
                retry.attempts = retry.attempts.saturating_add(1);
                retry.claim = Some(claim.clone());
                retry.since = now;
            });
            let retry = self.retries.get(&number);
            let handed_out = retry.and_then(|r| hand_out(number, r.attempts, r.last_error.clone()));
            if handed_out.is_some() {
                room -= 1;
            } else {
                self.forget_retry(number);
                self.lost_to_trim += 1;
            }
        }
        let lo = self.cursor + 1;
        while room > 0 && self.cursor < log.head() {
            room -= 1;
            self.cursor += 1;
            hand_out(self.cursor, 1, None);
        }
        let len = usize::try_from(self.cursor + 1 - lo).unwrap_or(0);
        if len > 0 {
            let due = after_now(visibility);
            let lease = Lease::new(claim.consumer, now, due, lo, len);
            self.leases.insert(claim.number, lease);
            self.expiring.insert((due, claim.number));
        }
        Claimed {
            messages,
            next_due: self.next_due().map(|due| due.duration_since(now)),
        }
    }

    /// Makes retries of what is left of claims that have expired. Until another claim takes one,
    /// the old receipt is still good for it.
    fn explode_expired_leases(&mut self, now: Instant) {
        while let Some(&(due, number)) = self.expiring.first()
            && due <= now
            && let Some(lease) = self.forget_lease(number)
        {
            for open in lease.open_numbers() {
                let claim = Claim {
                    number,
                    consumer: Arc::clone(&lease.consumer),
                };
                let retry = Retry {
                    attempts: 1,
                    claim: Some(claim),
                    since: lease.since,
                    due: lease.due,
                    last_error: None,
                };
                self.due.insert((retry.due, open));
                self.retries.insert(open, retry);
            }
        }
    }

    /// Ends the claim that a receipt is the proof of, and returns what was known of the message, which
    /// is no longer pending; `None` if the receipt is stale.
    pub(super) fn end_claim(&mut self, receipt: &Receipt) -> Option<Ended> {
        let number = receipt.id.as_u64();
        if let Some(lease) = self.leases.get_mut(&receipt.claim)
            && lease.is_open(number)
        {
            lease.settle(number);
            if lease.open() == 0 {
                self.forget_lease(receipt.claim);
            }
            return Some(Ended {
                attempts: 1,
                last_error: None,
            });
        }
        self.holding_retry(receipt)?;
        let retry = self.forget_retry(number)?;
        Some(Ended {
            attempts: retry.attempts,
            last_error: retry.last_error,
        })
    }

    /// Makes a message wait for its next attempt.
    pub(super) fn put_back(&mut self, number: u64, delay: Duration, ended: Ended) {
        let due = after_now(delay);
        let retry = Retry {
            attempts: ended.attempts,
            claim: None,
            since: Instant::now(),
            due,
            last_error: ended.last_error,
        };
        self.due.insert((due, number));
        self.retries.insert(number, retry);
    }

    /// Counts a message that moved to another stream, or was trimmed before it could.
    pub(super) fn count_buried(&mut self, is_kept: bool) {
        if is_kept {
            self.dead_lettered += 1;
        } else {
            self.lost_to_trim += 1;
        }
    }

    /// Counts what is lost when messages before `tail` are removed: what the group has not claimed, and
    /// what waits for another attempt. What a consumer has is counted if it comes again.
    pub(super) fn lose(&mut self, tail: u64) {
        let waiting = self.retries.range(..tail);
        let waiting = waiting.filter(|(_, retry)| retry.claim.is_none());
        let gone: Vec<u64> = waiting.map(|(number, _)| *number).collect();
        self.lost_to_trim += gone.len() as u64;
        for number in gone {
            self.forget_retry(number);
        }
        if self.cursor + 1 < tail {
            self.lost_to_trim += tail - 1 - self.cursor;
            self.cursor = tail - 1;
        }
    }

    pub(super) fn extend(&mut self, receipt: &Receipt, visibility: Duration) -> bool {
        let number = receipt.id.as_u64();
        if let Some(lease) = self.leases.get_mut(&receipt.claim)
            && lease.is_open(number)
        {
            self.expiring.remove(&(lease.due, receipt.claim));
            lease.due = lease.due.max(after_now(visibility));
            self.expiring.insert((lease.due, receipt.claim));
            return true;
        }
        if self.holding_retry(receipt).is_none() {
            return false;
        }
        self.reschedule(number, visibility, |_| {});
        true
    }

    /// The retry that a receipt holds.
    fn holding_retry(&self, receipt: &Receipt) -> Option<&Retry> {
        let retry = self.retries.get(&receipt.id.as_u64())?;
        let claim = retry.claim.as_ref()?;
        (claim.number == receipt.claim).then_some(retry)
    }

    fn forget_lease(&mut self, number: u64) -> Option<Lease> {
        let lease = self.leases.remove(&number)?;
        self.expiring.remove(&(lease.due, number));
        Some(lease)
    }

    fn forget_retry(&mut self, number: u64) -> Option<Retry> {
        let retry = self.retries.remove(&number)?;
        self.due.remove(&(retry.due, number));
        Some(retry)
    }

    fn reschedule(&mut self, number: u64, after: Duration, change: impl FnOnce(&mut Retry)) {
        if let Some(retry) = self.retries.get_mut(&number) {
            self.due.remove(&(retry.due, number));
            retry.due = after_now(after);
            self.due.insert((retry.due, number));
            change(retry);
        }
    }

    pub(super) fn check_in(&mut self, consumer: &Arc<str>, ttl: Duration) {
        if ttl.is_zero() {
            self.members.remove(consumer);
        } else {
            self.members.insert(Arc::clone(consumer), after_now(ttl));
        }
    }

    pub(super) fn forget_the_gone(&mut self) {
        let now = Instant::now();
        self.members.retain(|_, until| *until > now);
    }

    pub(super) fn members(&self) -> Vec<Member> {
        let now = Instant::now();
        let is_alive = |until: &Instant| *until > now;
        let alive = self.members.iter().filter(|(_, until)| is_alive(until));
        let mut pending: BTreeMap<&str, u64> =
            alive.map(|(consumer, _)| (&**consumer, 0)).collect();
        for lease in self.leases.values() {
            *pending.entry(&lease.consumer).or_default() += lease.open() as u64;
        }
        for claim in self
            .retries
            .values()
            .filter_map(|retry| retry.claim.as_ref())
        {
            *pending.entry(&claim.consumer).or_default() += 1;
        }
        pending
            .into_iter()
            .map(|(consumer, pending)| Member {
                consumer: consumer.to_owned(),
                is_alive: self.members.get(consumer).is_some_and(is_alive),
                pending,
            })
            .collect()
    }

    pub(super) fn pending(&self, after: Option<MessageId>, max: usize) -> Vec<PendingMessage> {
        let now = Instant::now();
        let after = after.map_or(0, MessageId::as_u64);
        let retries = self
            .retries
            .range((Bound::Excluded(after), Bound::Unbounded));
        let retries = retries.take(max).map(|(number, retry)| PendingMessage {
            id: MessageId::from_u64(*number),
            attempts: retry.attempts,
            consumer: retry.claim.as_ref().map(|claim| claim.consumer.to_string()),
            age: now.duration_since(retry.since),
            due_in: retry.due.duration_since(now),
            last_error: retry.last_error.clone(),
        });
        let leased = self.leases.values().flat_map(|lease| {
            let numbers = lease.open_numbers().filter(|number| *number > after);
            numbers.map(|number| PendingMessage {
                id: MessageId::from_u64(number),
                attempts: 1,
                consumer: Some(lease.consumer.to_string()),
                age: now.duration_since(lease.since),
                due_in: lease.due.duration_since(now),
                last_error: None,
            })
        });
        let mut pending: Vec<_> = retries.chain(leased.take(max)).collect();
        pending.sort_by_key(|message| message.id);
        pending.truncate(max);
        pending
    }

    /// The oldest message that the group has yet to finish, published or not.
    pub(super) fn first_needed(&self) -> u64 {
        let retry = self.retries.first_key_value().map(|(number, _)| *number);
        let lease = self.leases.first_key_value();
        let leased = lease.and_then(|(_, lease)| lease.open_numbers().next());
        let next = Some(self.cursor + 1);
        [retry, leased, next]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(1)
    }

    pub(super) fn stats(&self, name: &GroupName, log: &Log) -> GroupStats {
        let first_needed = self.first_needed();
        let leased: usize = self.leases.values().map(Lease::open).sum();
        let place = Place {
            tail: log.tail(),
            head: log.head(),
            cursor: self.cursor,
            first_needed,
            lag: log.age(first_needed.max(log.tail())),
        };
        GroupStats {
            pending: (self.retries.len() + leased) as u64,
            dead_lettered: self.dead_lettered,
            lost_to_trim: self.lost_to_trim,
            ..GroupStats::at(name.clone(), place)
        }
    }
}

/// What was known of a message whose claim ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) attempts: u32,
    pub(super) last_error: Option<String>,
}

/// The delay in place of one beyond what the clock can count.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

fn after_now(delay: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(delay).unwrap_or_else(|| now + FAR)
}
