//! Feeding one lane: from the rows that are due into the dispatcher, page by page.
//!
//! While the lane has all that is due, the fan-out hands it what it makes, and the store is not looked at.

use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tidings::Message;
use tidings::circuit_breaker::CircuitState;
use tidings::retry::RetryPolicy;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep, sleep_until};

use super::lane::{Before, Held, Lane, PAGE_BYTES};
use super::recorder::Entry;
use super::{Shared, replay};
use crate::clock::later;
use crate::store::{
    AfterAttempt, DueDelivery, LaneQuery, LaneWork, Outcome, Released, StoredEndpoint,
};
use crate::target::{MAX_QUEUED, Target};
use crate::{AttemptRecord, DeliveryState, Endpoint, Error, StoreError, telemetry};

/// Deliveries in memory of a lane that has just begun, or does not move.
const FIRST_PAGE: usize = 16;

/// The same of a lane with a rate limit, which the dispatcher keeps and which does not move quickly: twice the attempts that
/// an endpoint has under way at most by default, so that a slow endpoint gets its rate.
const FIRST_PAGE_BY_RATE: usize = 64;

/// A lane that is blocked for longer is given back until then.
const LONGEST_BLOCK: Duration = Duration::from_secs(5);

/// How long to wait where the dispatcher does not say how long: while a circuit is probed.
const PROBE_PAUSE: Duration = Duration::from_millis(100);

/// The pause after a failure of the store.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// A lane that takes another page within this time moves quickly, and gets larger ones.
const QUICK: Duration = Duration::from_secs(1);

/// How long an endpoint is used as it was read: a secret of it may expire.
const TARGET_AGE: Duration = Duration::from_secs(60);

/// Deliveries that one transaction cancels, at most.
const CANCELLED_AT_ONCE: usize = 500;

/// What follows a step.
enum Next {
    /// Another step.
    Step,
    /// Nothing, until there is more to do.
    Rest,
    /// The lane is not to be served.
    End,
}

/// Serves a lane until there is nothing to do now. Then the lane rests, or is given back if it cannot be
/// served.
pub(super) async fn feed(shared: Arc<Shared>, lane: Arc<Lane>) {
    let mut feeder = Feeder::new(&shared, &lane);
    loop {
        match feeder.step().await {
            Ok(next) => {
                shared.store_worked();
                match next {
                    Next::Step => {}
                    Next::Rest => match shared.rest(&lane, feeder.course) {
                        Ok(()) => return,
                        Err(course) => feeder.course = course,
                    },
                    Next::End => break,
                }
            }
            Err(error) => {
                lane.add_work();
                shared.store_failed(&error, "reading due deliveries");
                tokio::select! {
                    () = sleep(STORE_PAUSE) => {}
                    () = lane.stop.cancelled() => break,
                }
            }
        }
    }
    shared.end_lane(&lane).await;
}

/// Feeds lanes that have rested what they were handed. If that is all there is to do, they rest on, while the dispatcher
/// has their deliveries: no task waits for one of them. The others get feeders.
pub(super) async fn feed_at_once(shared: Arc<Shared>, lanes: Vec<Arc<Lane>>) {
    for lane in lanes {
        let feed = || {
            lane.span()
                .in_scope(|| Feeder::new(&shared, &lane).feed_at_once())
        };
        // A panic of a tracing layer or a recorder, which are the program's, must not keep the others from being fed.
        if !catch_unwind(AssertUnwindSafe(feed)).unwrap_or(false) {
            shared.start_feeder(lane);
        }
        consume_budget().await;
    }
}

/// Why a delivery cannot be sent.
#[derive(Debug, Clone)]
enum Unsendable {
    /// It never can.
    Never(String),
    /// Not now, because of this machine: an attempt that fails, and others by the schedule of the endpoint.
    Later {
        reason: String,
        retry: Arc<RetryPolicy>,
    },
}

struct Feeder<'a> {
    shared: &'a Shared,
    lane: &'a Arc<Lane>,
    course: Box<Course>,
}

/// What a feeder knows of its lane, which the lane keeps while it rests.
#[derive(Debug)]
pub(super) struct Course {
    /// Where to send to, or why nothing can be sent.
    target: Result<Target, Unsendable>,
    /// Which revision of the endpoint that is, and when it was read.
    target_is_of: Option<(u64, Instant)>,
    /// How many deliveries may be in memory.
    page: usize,
    /// Whether the circuit is not closed, or this machine could not make the last attempt.
    is_probed: bool,
    /// When the store was looked at.
    looked_at: Instant,
    /// When a page was taken that was full.
    last_full_look: Option<Instant>,
    /// When something is due that the last look at the store has seen.
    next_due: Option<Timestamp>,
}

impl Default for Course {
    fn default() -> Self {
        Self {
            target: Err(Unsendable::Never(String::new())),
            target_is_of: None,
            page: FIRST_PAGE,
            is_probed: false,
            looked_at: Instant::now(),
            last_full_look: None,
            next_due: None,
        }
    }
}

impl Course {
    /// When something is due, by the last look at the store and by what the lane has learned since.
    pub(super) fn next_due(&self, of_lane: Option<Timestamp>) -> Option<Timestamp> {
        [self.next_due, of_lane].into_iter().flatten().min()
    }
}

impl<'a> Feeder<'a> {
    /// Goes on with a lane that has rested, or begins with a new one.
    fn new(shared: &'a Shared, lane: &'a Arc<Lane>) -> Self {
        let mut course = lane.take_course().unwrap_or_default();
        // While it rested, it was looked at with the others.
        course.looked_at = Instant::now();
        Self {
            shared,
            lane,
            course,
        }
    }

    /// Feeds what was handed over, and has the lane rest. Returns `false` if there is more to do, or something to wait for.
    fn feed_at_once(mut self) -> bool {
        self.look_at_dispatcher();
        if self.course.is_probed || self.needs_look() {
            self.lane.keep(self.course);
            return false;
        }
        while self.shared.recorder.has_room()
            && let Some(delivery) = self.lane.next_handed()
            && self.hand_over_at_once(&delivery)
        {}
        match self.shared.rest(self.lane, self.course) {
            Ok(()) => true,
            Err(course) => {
                self.lane.keep(course);
                false
            }
        }
    }

    /// Feeds what was handed over, or what a look at the store finds, and waits until there is a reason to go
    /// on.
    async fn step(&mut self) -> Result<Next, StoreError> {
        if self.lane.stop.is_cancelled() {
            return Ok(Next::End);
        }
        self.look_at_dispatcher();
        if let Some(next) = self.wait_while_blocked().await {
            return Ok(next);
        }
        if self.needs_look() {
            return self.look().await;
        }
        while let Some(delivery) = self.lane.next_handed() {
            if !self.hand_over(delivery).await {
                return Ok(Next::Step);
            }
        }
        Ok(self.wait().await)
    }

    /// Whether something may be due that was not handed over.
    fn needs_look(&self) -> bool {
        let age = self.course.target_is_of.map(|(_, since)| since.elapsed());
        let view = self.lane.view();
        let is_due = |due: Timestamp| self.shared.clock.until(due).is_zero();
        age.is_none_or(|age| age >= TARGET_AGE)
            || view.has_new_work
            || view.is_changed
            || self.next_look().is_zero()
            || self.course.next_due(view.next_due).is_some_and(is_due)
    }

    /// How long until the store is looked at again although nothing is known to be due: another instance, which
    /// cannot wake this one, may have made a delivery or changed the endpoint.
    fn next_look(&self) -> Duration {
        let age = self.course.looked_at.elapsed();
        self.shared.poll_interval.saturating_sub(age)
    }

    /// Looks at the store, and feeds what is due.
    async fn look(&mut self) -> Result<Next, StoreError> {
        let shared = self.shared;
        if self
            .course
            .last_full_look
            .is_some_and(|look| look.elapsed() < QUICK)
        {
            // Half of a full page has had its outcomes since.
            self.course.page = (self.course.page * 2).min(MAX_QUEUED);
        }
        let Before { held, is_changed } = self.lane.begin_look();
        let (since, now) = (Instant::now(), shared.clock.now());
        if is_changed {
            // Also if the store fails now.
            self.course.target_is_of = None;
        }
        let limit = self.room().saturating_sub(held.len());
        let work = shared
            .store
            .lane_work(LaneQuery {
                endpoint: self.lane.endpoint,
                now,
                held,
                limit,
                max_bytes: PAGE_BYTES,
            })
            .await?;
        self.course.looked_at = Instant::now();
        let Some(endpoint) = work.endpoint.as_ref().filter(|it| is_served(it)) else {
            self.cancel(&work).await?;
            return Ok(Next::End);
        };
        let is_known = self.course.target_is_of.is_some_and(|(revision, read_at)| {
            revision == endpoint.revision && read_at.elapsed() < TARGET_AGE
        });
        if !is_known {
            self.read(endpoint);
        }
        self.course.next_due = [work.next_due, work.replay_due].into_iter().flatten().min();
        let count = work.due.len();
        for delivery in work.due {
            if !self.hand_over(delivery).await {
                return Ok(Next::Step);
            }
        }
        let replay_due = work.replay_due.filter(|due| *due <= now);
        if replay_due.is_some() {
            let resumes = replay::step(shared, self.lane.endpoint, endpoint).await?;
            self.course.next_due = [work.next_due, resumes].into_iter().flatten().min();
            self.lane.add_work();
        }
        self.course.last_full_look = (count == limit && count > 0).then(Instant::now);
        if self.course.next_due.is_none_or(|due| due > now) {
            self.lane.knows_all(since);
        }
        Ok(self.wait().await)
    }

    /// How many deliveries may be in memory now.
    fn room(&self) -> usize {
        let target = self.course.target.as_ref();
        // One at a time while attempts find out whether it works again: the others would only come back.
        if self.course.is_probed {
            1
        } else if target.is_ok_and(|target| target.has_rate_limit) {
            self.course.page.max(FIRST_PAGE_BY_RATE)
        } else {
            self.course.page
        }
    }

    /// The revision of the endpoint that is in use.
    fn revision(&self) -> u64 {
        self.course.target_is_of.map_or(0, |(revision, _)| revision)
    }

    /// Asks the dispatcher how the circuit is, and until when nothing is to be sent, if it remembers the lane.
    fn look_at_dispatcher(&mut self) {
        let status = self.shared.dispatcher.status(&self.lane.key);
        let circuit_is_open = match &status {
            Some(status) => status.circuit.is_some_and(|it| it != CircuitState::Closed),
            None => self.lane.left_open_for.is_some(),
        };
        self.course.is_probed =
            circuit_is_open || self.shared.lock().local.is_probed(self.lane.endpoint);
        if let Some(until) = status.and_then(|status| status.blocked_until) {
            self.lane.block(until);
        }
    }

    /// Waits for the end of a short block. For a long one the lane is given back.
    async fn wait_while_blocked(&mut self) -> Option<Next> {
        loop {
            let changed = self.lane.changed();
            let view = self.lane.view();
            let until = view.blocked_until?;
            self.course.page = FIRST_PAGE;
            let is_long = until.saturating_duration_since(Instant::now()) > LONGEST_BLOCK;
            if is_long && view.held == 0 {
                return Some(Next::End);
            }
            tokio::select! {
                () = changed => {}
                () = sleep_until(until) => {}
                () = self.lane.stop.cancelled() => return Some(Next::End),
            }
        }
    }

    /// Reads the endpoint, and adds it to the dispatcher.
    fn read(&mut self, stored: &StoredEndpoint) {
        self.lane.uses(stored.revision);
        let read_before = (self.course.target_is_of).replace((stored.revision, Instant::now()));
        let is_same_revision = read_before.is_some_and(|(revision, _)| revision == stored.revision);
        let (shared, id) = (self.shared, self.lane.endpoint);
        let wall = shared.clock.wall.now();
        let endpoint = Endpoint::from_stored(stored, &shared.defaults.encryption);
        let target = endpoint
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|endpoint| {
                let target = shared.defaults.target(endpoint, wall)?;
                if !is_same_revision || !self.is_in_use(&target) {
                    let (endpoint, lane) = (target.endpoint.clone(), &target.lane);
                    let (dispatcher, key) = (&shared.dispatcher, &self.lane.key);
                    let is_new = dispatcher.status(key).is_none();
                    dispatcher.insert_with(key, endpoint, lane)?;
                    if let Some(next_open_for) = self.lane.left_open_for.filter(|_| is_new) {
                        dispatcher.resume_circuit(key, next_open_for);
                    }
                }
                Ok(target)
            });
        self.course.target = target.map_err(|error| {
            let reason = match std::error::Error::source(&error) {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            };
            if let (Error::Sealed(problem), Ok(endpoint)) = (&error, &endpoint) {
                shared.secrets_are_sealed(id, problem);
                let retry = shared.defaults.retry(&endpoint.settings);
                let retry = Arc::new(retry.unwrap_or_default());
                return Unsendable::Later { reason, retry };
            }
            let error: &dyn std::error::Error = &error;
            tracing::warn!(
                error,
                endpoint = %id,
                "an endpoint cannot be sent to, its deliveries fail"
            );
            Unsendable::Never(reason)
        });
    }

    /// Whether the dispatcher has this target, of the revision that was read last. If it got it again, it
    /// would take it for another endpoint, and would not wait if requests that are under way are replied to with
    /// `Retry-After`.
    fn is_in_use(&self, target: &Target) -> bool {
        let is_same = |last: &Target| last.secrets == target.secrets;
        let status = self.shared.dispatcher.status(&self.lane.key);
        self.course.target.as_ref().is_ok_and(is_same) && status.is_some_and(|it| !it.is_gone)
    }

    /// Hands a delivery to the dispatcher when there is room for its outcome. Returns `false` when the lane was stopped or
    /// blocked, or the endpoint changed: this delivery and those after it are read again later.
    async fn hand_over(&self, delivery: DueDelivery) -> bool {
        if !self.shared.recorder.has_room() {
            tokio::select! {
                () = self.shared.recorder.room() => {}
                () = self.lane.stop.cancelled() => {}
            }
        }
        // However many there are, other tasks run in between.
        consume_budget().await;
        self.hand_over_at_once(&delivery)
    }

    fn hand_over_at_once(&self, delivery: &DueDelivery) -> bool {
        let is_fed = self.try_to_hand_over(delivery);
        if !is_fed {
            self.lane.add_work();
        }
        is_fed
    }

    fn try_to_hand_over(&self, delivery: &DueDelivery) -> bool {
        let view = self.lane.view();
        if self.lane.stop.is_cancelled() || view.is_changed || view.blocked_until.is_some() {
            return false;
        }
        match self.message(delivery) {
            Err(Unsendable::Never(reason)) => {
                let state = DeliveryState::Failed;
                let reason = Some(reason);
                self.settle(delivery, None, AfterAttempt::Finish { state, reason });
            }
            Err(Unsendable::Later { reason, retry }) => {
                self.put_off(delivery, reason, &retry);
            }
            Ok((message, held)) => {
                let id = message.id().to_owned();
                self.lane.hold(&id, held);
                if self
                    .shared
                    .dispatcher
                    .notify(&self.lane.key, message)
                    .is_err()
                {
                    // It was removed or found to be gone: its state in the store says what next.
                    self.lane.let_go(&id);
                    self.lane.block(Instant::now() + PROBE_PAUSE);
                    return false;
                }
            }
        }
        true
    }

    fn message(&self, due: &DueDelivery) -> Result<(Message, Held), Unsendable> {
        let never = |reason: &dyn ToString| Unsendable::Never(reason.to_string());
        let event = due.event.as_ref().map_err(|reason| never(reason))?;
        let target = self.course.target.as_ref().map_err(Clone::clone)?;
        let message = event.render(target.format).map_err(|it| never(&it))?;
        let number = NonZeroU32::MIN.saturating_add(due.attempts);
        let held = Held {
            delivery: due.id,
            tries: due.tries,
            due_at: due.due_at,
            is_begun_again: false,
            retry: Arc::clone(&target.retry),
            revision: self.revision(),
        };
        Ok((message.with_first_attempt(number), held))
    }

    /// Records an attempt that this machine could not make, and has it tried again by the schedule.
    fn put_off(&self, due: &DueDelivery, reason: String, retry: &RetryPolicy) {
        let clock = &self.shared.clock;
        let number = due.attempts.saturating_add(1);
        let mut attempt = AttemptRecord::new(number, clock.wall.now(), Duration::ZERO);
        attempt.error = Some(reason.clone());
        let made = due.tries.saturating_add(1);
        let next = match retry.next_delay(made, Duration::ZERO, None, fastrand::f64()) {
            Some(delay) => AfterAttempt::Retry(later(clock.now(), delay)),
            None => AfterAttempt::Finish {
                state: DeliveryState::Failed,
                reason: Some(reason),
            },
        };
        self.settle(due, Some(attempt), next);
    }

    /// Records what follows for a delivery that is not sent.
    fn settle(&self, due: &DueDelivery, attempt: Option<AttemptRecord>, next: AfterAttempt) {
        // Held by a name that no message has, until it is written.
        let message_id = format!("{}.", due.id);
        let revision = self.revision();
        let held = Held {
            delivery: due.id,
            tries: due.tries,
            due_at: due.due_at,
            is_begun_again: false,
            retry: Arc::new(RetryPolicy::default()),
            revision,
        };
        self.lane.hold(&message_id, held);
        self.shared.recorder.push(Entry {
            outcome: Outcome {
                delivery: due.id,
                endpoint: self.lane.endpoint,
                was_due_at: due.due_at,
                attempt,
                is_local: true,
                next,
                waits_because: None,
            },
            lane: Arc::clone(self.lane),
            message_id,
            is_gone: false,
            revision,
        });
    }

    /// Waits for a reason to go on.
    async fn wait(&mut self) -> Next {
        self.lane.set_room(self.room());
        loop {
            let changed = self.lane.changed();
            let view = self.lane.view();
            if view.is_changed || view.blocked_until.is_some() {
                return Next::Step;
            }
            let due = self.course.next_due(view.next_due);
            let wait = due.map(|due| self.shared.clock.until(due));
            let has_work = view.has_new_work || wait.is_some_and(|wait| wait.is_zero());
            if has_work && view.held <= self.room() / 2 {
                return Next::Step;
            }
            if !has_work && view.handed > 0 {
                return Next::Step;
            }
            if !has_work && view.held == 0 {
                return Next::Rest;
            }
            let next_look = self.next_look();
            if !has_work && next_look.is_zero() {
                return Next::Step;
            }
            let waited = async {
                // Of work without room, only an outcome makes a difference.
                if has_work {
                    std::future::pending::<()>().await;
                }
                sleep(wait.map_or(next_look, |wait| wait.min(next_look))).await;
            };
            tokio::select! {
                () = changed => {}
                () = self.lane.stop.cancelled() => return Next::End,
                () = waited => {}
            }
        }
    }

    /// Cancels the pending deliveries of an endpoint that is removed or disabled.
    async fn cancel(&self, work: &LaneWork) -> Result<(), StoreError> {
        let shared = self.shared;
        // Attempts under way are finished, and recorded.
        shared.dispatcher.remove(&self.lane.key);
        let disabled = work.endpoint.as_ref().filter(|endpoint| !endpoint.removed);
        let because = disabled.and_then(|endpoint| endpoint.disabled.as_ref());
        let because = because.map_or("the endpoint was removed", |it| it.because.as_str());
        loop {
            let at = shared.clock.wall.now();
            let count = shared
                .store
                .cancel_deliveries(self.lane.endpoint, because, at, CANCELLED_AT_ONCE)
                .await?;
            telemetry::deliveries_ended(DeliveryState::Cancelled, count);
            if count < CANCELLED_AT_ONCE {
                return Ok(());
            }
        }
    }
}

fn is_served(endpoint: &StoredEndpoint) -> bool {
    !endpoint.removed && endpoint.disabled.is_none()
}

impl Shared {
    /// Until when a lane is blocked, as the store keeps it.
    pub(super) fn block_of(&self, lane: &Lane) -> Option<Timestamp> {
        let until = lane.view().blocked_until?;
        let wait = until.saturating_duration_since(Instant::now());
        Some(later(self.clock.now(), wait))
    }

    /// For how long the circuit of a lane opens next, as the store keeps it; `None` if it is closed.
    pub(super) fn circuit_of(&self, lane: &Lane) -> Option<Duration> {
        match self.dispatcher.status(&lane.key) {
            Some(status) => status.next_open_for,
            None => lane.left_open_for,
        }
    }

    /// Gives a lane back, unless its lease was lost.
    async fn end_lane(&self, lane: &Arc<Lane>) {
        let is_ours = self.stop_serving(lane);
        // After that, so that a change of the endpoint until then counts.
        let released = Released {
            endpoint: lane.endpoint,
            blocked_until: self.block_of(lane),
            next_open_for: self.circuit_of(lane),
        };
        if !is_ours {
            return;
        }
        // If it fails, the next renewal has it served again.
        if let Err(error) = self.give_back(vec![released]).await {
            self.store_failed(&error, "releasing an endpoint");
        }
    }
}
