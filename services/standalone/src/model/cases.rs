//! Many verbs in one process, for tests that would otherwise spend their time on starting processes.

use std::{fs, path::Path};

use clap::Parser;

use super::{Arguments, Failure, run};

/// One argument list, as after `tidemill model`.
#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct Case {
    #[command(flatten)]
    arguments: Arguments,
}

/// Runs a JSON list of argument lists in order; ends at the first that fails.
pub(super) fn execute(file: &Path) -> Result<(), Failure> {
    let text = fs::read_to_string(file).map_err(|error| Failure::file(file, &error))?;
    let cases: Vec<Vec<String>> = serde_json::from_str(&text).map_err(|error| Failure::content(file, error))?;
    for (number, case) in cases.iter().enumerate() {
        let failed = |error: String| Failure::content(file, format!("case {number}, {}: {error}", case.join(" ")));
        let parsed = Case::try_parse_from(case).map_err(|error| failed(error.to_string()))?;
        run(&parsed.arguments.verb).map_err(|failure| failed(failure.to_string()))?;
    }
    Ok(())
}
