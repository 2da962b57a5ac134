//! `tidemill-gateway`: the gateway service as a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidemill_platform::process::main("gateway", &[tidemill_gateway::DEFAULTS], tidemill_gateway::build, None)
}
