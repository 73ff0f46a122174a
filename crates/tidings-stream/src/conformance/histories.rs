use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::support::{NEVER, key, numbered, streams};
use crate::engine::{ClaimOptions, ConsumerKey, Engine, GroupKey, Outcome, Receipt, Settlement};
use crate::{
    Headers, MemoryEngine, Message, MessageId, NewMessage, ORDERING_KEY, PendingMessage, Retention,
    StartFrom, StreamName,
};

const HISTORIES: u64 = 12;
const STEPS: usize = 60;

/// More than there ever is.
const ALL: usize = 10_000;

/// Whatever is done in whatever order, an engine comes out where the one in memory does: the same
/// messages are handed out as the same attempts, the same receipts are obeyed, and the same is kept,
/// pending, dead and counted. The second group, which keeps the order of keys, never has two messages of a
/// key claimed, nor one before another.
pub async fn random_histories_end_as_in_memory(engine: Arc<dyn Engine>) {
    for seed in 0..HISTORIES {
        let mut history = History::new(engine.clone(), seed);
        for step in 0..STEPS {
            history.step().await;
            history.compare(step).await;
        }
    }
}

/// Two engines to which the same is done.
struct History {
    seed: u64,
    random: fastrand::Rng,
    /// Whether messages are deleted.
    deletes: bool,
    subject: Arc<dyn Engine>,
    model: Arc<dyn Engine>,
    stream: StreamName,
    groups: [GroupKey; 2],
    /// Receipts that were handed out at the same time for the same message, good or stale.
    receipts: Vec<(usize, Receipt, Receipt)>,
}

impl History {
    fn new(subject: Arc<dyn Engine>, seed: u64) -> Self {
        let streams = streams(subject.clone());
        let name = format!("history{seed}");
        Self {
            seed,
            random: fastrand::Rng::with_seed(seed),
            deletes: seed.is_multiple_of(2),
            subject,
            model: Arc::new(MemoryEngine::new()),
            stream: streams.name(&name).unwrap(),
            groups: ["g", "h"].map(|group| key(&streams, &name, group)),
            receipts: Vec::new(),
        }
    }

    fn both(&self) -> [&Arc<dyn Engine>; 2] {
        [&self.subject, &self.model]
    }

    async fn step(&mut self) {
        let group = self.random.usize(..2);
        match self.random.u32(..100) {
            0..23 => self.append().await,
            23..25 if self.deletes => self.delete_message().await,
            23..25 => {}
            25..50 => self.claim(group).await,
            50..85 => self.settle().await,
            85..90 => self.extend().await,
            90..95 => self.open(group).await,
            95..97 => self.seek(group).await,
            97 => self.delete(group).await,
            _ => {
                for engine in self.both() {
                    engine.trim().await.unwrap();
                }
            }
        }
    }

    async fn append(&mut self) {
        let retention = match self.random.u32(..3) {
            0 => None,
            _ => Some(self.retention()),
        };
        let mut messages = numbered(self.random.u64(..12));
        for message in &mut messages {
            if self.random.u32(..4) == 0 {
                let key = self.random.u32(..10).to_string();
                *message = NewMessage::new("keyed").with_publish_key(key, NEVER);
            }
            if self.random.bool() {
                let key = ["a", "b", "\"", "\\\"", "\n\u{e9}"][self.random.usize(..5)];
                *message = message.clone().with_ordering_key(key);
            }
        }
        let mut ids = Vec::new();
        for engine in self.both() {
            let appended = engine.append(&self.stream, messages.clone(), retention);
            ids.push(appended.await.unwrap());
        }
        assert_eq!(ids[0], ids[1], "seed {}", self.seed);
    }

    fn retention(&mut self) -> Retention {
        let mut retention = Retention::default();
        if self.random.bool() {
            retention = retention.with_max_len(self.random.u64(1..30));
        }
        if self.random.bool() {
            retention = retention.with_pending_trimmed();
        }
        retention
    }

    async fn claim(&mut self, group: usize) {
        let consumer = ConsumerKey {
            group: self.groups[group].clone(),
            consumer: format!("consumer {}", self.random.u32(..3)).into(),
        };
        // Which of several due ones comes first depends on the clock: all of them are taken.
        let waiting = self.model.pending(&consumer.group, None, ALL).await;
        let waiting = waiting.map_or(0, |pending| {
            pending
                .iter()
                .filter(|message| message.due_in.is_zero())
                .count()
        });
        let mut max = waiting + self.random.usize(1..20);
        let mut options = ClaimOptions::from(NEVER);
        // The first group is a mixed one.
        options.in_key_order = group == 1 || self.random.bool();
        let in_flight = self.in_flight(group).await;
        if self.deletes {
            // What is gone takes room from others in some engines.
            max = ALL;
        } else if self.random.bool() {
            let bound = in_flight + waiting + self.random.usize(1..10);
            options.max_in_flight = NonZeroU32::new(u32::try_from(bound).unwrap());
        }
        let mut found = Vec::new();
        for engine in self.both() {
            let claimed = engine.claim(&consumer, max, options).await;
            let mut messages = claimed.map(|claimed| claimed.messages).unwrap_or_default();
            messages.sort_by_key(|it| it.message.id);
            found.push(messages);
        }
        let [subject, model] = <[_; 2]>::try_from(found).unwrap();
        assert_eq!(subject.len(), model.len(), "seed {}", self.seed);
        for (subject, model) in subject.iter().zip(&model) {
            let said = |d: &crate::engine::ClaimedMessage| {
                let content = (d.message.payload.clone(), d.message.headers.clone());
                (
                    d.message.id,
                    d.message.attempt,
                    d.last_error.clone(),
                    content,
                )
            };
            assert_eq!(said(subject), said(model), "seed {}", self.seed);
            self.receipts.push((group, subject.receipt, model.receipt));
        }
        let bound = options.max_in_flight.map_or(u32::MAX, NonZeroU32::get);
        assert!(self.in_flight(group).await <= usize::try_from(bound).unwrap());
    }

    /// How many messages a group has claimed. None of these claims expires.
    async fn in_flight(&self, group: usize) -> usize {
        let pending = self.subject.pending(&self.groups[group], None, ALL).await;
        let claimed = |it: &PendingMessage| it.consumer.is_some();
        pending.map_or(0, |pending| pending.iter().filter(|it| claimed(it)).count())
    }

    async fn delete_message(&mut self) {
        let id = MessageId::from_u64(self.random.u64(..80));
        let mut deleted = Vec::new();
        for engine in self.both() {
            deleted.push(engine.delete_message(&self.stream, id).await.unwrap());
        }
        assert_eq!(deleted[0], deleted[1], "seed {}", self.seed);
    }

    /// Of the pending messages of a key in the second group, only the first is claimed or has been.
    fn check_order(&self, pending: &[PendingMessage], kept: &[Message], step: usize) {
        let keys = kept
            .iter()
            .filter_map(|it| Some((it.id, it.headers.get(ORDERING_KEY)?)));
        let keys: BTreeMap<_, _> = keys.collect();
        let mut seen = BTreeSet::new();
        for message in pending {
            if let Some(key) = keys.get(&message.id)
                && !seen.insert(key)
            {
                let waits = message.attempts == 0 && message.consumer.is_none();
                assert!(
                    waits,
                    "seed {}, step {step}: {message:?} of {key}",
                    self.seed
                );
            }
        }
    }

    async fn settle(&mut self) {
        let group = self.random.usize(..2);
        let mut chosen: Vec<_> = self
            .receipts
            .iter()
            .filter(|r| r.0 == group)
            .copied()
            .collect();
        self.random.shuffle(&mut chosen);
        chosen.truncate(self.random.usize(..15));
        let outcomes: Vec<Outcome> = chosen.iter().map(|_| self.outcome()).collect();
        let mut obeyed = Vec::new();
        for (index, engine) in self.both().into_iter().enumerate() {
            let settlements = chosen
                .iter()
                .zip(&outcomes)
                .map(|(receipts, outcome)| Settlement {
                    receipt: [receipts.1, receipts.2][index],
                    outcome: outcome.clone(),
                });
            let settled = engine
                .settle(&self.groups[group], settlements.collect())
                .await;
            obeyed.push(settled.ok());
        }
        assert_eq!(obeyed[0], obeyed[1], "seed {}", self.seed);
    }

    fn outcome(&mut self) -> Outcome {
        match self.random.u32(..10) {
            0..5 => Outcome::Acknowledged,
            5 => Outcome::Released,
            6 => Outcome::Dead {
                to: self.stream.dead_letter(),
                provenance: Headers::from([("x-dlq-reason".to_owned(), "test".to_owned())]),
            },
            roll => Outcome::Retry {
                delay: if roll == 7 { NEVER } else { Duration::ZERO },
                error: self
                    .random
                    .bool()
                    .then(|| format!("error {}", self.random.u8(..))),
            },
        }
    }

    async fn extend(&mut self) {
        let group = self.random.usize(..2);
        let chosen: Vec<_> = self
            .receipts
            .iter()
            .filter(|r| r.0 == group)
            .copied()
            .collect();
        let mut obeyed = Vec::new();
        for (index, engine) in self.both().into_iter().enumerate() {
            let receipts = chosen
                .iter()
                .map(|receipts| [receipts.1, receipts.2][index]);
            let extended = engine
                .extend(&self.groups[group], receipts.collect(), NEVER)
                .await;
            obeyed.push(extended.ok());
        }
        assert_eq!(obeyed[0], obeyed[1], "seed {}", self.seed);
    }

    fn start(&mut self) -> StartFrom {
        match self.random.u32(..3) {
            0 => StartFrom::Latest,
            1 => StartFrom::Earliest,
            _ => StartFrom::After(MessageId::from_u64(self.random.u64(1..60))),
        }
    }

    async fn open(&mut self, group: usize) {
        let start = self.start();
        let mut opened = Vec::new();
        for engine in self.both() {
            opened.push(engine.open_group(&self.groups[group], start).await.is_ok());
        }
        assert_eq!(opened[0], opened[1], "seed {}", self.seed);
    }

    async fn seek(&mut self, group: usize) {
        let to = self.start();
        let mut sought = Vec::new();
        for engine in self.both() {
            sought.push(engine.seek(&self.groups[group], to).await.is_ok());
        }
        assert_eq!(sought[0], sought[1], "seed {}", self.seed);
    }

    async fn delete(&mut self, group: usize) {
        let mut deleted = Vec::new();
        for engine in self.both() {
            deleted.push(engine.delete_group(&self.groups[group]).await.unwrap());
        }
        assert_eq!(deleted[0], deleted[1], "seed {}", self.seed);
    }

    /// Holds all that can be seen of the one against the other.
    async fn compare(&self, step: usize) {
        let mut seen = Vec::new();
        for engine in self.both() {
            let mut pending = Vec::new();
            for group in &self.groups {
                let page = engine.pending(group, None, ALL).await;
                if *group == self.groups[1]
                    && let Ok(page) = &page
                {
                    let kept = engine.read(&self.stream, None, ALL).await.unwrap();
                    self.check_order(page, &kept, step);
                }
                pending.push(page.ok().map(|messages| {
                    let said = |m: PendingMessage| (m.id, m.attempts, m.consumer, m.last_error);
                    messages.into_iter().map(said).collect::<Vec<_>>()
                }));
            }
            let mut kept = Vec::new();
            for stream in [&self.stream, &self.stream.dead_letter()] {
                let messages = engine.read(stream, None, ALL).await.unwrap();
                let said = |m: Message| (m.id, m.payload, m.headers);
                kept.push(messages.into_iter().map(said).collect::<Vec<_>>());
            }
            let mut stats = engine.stats(&self.stream).await.unwrap();
            // The clocks of the engines differ.
            for group in &mut stats.groups {
                // One that was deleted may have no time.
                assert!(group.lag_time.is_none() || group.oldest_unfinished.is_some());
                group.lag_time = None;
            }
            let ready = engine.ready(Arc::from(self.groups.clone())).await.unwrap();
            seen.push((pending, kept, stats, ready));
        }
        assert_eq!(seen[0], seen[1], "seed {}, step {step}", self.seed);
    }
}
