use std::time::Duration;

use tokio::time::Instant;

/// What works for this long ends an outage. What fails sooner belongs to the outage before it: a server
/// that accepts every connection and drops it would flood the log otherwise.
pub(crate) const STEADY: Duration = Duration::from_secs(10);

/// An outage that continues is reported again after this time at the earliest.
const REPORT_AGAIN: Duration = Duration::from_secs(600);

/// Says which failures of something that is tried again and again to log: an outage is reported once when
/// it begins and once when it ends, however often it is tried.
///
/// ```
/// use tidings_reconnect::Trouble;
///
/// let mut trouble = Trouble::new();
/// for result in [Ok(()), Err("refused"), Err("refused"), Ok(())] {
///     match result {
///         Ok(()) if trouble.worked() => println!("trimming works again"),
///         Ok(()) => {}
///         Err(error) if trouble.failed() => println!("trimming failed: {error}"),
///         Err(_) => {}
///     }
/// }
/// ```
#[derive(Debug, Default)]
pub struct Trouble {
    /// Since when it works, after a failure.
    works_since: Option<Instant>,
    /// When the outage was reported that continues, or ended a moment ago.
    reported: Option<Instant>,
    /// Whether the end of the outage is worth a report.
    is_down: bool,
}

impl Trouble {
    /// Begins without an outage.
    pub const fn new() -> Self {
        Self {
            works_since: None,
            reported: None,
            is_down: false,
        }
    }

    /// Records a success. Returns `true` if that is to be logged: it ends an outage that was reported.
    pub fn worked(&mut self) -> bool {
        if self.reported.is_none() {
            return false;
        }
        self.works_since.get_or_insert_with(Instant::now);
        std::mem::take(&mut self.is_down)
    }

    /// Records a failure. Returns `true` if that is to be logged.
    pub fn failed(&mut self) -> bool {
        let now = Instant::now();
        let worked_for = self.works_since.take().map(|since| now - since);
        if worked_for.is_some_and(|worked_for| worked_for >= STEADY) {
            self.reported = None;
        }
        let is_due = |reported: Instant| now - reported >= REPORT_AGAIN;
        if self.reported.is_some_and(|reported| !is_due(reported)) {
            return false;
        }
        self.reported = Some(now);
        self.is_down = true;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_reported_once_and_so_is_its_end() {
        let mut trouble = Trouble::new();
        assert!(!trouble.worked());
        for _ in 0..2 {
            assert!(trouble.failed());
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                assert!(!trouble.failed());
            }
            assert!(trouble.worked());
            tokio::time::sleep(STEADY).await;
            assert!(!trouble.worked());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_works_now_and_then_is_one_outage() {
        let mut trouble = Trouble::new();
        assert!(trouble.failed());
        assert!(trouble.worked());
        for _ in 0..100 {
            tokio::time::sleep(STEADY / 2).await;
            assert!(!trouble.failed());
            assert!(!trouble.worked());
        }
        tokio::time::sleep(REPORT_AGAIN).await;
        // It has worked for long, and this is another one.
        assert!(trouble.failed());
        tokio::time::sleep(REPORT_AGAIN).await;
        assert!(trouble.failed());
    }
}
