//! Many verbs in one process, for tests that would otherwise spend their time on starting processes.

use std::{fs, path::Path};

use clap::Parser;

use super::{Arguments, Failure, run};

/// One argument list, as after `tidemill model`.
#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
pub(super) struct Case {
    #[command(flatten)]
    pub(super) arguments: Arguments,
}

/// Runs a JSON list of argument lists in order; says of each that fails why.
pub(super) fn execute(file: &Path) -> Result<(), Failure> {
    let text = fs::read_to_string(file).map_err(|error| Failure::file(file, &error))?;
    let cases: Vec<Vec<String>> = serde_json::from_str(&text).map_err(|error| Failure::content(file, error))?;
    let mut failed = 0;
    for case in &cases {
        let parsed = Case::try_parse_from(case).map_err(|error| error.to_string());
        let result = parsed.and_then(|parsed| run(&parsed.arguments.verb).map_err(|failure| failure.to_string()));
        if let Err(text) = result {
            eprintln!("{}: {text}", case.join(" "));
            failed += 1;
        }
    }
    if failed == 0 { Ok(()) } else { Err(Failure::Failed(format!("{failed} of {} cases failed", cases.len()))) }
}
