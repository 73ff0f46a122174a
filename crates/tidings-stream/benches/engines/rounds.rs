use std::time::Duration;

use futures_util::future::join_all;

use tokio::time::Instant;

use crate::raw::Raw;
use crate::streams::Ours;

const ROUNDS: usize = 5;

/// How long one side of one round publishes.
const ROUND: Duration = Duration::from_millis(300);

/// Messages that are consumed in one round: as many as take about a round to publish, within these.
const FEWEST: usize = 1_000;
const MOST: usize = 200_000;

#[allow(
    clippy::struct_field_names,
    reason = "the ratio is what a ratio is named for"
)]
pub(crate) struct Ratio {
    pub(crate) alone: f64,
    pub(crate) streams: f64,
    pub(crate) ratio: f64,
}

/// The round in the middle by its ratio.
pub(crate) fn median(mut rounds: Vec<Ratio>) -> Ratio {
    rounds.sort_by(|one, other| one.ratio.total_cmp(&other.ratio));
    rounds.swap_remove(rounds.len() / 2)
}

fn ratio((alone, streams): (f64, f64)) -> Ratio {
    Ratio {
        alone,
        streams,
        ratio: streams / alone,
    }
}

pub(crate) async fn publishing(
    raw: &impl Raw,
    ours: &Ours,
    publishers: usize,
    batch: usize,
) -> Ratio {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let alone = rate(publishers, batch, async || raw.publish(batch).await).await;
        let streams = rate(publishers, batch, async || ours.publish(batch).await).await;
        rounds.push(ratio((alone, streams)));
    }
    median(rounds)
}

pub(crate) async fn consuming(raw: &impl Raw, ours: &Ours, handlers: usize, batch: usize) -> Ratio {
    // Those of the rounds before are not to be counted.
    while raw.consume(1000).await > 0 {}
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let count = (rate(1, 100, async || raw.publish(100).await).await / 3.0) as usize;
        let count = count.clamp(FEWEST, MOST) / 1000 * 1000;
        while raw.consume(1000).await > 0 {}
        for _ in 0..count / 1000 {
            raw.publish(1000).await;
        }
        // One at a time takes its time.
        let wanted = count.min(batch.saturating_mul(2_000));
        let (mut taken, started) = (0, Instant::now());
        while taken < wanted {
            taken += raw.consume(batch).await;
        }
        let alone = taken as f64 / started.elapsed().as_secs_f64();
        rounds.push(ratio((alone, ours.consume(wanted, handlers, batch).await)));
    }
    median(rounds)
}

/// Messages per second, one in each transaction.
pub(crate) async fn one_per_transaction(raw: &impl Raw) -> Option<f64> {
    raw.publish_one_per_transaction().await?;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(
            rate(1, 1, async || {
                raw.publish_one_per_transaction().await;
            })
            .await,
        );
    }
    rounds.sort_by(f64::total_cmp);
    Some(rounds[ROUNDS / 2])
}

/// Messages per second, by so many callers at a time.
pub(crate) async fn rate(callers: usize, batch: usize, call: impl AsyncFn()) -> f64 {
    let started = Instant::now();
    let calls = join_all((0..callers).map(|_| async {
        let mut calls = 0;
        while started.elapsed() < ROUND {
            call().await;
            calls += 1;
        }
        calls
    }))
    .await;
    (calls.iter().sum::<usize>() * batch) as f64 / started.elapsed().as_secs_f64()
}
