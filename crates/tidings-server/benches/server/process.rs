//! A process, and what it takes.

use std::process::{Child, Command, Stdio};

use tidings_bench::{PEER, ROWS, SECONDS, SERVER};

/// Ends when it is dropped.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        // What is for the benchmark is not for the server.
        for variable in [PEER, ROWS, SECONDS, SERVER] {
            command.env_remove(variable);
        }
        Self(command.stdout(Stdio::piped()).spawn().unwrap())
    }

    /// What it prints, to be taken once.
    pub(crate) fn output(&mut self) -> std::process::ChildStdout {
        self.0.stdout.take().unwrap()
    }

    /// Seconds of processor time so far.
    pub(crate) fn cpu(&self) -> f64 {
        cpu(&format!("/proc/{}/stat", self.0.id()))
    }

    /// Resident bytes.
    pub(crate) fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib = line.trim().strip_suffix(" kB").unwrap();
        kib.parse::<f64>().unwrap() * 1024.0
    }
}

/// Seconds of processor time of the calling thread so far.
pub(crate) fn cpu_of_this_thread() -> f64 {
    cpu("/proc/thread-self/stat")
}

fn cpu(stat: &str) -> f64 {
    let stat = std::fs::read_to_string(stat).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = |n| {
        let field = fields.split_whitespace().nth(n).unwrap();
        field.parse::<f64>().unwrap()
    };
    (ticks(11) + ticks(12)) / 100.0
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}
