//! `tidemill-ingestion`: the ingestion service as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidemill_platform::process::main("ingestion", &[tidemill_ingestion::DEFAULTS], tidemill_ingestion::build, None)
}
