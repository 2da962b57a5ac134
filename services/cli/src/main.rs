//! `tidemill`: the client of a Tidemill server. Light: it links neither libtorch nor any service.

mod arguments;
mod commands;
mod connection;
mod document;
mod events;
mod failure;
mod jobs;
mod output;
mod trace;
mod view;
mod words;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};
use tracing::Instrument as _;

fn main() -> ExitCode {
    // clap itself ends with 2 on a wrong command line.
    let matches = arguments::Arguments::command().get_matches();
    let verb = matches.subcommand_name().unwrap_or_default().to_owned();
    let arguments = arguments::Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let trace = match trace::begin(&verb) {
        Ok(trace) => trace,
        Err(failure) => return failure.exit(),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure::Failure::Failed(error.to_string()).exit(),
    };
    let result = runtime.block_on(commands::execute(arguments).instrument(trace.span.clone()));
    // A thread that waits for input must not hold the end back.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.exit(),
    }
}
