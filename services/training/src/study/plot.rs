//! The trials of a study as a picture: the objective of each, and the best so far.

use tidemill_proto::training::v1::study::Direction;
use tidemill_proto::training::v1::{Study, Trial};
use tidemill_proto::r#type::v1::State;

use super::search::objective;
use crate::learning::Frame;

const TRIAL_COLOUR: &str = "#2563eb";
const STOPPED_COLOUR: &str = "#9ca3af";
const BEST_COLOUR: &str = "#dc2626";

/// Dots for trials that ran to their end, rings for those stopped early, and a line of the best so far.
pub(super) fn trials_plot(study: &Study) -> String {
    let of = |wanted: fn(&Trial) -> bool| -> Vec<(f64, f64)> {
        let trials = study.trials.iter().filter(|trial| wanted(trial));
        trials.filter_map(|trial| Some((f64::from(trial.number), trial.objective?))).collect()
    };
    let (done, stopped) = (of(|trial| trial.state() == State::Succeeded), of(|trial| trial.stopped_early));
    let maximize = study.direction() == Direction::Maximize;
    let mut best: Vec<(f64, f64)> = Vec::new();
    for (number, objective) in &done {
        let before = best.last().map_or(*objective, |(_, before)| *before);
        let now = if maximize { objective.max(before) } else { objective.min(before) };
        // A step, not a slope.
        best.extend([(*number, before), (*number, now)]);
    }
    if let (Some((_, now)), Some(last)) = (best.last().copied(), study.trials.last()) {
        best.push((f64::from(last.number), now));
    }
    let mut frame = Frame::around(done.iter().chain(&stopped), "trial", objective(study));
    for (name, colour, points, filled) in
        [("trials", TRIAL_COLOUR, &done, true), ("stopped early", STOPPED_COLOUR, &stopped, false)]
    {
        if !points.is_empty() {
            frame.name(name, colour);
        }
        for point in points {
            frame.dot(*point, 3.5, colour, filled);
        }
    }
    if !best.is_empty() {
        frame.line(&best, BEST_COLOUR);
        frame.name("best so far", BEST_COLOUR);
    }
    frame.finish()
}
