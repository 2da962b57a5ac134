//! `tidemill-pipeline`: the pipeline service as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidemill_platform::process::main("pipeline", &[], tidemill_pipeline::build, None)
}
