use std::time::Duration;

/// How long to wait for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Longest time for connecting, and for one reply. The default is five seconds.
    pub reply_limit: Duration,
    /// How often a connection that listens is checked. The default is three seconds, the least is a
    /// millisecond.
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
        let interval = self.health_interval.max(Duration::from_millis(1));
        let first = tokio::time::Instant::now() + interval;
        let mut checks = tokio::time::interval_at(first, interval);
        checks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        checks
    }
}
