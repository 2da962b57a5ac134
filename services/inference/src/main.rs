//! `tidemill-inference`: the inference service as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidemill_platform::process::main("inference", &[tidemill_inference::DEFAULTS], tidemill_inference::build, None)
}
