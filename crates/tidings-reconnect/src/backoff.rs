use std::time::Duration;

/// Before the first new attempt to connect: long enough not to spin, too short to be noticed.
const FIRST: Duration = Duration::from_millis(50);

/// Longest pause: how late a server that is back may be noticed.
const LONGEST: Duration = Duration::from_secs(5);

/// The pauses between attempts to connect: they double up to five seconds. Each is shortened by up
/// to a half at random, so that the clients of a server that restarts do not come back together.
///
/// It never ends.
#[derive(Debug)]
#[must_use = "it does not pause itself"]
pub struct Backoff {
    next: Duration,
    random: fastrand::Rng,
}

impl Backoff {
    /// Begins with a pause of 50 milliseconds at most; the numbers shorten the pauses.
    pub fn new(random: fastrand::Rng) -> Self {
        Self {
            next: FIRST,
            random,
        }
    }

    /// Begins with the shortest pause again, once there is a connection.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let whole = self.next;
        self.next = (whole * 2).min(LONGEST);
        Some(whole.mul_f64(1.0 - self.random.f64() / 2.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_again() {
        for seed in 0..100 {
            let mut backoff = Backoff::new(fastrand::Rng::with_seed(seed));
            for round in 0..2 {
                let mut whole = FIRST;
                for pause in backoff.by_ref().take(12) {
                    assert!(pause <= whole && pause >= whole / 2, "{round}: {pause:?}");
                    whole = (whole * 2).min(LONGEST);
                }
                backoff.reset();
            }
        }
    }
}
