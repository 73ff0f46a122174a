use std::io::{self, Write};

use serde::Serialize;
use tidings_storage::finding::{Finding, Status};

use super::{CommandError, SETTINGS};
use crate::settings::origin::{Origin, Setting};

/// Prints each finding when it is there, and knows whether one of them is an error.
pub(super) struct Report {
    json: bool,
    errors: usize,
}

/// A setting as JSON.
#[derive(Serialize)]
struct SettingLine<'a> {
    status: Status,
    check: &'static str,
    #[serde(flatten)]
    setting: &'a Setting,
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        Self { json, errors: 0 }
    }

    pub(super) fn add(&mut self, finding: &Finding) -> io::Result<()> {
        self.errors += usize::from(finding.status == Status::Error);
        if self.json {
            return line(&serde_json::to_string(finding)?);
        }
        let status = match finding.status {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Error => "error",
        };
        line(&format!(
            "{status:<8} {:<12} {}",
            finding.check, finding.message
        ))
    }

    /// A setting that could be read, and where it comes from.
    pub(super) fn setting(&mut self, setting: &Setting) -> io::Result<()> {
        if self.json {
            let status = Status::Ok;
            let check = SETTINGS;
            return line(&serde_json::to_string(&SettingLine {
                status,
                check,
                setting,
            })?);
        }
        let value = setting.value.as_deref().unwrap_or("not set");
        let origin = match setting.origin {
            Origin::Default => "default",
            Origin::File => "file",
            Origin::Environment => "environment",
            Origin::CommandLine => "command line",
        };
        let name = &setting.name;
        self.add(&Finding::ok(
            SETTINGS,
            format!("{name} = {value} ({origin})"),
        ))
    }

    /// An error if there was one.
    pub(super) fn end(self) -> Result<(), CommandError> {
        match self.errors {
            0 => Ok(()),
            1 => Err("1 check found an error".into()),
            errors => Err(format!("{errors} checks found an error").into()),
        }
    }
}

fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}
