use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{
    ClaimOptions, Claimed, ConsumerKey, Engine, GroupKey, Outcome, REDRIVE_GROUP, Receipt, Settled,
    Settlement, Wakes,
};
use crate::{
    Error, GroupName, Member, Message, MessageId, NewMessage, PendingMessage, Result, Retention,
    StartFrom, StreamName, StreamStats,
};

mod group;
mod log;

use group::Group;
use log::Log;

/// Streams in the memory of one process: for tests, and for work that may go down with it.
///
/// Clones share the streams. It takes as much memory as the streams'
/// [retention](Retention) lets them have, and keeps time by the runtime's clock, so that
/// a paused one works.
#[derive(Debug, Clone, Default)]
pub struct MemoryEngine {
    /// One lock over all streams, because a dead letter moves between two of them at once.
    streams: Arc<Mutex<HashMap<StreamName, Stream>>>,
    wakes: Wakes,
}

/// One stream.
#[derive(Debug, Default)]
struct Stream {
    log: Log,
    retention: Retention,
    groups: HashMap<GroupName, Group>,
}

impl MemoryEngine {
    /// An engine without streams.
    pub fn new() -> Self {
        Self::default()
    }

    fn with_group<T>(&self, key: &GroupKey, work: impl FnOnce(&Log, &mut Group) -> T) -> Result<T> {
        let mut streams = self.streams.lock();
        let stream = streams.get_mut(&key.stream).ok_or(Error::UnknownGroup)?;
        let group = stream
            .groups
            .get_mut(&key.group)
            .ok_or(Error::UnknownGroup)?;
        Ok(work(&stream.log, group))
    }
}

#[async_trait]
impl Engine for MemoryEngine {
    async fn append(
        &self,
        stream: &StreamName,
        messages: Vec<NewMessage>,
        retention: Option<Retention>,
    ) -> Result<Vec<MessageId>> {
        let ids = {
            let mut streams = self.streams.lock();
            let stream = streams.entry(stream.clone()).or_default();
            let now = log::now();
            let append = |message| MessageId::from_u64(stream.log.append(message, now));
            let ids = messages.into_iter().map(append).collect();
            stream.retention = retention.unwrap_or(stream.retention);
            stream.trim();
            ids
        };
        self.wakes.wake(stream);
        Ok(ids)
    }

    async fn set_retention(&self, stream: &StreamName, retention: Retention) -> Result<()> {
        {
            let mut streams = self.streams.lock();
            let stream = streams.entry(stream.clone()).or_default();
            stream.retention = retention;
            stream.trim();
        }
        // What is trimmed may have had an ordering key.
        self.wakes.wake(stream);
        Ok(())
    }

    async fn open_group(&self, key: &GroupKey, start: StartFrom) -> Result<()> {
        let mut streams = self.streams.lock();
        let none = Stream::default();
        let stream = streams.get(&key.stream).unwrap_or(&none);
        if !stream.groups.contains_key(&key.group) {
            // Before it creates anything.
            let group = Group::new(stream.log.position(start)?);
            let stream = streams.entry(key.stream.clone()).or_default();
            stream.groups.insert(key.group.clone(), group);
        }
        Ok(())
    }

    async fn seek(&self, key: &GroupKey, to: StartFrom) -> Result<()> {
        self.with_group(key, |log, group| {
            log.position(to).map(|position| group.seek(position))
        })??;
        self.wakes.wake(&key.stream);
        Ok(())
    }

    async fn delete_group(&self, key: &GroupKey) -> Result<bool> {
        let mut streams = self.streams.lock();
        let stream = streams.get_mut(&key.stream);
        Ok(stream.is_some_and(|stream| stream.groups.remove(&key.group).is_some()))
    }

    async fn delete_message(&self, stream: &StreamName, id: MessageId) -> Result<bool> {
        let mut streams = self.streams.lock();
        let Some(Stream { log, groups, .. }) = streams.get_mut(stream) else {
            return Ok(false);
        };
        let was_there = log.delete(id.as_u64());
        for group in groups.values_mut() {
            group.bring_forward(id.as_u64());
        }
        self.wakes.wake(stream);
        Ok(was_there)
    }

    async fn delete_stream(&self, stream: &StreamName) -> Result<bool> {
        let was_there = self.streams.lock().remove(stream).is_some();
        self.wakes.wake(stream);
        Ok(was_there)
    }

    async fn claim(
        &self,
        consumer: &ConsumerKey,
        max: usize,
        options: ClaimOptions,
    ) -> Result<Claimed> {
        self.with_group(&consumer.group, |log, group| {
            group.claim(log, consumer, max, options)
        })
    }

    async fn settle(&self, key: &GroupKey, settlements: Arc<[Settlement]>) -> Result<Vec<bool>> {
        let mut letters = Vec::new();
        let mut settled = Settled::default();
        {
            let mut streams = self.streams.lock();
            let stream = streams.get_mut(&key.stream).ok_or(Error::UnknownGroup)?;
            let group = stream
                .groups
                .get_mut(&key.group)
                .ok_or(Error::UnknownGroup)?;
            let obeyed = settlements
                .iter()
                .map(|Settlement { receipt, outcome }| {
                    let Some(mut ended) = group.end_claim(receipt) else {
                        return false;
                    };
                    let number = receipt.id.as_u64();
                    match outcome {
                        Outcome::Acknowledged => settled.has_freed |= group.free(number, &ended),
                        Outcome::Retry { delay, error } => {
                            ended.last_error.clone_from(error);
                            group.put_back(number, *delay, ended);
                        }
                        Outcome::Released => {
                            ended.attempts -= 1;
                            group.put_back(number, Duration::ZERO, ended);
                        }
                        Outcome::Dead { to, provenance } => {
                            settled.has_freed |= group.free(number, &ended);
                            let message = stream.log.get(number);
                            group.count_buried(message.is_some());
                            let Some(stored) = message else { return false };
                            let letter = stored.content.clone().buried(provenance.clone());
                            letters.push((to, letter));
                        }
                    }
                    true
                })
                .collect();
            settled.obeyed = obeyed;
            for (to, letter) in letters {
                let stream = streams.entry(to.clone()).or_default();
                stream.log.append(letter, log::now());
                stream.trim();
            }
        }
        for stream in settled.wakes(key, &settlements) {
            self.wakes.wake(stream);
        }
        Ok(settled.obeyed)
    }

    async fn extend(
        &self,
        key: &GroupKey,
        receipts: Arc<[Receipt]>,
        visibility: Duration,
    ) -> Result<Vec<bool>> {
        self.with_group(key, |_, group| {
            receipts
                .iter()
                .map(|receipt| group.extend(receipt, visibility))
                .collect()
        })
    }

    async fn ready(&self, groups: Arc<[GroupKey]>) -> Result<Vec<bool>> {
        let streams = self.streams.lock();
        let is_ready = |key: &GroupKey| {
            streams
                .get(&key.stream)
                .and_then(|stream| Some(stream.groups.get(&key.group)?.is_ready(&stream.log)))
                .unwrap_or(true)
        };
        Ok(groups.iter().map(is_ready).collect())
    }

    async fn check_in(&self, consumers: Arc<[ConsumerKey]>, ttl: Duration) -> Result<()> {
        let mut streams = self.streams.lock();
        for ConsumerKey { group, consumer } in consumers.iter() {
            if let Some(stream) = streams.get_mut(&group.stream)
                && let Some(group) = stream.groups.get_mut(&group.group)
            {
                group.check_in(consumer, ttl);
            }
        }
        Ok(())
    }

    async fn trim(&self) -> Result<u64> {
        let mut streams = self.streams.lock();
        let trimmed = streams.iter_mut().map(|(name, stream)| {
            stream.log.forget_expired_keys();
            stream.groups.values_mut().for_each(Group::forget_the_gone);
            let removed = stream.trim();
            if removed > 0 {
                self.wakes.wake(name);
            }
            removed
        });
        Ok(trimmed.sum())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<StreamName>> {
        let streams = self.streams.lock();
        let mut names: Vec<_> = streams
            .keys()
            .filter(|name| name.as_str().starts_with(prefix))
            .cloned()
            .collect();
        names.sort();
        Ok(names)
    }

    async fn stats(&self, stream: &StreamName) -> Result<StreamStats> {
        let streams = self.streams.lock();
        Ok(streams.get(stream).map(Stream::stats).unwrap_or_default())
    }

    async fn read(
        &self,
        stream: &StreamName,
        after: Option<MessageId>,
        max: usize,
    ) -> Result<Vec<Message>> {
        let streams = self.streams.lock();
        let Some(Stream { log, .. }) = streams.get(stream) else {
            return Ok(Vec::new());
        };
        let first = after.map_or(0, MessageId::as_u64).saturating_add(1);
        let numbers = first.max(log.tail())..=log.head();
        Ok(numbers
            .filter_map(|number| Some(log.get(number)?.to_message(stream, number, 0)))
            .take(max)
            .collect())
    }

    async fn pending(
        &self,
        key: &GroupKey,
        after: Option<MessageId>,
        max: usize,
    ) -> Result<Vec<PendingMessage>> {
        self.with_group(key, |_, group| group.pending(after, max))
    }

    async fn members(&self, key: &GroupKey) -> Result<Vec<Member>> {
        self.with_group(key, |_, group| group.members())
    }

    fn settles_in_transactions(&self) -> bool {
        false
    }

    fn wakes(&self) -> &Wakes {
        &self.wakes
    }
}

impl Stream {
    /// Removes what the retention does not keep, and returns how many messages that was.
    fn trim(&mut self) -> u64 {
        let needed = if self.retention.trim_pending {
            None
        } else {
            let groups = self.groups.iter();
            let protecting = groups.filter(|(name, _)| name.as_str() != REDRIVE_GROUP);
            protecting.map(|(_, group)| group.first_needed()).min()
        };
        let removed = self.log.trim(&self.retention, needed);
        if removed > 0 {
            let tail = self.log.tail();
            self.groups.values_mut().for_each(|group| group.lose(tail));
        }
        removed
    }

    fn stats(&self) -> StreamStats {
        let groups = self.groups.iter();
        let mut groups: Vec<_> = groups
            .map(|(name, group)| group.figures(name, &self.log))
            .collect();
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        StreamStats::new(self.log.tail(), self.log.head(), groups)
    }
}
