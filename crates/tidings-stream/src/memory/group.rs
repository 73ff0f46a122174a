use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::log::Log;
use crate::engine::{self, Claimed, ConsumerKey, Delivery, Receipt};
use crate::{GroupName, GroupStats, Member, MessageId, PendingMessage};

/// One consumer group.
#[derive(Debug)]
pub(super) struct Group {
    /// The newest message that was claimed.
    cursor: u64,
    /// The number of the next claim.
    next_claim: u64,
    pending: BTreeMap<u64, Pending>,
    /// The pending messages by the time at which they may be claimed again.
    due: BTreeSet<(Instant, u64)>,
    /// Until when each consumer is taken to be alive.
    members: BTreeMap<Arc<str>, Instant>,
    dead_lettered: u64,
    lost_to_trim: u64,
}

/// A message that is claimed, or waits to be claimed again.
#[derive(Debug)]
struct Pending {
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
            pending: BTreeMap::new(),
            due: BTreeSet::new(),
            members: BTreeMap::new(),
            dead_lettered: 0,
            lost_to_trim: 0,
        }
    }

    pub(super) fn seek(&mut self, cursor: u64) {
        self.cursor = cursor;
        self.pending.clear();
        self.due.clear();
    }

    /// Whether [`claim`](Self::claim) would find something, a loss included.
    pub(super) fn is_ready(&self, log: &Log) -> bool {
        let is_due = self
            .due
            .first()
            .is_some_and(|(due, _)| *due <= Instant::now());
        is_due || self.cursor < log.head()
    }

    pub(super) fn claim(
        &mut self,
        log: &Log,
        consumer: &ConsumerKey,
        max: usize,
        visibility: Duration,
    ) -> Claimed {
        let now = Instant::now();
        let claim = Claim {
            number: self.next_claim,
            consumer: Arc::clone(&consumer.consumer),
        };
        self.next_claim += 1;
        let mut deliveries = Vec::new();
        let mut hand_out = |number: u64, pending: &Pending| {
            let message = log.get(number)?;
            let stream = &consumer.group.stream;
            deliveries.push(Delivery {
                message: message.to_message(stream, number, pending.attempts),
                receipt: Receipt {
                    id: MessageId::from_u64(number),
                    claim: claim.number,
                },
                last_error: pending.last_error.clone(),
            });
            Some(())
        };
        let mut room = max;
        while room > 0
            && let Some(&(due, number)) = self.due.first()
            && due <= now
        {
            self.reschedule(number, visibility, |pending| {
                pending.attempts = pending.attempts.saturating_add(1);
                pending.claim = Some(claim.clone());
                pending.since = now;
            });
            let pending = self.pending.get(&number);
            if pending
                .and_then(|pending| hand_out(number, pending))
                .is_some()
            {
                room -= 1;
            } else {
                self.forget(number);
                self.lost_to_trim += 1;
            }
        }
        if self.cursor + 1 < log.tail() {
            self.lost_to_trim += log.tail() - 1 - self.cursor;
            self.cursor = log.tail() - 1;
        }
        while room > 0 && self.cursor < log.head() {
            room -= 1;
            self.cursor += 1;
            let due = now + visibility;
            let pending = Pending {
                attempts: 1,
                claim: Some(claim.clone()),
                since: now,
                due,
                last_error: None,
            };
            hand_out(self.cursor, &pending);
            self.due.insert((due, self.cursor));
            self.pending.insert(self.cursor, pending);
        }
        let next_due = self.due.first().map(|(due, _)| due.duration_since(now));
        Claimed {
            deliveries,
            next_due,
        }
    }

    pub(super) fn holds(&self, receipt: &Receipt) -> bool {
        self.pending
            .get(&receipt.id.as_u64())
            .and_then(|pending| pending.claim.as_ref())
            .is_some_and(|claim| claim.number == receipt.claim)
    }

    /// Is done with a message.
    pub(super) fn forget(&mut self, number: u64) {
        if let Some(pending) = self.pending.remove(&number) {
            self.due.remove(&(pending.due, number));
        }
    }

    /// Is done with a message that moves to another stream, unless it was trimmed.
    pub(super) fn bury(&mut self, number: u64, is_kept: bool) {
        self.forget(number);
        if is_kept {
            self.dead_lettered += 1;
        } else {
            self.lost_to_trim += 1;
        }
    }

    /// Makes a message wait for its next attempt.
    pub(super) fn put_back(&mut self, number: u64, delay: Duration, error: Option<String>) {
        self.reschedule(number, delay, |pending| {
            pending.claim = None;
            pending.since = Instant::now();
            pending.last_error = error;
        });
    }

    /// Makes a message wait as if this attempt had not been.
    pub(super) fn release(&mut self, number: u64) {
        self.reschedule(number, Duration::ZERO, |pending| {
            pending.claim = None;
            pending.since = Instant::now();
            pending.attempts -= 1;
        });
    }

    pub(super) fn extend(&mut self, receipt: &Receipt, visibility: Duration) -> bool {
        self.holds(receipt) && {
            self.reschedule(receipt.id.as_u64(), visibility, |_| {});
            true
        }
    }

    fn reschedule(&mut self, number: u64, after: Duration, change: impl FnOnce(&mut Pending)) {
        if let Some(pending) = self.pending.get_mut(&number) {
            self.due.remove(&(pending.due, number));
            pending.due = after_now(after);
            self.due.insert((pending.due, number));
            change(pending);
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
        let mut pending: BTreeMap<&str, u64> = self
            .members
            .iter()
            .filter(|(_, until)| **until > now)
            .map(|(consumer, _)| (&**consumer, 0))
            .collect();
        for claim in self.pending.values().filter_map(|p| p.claim.as_ref()) {
            *pending.entry(&claim.consumer).or_default() += 1;
        }
        pending
            .into_iter()
            .map(|(consumer, pending)| Member {
                consumer: consumer.to_owned(),
                is_alive: self.members.get(consumer).is_some_and(|until| *until > now),
                pending,
            })
            .collect()
    }

    pub(super) fn pending(&self, after: Option<MessageId>, max: usize) -> Vec<PendingMessage> {
        let now = Instant::now();
        let first = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_u64()));
        self.pending
            .range((first, Bound::Unbounded))
            .take(max)
            .map(|(number, pending)| PendingMessage {
                id: MessageId::from_u64(*number),
                attempts: pending.attempts,
                consumer: pending
                    .claim
                    .as_ref()
                    .map(|claim| claim.consumer.to_string()),
                age: now.duration_since(pending.since),
                due_in: pending.due.duration_since(now),
                last_error: pending.last_error.clone(),
            })
            .collect()
    }

    /// The oldest message that the group has yet to finish, published or not.
    pub(super) fn first_needed(&self) -> u64 {
        let pending = self.pending.first_key_value().map(|(number, _)| *number);
        pending.unwrap_or(self.cursor + 1)
    }

    pub(super) fn stats(&self, name: &GroupName, log: &Log) -> GroupStats {
        let first_needed = self.first_needed().max(log.tail());
        GroupStats {
            position: MessageId::from_u64(self.cursor),
            oldest_unfinished: (first_needed <= log.head())
                .then(|| MessageId::from_u64(first_needed)),
            lag: log.head() - self.cursor.max(log.tail() - 1),
            pending: self.pending.len() as u64,
            dead_lettered: self.dead_lettered,
            lost_to_trim: self.lost_to_trim,
            ..GroupStats::new(name.clone())
        }
    }
}

/// The delay in place of one beyond what the clock can count.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

fn after_now(delay: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(delay).unwrap_or_else(|| now + FAR)
}
