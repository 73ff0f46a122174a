//! Bringing dead letters back.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Streams;
use crate::dead_letter;
use crate::engine::{
    self, Claimed, ClaimedMessage, ConsumerKey, Engine, GroupKey, Outcome, Receipt, Settlement,
};
use crate::{Error, Headers, Message, MessageId, Result, StartFrom, StreamName};

/// Letters that are claimed at a time.
const BATCH: u64 = 100;

/// Letters whose claims are extended, or ended, at a time.
const MAX_SETTLED: usize = 1000;

/// How long a letter stays claimed if this process dies before it has moved it.
const VISIBILITY: Duration = Duration::from_secs(30);

/// Which dead letters to bring back, where to, and how fast.
#[derive(Clone)]
#[must_use]
pub struct Redrive {
    limit: u64,
    target: Option<String>,
    is_wanted: Arc<dyn Fn(&Message) -> bool + Send + Sync>,
    rate: Option<NonZeroU32>,
}

impl Default for Redrive {
    /// All of them, each to the stream that it came from, as fast as it goes.
    fn default() -> Self {
        Self {
            limit: u64::MAX,
            target: None,
            is_wanted: Arc::new(|_| true),
            rate: None,
        }
    }
}

impl Redrive {
    /// Brings back so many at most, the oldest first. What is [skipped](Redriven::skipped) does not count. The
    /// default is all.
    pub fn with_limit(mut self, letters: u64) -> Self {
        self.limit = letters;
        self
    }

    /// Sends them to this stream, in the handle's application and namespace. The default is the
    /// stream that each came from.
    pub fn with_target(mut self, stream: impl Into<String>) -> Self {
        self.target = Some(stream.into());
        self
    }

    /// Brings back only those letters that `is_wanted` returns `true` for, by their headers or payload. The
    /// others stay, and another redrive may bring them back. It is called for each letter that was not brought
    /// back yet, and this redrive keeps the ids of the others until it ends. The default is all letters.
    pub fn with_filter(
        mut self,
        is_wanted: impl Fn(&Message) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.is_wanted = Arc::new(is_wanted);
        self
    }

    /// Brings back so many letters a second at most. The default is as many as the store takes.
    pub fn with_rate(mut self, letters_per_second: NonZeroU32) -> Self {
        self.rate = Some(letters_per_second);
        self
    }
}

impl fmt::Debug for Redrive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redrive")
            .field("limit", &self.limit)
            .field("target", &self.target)
            .field("rate", &self.rate)
            .finish_non_exhaustive()
    }
}

/// What a redrive did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Redriven {
    /// Messages that were published again.
    pub moved: u64,
    /// Messages that do not say which stream they came from, and stay where they are. A redrive with a
    /// [target](Redrive::with_target) brings them back.
    pub skipped: u64,
}

impl Streams {
    /// Publishes dead letters again, as they were before they died: payload and headers, with new
    /// ids, and attempts counted from 1. Each comes back once, whatever crashes, and however often
    /// or from how many processes this is called.
    ///
    /// The letters themselves stay in the dead-letter stream for as long as its
    /// [retention](crate::Retention) keeps them. Its group `tidings.redrive` remembers which have
    /// been brought back; it can [seek](Self::seek) to bring them back once more. Unlike other groups
    /// it does not keep letters from being trimmed. Letters that arrive after this has begun are left
    /// for the next time. A stream without letters, or one that does not exist yet, has none to bring back.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] when the target is the dead-letter stream itself, or when there is no target
    /// and there are messages of which none says which stream it came from. This changes nothing.
    ///
    /// [`Error::InvalidName`], [`Error::Closed`], [`Error::Full`], [`Error::OutcomeUnknown`] or
    /// [`Error::Backend`] from the store. What had been moved by then stays moved; calling again continues, half
    /// a minute later if the store cannot be told at once.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops after some letters; calling again continues, with up to 100 of them, and
    /// those that a filter has left or that were skipped, half a minute later.
    ///
    /// # Panics
    ///
    /// When called outside a Tokio runtime.
    pub async fn redrive(&self, dead_letters: &str, options: Redrive) -> Result<Redriven> {
        self.ensure_open()?;
        let target = options.target.as_deref();
        let target = target
            .map(|name| self.name_in("target", name))
            .transpose()?;
        let group = self.group(dead_letters, engine::REDRIVE_GROUP)?;
        if target.as_ref() == Some(&group.stream) {
            return Err(Error::InvalidOption {
                field: "target",
                expected: "another stream",
            });
        }
        let store = &self.shared.engine;
        let stats = store.stats(&group.stream).await?;
        // What dies again while this runs is not brought back for ever.
        let end = stats.newest;
        if end.is_none() {
            return Ok(Redriven::default());
        }
        let is_first = stats.groups.iter().all(|it| it.name != group.group);
        // A group that is made for nothing would stay.
        if is_first && target.is_none() && !self.holds_letter(&group.stream, end).await? {
            return Err(Error::InvalidOption {
                field: "target",
                expected: "set, because no message says which stream it came from",
            });
        }
        store.open_group(&group, StartFrom::Earliest).await?;
        let consumer = ConsumerKey {
            group: group.clone(),
            consumer: engine::REDRIVE_GROUP.into(),
        };
        let mut redriving = Redriving {
            store: store.as_ref(),
            consumer,
            end,
            target,
            done: Redriven::default(),
            held: BTreeMap::new(),
            extended_at: Instant::now(),
        };
        let moved = redriving.run(&options).await;
        let released = redriving.release().await;
        moved?;
        released?;
        Ok(redriving.done)
    }

    /// Whether one of the messages up to `end` says which stream it came from, or may do so because it
    /// cannot be read: claims come past it.
    async fn holds_letter(&self, stream: &StreamName, end: Option<MessageId>) -> Result<bool> {
        let page_size = usize::try_from(BATCH).unwrap_or(usize::MAX);
        let mut after = None;
        while after < end {
            let page = match self.shared.engine.read(stream, after, page_size).await {
                Err(Error::Backend(_)) => return Ok(true),
                page => page?,
            };
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            if page.iter().any(|it| origin(it, stream).is_some()) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A redrive under way.
struct Redriving<'a> {
    store: &'a dyn Engine,
    consumer: ConsumerKey,
    /// The newest letter that it may bring back.
    end: Option<MessageId>,
    target: Option<StreamName>,
    done: Redriven,
    /// The claims of what is still to be moved and of what stays, which would come again otherwise.
    held: BTreeMap<MessageId, Receipt>,
    extended_at: Instant,
}

impl Redriving<'_> {
    async fn run(&mut self, options: &Redrive) -> Result<()> {
        while self.room(options) > 0 {
            self.extend_if_old().await?;
            let room = usize::try_from(self.room(options).min(BATCH)).unwrap_or(usize::MAX);
            let claiming = self.store.claim(&self.consumer, room, VISIBILITY.into());
            let Claimed { messages, next_due } = claiming.await?;
            // All that this claim has met may have been deleted, and there is more.
            if messages.is_empty() && next_due == Some(Duration::ZERO) {
                continue;
            }
            let receipts = messages.iter().map(|it| (it.message.id, it.receipt));
            self.held.extend(receipts);
            if messages.iter().all(|it| Some(it.message.id) > self.end) {
                return Ok(());
            }
            let is_wanted = |letter: &&ClaimedMessage| {
                Some(letter.message.id) <= self.end && (options.is_wanted)(&letter.message)
            };
            let mut ends = Vec::new();
            for letter in messages.iter().filter(is_wanted) {
                match fate(letter, &self.consumer.group, self.target.as_ref()) {
                    Some(outcome) => ends.push(Settlement {
                        receipt: letter.receipt,
                        outcome,
                    }),
                    // It is held like what a filter leaves, and given back at the end.
                    None => self.done.skipped += 1,
                }
            }
            // No more than in a second, so that claims are extended in time.
            let at_once = options.rate.map_or(u32::MAX, NonZeroU32::get);
            let at_once = usize::try_from(at_once).unwrap_or(usize::MAX);
            for ends in ends.chunks(at_once) {
                self.extend_if_old().await?;
                let moved = self.bring_back(ends.into()).await?;
                if let Some(rate) = options.rate {
                    tokio::time::sleep(Duration::from_secs(1) * moved / rate.get()).await;
                }
            }
        }
        Ok(())
    }

    /// How many letters it may still bring back.
    fn room(&self, options: &Redrive) -> u64 {
        options.limit - self.done.moved
    }

    /// Moves letters, and returns how many it has moved.
    async fn bring_back(&mut self, ends: Arc<[Settlement]>) -> Result<u32> {
        let settling = self.store.settle(&self.consumer.group, Arc::clone(&ends));
        let obeyed = settling.await?;
        let mut moved: u32 = 0;
        for (end, obeyed) in ends.iter().zip(obeyed) {
            self.held.remove(&end.receipt.id);
            moved += u32::from(obeyed);
        }
        self.done.moved += u64::from(moved);
        Ok(moved)
    }

    /// Lets no claim expire.
    async fn extend_if_old(&mut self) -> Result<()> {
        if self.extended_at.elapsed() < VISIBILITY / 3 {
            return Ok(());
        }
        self.extended_at = Instant::now();
        let receipts: Vec<Receipt> = self.held.values().copied().collect();
        for receipts in receipts.chunks(MAX_SETTLED) {
            let group = &self.consumer.group;
            self.store
                .extend(group, receipts.into(), VISIBILITY)
                .await?;
        }
        Ok(())
    }

    /// Gives back what it holds.
    async fn release(&mut self) -> Result<()> {
        let receipts: Vec<Receipt> = std::mem::take(&mut self.held).into_values().collect();
        for receipts in receipts.chunks(MAX_SETTLED) {
            let released = receipts.iter().map(|receipt| Settlement {
                receipt: *receipt,
                outcome: Outcome::Released,
            });
            let group = &self.consumer.group;
            self.store.settle(group, released.collect()).await?;
        }
        Ok(())
    }
}

/// The stream that a message of a dead-letter stream came from.
fn origin(message: &Message, dead_letters: &StreamName) -> Option<StreamName> {
    let origin = message.headers.get(dead_letter::STREAM)?.parse().ok()?;
    (origin != *dead_letters).then_some(origin)
}

/// Moves a letter where it belongs, if that is known: without provenance it is the message that it was.
fn fate(letter: &ClaimedMessage, group: &GroupKey, target: Option<&StreamName>) -> Option<Outcome> {
    let origin = || origin(&letter.message, &group.stream);
    let to = target.cloned().or_else(origin)?;
    Some(Outcome::Dead {
        to,
        provenance: Headers::new(),
    })
}
