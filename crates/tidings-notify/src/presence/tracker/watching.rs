//! Asking the store for transitions, once for all watches of a tracker.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tidings_reconnect::Trouble;
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::grace::Grace;
use super::watch::{Outlet, Watch, WatchItem, watch};
use crate::UserId;
use crate::instance::RESTART_PAUSE;
use crate::presence::{Mark, Presence, PresenceError, Transition};

/// Transitions in one reply of the store.
const PAGE: usize = 1000;

/// The watches of a tracker.
#[derive(Debug)]
pub(super) struct Watching {
    presence: Arc<dyn Presence>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// How far transitions have been read; `None` while there is no watch.
    mark: Option<Mark>,
    grace: Grace,
    outlets: Vec<Outlet>,
    is_closed: bool,
    trouble: Trouble,
}

impl Watching {
    pub(super) fn new(presence: Arc<dyn Presence>, grace: Duration) -> Self {
        Self {
            presence,
            state: Mutex::new(State {
                mark: None,
                grace: Grace::new(grace),
                outlets: Vec::new(),
                is_closed: false,
                trouble: Trouble::new(),
            }),
        }
    }

    /// Adds a watch.
    pub(super) async fn watch(&self, buffer: usize) -> Result<Watch, PresenceError> {
        let mut state = self.state.lock().await;
        if state.is_closed {
            return Err(PresenceError::Closed);
        }
        if state.mark.is_some() {
            // What was before is for the others alone.
            state.read(&*self.presence).await?;
        } else {
            state.mark = Some(self.presence.transitions(None, PAGE).await?.mark);
        }
        let (outlet, watch) = watch(buffer);
        state.outlets.push(outlet);
        Ok(watch)
    }

    /// Which of the users are online as the watches have it.
    pub(super) async fn online_users(
        &self,
        users: &[UserId],
    ) -> Result<Vec<UserId>, PresenceError> {
        let mut state = self.state.lock().await;
        if state.is_closed {
            return Err(PresenceError::Closed);
        }
        let is_leaving = |state: &State| {
            let leaving = users.iter().filter(|user| state.grace.is_leaving(user));
            leaving.cloned().collect::<HashSet<_>>()
        };
        // A user who leaves or comes back while the store is asked is online, or gets a report.
        let mut online = is_leaving(&state);
        online.extend(self.presence.online_users(users).await?);
        if state.mark.is_some() {
            online.extend(state.read(&*self.presence).await?);
            online.extend(is_leaving(&state));
        }
        let is_online = |user: &&UserId| online.contains(*user);
        Ok(users.iter().filter(is_online).cloned().collect())
    }

    /// Serves the watches until the tracker is closed, and ends them then.
    pub(super) async fn run(&self, every: Duration, closing: &CancellationToken) {
        let mut polls = interval(every);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let polling = async {
            loop {
                polls.tick().await;
                // Readers would wait for ever. Those who come and go are kept by the store, and what was
                // asked when it panicked is asked again.
                if AssertUnwindSafe(self.poll()).catch_unwind().await.is_err() {
                    tracing::error!("watching presence panicked, and continues");
                    sleep(RESTART_PAUSE).await;
                }
            }
        };
        let _closed = closing.run_until_cancelled(polling).await;
        let mut state = self.state.lock().await;
        state.is_closed = true;
        state.outlets.clear();
    }

    async fn poll(&self) {
        let state = &mut *self.state.lock().await;
        state.outlets.retain(|outlet| !outlet.is_closed());
        if state.outlets.is_empty() {
            state.mark = None;
            state.grace.clear();
            return;
        }
        state.outlets.iter_mut().for_each(Outlet::flush);
        match state.read(&*self.presence).await {
            Ok(_came) => {
                if state.trouble.worked() {
                    tracing::info!("changes of who is online can be read again");
                }
            }
            Err(error) => {
                if state.trouble.failed() {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "failed to read who came online and went offline, trying again"
                    );
                }
            }
        }
    }
}

impl State {
    /// Reads all transitions that there are, and reports them. Returns who came online.
    async fn read(&mut self, presence: &dyn Presence) -> Result<Vec<UserId>, PresenceError> {
        let mut came = Vec::new();
        loop {
            let page = presence.transitions(self.mark, PAGE).await?;
            if page.is_lossy {
                self.lose();
            }
            self.mark = Some(page.mark);
            for transition in page.transitions {
                if transition.is_online {
                    came.push(transition.user.clone());
                }
                self.take(transition);
            }
            if !page.has_more {
                break;
            }
        }
        // That users came back in time has been read by now.
        let now = Instant::now();
        while let Some(user) = self.grace.due(now) {
            self.report(&WatchItem::Offline(user));
        }
        Ok(came)
    }

    fn take(&mut self, transition: Transition) {
        let Transition { user, is_online } = transition;
        if is_online {
            if self.grace.came(&user) {
                self.report(&WatchItem::Online(user));
            }
        } else if self.grace.left(user, Instant::now()).is_err() {
            self.lose();
        }
    }

    fn report(&mut self, item: &WatchItem) {
        for outlet in &mut self.outlets {
            outlet.report(item.clone());
        }
    }

    /// Reports are missing: those of users about to go offline among them.
    fn lose(&mut self) {
        self.grace.clear();
        self.outlets.iter_mut().for_each(Outlet::lose);
    }
}
