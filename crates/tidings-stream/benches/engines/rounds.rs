use std::time::Duration;

use futures_util::future::join_all;
use tidings_bench::{Latencies, Rate};
use tokio::time::Instant;

use crate::raw::Raw;
use crate::streams::Ours;

const ROUNDS: usize = 5;

/// How long one side of one round publishes.
const ROUND: Duration = Duration::from_millis(300);

/// Messages that are consumed in one round: as many as take about a round to publish, within these.
const FEWEST: usize = 1_000;
const MOST: usize = 200_000;

/// What both sides of a round have reached, in messages per second.
#[derive(Clone, Copy)]
pub(crate) struct Pair {
    pub(crate) alone: Rate,
    pub(crate) streams: Rate,
}

impl Pair {
    fn ratio(&self) -> f64 {
        self.streams.per_second / self.alone.per_second
    }
}

/// The round in the middle by its ratio.
fn median(mut rounds: Vec<Pair>) -> Pair {
    rounds.sort_by(|one, other| one.ratio().total_cmp(&other.ratio()));
    rounds.swap_remove(rounds.len() / 2)
}

/// The rate in the middle.
pub(crate) fn middle(mut rates: Vec<Rate>) -> Rate {
    rates.sort_by(|one, other| one.per_second.total_cmp(&other.per_second));
    rates.swap_remove(rates.len() / 2)
}

pub(crate) async fn publishing(
    raw: &impl Raw,
    ours: &Ours,
    publishers: usize,
    batch: usize,
) -> Pair {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let alone = rate(publishers, batch, async || raw.publish(batch).await).await;
        let streams = rate(publishers, batch, async || ours.publish(batch).await).await;
        rounds.push(Pair { alone, streams });
    }
    median(rounds)
}

pub(crate) async fn consuming(raw: &impl Raw, ours: &Ours, handlers: usize, batch: usize) -> Pair {
    // Those of the rounds before are not to be counted.
    while raw.consume(1000).await > 0 {}
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let count = (rate(1, 100, async || raw.publish(100).await)
            .await
            .per_second
            / 3.0) as usize;
        let count = count.clamp(FEWEST, MOST) / 1000 * 1000;
        while raw.consume(1000).await > 0 {}
        for _ in 0..count / 1000 {
            raw.publish(1000).await;
        }
        // One at a time takes its time.
        let wanted = count.min(batch.saturating_mul(2_000));
        let (mut taken, mut latencies, started) = (0, Latencies::default(), Instant::now());
        while taken < wanted {
            let began = Instant::now();
            taken += raw.consume(batch).await;
            latencies.add(began.elapsed());
        }
        let alone = Rate::new(taken, started.elapsed(), &latencies);
        let streams = ours.consume(wanted, handlers, batch).await;
        rounds.push(Pair { alone, streams });
    }
    median(rounds)
}

/// Messages per second, one in each transaction.
pub(crate) async fn one_per_transaction(raw: &impl Raw) -> Option<Rate> {
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
    Some(middle(rounds))
}

/// Messages per second, by so many callers at a time, with the time that a call takes.
pub(crate) async fn rate(callers: usize, batch: usize, call: impl AsyncFn()) -> Rate {
    let started = Instant::now();
    let calls = join_all((0..callers).map(|_| async {
        let mut latencies = Latencies::default();
        loop {
            let began = Instant::now();
            if began - started >= ROUND {
                return latencies;
            }
            call().await;
            latencies.add(began.elapsed());
        }
    }))
    .await;
    let elapsed = started.elapsed();
    let latencies: Latencies = calls.into_iter().flatten().collect();
    Rate::new(latencies.count() * batch, elapsed, &latencies)
}
