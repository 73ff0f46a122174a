use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::Instant;

/// What moments are counted from.
static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A point in time in eight bytes, half of what an [`Instant`] takes: many deliveries wait.
///
/// It reaches 292 years in both directions, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(i64);

impl Moment {
    pub(super) fn now() -> Self {
        Instant::now().into()
    }
}

impl From<Instant> for Moment {
    fn from(instant: Instant) -> Self {
        let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        // A clock that a test has paused may be behind the epoch.
        Self(match instant.checked_duration_since(*EPOCH) {
            Some(after) => nanos(after),
            None => -nanos(EPOCH.saturating_duration_since(instant)),
        })
    }
}

impl From<Moment> for Instant {
    fn from(moment: Moment) -> Self {
        let distance = Duration::from_nanos(moment.0.unsigned_abs());
        if moment.0 < 0 {
            *EPOCH - distance
        } else {
            *EPOCH + distance
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_comes_back_from_both_sides_of_the_epoch() {
        let day = Duration::from_secs(24 * 3600);
        let nanosecond = Duration::from_nanos(1);
        let instants = [
            *EPOCH - nanosecond,
            *EPOCH,
            *EPOCH + nanosecond,
            *EPOCH + day,
        ];
        let moments = instants.map(Moment::from);
        assert!(moments.is_sorted_by(|one, next| one < next));
        assert_eq!(moments.map(Instant::from), instants);
    }

    #[test]
    fn what_is_too_far_away_is_the_last_moment() {
        let far = Moment::from(*EPOCH + Duration::from_secs(1 << 40));
        assert_eq!(far, Moment(i64::MAX));
        assert!(Instant::from(far) > *EPOCH);
    }
}
