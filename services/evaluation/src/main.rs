//! `tidemill-evaluation`: the evaluation service as a process of its own, and its worker.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidemill_platform::process::main(
        "evaluation",
        &[tidemill_evaluation::DEFAULTS],
        tidemill_evaluation::build,
        Some(tidemill_evaluation::worker_main),
    )
}
