//! Asks for a smaller program where the machine can make and run one.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, io};

/// What the linker is asked for.
const ARGUMENTS: [&str; 2] = [
    // A bit for most addresses that are adjusted when the program starts, instead of 24 bytes (RELR): a thirteenth of
    // the program. The GNU C library reads them from version 2.36 on.
    "-Wl,-z,pack-relative-relocs",
    // Functions with equal instructions once. Nothing here compares the addresses of functions.
    "-Wl,--icf=all",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // A program for another machine cannot be tried, and one that is optimised for speed is large anyway.
    let is_for_size = matches!(variable("OPT_LEVEL").as_str(), "s" | "z");
    if is_for_size && variable("HOST") == variable("TARGET") {
        for argument in ARGUMENTS {
            if works(argument).unwrap_or(false) {
                println!("cargo::rustc-link-arg-bins={argument}");
            }
        }
    }
}

/// Whether a program that is linked with this argument runs here.
fn works(argument: &str) -> io::Result<bool> {
    let program = Path::new(&variable("OUT_DIR")).join("probe");
    let mut compiler = Command::new(variable("RUSTC"));
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        compiler.arg(format!("-Clinker={linker}"));
    }
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    compiler
        .args(flags.split('\u{1f}').filter(|flag| !flag.is_empty()))
        .arg(format!("-Clink-arg={argument}"))
        .arg("-o")
        .args([program.as_os_str(), "-".as_ref()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut compiling = compiler.spawn()?;
    if let Some(mut source) = compiling.stdin.take() {
        source.write_all(b"fn main() {}")?;
    }
    Ok(compiling.wait()?.success() && Command::new(program).status()?.success())
}

/// A variable that Cargo sets for every build script.
fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}
