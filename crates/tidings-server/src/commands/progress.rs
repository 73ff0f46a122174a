//! The progress of a command, on standard error: a bar on a terminal, otherwise a line a second.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio::time::Instant;

/// Cells of the bar on a terminal.
const CELLS: u64 = 30;

/// How often a terminal is written to, and how often a log is.
const ON_TERMINAL: Duration = Duration::from_millis(100);
const IN_LOG: Duration = Duration::from_secs(1);

/// What is shown.
pub(super) struct Bar {
    is_terminal: bool,
    /// When the last line was written.
    shown: Option<Instant>,
    /// What was reported since: how much of the whole, and words about it.
    latest: Option<(u64, u64, String)>,
}

impl Bar {
    pub(super) fn new() -> Self {
        Self {
            is_terminal: std::io::stderr().is_terminal(),
            shown: None,
            latest: None,
        }
    }

    /// Reports that so much of the whole is done. Most reports are not shown, because others follow soon.
    pub(super) fn show(&mut self, done: u64, of: u64, words: String) {
        self.latest = Some((done, of, words));
        let pause = if self.is_terminal {
            ON_TERMINAL
        } else {
            IN_LOG
        };
        if self.shown.is_some_and(|shown| shown.elapsed() < pause) {
            return;
        }
        self.shown = Some(Instant::now());
        self.write();
    }

    fn write(&mut self) {
        if let Some((done, of, words)) = self.latest.take() {
            let line = line(done, of, &words, self.is_terminal);
            // A command does not end because its progress cannot be written.
            let _written = write!(std::io::stderr(), "{line}");
        }
    }

    /// A log gets what was reported last; a terminal is cleared.
    pub(super) fn end(&mut self) {
        if !self.is_terminal {
            self.write();
        } else if self.shown.is_some() {
            let _written = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(done: u64, of: u64, words: &str, is_terminal: bool) -> String {
    let of = of.max(1);
    let text = format!("{} % · {words}", done.min(of) * 100 / of);
    if !is_terminal {
        return format!("{text}\n");
    }
    let full = CELLS * done.min(of) / of;
    let cells = (0..CELLS).map(|cell| if cell < full { '█' } else { '░' });
    format!("\r\x1b[K[{}] {text}", cells.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_a_bar_on_a_terminal_and_a_line_in_a_log() {
        assert_eq!(line(1, 4, "t", false), "25 % · t\n");
        assert_eq!(line(0, 0, "t", false), "0 % · t\n");
        let bar = line(3, 4, "t", true);
        assert_eq!(bar.matches('█').count(), 22);
        assert_eq!(bar.matches('░').count(), 8);
        assert!(bar.starts_with('\r') && bar.ends_with("] 75 % · t"));
    }
}
