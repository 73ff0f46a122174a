use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::engine::{Claimed, Delivery, Engine, GroupKey, Outcome, Receipt, Settlement, Wakes};
use crate::{
    Error, GroupName, GroupStats, Message, MessageId, NewMessage, Retention, StartFrom, StreamName,
    StreamStats,
};

/// Streams in the memory of one process: for tests, and for work that may go down with it.
///
/// Clones share the streams. It takes as much memory as the streams'
/// [retention](Retention) lets them have, and keeps time by the runtime's clock, so that
/// a paused one works.
#[derive(Debug, Clone, Default)]
pub struct MemoryEngine {
    /// One lock over all streams, because a dead letter moves between two of them at once.
    streams: Arc<Mutex<HashMap<StreamName, Log>>>,
    wakes: Wakes,
}

impl MemoryEngine {
    /// An engine without streams.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamName, Log>> {
        // No code that runs under the lock panics half-way through a change.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_group<T>(
        &self,
        key: &GroupKey,
        work: impl FnOnce(&StreamName, &mut VecDeque<Stored>, u64, &mut Group) -> T,
    ) -> Result<T, Error> {
        let mut streams = self.lock();
        let log = streams.get_mut(&key.stream).ok_or(Error::UnknownGroup)?;
        let tail = log.tail();
        let group = log.groups.get_mut(&key.group).ok_or(Error::UnknownGroup)?;
        Ok(work(&key.stream, &mut log.messages, tail, group))
    }
}

/// One stream.
#[derive(Debug, Default)]
struct Log {
    /// The kept messages; the last has the number `head`.
    messages: VecDeque<Stored>,
    head: u64,
    retention: Retention,
    groups: HashMap<GroupName, Group>,
}

#[derive(Debug, Clone)]
struct Stored {
    content: NewMessage,
    created_at: Timestamp,
}

#[derive(Debug, Default)]
struct Group {
    /// The newest message that was claimed.
    cursor: u64,
    claims: u64,
    pending: BTreeMap<u64, Pending>,
    /// The pending messages by the time at which they may be claimed again.
    due: BTreeSet<(Instant, u64)>,
    dead_lettered: u64,
    lost_to_trim: u64,
}

/// A message that is claimed, or waits to be claimed again.
#[derive(Debug)]
struct Pending {
    attempts: u32,
    /// The claim that holds it; `None` while it waits.
    claim: Option<u64>,
    due: Instant,
    last_error: Option<String>,
}

impl Engine for MemoryEngine {
    async fn append(
        &self,
        stream: &StreamName,
        messages: Vec<NewMessage>,
        retention: Retention,
    ) -> Result<MessageId, Error> {
        let first = {
            let mut streams = self.lock();
            let log = streams.entry(stream.clone()).or_default();
            let first = log.head + 1;
            for message in messages {
                log.append(message);
            }
            log.retention = retention;
            log.trim();
            first
        };
        self.wakes.wake(stream);
        Ok(MessageId::from_u64(first))
    }

    async fn open_group(&self, key: &GroupKey, start: StartFrom) -> Result<(), Error> {
        let mut streams = self.lock();
        let log = streams.entry(key.stream.clone()).or_default();
        if log.groups.contains_key(&key.group) {
            return Ok(());
        }
        let cursor = match start {
            StartFrom::Latest => log.head,
            StartFrom::Earliest => log.tail() - 1,
            StartFrom::After(id) if id.as_u64() > log.head => {
                return Err(Error::StartAhead {
                    start: id,
                    newest: MessageId::from_u64(log.head),
                });
            }
            StartFrom::After(id) => id.as_u64().max(log.tail() - 1),
        };
        let group = Group {
            cursor,
            ..Group::default()
        };
        log.groups.insert(key.group.clone(), group);
        Ok(())
    }

    async fn delete_group(&self, key: &GroupKey) -> Result<bool, Error> {
        let mut streams = self.lock();
        let log = streams.get_mut(&key.stream);
        Ok(log.is_some_and(|log| log.groups.remove(&key.group).is_some()))
    }

    async fn claim(
        &self,
        key: &GroupKey,
        max: usize,
        visibility: Duration,
    ) -> Result<Claimed, Error> {
        self.with_group(key, |stream, messages, tail, group| {
            group.claim(stream, messages, tail, max, visibility)
        })
    }

    async fn settle(
        &self,
        key: &GroupKey,
        settlements: Arc<[Settlement]>,
    ) -> Result<Vec<bool>, Error> {
        let mut letters = Vec::new();
        let mut returned = false;
        let obeyed = {
            let mut streams = self.lock();
            let log = streams.get_mut(&key.stream).ok_or(Error::UnknownGroup)?;
            let tail = log.tail();
            let group = log.groups.get_mut(&key.group).ok_or(Error::UnknownGroup)?;
            let mut obeyed = Vec::with_capacity(settlements.len());
            for Settlement { receipt, outcome } in settlements.iter() {
                let seq = receipt.id.as_u64();
                if !group.holds(receipt) {
                    obeyed.push(false);
                    continue;
                }
                obeyed.push(true);
                match outcome {
                    Outcome::Acknowledged => group.forget(seq),
                    Outcome::Retry { delay, error } => {
                        returned = true;
                        group.put_back(seq, *delay, |pending| pending.last_error.clone_from(error));
                    }
                    Outcome::Released => {
                        returned = true;
                        group.put_back(seq, Duration::ZERO, |pending| pending.attempts -= 1);
                    }
                    Outcome::Dead { to, provenance } => {
                        group.forget(seq);
                        let stored = seq
                            .checked_sub(tail)
                            .and_then(|index| log.messages.get(usize::try_from(index).ok()?));
                        if let Some(stored) = stored {
                            group.dead_lettered += 1;
                            let letter = stored.content.clone().buried(provenance.clone());
                            letters.push((to.clone(), letter));
                        } else {
                            group.lost_to_trim += 1;
                        }
                    }
                }
            }
            for (to, letter) in &letters {
                let log = streams.entry(to.clone()).or_default();
                log.append(letter.clone());
                log.trim();
            }
            obeyed
        };
        if returned {
            self.wakes.wake(&key.stream);
        }
        for (to, _) in letters {
            self.wakes.wake(&to);
        }
        Ok(obeyed)
    }

    async fn extend(
        &self,
        key: &GroupKey,
        receipt: Receipt,
        visibility: Duration,
    ) -> Result<bool, Error> {
        self.with_group(key, |_, _, _, group| {
            group.holds(&receipt) && {
                group.reschedule(receipt.id.as_u64(), visibility, |_| {});
                true
            }
        })
    }

    async fn trim(&self) -> Result<u64, Error> {
        Ok(self.lock().values_mut().map(Log::trim).sum())
    }

    async fn stats(&self, stream: &StreamName) -> Result<StreamStats, Error> {
        Ok(self.lock().get(stream).map(Log::stats).unwrap_or_default())
    }

    fn wakes(&self) -> &Wakes {
        &self.wakes
    }
}

impl Log {
    /// The number of the oldest kept message; one past the head when there is none.
    fn tail(&self) -> u64 {
        self.head + 1 - self.messages.len() as u64
    }

    fn append(&mut self, content: NewMessage) {
        let now = Timestamp::now();
        self.messages.push_back(Stored {
            content,
            created_at: Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now),
        });
        self.head += 1;
    }

    /// Removes what the retention does not keep, and answers how many messages that was.
    fn trim(&mut self) -> u64 {
        let Retention {
            max_len, max_age, ..
        } = self.retention;
        // The first number to keep, by each rule.
        let by_len = max_len.map_or(0, |max| (self.head + 1).saturating_sub(max.get()));
        let by_age = max_age
            .and_then(|age| {
                let age = SignedDuration::try_from(age).ok()?;
                let oldest = Timestamp::now().checked_sub(age).ok()?;
                let kept = self.messages.iter();
                Some(self.tail() + kept.take_while(|m| m.created_at <= oldest).count() as u64)
            })
            .unwrap_or(0);
        let mut keep = by_len.max(by_age);
        if !self.retention.trim_pending {
            let protected = self.groups.values().map(Group::first_needed).min();
            keep = keep.min(protected.unwrap_or(u64::MAX));
        }
        let excess = keep.saturating_sub(self.tail());
        let excess = usize::try_from(excess)
            .unwrap_or(usize::MAX)
            .min(self.messages.len());
        self.messages.drain(..excess);
        excess as u64
    }

    fn stats(&self) -> StreamStats {
        let mut groups: Vec<_> = self
            .groups
            .iter()
            .map(|(name, group)| GroupStats {
                lag: self.head - group.cursor.max(self.tail() - 1),
                pending: group.pending.len() as u64,
                dead_lettered: group.dead_lettered,
                lost_to_trim: group.lost_to_trim,
                ..GroupStats::new(name.clone())
            })
            .collect();
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        let holds_any = !self.messages.is_empty();
        StreamStats {
            oldest: holds_any.then(|| MessageId::from_u64(self.tail())),
            newest: holds_any.then(|| MessageId::from_u64(self.head)),
            messages: self.messages.len() as u64,
            groups,
        }
    }
}

impl Group {
    fn claim(
        &mut self,
        stream: &StreamName,
        messages: &VecDeque<Stored>,
        tail: u64,
        max: usize,
        visibility: Duration,
    ) -> Claimed {
        let now = Instant::now();
        let mut deliveries = Vec::new();
        self.claims += 1;
        while deliveries.len() < max
            && let Some(&(due, seq)) = self.due.first()
            && due <= now
        {
            if seq < tail {
                self.forget(seq);
                self.lost_to_trim += 1;
                continue;
            }
            let claim = self.claims;
            self.reschedule(seq, visibility, |pending| {
                pending.attempts = pending.attempts.saturating_add(1);
                pending.claim = Some(claim);
            });
            deliveries.extend(self.delivery(stream, messages, tail, seq));
        }
        if self.cursor + 1 < tail {
            self.lost_to_trim += tail - 1 - self.cursor;
            self.cursor = tail - 1;
        }
        let head = tail + messages.len() as u64 - 1;
        while deliveries.len() < max && self.cursor < head {
            self.cursor += 1;
            let due = now + visibility;
            self.due.insert((due, self.cursor));
            self.pending.insert(
                self.cursor,
                Pending {
                    attempts: 1,
                    claim: Some(self.claims),
                    due,
                    last_error: None,
                },
            );
            deliveries.extend(self.delivery(stream, messages, tail, self.cursor));
        }
        let next_due = self.due.first().map(|(due, _)| due.duration_since(now));
        Claimed {
            deliveries,
            next_due,
        }
    }

    /// A pending message as it is handed out; `None` when it is neither pending nor kept.
    fn delivery(
        &self,
        stream: &StreamName,
        messages: &VecDeque<Stored>,
        tail: u64,
        seq: u64,
    ) -> Option<Delivery> {
        let pending = self.pending.get(&seq)?;
        let stored = messages.get(usize::try_from(seq.checked_sub(tail)?).ok()?)?;
        let id = MessageId::from_u64(seq);
        Some(Delivery {
            message: Message::new(
                id,
                stream.clone(),
                stored.content.clone(),
                stored.created_at,
                pending.attempts,
            ),
            receipt: Receipt {
                id,
                claim: pending.claim?,
            },
            last_error: pending.last_error.clone(),
        })
    }

    fn holds(&self, receipt: &Receipt) -> bool {
        self.pending
            .get(&receipt.id.as_u64())
            .is_some_and(|pending| pending.claim == Some(receipt.claim))
    }

    fn forget(&mut self, seq: u64) {
        if let Some(pending) = self.pending.remove(&seq) {
            self.due.remove(&(pending.due, seq));
        }
    }

    fn put_back(&mut self, seq: u64, delay: Duration, change: impl FnOnce(&mut Pending)) {
        self.reschedule(seq, delay, |pending| {
            pending.claim = None;
            change(pending);
        });
    }

    fn reschedule(&mut self, seq: u64, after: Duration, change: impl FnOnce(&mut Pending)) {
        if let Some(pending) = self.pending.get_mut(&seq) {
            self.due.remove(&(pending.due, seq));
            pending.due = Instant::now()
                .checked_add(after)
                .unwrap_or_else(|| Instant::now() + FAR);
            self.due.insert((pending.due, seq));
            change(pending);
        }
    }

    /// The oldest message that the group has yet to handle.
    fn first_needed(&self) -> u64 {
        let pending = self.pending.first_key_value().map(|(seq, _)| *seq);
        pending.unwrap_or(self.cursor + 1)
    }
}

/// The delay in place of one beyond what the clock can count.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
