//! `tidemill`: the client of a Tidemill server. Light: it links neither libtorch nor any service.

mod arguments;
mod commands;
mod connection;
mod document;
mod failure;
mod jobs;
mod output;
mod view;
mod words;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    // clap itself ends with 2 on a wrong command line.
    let arguments = arguments::Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure::Failure::Failed(error.to_string()).exit(),
    };
    let result = runtime.block_on(commands::execute(arguments));
    // A thread that waits for input must not hold the end back.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.exit(),
    }
}
