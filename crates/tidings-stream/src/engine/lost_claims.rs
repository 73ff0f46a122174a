//! Claims whose messages did not reach their consumer.
//!
//! A claim counts attempts, and its reply may get lost, or its messages may not be readable. No handler
//! was given them, so the attempts must not count. Each claim is noted before it is made and forgotten
//! when its messages have been handed over. What is left is handed back before the next claim of the
//! group: the number of a claim is drawn by the client, so that it is known in any case.
//!
//! So it is decided here what follows if [messages cannot be read](super#messages-that-cannot-be-read).

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{ClaimOptions, Claimed, ClaimedMessage, ConsumerKey, GroupKey, Receipt};
use crate::{Message, MessageId, Result};

/// How long a claim is remembered beyond its end. The server may execute it late, after a release that
/// found nothing.
const MEMORY: Duration = Duration::from_secs(60);

/// Time after which a release that found nothing is tried again: it doubles from the first to the last. Each
/// costs the next claim a round trip.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// Most claims that are remembered of one group. More mean that the store is down for long; then the
/// oldest is forgotten, and its attempts count.
const MAX_CLAIMS: usize = 256;

/// Most messages that are remembered of one group because they could not be read alone.
const MAX_UNREAD: usize = 64;

/// From how many messages on a claim that grows again is unlimited.
const UNLIMITED: usize = 1000;

/// The claims of one engine.
#[derive(Debug, Default)]
pub(super) struct LostClaims(Mutex<HashMap<GroupKey, OfGroup>>);

#[derive(Debug, Default)]
struct OfGroup {
    claims: Vec<Claim>,
    /// Most messages of the next claim, after a failed read.
    limit: Option<usize>,
    /// The messages that could not be read alone, and how often in a row.
    unread: Vec<(MessageId, u32)>,
}

#[derive(Debug, Clone, Copy)]
struct Claim {
    number: i64,
    forget_at: Instant,
    is_under_way: bool,
    /// When it is to be handed back, if not at once.
    held_until: Option<Instant>,
    /// When a release that found nothing is tried again, and how long after that once more.
    next_try: Instant,
    pause: Duration,
}

/// How a store makes claims under numbers that the client has drawn.
pub(super) trait ClaimByNumber: Sync {
    /// Where the messages of a claim are.
    type Place: Send;

    /// Claims up to so many messages.
    fn take(
        &self,
        consumer: &ConsumerKey,
        number: i64,
        max: usize,
        options: ClaimOptions,
    ) -> impl Future<Output = Result<Taken<Self::Place>>> + Send;

    /// Reads those of the messages that are kept, in the same order. `None` if the stream is gone, and the group
    /// with it.
    fn read(
        &self,
        group: &GroupKey,
        messages: &[Expected],
        place: Self::Place,
    ) -> impl Future<Output = Result<Option<Read>>> + Send;

    /// Ends claims of messages that turned out to be gone.
    fn lose(
        &self,
        group: &GroupKey,
        receipts: &[Receipt],
    ) -> impl Future<Output = Result<()>> + Send;

    /// Hands back what a claim has taken. Returns whether there was anything.
    fn release(&self, group: &GroupKey, number: i64) -> impl Future<Output = Result<bool>> + Send;

    /// Makes claims last for at least so long: see [`Engine::extend`](super::Engine::extend).
    fn extend(
        &self,
        group: &GroupKey,
        receipts: &[Receipt],
        visibility: Duration,
    ) -> impl Future<Output = Result<Vec<bool>>> + Send;
}

/// What a claim has taken, without its content.
pub(super) struct Taken<P> {
    /// In the order in which they are handed out.
    pub(super) messages: Vec<Expected>,
    pub(super) next_due: Option<Duration>,
    pub(super) place: P,
}

/// Messages that were read, each with the error of an earlier attempt if it was not known before.
pub(super) type Read = Vec<(Message, Option<String>)>;

/// A message that was claimed and is still to be read.
pub(super) struct Expected {
    pub(super) receipt: Receipt,
    pub(super) attempt: u32,
    pub(super) last_error: Option<String>,
}

impl Expected {
    pub(super) fn new(number: u64, claim: u64, attempt: u32, last_error: Option<String>) -> Self {
        let id = MessageId::from_u64(number);
        Self {
            receipt: Receipt { id, claim },
            attempt,
            last_error,
        }
    }
}

/// A claim under way. Unless its messages are handed over, it is lost when this is dropped.
#[derive(Debug)]
pub(super) struct UnderWay<'a> {
    claims: &'a LostClaims,
    group: &'a GroupKey,
    number: i64,
    /// Most messages it may take.
    max: usize,
    is_limited: bool,
    /// What it has taken and must read: how many messages, and the first one.
    to_read: Option<(usize, Receipt)>,
}

impl LostClaims {
    /// Hands lost claims of the group back, and claims messages under a number.
    pub(super) async fn claim(
        &self,
        store: &impl ClaimByNumber,
        number: i64,
        consumer: &ConsumerKey,
        max: usize,
        options: ClaimOptions,
    ) -> Result<Claimed> {
        let group = &consumer.group;
        let visibility = options.visibility;
        for number in self.of(group) {
            let was_found = store.release(group, number).await?;
            self.handed_back(group, number, was_found);
        }
        let mut under_way = self.begin(group, number, max, visibility);
        let error = match under_way.claim(store, consumer, options).await {
            Ok(claimed) => return Ok(under_way.handed_over(claimed)),
            Err(error) => error,
        };
        if let Some((receipt, pause)) = under_way.failed() {
            // Longer than it is held back, so that the attempt can be uncounted before it ends.
            let lasting = visibility.saturating_add(pause * 2);
            let extended = store.extend(group, &[receipt], lasting).await;
            if extended.is_ok_and(|obeyed| obeyed == [true]) {
                under_way.hold(pause);
            }
        } else if under_way.to_read.is_none() && !error.may_have_been_done() {
            under_way.took_nothing();
        }
        Err(error)
    }

    /// Notes a claim that is about to be made, for up to `max` messages.
    fn begin<'a>(
        &'a self,
        group: &'a GroupKey,
        number: i64,
        max: usize,
        visibility: Duration,
    ) -> UnderWay<'a> {
        let now = Instant::now();
        let forget_at = now.checked_add(visibility.saturating_add(MEMORY));
        let mut groups = self.0.lock();
        let of_group = groups.entry(group.clone()).or_default();
        if of_group.claims.len() >= MAX_CLAIMS {
            of_group.claims.remove(0);
        }
        of_group.claims.push(Claim {
            number,
            forget_at: forget_at.unwrap_or(now + MEMORY),
            is_under_way: true,
            held_until: None,
            next_try: now,
            pause: FIRST_PAUSE,
        });
        let limit = of_group.limit.filter(|limit| *limit < max);
        UnderWay {
            claims: self,
            group,
            number,
            max: limit.unwrap_or(max),
            is_limited: limit.is_some(),
            to_read: None,
        }
    }

    /// The lost claims of a group, which are to be handed back.
    fn of(&self, group: &GroupKey) -> Vec<i64> {
        let now = Instant::now();
        let mut groups = self.0.lock();
        let Some(of_group) = groups.get_mut(group) else {
            return Vec::new();
        };
        let is_lost = |claim: &&Claim| {
            !claim.is_under_way
                && claim.next_try <= now
                && claim.held_until.is_none_or(|until| until <= now)
        };
        let lost: Vec<Claim> = of_group.claims.iter().filter(is_lost).copied().collect();
        if lost.iter().any(|claim| claim.held_until.is_some()) {
            // Its message comes first now, and is tried alone.
            of_group.limit = Some(1);
        }
        lost.into_iter().map(|claim| claim.number).collect()
    }

    /// Notes that a lost claim was handed back, or that there was nothing of it: then it is remembered
    /// for a while, because it may still be executed.
    fn handed_back(&self, group: &GroupKey, number: i64, was_found: bool) {
        let now = Instant::now();
        let mut groups = self.0.lock();
        if let Some(of_group) = groups.get_mut(group) {
            for claim in &mut of_group.claims {
                if claim.number == number {
                    claim.held_until = None;
                    claim.next_try = now + claim.pause;
                    claim.pause = (claim.pause * 2).min(LAST_PAUSE);
                }
            }
            of_group
                .claims
                .retain(|it| it.number != number || !was_found && it.forget_at > now);
            if of_group.claims.is_empty() && of_group.limit.is_none() && of_group.unread.is_empty()
            {
                groups.remove(group);
            }
        }
    }
}

impl UnderWay<'_> {
    /// Claims messages and reads them. Those that are gone by then are settled as lost.
    async fn claim(
        &mut self,
        store: &impl ClaimByNumber,
        consumer: &ConsumerKey,
        options: ClaimOptions,
    ) -> Result<Claimed> {
        let taken = store.take(consumer, self.number, self.max, options);
        let Taken {
            messages: expected,
            mut next_due,
            place,
        } = taken.await?;
        let mut messages = Vec::with_capacity(expected.len());
        if let Some(first) = expected.first() {
            self.to_read = Some((expected.len(), first.receipt));
            let read = store.read(self.group, &expected, place).await?;
            let mut gone = Vec::new();
            let is_there = read.is_some();
            let mut read = read.unwrap_or_default().into_iter().peekable();
            for it in expected {
                let Receipt { id, claim } = it.receipt;
                match read.next_if(|(message, _)| message.id == id) {
                    Some((message, error)) => {
                        let error = error.or(it.last_error);
                        messages.push(ClaimedMessage::new(message, it.attempt, claim, error));
                    }
                    None => gone.push(it.receipt),
                }
            }
            if !gone.is_empty() {
                // What is gone leaves room for more.
                next_due = Some(Duration::ZERO);
                if is_there {
                    store.lose(self.group, &gone).await?;
                }
            }
        }
        Ok(Claimed { messages, next_due })
    }

    /// Forgets the claim, because its messages are handed over.
    fn handed_over(self, mut claimed: Claimed) -> Claimed {
        let now = Instant::now();
        if let Some(of_group) = self.claims.0.lock().get_mut(self.group) {
            let read = |id| claimed.messages.iter().any(|it| it.receipt.id == id);
            of_group.unread.retain(|(id, _)| !read(*id));
            if !claimed.messages.is_empty() {
                let grown = of_group.limit.map(|limit| limit.saturating_mul(2));
                of_group.limit = grown.filter(|limit| *limit < UNLIMITED);
            }
            let held = of_group.claims.iter().filter_map(|it| it.held_until);
            let held = held.map(|until| until.saturating_duration_since(now)).min();
            claimed.next_due = claimed.next_due.into_iter().chain(held).min();
        }
        if self.is_limited && claimed.messages.len() >= self.max {
            claimed.next_due = Some(Duration::ZERO);
        }
        self.took_nothing();
        claimed
    }

    /// Forgets the claim, because it certainly took nothing.
    fn took_nothing(self) {
        self.claims.handed_back(self.group, self.number, true);
    }

    /// Notes that the claim failed. If it had taken a single message, which could not be read, returns
    /// its receipt and for how long it is to be held back.
    fn failed(&self) -> Option<(Receipt, Duration)> {
        let (messages, first) = self.to_read?;
        let mut groups = self.claims.0.lock();
        let of_group = groups.get_mut(self.group)?;
        of_group.limit = Some((messages / 2).max(1));
        if messages > 1 {
            return None;
        }
        let unread = &mut of_group.unread;
        let before = unread.iter().position(|(id, _)| *id == first.id);
        let before = before.map_or(0, |place| unread.remove(place).1);
        if unread.len() >= MAX_UNREAD {
            unread.remove(0);
        }
        unread.push((first.id, before + 1));
        // One second, then each time four times as long, up to about an hour.
        Some((first, Duration::from_secs(1 << (2 * before.min(6)))))
    }

    /// Holds the claim back, which lasts for longer than that now.
    fn hold(self, pause: Duration) {
        let until = Instant::now() + pause;
        tracing::error!(
            stream = %self.group.stream, group = %self.group.group,
            id = self.to_read.map(|(_, first)| tracing::field::display(first.id)), ?pause,
            "a message cannot be read, holding it back"
        );
        if let Some(of_group) = self.claims.0.lock().get_mut(self.group) {
            for claim in &mut of_group.claims {
                if claim.number == self.number {
                    claim.held_until = Some(until);
                    claim.forget_at = claim.forget_at.max(until + MEMORY);
                }
            }
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut groups = self.claims.0.lock();
        let claims = groups.get_mut(self.group).map(|it| &mut it.claims);
        for claim in claims.into_iter().flatten() {
            if claim.number == self.number {
                claim.is_under_way = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::{Error, GroupName};

    /// A store whose claims fail as the test wants, and that finds nothing to hand back.
    struct Failing {
        error: fn() -> Error,
        releases: AtomicU64,
    }

    impl ClaimByNumber for Failing {
        type Place = ();

        async fn take(
            &self,
            _: &ConsumerKey,
            _: i64,
            _: usize,
            _: ClaimOptions,
        ) -> Result<Taken<()>> {
            Err((self.error)())
        }

        async fn read(&self, _: &GroupKey, _: &[Expected], (): ()) -> Result<Option<Read>> {
            Ok(None)
        }

        async fn lose(&self, _: &GroupKey, _: &[Receipt]) -> Result<()> {
            Ok(())
        }

        async fn release(&self, _: &GroupKey, _: i64) -> Result<bool> {
            self.releases.fetch_add(1, Ordering::Relaxed);
            Ok(false)
        }

        async fn extend(&self, _: &GroupKey, _: &[Receipt], _: Duration) -> Result<Vec<bool>> {
            Ok(vec![false])
        }
    }

    /// How many releases it takes to claim so often, each second once, while claims fail like this.
    async fn releases(error: fn() -> Error, claims: i64) -> u64 {
        let consumer = ConsumerKey {
            group: GroupKey {
                stream: "app.default.s".parse().unwrap(),
                group: GroupName::new("g").unwrap(),
            },
            consumer: "c".into(),
        };
        let store = Failing {
            error,
            releases: AtomicU64::new(0),
        };
        let lost = LostClaims::default();
        for number in 0..claims {
            let visibility = Duration::from_secs(30);
            let claimed = lost
                .claim(&store, number, &consumer, 1, visibility.into())
                .await;
            claimed.unwrap_err();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        store.releases.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_that_certainly_took_nothing_is_not_handed_back() {
        assert_eq!(releases(|| Error::backend(std::fmt::Error), 60).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_found_is_looked_for_less_and_less_often() {
        // Each is looked for after 0, 1, 2, 3, 5, 8 … seconds, rather than each second.
        let releases = releases(|| Error::outcome_unknown(std::fmt::Error), 60).await;
        assert!((60..60 * 12).contains(&releases), "{releases}");
    }
}
