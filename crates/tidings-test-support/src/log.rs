use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::Subscriber;
use tracing::subscriber::DefaultGuard;

/// What is logged on the current thread, from INFO on. In a test on a runtime with one thread, that is
/// everything that the test does.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Begins to record, for as long as the guard lives.
    pub fn listen(&self) -> DefaultGuard {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_ansi(false)
            .with_writer(move || log.clone())
            .finish();
        set_default(subscriber)
    }

    /// The lines with this text.
    pub fn lines(&self, text: &str) -> Vec<String> {
        // What was written by a thread that panicked is whole.
        let log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = String::from_utf8_lossy(&log);
        let lines = all.lines().filter(|line| line.contains(text));
        lines.map(str::to_owned).collect()
    }

    /// Waits until there are so many lines with this text.
    pub async fn has(&self, count: usize, text: &str) {
        while self.lines(text).len() != count {
            tokio::task::yield_now().await;
        }
    }
}

/// Lets a subscriber have what the current thread traces and logs, for as long as the guard lives.
pub fn set_default(subscriber: impl Subscriber + Send + Sync) -> DefaultGuard {
    // Without one for all threads, a line that another test logs at the same time can switch off the
    // same line here. It is set once, and later attempts fail.
    let _set = tracing::subscriber::set_global_default(tracing_subscriber::registry());
    tracing::subscriber::set_default(subscriber)
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        log.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
