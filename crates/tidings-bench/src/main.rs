//! `scripts/bench`: runs the benchmarks, and puts their figures side by side.

mod chart;
mod machine;
mod programs;
mod table;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Parser;
use clap::builder::PossibleValuesParser;
use serde::Serialize;
use tidings_bench::{BENCHMARKS, Benchmark, PEER, ROWS, Row, SECONDS, SERVER};

use machine::{Machine, Used, Watch, look_at_others};
use programs::Programs;

type Failure = Box<dyn std::error::Error>;

/// Free bytes that a run needs: databases of some benchmarks are large.
const LEAST_SPACE: u64 = 8 << 30;

/// Builds and runs every benchmark beside its baseline in the same run, and prints one table.
///
/// A ratio says how good a figure is beside its baseline: 1 is as good, 2 twice as good, of rates as of costs.
/// docs/performance.md explains each benchmark. The results are in target/bench: results.json, chart.svg, and
/// what each program has printed.
#[derive(Debug, Parser)]
#[command(name = "scripts/bench", bin_name = "scripts/bench")]
struct Arguments {
    /// Measures each figure for two seconds, and makes large amounts smaller: a first look
    #[arg(long)]
    quick: bool,

    /// Runs this benchmark alone; can be given several times
    #[arg(long, value_name = "NAME", hide_possible_values = true, value_parser = PossibleValuesParser::new(BENCHMARKS.iter().map(|it| it.name)))]
    only: Vec<String>,

    /// Lists the benchmarks and what each measures
    #[arg(long)]
    list: bool,

    /// Builds without optimization, and measures nothing of worth: to try out a benchmark
    #[arg(long)]
    unoptimized: bool,
}

/// Rows say it if others used this share of the processors.
const DISTURBED: f64 = 0.1;

/// No load keeps the program that waits for the benchmarks from running for as long.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What is written to results.json.
#[derive(Serialize)]
struct Results<'a> {
    machine: &'a Machine,
    seconds: u64,
    rows: &'a [Row],
    failed: &'a [&'static str],
}

fn main() -> ExitCode {
    let done = run(&Arguments::parse());
    done.unwrap_or_else(|error| {
        let _lost = writeln!(std::io::stderr(), "bench: {error}");
        ExitCode::FAILURE
    })
}

fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut out = std::io::stdout();
    if arguments.list {
        for benchmark in BENCHMARKS {
            writeln!(out, "{:<14} {}", benchmark.name, benchmark.about)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let is_chosen = |it: &&Benchmark| {
        arguments.only.is_empty() || arguments.only.iter().any(|name| name == it.name)
    };
    let chosen: Vec<_> = BENCHMARKS.iter().filter(is_chosen).collect();
    let programs = Programs::build(&chosen, arguments.unoptimized)?;
    let folder = programs.target().join("bench");
    std::fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join("lock"))?;
    if lock.try_lock().is_err() {
        return Err("another run is under way, which would disturb this one".into());
    }
    let seconds = if arguments.quick { 2 } else { 6 };
    let mut machine = Machine::look(&folder)?;
    if machine.free_bytes < LEAST_SPACE {
        let (free, least) = (machine.free_bytes >> 20, LEAST_SPACE >> 20);
        return Err(format!(
            "{} has {free} MiB free: {least} MiB are needed",
            folder.display()
        )
        .into());
    }

    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for benchmark in chosen {
        writeln!(
            std::io::stderr(),
            "bench: {}: {}",
            benchmark.name,
            benchmark.about
        )?;
        match measure(benchmark, &programs, &folder, seconds) {
            Ok((measured, others)) => {
                machine.note_others(others);
                rows.extend(measured);
            }
            Err(error) => {
                writeln!(
                    std::io::stderr(),
                    "bench: {} failed: {error}",
                    benchmark.name
                )?;
                failed.push(benchmark.name);
            }
        }
    }
    let results = Results {
        machine: &machine,
        seconds,
        rows: &rows,
        failed: &failed,
    };
    std::fs::write(
        folder.join("results.json"),
        serde_json::to_string_pretty(&results)?,
    )?;
    std::fs::write(folder.join("chart.svg"), chart::draw(&rows))?;
    write!(out, "{}\n{}", table::draw(&rows), machine)?;
    if arguments.unoptimized {
        writeln!(out, "Nothing was optimized: these figures say nothing.")?;
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(std::io::stderr(), "bench: FAILED: {}", failed.join(", "))?;
    Ok(ExitCode::FAILURE)
}

/// Runs one benchmark in an empty folder. Returns its rows, and the share of the processors that others used.
fn measure(
    benchmark: &Benchmark,
    programs: &Programs,
    folder: &Path,
    seconds: u64,
) -> Result<(Vec<Row>, f64), Failure> {
    let data = Data::empty(folder.join("data"))?;
    let rows = data.0.join("rows.jsonl");
    let log = folder.join(format!("{}.log", benchmark.name));
    let output = File::create(&log)?;
    let program = programs.path(benchmark)?;
    let mut command = if benchmark.needs_services {
        let mut command = Command::new(programs::root().join("scripts/services"));
        command.arg("--durable").arg(program);
        command
    } else {
        Command::new(program)
    };
    command
        .args(benchmark.arguments)
        // As cargo does: criterion asks for it.
        .arg("--bench")
        .current_dir(&data.0)
        .env(ROWS, &rows)
        .env("CRITERION_HOME", data.0.join("criterion"))
        .env(SECONDS, seconds.to_string())
        .stdin(Stdio::null())
        .stderr(output.try_clone()?)
        .stdout(output);
    let of_server = [(SERVER, programs.server()), (PEER, programs.peer())];
    for (variable, program) in of_server {
        if let Some(program) = program {
            command.env(variable, program);
        }
    }
    let (before, then) = (look_at_others()?, Used::now()?);
    let watch = Watch::start();
    let status = command.status()?;
    let pause = watch.end();
    if pause > LONGEST_PAUSE {
        let seconds = pause.as_secs();
        return Err(
            format!("the machine stood still for {seconds} s meanwhile: run it again").into(),
        );
    }
    // A database is no child of the benchmark: there, only the moments before and after say what others do.
    let others = if benchmark.needs_services {
        before.max(look_at_others()?)
    } else {
        Used::now()?.by_others_since(then)
    };
    if !status.success() {
        return Err(format!("{status}; what it printed is in {}", log.display()).into());
    }
    let text = std::fs::read_to_string(&rows).map_err(|_| "it has measured nothing")?;
    let rows = text.lines().map(|line| {
        let mut row: Row = serde_json::from_str(line)?;
        benchmark.name.clone_into(&mut row.benchmark);
        if others >= DISTURBED {
            let used = format!("others used {:.0} % of the processors", others * 100.0);
            row.note = if row.note.is_empty() {
                used
            } else {
                format!("{}; {used}", row.note)
            };
        }
        Ok(row)
    });
    let rows: Result<_, Failure> = rows.collect();
    Ok((rows?, others))
}

/// A folder for the databases of one benchmark, on the disk of the target directory.
struct Data(PathBuf);

impl Data {
    fn empty(path: PathBuf) -> Result<Self, Failure> {
        // A run that was ended may have left one.
        if path.exists() {
            std::fs::remove_dir_all(&path)?;
        }
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            let _lost = writeln!(
                std::io::stderr(),
                "bench: {} is left: {error}",
                self.0.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_name_is_refused_with_the_right_ones() {
        let error = Arguments::try_parse_from(["scripts/bench", "--only", "acept"]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("invalid value 'acept' for '--only <NAME>'"),
            "{text}"
        );
        assert!(text.contains("accept"), "{text}");
    }

    #[test]
    fn an_unknown_option_is_refused() {
        let error = Arguments::try_parse_from(["scripts/bench", "--fast"]).unwrap_err();
        assert!(error.to_string().contains("unexpected argument '--fast'"));
    }
}
