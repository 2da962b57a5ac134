//! `tidemill-preprocessing`: the preprocessing service as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidemill_platform::process::main("preprocessing", &[], tidemill_preprocessing::build, None)
}
