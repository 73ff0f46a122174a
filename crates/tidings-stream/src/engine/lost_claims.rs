//! Claims whose messages did not reach their consumer.
//!
//! A claim counts attempts, and its reply may get lost, or its messages may not be readable. No handler
//! was given them, so the attempts must not count. Each claim is noted before it is made and forgotten
//! when its messages have been handed over. What is left is handed back before the next claim of the
//! group: the number of a claim is drawn by the client, so that it is known in any case.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::GroupKey;

/// How long a claim is remembered beyond its end. The server may execute it late, after a release that
/// found nothing.
const MEMORY: Duration = Duration::from_secs(60);

/// Most claims that are remembered of one group. More mean that the store is down for long; then the
/// oldest is forgotten, and its attempts count.
const MAX_CLAIMS: usize = 256;

/// The claims of one engine.
#[derive(Debug, Default)]
pub(super) struct LostClaims(Mutex<HashMap<GroupKey, Vec<Claim>>>);

#[derive(Debug, Clone, Copy)]
struct Claim {
    number: i64,
    forget_at: Instant,
    is_under_way: bool,
}

/// A claim under way. Unless its messages are handed over, it is lost when this is dropped.
#[derive(Debug)]
pub(super) struct UnderWay<'a> {
    claims: &'a LostClaims,
    group: &'a GroupKey,
    number: i64,
}

impl LostClaims {
    /// Notes a claim that is about to be made.
    pub(super) fn begin<'a>(
        &'a self,
        group: &'a GroupKey,
        number: i64,
        visibility: Duration,
    ) -> UnderWay<'a> {
        let now = Instant::now();
        let forget_at = now.checked_add(visibility.saturating_add(MEMORY));
        let mut claims = self.lock();
        let claims = claims.entry(group.clone()).or_default();
        if claims.len() >= MAX_CLAIMS {
            claims.remove(0);
        }
        claims.push(Claim {
            number,
            forget_at: forget_at.unwrap_or(now + MEMORY),
            is_under_way: true,
        });
        UnderWay {
            claims: self,
            group,
            number,
        }
    }

    /// The lost claims of a group, which are to be handed back.
    pub(super) fn of(&self, group: &GroupKey) -> Vec<i64> {
        let claims = self.lock();
        let claims = claims.get(group).into_iter().flatten();
        let lost = claims.filter(|claim| !claim.is_under_way);
        lost.map(|claim| claim.number).collect()
    }

    /// Notes that a lost claim was handed back, or that there was nothing of it: then it is remembered
    /// for a while, because it may still be executed.
    pub(super) fn handed_back(&self, group: &GroupKey, number: i64, was_found: bool) {
        let now = Instant::now();
        let mut claims = self.lock();
        if let Some(of_group) = claims.get_mut(group) {
            of_group.retain(|it| it.number != number || !was_found && it.forget_at > now);
            if of_group.is_empty() {
                claims.remove(group);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<GroupKey, Vec<Claim>>> {
        // Every statement leaves the map consistent, so a poisoned lock can be used.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnderWay<'_> {
    /// Forgets the claim: its messages are handed over, or it certainly took none.
    pub(super) fn handed_over(self) {
        self.claims.handed_back(self.group, self.number, true);
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut claims = self.claims.lock();
        let claims = claims.get_mut(self.group).into_iter().flatten();
        for claim in claims.filter(|claim| claim.number == self.number) {
            claim.is_under_way = false;
        }
    }
}
