//! `tidemill-training`: the training service as a process of its own, and its worker.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidemill_platform::process::main(
        "training",
        &[tidemill_training::DEFAULTS],
        tidemill_training::build,
        Some(tidemill_training::worker_main),
    )
}
