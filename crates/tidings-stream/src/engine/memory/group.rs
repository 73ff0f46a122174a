use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::log::{Log, Stored};
use crate::engine::settled_bits::SettledBits;
use crate::engine::{
    self, ClaimOptions, Claimed, ClaimedMessage, ConsumerKey, MAX_HELD_BACK, Receipt,
};
use crate::{GroupFigures, GroupName, Member, MessageId, PendingMessage};

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
    /// The retries that wait, by the time at which they may be claimed.
    due: BTreeSet<(Instant, u64)>,
    /// The retries that are claimed, by the time at which that expires.
    held: BTreeSet<(Instant, u64)>,
    /// The retries of each ordering key. The first one may be claimed, the others wait for it.
    keys: HashMap<String, BTreeSet<u64>>,
    /// Until when each consumer is taken to be alive.
    members: BTreeMap<Arc<str>, Instant>,
    dead_lettered: u64,
    lost_to_trim: u64,
}

/// A message that waits for another attempt, or is claimed for one.
#[derive(Debug, Clone)]
pub(super) struct Retry {
    pub(super) attempts: u32,
    /// The claim that holds it; `None` while it waits.
    claim: Option<Claim>,
    /// When it was claimed, or put back.
    since: Instant,
    /// `None` while it waits for its ordering key.
    due: Option<Instant>,
    pub(super) last_error: Option<String>,
    key: Option<String>,
}

#[derive(Debug, Clone)]
struct Claim {
    number: u64,
    consumer: Arc<str>,
}

/// The claim of a run of new messages.
#[derive(Debug)]
struct Lease {
    consumer: Arc<str>,
    since: Instant,
    due: Instant,
    messages: SettledBits,
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
            held: BTreeSet::new(),
            keys: HashMap::new(),
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
        self.held.clear();
        self.keys.clear();
    }

    /// Whether [`claim`](Self::claim) would find something, a loss included.
    pub(super) fn is_ready(&self, log: &Log) -> bool {
        let is_due = self.next_due().is_some_and(|due| due <= Instant::now());
        is_due || self.cursor < log.head()
    }

    /// When the next message may be claimed again, unless it is settled before.
    fn next_due(&self) -> Option<Instant> {
        let waiting = self.due.first().map(|(due, _)| *due);
        let held = self.held.first().map(|(due, _)| *due);
        let lease = self.expiring.first().map(|(due, _)| *due);
        waiting.into_iter().chain(held).chain(lease).min()
    }

    /// When the next claim expires of those that last.
    fn next_expiry(&self, now: Instant) -> Option<Instant> {
        let lasting = (now, u64::MAX)..;
        let firsts = [&self.held, &self.expiring].map(|it| it.range(lasting.clone()).next());
        firsts.into_iter().flatten().map(|(due, _)| *due).min()
    }

    pub(super) fn claim(
        &mut self,
        log: &Log,
        consumer: &ConsumerKey,
        max: usize,
        options: ClaimOptions,
    ) -> Claimed {
        let now = Instant::now();
        self.explode_expired_leases(now);
        let claim = Claim {
            number: self.next_claim,
            consumer: Arc::clone(&consumer.consumer),
        };
        self.next_claim += 1;
        let mut messages = Vec::with_capacity(max.min(log.len() + self.due.len()));
        let mut hand_out = |message: &Stored, number: u64, attempt: u32, last_error| {
            messages.push(ClaimedMessage {
                message: message.to_message(&consumer.group.stream, number, attempt),
                receipt: Receipt {
                    id: MessageId::from_u64(number),
                    claim: claim.number,
                },
                last_error,
            });
        };
        let due = after_now(options.visibility);
        let in_hand = |attempts: u32, last_error, key| Retry {
            attempts,
            claim: Some(claim.clone()),
            since: now,
            due: Some(due),
            last_error,
            key,
        };
        let mut room = max;
        if let Some(bound) = options.max_in_flight {
            let bound = usize::try_from(bound.get()).unwrap_or(usize::MAX);
            room = room.min(bound.saturating_sub(self.in_flight(now)));
        }
        let is_bounded = room < max;
        while room > 0
            && let Some(number) = self.first_due(now)
            && let Some(retry) = self.forget_retry(number)
        {
            let Some(message) = log.get(number) else {
                self.lost_to_trim += 1;
                self.free(number, &retry);
                continue;
            };
            room -= 1;
            let attempts = retry.attempts.saturating_add(1);
            hand_out(message, number, attempts, retry.last_error.clone());
            self.save_retry(number, in_hand(attempts, retry.last_error, retry.key));
        }
        let lo = self.cursor + 1;
        let mut gone = Vec::new();
        let mut held_back = 0;
        while room > 0 && self.cursor < log.head() && held_back < MAX_HELD_BACK {
            self.cursor += 1;
            let Some(message) = log.get(self.cursor) else {
                gone.push(self.cursor);
                continue;
            };
            if options.in_key_order {
                let key = message.content.ordering_key().map(str::to_owned);
                if let Some(key) = &key {
                    let of_key = self.keys.entry(key.clone()).or_default();
                    of_key.insert(self.cursor);
                    if of_key.len() > 1 {
                        held_back += 1;
                        let waiting = Retry {
                            claim: None,
                            due: None,
                            ..in_hand(0, None, Some(key.clone()))
                        };
                        self.save_retry(self.cursor, waiting);
                        continue;
                    }
                }
                self.save_retry(self.cursor, in_hand(1, None, key));
            }
            room -= 1;
            hand_out(message, self.cursor, 1, None);
        }
        self.lost_to_trim += gone.len() as u64;
        let len = usize::try_from(self.cursor + 1 - lo).unwrap_or(0);
        if len > gone.len() && !options.in_key_order {
            let mut messages = SettledBits::new(lo, len);
            for number in gone {
                messages.settle(number);
            }
            self.add_lease(claim, due, messages);
        }
        let next_due = if held_back == MAX_HELD_BACK {
            Some(now)
        } else if room == 0 && is_bounded {
            self.next_expiry(now)
        } else {
            self.next_due()
        };
        Claimed {
            messages,
            next_due: next_due.map(|due| due.duration_since(now)),
        }
    }

    fn add_lease(&mut self, claim: Claim, due: Instant, messages: SettledBits) {
        let Claim { number, consumer } = claim;
        let since = Instant::now();
        let lease = Lease {
            consumer,
            since,
            due,
            messages,
        };
        self.leases.insert(number, lease);
        self.expiring.insert((due, number));
    }

    /// How many messages are claimed, once expired leases have been taken apart.
    fn in_flight(&self, now: Instant) -> usize {
        self.leased() + self.held.range((now, u64::MAX)..).count()
    }

    /// How many messages are claimed for the first time.
    fn leased(&self) -> usize {
        let leases = self.leases.values();
        leases.map(|it| it.messages.open_count()).sum()
    }

    /// The first retry that may be claimed: it is due, or its claim has expired.
    fn first_due(&self, now: Instant) -> Option<u64> {
        let firsts = [self.due.first(), self.held.first()];
        let first = firsts.into_iter().flatten().min()?;
        (first.0 <= now).then_some(first.1)
    }

    /// Makes retries of what is left of claims that have expired. Until another claim takes one,
    /// the old receipt is still good for it.
    fn explode_expired_leases(&mut self, now: Instant) {
        while let Some(&(due, number)) = self.expiring.first()
            && due <= now
            && let Some(lease) = self.forget_lease(number)
        {
            for open in lease.messages.open() {
                let claim = Claim {
                    number,
                    consumer: Arc::clone(&lease.consumer),
                };
                let retry = Retry {
                    claim: Some(claim),
                    due: Some(lease.due),
                    ..Retry::first(lease.since)
                };
                self.save_retry(open, retry);
            }
        }
    }

    /// Ends the claim that a receipt is the proof of, and returns what was known of the message, which
    /// is no longer pending; `None` if the receipt is stale.
    pub(super) fn end_claim(&mut self, receipt: &Receipt) -> Option<Retry> {
        let number = receipt.id.as_u64();
        if let Some(lease) = self.leases.get_mut(&receipt.claim)
            && lease.messages.settle(number)
        {
            let since = lease.since;
            if lease.messages.open_count() == 0 {
                self.forget_lease(receipt.claim);
            }
            return Some(Retry::first(since));
        }
        self.holding_retry(receipt)?;
        self.forget_retry(number)
    }

    /// Makes a message wait for its next attempt.
    pub(super) fn put_back(&mut self, number: u64, delay: Duration, ended: Retry) {
        let retry = Retry {
            claim: None,
            since: Instant::now(),
            due: Some(after_now(delay)),
            ..ended
        };
        self.save_retry(number, retry);
    }

    /// Lets the next message of an ordering key be claimed, after this one has been finished, and returns
    /// whether there is one.
    pub(super) fn free(&mut self, number: u64, ended: &Retry) -> bool {
        let Some(key) = &ended.key else { return false };
        let Some(of_key) = self.keys.get_mut(key) else {
            return false;
        };
        of_key.remove(&number);
        let Some(next) = of_key.first().copied() else {
            self.keys.remove(key);
            return false;
        };
        let is_held_back = self.retries.get(&next).is_some_and(|it| it.due.is_none());
        if is_held_back && let Some(retry) = self.forget_retry(next) {
            self.put_back(next, Duration::ZERO, retry);
        }
        is_held_back
    }

    /// Makes a message that was deleted due at once if it waits, so that the next claim finds it gone.
    pub(super) fn bring_forward(&mut self, number: u64) {
        let waits = |retry: &Retry| retry.claim.is_none();
        if self.retries.get(&number).is_some_and(waits)
            && let Some(retry) = self.forget_retry(number)
        {
            self.put_back(number, Duration::ZERO, retry);
        }
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
            if let Some(retry) = self.forget_retry(number) {
                self.free(number, &retry);
            }
        }
        if self.cursor + 1 < tail {
            self.lost_to_trim += tail - 1 - self.cursor;
            self.cursor = tail - 1;
        }
    }

    pub(super) fn extend(&mut self, receipt: &Receipt, visibility: Duration) -> bool {
        let number = receipt.id.as_u64();
        if let Some(lease) = self.leases.get_mut(&receipt.claim)
            && lease.messages.is_open(number)
        {
            self.expiring.remove(&(lease.due, receipt.claim));
            lease.due = lease.due.max(after_now(visibility));
            self.expiring.insert((lease.due, receipt.claim));
            return true;
        }
        if self.holding_retry(receipt).is_none() {
            return false;
        }
        if let Some(mut retry) = self.forget_retry(number) {
            retry.due = retry.due.max(Some(after_now(visibility)));
            self.save_retry(number, retry);
        }
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
        if let Some(due) = retry.due {
            self.by_time(&retry).remove(&(due, number));
        }
        Some(retry)
    }

    fn save_retry(&mut self, number: u64, retry: Retry) {
        if let Some(due) = retry.due {
            self.by_time(&retry).insert((due, number));
        }
        self.retries.insert(number, retry);
    }

    fn by_time(&mut self, retry: &Retry) -> &mut BTreeSet<(Instant, u64)> {
        match retry.claim {
            Some(_) => &mut self.held,
            None => &mut self.due,
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
            *pending.entry(&lease.consumer).or_default() += lease.messages.open_count() as u64;
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
            due_in: retry
                .due
                .map_or(Duration::MAX, |due| due.duration_since(now)),
            last_error: retry.last_error.clone(),
        });
        let leased = self.leases.values().flat_map(|lease| {
            let numbers = lease.messages.open().filter(|number| *number > after);
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
        let leased = lease.and_then(|(_, lease)| lease.messages.open().next());
        let next = Some(self.cursor + 1);
        [retry, leased, next]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(1)
    }

    pub(super) fn figures(&self, name: &GroupName, log: &Log) -> GroupFigures {
        let first_needed = self.first_needed();
        GroupFigures {
            name: name.clone(),
            cursor: self.cursor,
            first_needed,
            lag: log.age(first_needed.max(log.tail())),
            pending: (self.retries.len() + self.leased()) as u64,
            dead_lettered: self.dead_lettered,
            lost_to_trim: self.lost_to_trim,
        }
    }
}

impl Retry {
    /// What is known of a message after its first attempt, which began at this time.
    fn first(since: Instant) -> Self {
        Self {
            attempts: 1,
            claim: None,
            since,
            due: None,
            last_error: None,
            key: None,
        }
    }
}

/// The delay in place of one beyond what the clock can count.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

fn after_now(delay: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(delay).unwrap_or_else(|| now + FAR)
}
