use std::time::Duration;

/// What is added to twice the usual time before a response counts as late: fast endpoints vary by
/// more than their own latency.
const SLACK: Duration = Duration::from_millis(100);

/// How many attempts of one endpoint may be under way at once: grows while responses arrive in time,
/// shrinks when they are late, fail, or do not arrive.
///
/// | what happened | limit |
/// |---|---|
/// | a response in time, in a round that used the limit up | +1 at first; +1 for each round once it had to shrink |
/// | a response that took more than twice as long as usual | −5 % |
/// | a failure | halved |
/// | no response for more than twice as long as usual | the smallest |
///
/// The first row makes a lane that starts at 1 grow as the probes of a circuit breaker do: 1, 2, 4,
/// 8 at a time.
#[derive(Debug)]
pub(super) struct Limit {
    min: u32,
    max: u32,
    current: f64,
    /// Whether nothing has gone wrong yet.
    is_starting: bool,
    /// How many responses may still make it grow: a round of them each time that it is used up.
    growth: u32,
    /// The usual time of a response.
    usual: Option<Duration>,
}

impl Limit {
    pub(super) fn new(min: u32, max: u32) -> Self {
        Self {
            min,
            max,
            current: f64::from(min),
            is_starting: true,
            growth: 0,
            usual: None,
        }
    }

    pub(super) fn current(&self) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it stays between two numbers of the type"
        )]
        let current = self.current as u32;
        current
    }

    /// Sets other bounds and keeps what was learned.
    pub(super) fn set_bounds(&mut self, min: u32, max: u32) {
        (self.min, self.max) = (min, max);
        self.set(self.current);
    }

    /// After how long without a response something is wrong; `None` before the first response.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.usual
            .map(|usual| usual.saturating_mul(2).saturating_add(SLACK))
    }

    /// An attempt began, and so many are under way with it.
    pub(super) fn began(&mut self, in_flight: u32) {
        if in_flight >= self.current() {
            self.growth = self.current();
        }
    }

    pub(super) fn responded(&mut self, elapsed: Duration) {
        let is_late = self.patience().is_some_and(|patience| elapsed > patience);
        self.usual = Some(self.usual.map_or(elapsed, |usual| {
            // The usual moving average: a new response counts for an eighth.
            usual.saturating_mul(7).saturating_add(elapsed) / 8
        }));
        if is_late {
            self.is_starting = false;
            self.set(self.current * 0.95);
        } else if self.growth > 0 {
            self.growth -= 1;
            let step = if self.is_starting {
                1.0
            } else {
                1.0 / self.current
            };
            self.set(self.current + step);
        }
    }

    pub(super) fn failed(&mut self) {
        self.is_starting = false;
        self.growth = 0;
        self.set(self.current / 2.0);
    }

    /// A response is overdue.
    pub(super) fn stalled(&mut self) {
        self.is_starting = false;
        self.growth = 0;
        self.set(f64::from(self.min));
    }

    /// The endpoint has recovered: the limit may grow as quickly as at first.
    pub(super) fn restart(&mut self) {
        self.is_starting = true;
    }

    /// Forgets what was learned.
    pub(super) fn reset(&mut self) {
        *self = Self::new(self.min, self.max);
    }

    fn set(&mut self, limit: f64) {
        self.current = limit.clamp(f64::from(self.min), f64::from(self.max));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FAST: Duration = Duration::from_millis(20);

    /// Rounds of as many responses as the limit allows.
    fn grow(limit: &mut Limit, rounds: u32) -> Vec<u32> {
        (0..rounds)
            .map(|_| {
                let in_flight = limit.current();
                for number in 1..=in_flight {
                    limit.began(number);
                }
                for _ in 0..in_flight {
                    limit.responded(FAST);
                }
                limit.current()
            })
            .collect()
    }

    #[test]
    fn a_fresh_limit_doubles_each_round_up_to_its_maximum() {
        assert_eq!(grow(&mut Limit::new(1, 32), 6), [2, 4, 8, 16, 32, 32]);
    }

    #[test]
    fn after_a_failure_it_is_halved_and_grows_by_one_each_round() {
        let mut limit = Limit::new(1, 32);
        grow(&mut limit, 5);
        limit.failed();
        assert_eq!(limit.current(), 16);
        let grown = grow(&mut limit, 3);
        assert!(grown[0] <= 17 && grown[2] >= 18, "{grown:?}");
        limit.failed();
        limit.restart();
        assert_eq!(grow(&mut limit, 2).last(), Some(&32));
    }

    #[test]
    fn a_stall_leaves_the_minimum() {
        let mut limit = Limit::new(2, 32);
        grow(&mut limit, 5);
        limit.stalled();
        assert_eq!(limit.current(), 2);
    }

    #[test]
    fn late_responses_shrink_it_until_they_are_the_usual() {
        let mut limit = Limit::new(1, 32);
        grow(&mut limit, 5);
        let late = Duration::from_secs(1);
        for _ in 0..5 {
            limit.began(32);
            limit.responded(late);
        }
        let shrunk = limit.current();
        assert!(shrunk < 28, "{shrunk}");
        for _ in 0..1000 {
            limit.began(32);
            limit.responded(late);
        }
        assert_eq!(limit.current(), 32);
    }

    #[test]
    fn a_limit_that_is_not_used_up_does_not_grow() {
        let mut limit = Limit::new(4, 32);
        for _ in 0..10 {
            limit.began(3);
            limit.responded(FAST);
        }
        assert_eq!(limit.current(), 4);
    }

    #[test]
    fn a_response_is_late_only_beyond_twice_the_usual_time_and_the_slack() {
        let mut limit = Limit::new(1, 32);
        grow(&mut limit, 3);
        let patience = limit.patience().unwrap();
        assert_eq!(patience, 2 * FAST + SLACK);
        let before = limit.current;
        limit.growth = 0;
        limit.responded(patience);
        assert!((limit.current - before).abs() < f64::EPSILON);
        limit.responded(limit.patience().unwrap() + Duration::from_nanos(1));
        assert!(limit.current < before);
    }

    #[test]
    fn each_response_grows_it_once_for_a_round_that_used_it_up() {
        let mut limit = Limit::new(2, 32);
        limit.began(2);
        for _ in 0..10 {
            limit.responded(FAST);
        }
        assert_eq!(limit.current(), 4);
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds(
            min in 1_u32..10,
            more in 0_u32..100,
            history in prop::collection::vec((0_u8..5, any::<u64>(), any::<u32>()), 0..200),
        ) {
            let max = min + more;
            let mut limit = Limit::new(min, max);
            for (what, millis, in_flight) in history {
                match what {
                    0 => limit.responded(Duration::from_millis(millis)),
                    4 => limit.began(in_flight),
                    1 => limit.failed(),
                    2 => limit.stalled(),
                    _ => limit.restart(),
                }
                prop_assert!((min..=max).contains(&limit.current()));
            }
        }
    }
}
