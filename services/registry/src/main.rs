//! `tidemill-registry`: the registry service as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidemill_platform::process::main("registry", &[], tidemill_registry::build, None)
}
