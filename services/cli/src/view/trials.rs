//! The trials of a study as a table.

use prost_types::Value;
use prost_types::value::Kind;
use tidemill_proto::training::v1::{Study, Trial};
use tidemill_proto::r#type::v1::State;

use crate::output::table;
use crate::words;

/// A row for each trial, its parameters as columns; `*` marks the best.
pub(crate) fn trials(study: &Study) -> String {
    let objective = if study.objective.is_empty() { "validation_loss" } else { &study.objective };
    let mut headers = vec!["TRIAL".to_owned(), "STATE".to_owned(), "STEPS".to_owned(), objective.to_uppercase()];
    // The last part of a field says enough, unless two have the same.
    let last = |field: &str| field.rsplit('.').next().unwrap_or(field).to_owned();
    headers.extend(study.parameters.iter().map(|parameter| {
        let alike = study.parameters.iter().filter(|other| last(&other.field) == last(&parameter.field)).count();
        if alike > 1 { parameter.field.to_uppercase() } else { last(&parameter.field).to_uppercase() }
    }));
    headers.push("RESULT".to_owned());
    let rows = study.trials.iter().map(|trial| row(study, trial)).collect();
    table(&headers.iter().map(String::as_str).collect::<Vec<_>>(), rows)
}

fn row(study: &Study, trial: &Trial) -> Vec<String> {
    let mark = if study.best_trial == Some(trial.number) { " *" } else { "" };
    let state = if trial.stopped_early { "stopped early" } else { words::state(trial.state()) };
    let mut row = vec![
        format!("{}{mark}", trial.number),
        state.to_owned(),
        if trial.step > 0 { trial.step.to_string() } else { "-".to_owned() },
        trial.objective.map_or_else(|| "-".to_owned(), |objective| format!("{objective:.4}")),
    ];
    row.extend(
        study.parameters.iter().map(|parameter| trial.parameters.get(&parameter.field).map_or_else(String::new, value)),
    );
    row.push(match (&trial.error, trial.state()) {
        (Some(error), _) => words::excerpt(&error.message, 60),
        (None, State::Succeeded) => trial.model_version.clone(),
        (None, _) => trial.training_job.clone(),
    });
    row
}

/// A value in a column: numbers with four digits that count.
fn value(value: &Value) -> String {
    match &value.kind {
        Some(Kind::NumberValue(number)) if number.fract() == 0.0 && number.abs() < 1e15 => number.to_string(),
        Some(Kind::NumberValue(number)) if (1e-3..1e6).contains(&number.abs()) => {
            let digits = (3 - number.abs().log10().floor() as i32).clamp(0, 6) as usize;
            format!("{number:.digits$}")
        }
        Some(Kind::NumberValue(number)) => format!("{number:.3e}"),
        Some(Kind::StringValue(text)) => text.clone(),
        Some(Kind::BoolValue(given)) => given.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use tidemill_proto::training::v1::Parameter;

    use super::*;

    #[test]
    fn a_table_shows_every_trial_and_marks_the_best() {
        let field = |field: &str| Parameter { field: field.to_owned(), ..Parameter::default() };
        let trial = |number, rate: f64, state: State, objective| Trial {
            number,
            parameters: [
                ("spec.optimizer.learning_rate".to_owned(), Value::from(rate)),
                ("spec.schedule.decay".to_owned(), Value::from("linear")),
            ]
            .into(),
            training_job: format!("trainingJobs/rate-{number}"),
            state: state.into(),
            objective,
            ..Trial::default()
        };
        let done = Trial {
            step: 400,
            model_version: "models/sotu/versions/3".to_owned(),
            ..trial(0, 0.012_345_678, State::Succeeded, Some(2.5))
        };
        let stopped = Trial { step: 40, stopped_early: true, ..trial(1, 1.23456e-5, State::Cancelled, Some(4.0)) };
        let study = Study {
            parameters: vec![field("spec.optimizer.learning_rate"), field("spec.schedule.decay")],
            trials: vec![done, stopped, trial(2, 1.0, State::Running, None)],
            best_trial: Some(0),
            ..Study::default()
        };
        let text = trials(&study);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["TRIAL", "STATE", "STEPS", "VALIDATION_LOSS", "LEARNING_RATE", "DECAY", "RESULT"]);
        assert_eq!(lines[1], ["0", "*", "done", "400", "2.5000", "0.01235", "linear", "models/sotu/versions/3"]);
        assert_eq!(lines[2], ["1", "stopped", "early", "40", "4.0000", "1.235e-5", "linear", "trainingJobs/rate-1"]);
        assert_eq!(lines[3], ["2", "running", "-", "-", "1", "linear", "trainingJobs/rate-2"]);
    }
}
