//! The programs of the benchmarks, and the one beside which the server is measured.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use tidings_bench::Benchmark;

use crate::Failure;

/// What is installed to compare the server with.
pub(crate) const PEER: (&str, &str) = ("durable-streams", "0.1.5");

/// The workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

#[derive(Debug)]
pub(crate) struct Programs {
    target: PathBuf,
    paths: HashMap<String, PathBuf>,
    server: Option<PathBuf>,
    peer: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Metadata {
    target_directory: PathBuf,
}

/// What cargo says of a target that it has built.
#[derive(Deserialize)]
struct Artifact {
    target: Target,
    executable: PathBuf,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Programs {
    /// Builds the programs of these benchmarks, as one build of the workspace, so that they share what they use.
    pub(crate) fn build(benchmarks: &[&Benchmark], unoptimized: bool) -> Result<Self, Failure> {
        let metadata = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
        let Metadata { target_directory } = serde_json::from_slice(&metadata)?;
        let mut build = cargo();
        build.args([
            "bench",
            "--no-run",
            "--workspace",
            "--all-features",
            "--message-format",
            "json-render-diagnostics",
        ]);
        if unoptimized {
            build.args(["--profile", "dev"]);
        }
        for benchmark in benchmarks {
            build.args(["--bench", benchmark.program]);
        }
        let paths = built(&mut build, "bench")?;
        let has_server = benchmarks.iter().any(|it| it.program == "server");
        // Without optimization there is nothing to compare.
        let (server, peer) = if has_server && !unoptimized {
            (Some(build_server()?), install_peer(&target_directory))
        } else {
            (None, None)
        };
        Ok(Self {
            target: target_directory,
            paths,
            server,
            peer,
        })
    }

    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    pub(crate) fn path(&self, benchmark: &Benchmark) -> Result<&Path, Failure> {
        let path = self.paths.get(benchmark.program).map(PathBuf::as_path);
        path.ok_or_else(|| {
            format!("cargo has not built the bench target {}", benchmark.program).into()
        })
    }

    /// The server to measure, if it is not the one that was built with the benchmarks.
    pub(crate) fn server(&self) -> Option<&Path> {
        self.server.as_deref()
    }

    /// The server to compare with, if it could be installed.
    pub(crate) fn peer(&self) -> Option<&Path> {
        self.peer.as_deref()
    }
}

/// Builds the server as it is given to others.
fn build_server() -> Result<PathBuf, Failure> {
    let mut build = cargo();
    build.args([
        "build",
        "--profile",
        "dist",
        "--package",
        "tidings-server",
        "--features",
        "otlp",
        "--message-format",
        "json-render-diagnostics",
    ]);
    let server = built(&mut build, "bin")?.remove("tidings");
    server.ok_or_else(|| "cargo has not built the server".into())
}

/// Has cargo build, and returns the programs of one kind, by their names.
fn built(build: &mut Command, kind: &str) -> Result<HashMap<String, PathBuf>, Failure> {
    let messages = output(build)?;
    let artifacts = messages.split(|byte| *byte == b'\n');
    Ok(artifacts
        .filter_map(|line| serde_json::from_slice::<Artifact>(line).ok())
        .filter(|artifact| artifact.target.kind.iter().any(|it| it == kind))
        .map(|artifact| (artifact.target.name, artifact.executable))
        .collect())
}

/// Builds the peer as its authors do, in a folder of its own. Without it, rows say that it is missing.
fn install_peer(target: &Path) -> Option<PathBuf> {
    let (name, version) = PEER;
    let folder = target.join("bench/peer");
    let mut install = cargo();
    install.args([
        "install",
        "--quiet",
        "--locked",
        name,
        "--version",
        version,
        "--root",
    ]);
    let installed = install
        .arg(&folder)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .status();
    if installed.is_ok_and(|status| status.success()) {
        return Some(folder.join("bin/durable-streams-server"));
    }
    let _lost = writeln!(
        std::io::stderr(),
        "bench: {name} {version} could not be installed: nothing is compared with it"
    );
    None
}

fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

fn output(command: &mut Command) -> Result<Vec<u8>, Failure> {
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("cargo has failed: {}", output.status).into());
    }
    Ok(output.stdout)
}
