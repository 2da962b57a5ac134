//! `tidemill model`: becomes the `tidemilld` beside this program, which has libtorch.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::server;
use crate::arguments::{Model, ModelVerb};
use crate::failure::Failure;

/// Never comes back where it succeeds.
pub(super) fn execute(model: &Model) -> Failure {
    let ModelVerb::Any(arguments) = &model.verb;
    let Some(program) = server::daemon() else {
        let text = "tidemilld is neither beside this program nor on PATH; build it with `make build`";
        return Failure::Failed(text.to_owned());
    };
    // Its messages name the program as it was called.
    let error = Command::new(&program).arg0("tidemill").arg("model").args(arguments).exec();
    Failure::Failed(format!("{} cannot be started: {error}", program.display()))
}
