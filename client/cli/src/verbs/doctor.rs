//! `teu doctor`: what is wrong and how to mend it.

use std::{io::IsTerminal as _, process::ExitCode};

use clap::Args;
use teu::{DoctorReport, Finding, Severity};

use crate::{
    args::{Format, Globals},
    failure::Failure,
    output,
};

/// Arguments of `teu doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// How to print
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// Runs `teu doctor`. Exit code 1 if something is bad.
pub(crate) async fn run(globals: &Globals, args: DoctorArgs) -> Result<ExitCode, Failure> {
    let location = super::connect(globals, "doctor").await?;
    let name = location.name().to_owned();
    let report = location.doctor().await?;
    location.close().await;
    match args.format {
        Format::Json => output::json(&report)?,
        Format::Table => print(&name, &report)?,
    }
    let bad = report
        .findings
        .iter()
        .any(|finding| finding.severity == Severity::Bad);
    Ok(ExitCode::from(u8::from(bad)))
}

fn print(name: &str, report: &DoctorReport) -> Result<(), Failure> {
    output::line(&format!(
        "location {name}: connected, master {}",
        report.version
    ))?;
    let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    for finding in &report.findings {
        print_finding(finding, color)?;
    }
    let worse = report
        .findings
        .iter()
        .filter(|f| f.severity != Severity::Good)
        .count();
    output::line(&match worse {
        0 => "all is well".to_owned(),
        1 => "1 thing needs attention".to_owned(),
        count => format!("{count} things need attention"),
    })
}

fn print_finding(finding: &Finding, color: bool) -> Result<(), Failure> {
    let (mark, code) = match finding.severity {
        Severity::Good => ("ok     ", "32"),
        Severity::Warning => ("warning", "33"),
        Severity::Bad => ("BAD    ", "31"),
    };
    let mark = if color {
        format!("\x1b[{code}m{mark}\x1b[0m")
    } else {
        mark.to_owned()
    };
    output::line(&format!("{mark}  {}: {}", finding.subject, finding.message))?;
    match &finding.cure {
        Some(cure) => output::line(&format!("         → {cure}")),
        None => Ok(()),
    }
}
