use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Callbacks, Limits, Pool};
use crate::{ConfigError, Sender};

/// Most workers. Each is a task with at most one connection.
pub(crate) const MAX_WORKERS: u32 = 10_000;

/// Most places in a queue. More belongs on a disk.
const MAX_QUEUE_SIZE: usize = 10_000_000;

/// Longest time until an attempt counts as slow: that of the longest attempt.
const MAX_SLOW_AFTER: Duration = Duration::from_secs(3600);

/// What every pool is built from, whichever face it has.
pub(crate) struct PoolConfig {
    /// One with the default settings, if none is set.
    pub(crate) sender: Option<Sender>,
    pub(crate) limits: Limits,
    /// Places of all queues together.
    pub(crate) queue_size: usize,
    pub(crate) callbacks: Callbacks,
}

impl PoolConfig {
    pub(crate) fn new(limits: Limits, queue_size: usize) -> Self {
        Self {
            sender: None,
            limits,
            queue_size,
            callbacks: Callbacks::default(),
        }
    }

    pub(crate) fn build(self) -> Result<Arc<Pool>, ConfigError> {
        check_workers("workers", self.limits.workers)?;
        check_queue_size(self.queue_size)?;
        if let Some(isolation) = self.limits.isolation {
            check_workers("max_slow", isolation.max_slow)?;
            if isolation.slow_after.is_zero() || isolation.slow_after > MAX_SLOW_AFTER {
                return Err(ConfigError::new(
                    "slow_after",
                    "more than zero and at most an hour",
                ));
            }
        }
        if self.limits.per_host == Some(0) {
            return Err(ConfigError::new("max_in_flight_per_host", "at least 1"));
        }
        if self.limits.group_parts == Some(0) {
            return Err(ConfigError::new("group_parts", "at least 1"));
        }
        let sender = match self.sender {
            Some(sender) => sender,
            None => Sender::builder().build()?,
        };
        Ok(Pool::new(sender, self.limits, self.callbacks))
    }
}

fn check_workers(field: &'static str, workers: usize) -> Result<(), ConfigError> {
    match u32::try_from(workers) {
        Ok(1..=MAX_WORKERS) => Ok(()),
        _ => Err(ConfigError::new(field, "1 to 10,000")),
    }
}

pub(crate) fn check_queue_size(queue_size: usize) -> Result<(), ConfigError> {
    if (1..=MAX_QUEUE_SIZE).contains(&queue_size) {
        Ok(())
    } else {
        Err(ConfigError::new("queue_size", "1 to 10,000,000"))
    }
}

impl fmt::Debug for PoolConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolConfig")
            .field("sender", &self.sender)
            .field("limits", &self.limits)
            .field("queue_size", &self.queue_size)
            .finish_non_exhaustive()
    }
}
