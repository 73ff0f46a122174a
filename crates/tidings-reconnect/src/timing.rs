use std::time::Duration;

/// Shortest and longest time between two checks. A longer one would overflow the clock.
const HEALTH_INTERVALS: [Duration; 2] = [
    Duration::from_millis(1),
    Duration::from_secs(365 * 24 * 60 * 60),
];

/// How long to wait for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Longest time for connecting, and for one reply. The default is five seconds.
    pub reply_limit: Duration,
    /// How often a connection that listens is checked. The default is three seconds, the least is a
    /// millisecond, the most is a year.
    ///
    /// A break that is not reported, such as a pulled cable, is noticed after this time and the reply
    /// limit.
    pub health_interval: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            reply_limit: Duration::from_secs(5),
            health_interval: Duration::from_secs(3),
        }
    }
}

impl Timing {
    /// A timer that ticks once per health interval. A tick that is late delays those after it.
    pub fn health_checks(&self) -> tokio::time::Interval {
        let [shortest, longest] = HEALTH_INTERVALS;
        let interval = self.health_interval.clamp(shortest, longest);
        let first = tokio::time::Instant::now() + interval;
        let mut checks = tokio::time::interval_at(first, interval);
        checks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        checks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn any_interval_between_checks_can_be_waited_for() {
        for (health_interval, expected) in [
            (Duration::ZERO, HEALTH_INTERVALS[0]),
            (Duration::from_secs(3), Duration::from_secs(3)),
            (Duration::MAX, HEALTH_INTERVALS[1]),
        ] {
            let timing = Timing {
                health_interval,
                ..Timing::default()
            };
            let mut checks = timing.health_checks();
            assert_eq!(checks.period(), expected);
            tokio::select! {
                biased;
                _ = checks.tick() => panic!("a check before its time"),
                () = tokio::task::yield_now() => {}
            }
        }
    }
}
