//! What a study must be: every mistake is found before its first trial, and all are told at once.

use tidemill_chassis::Fault;
use tidemill_dataset::{Prepared, Split};
use tidemill_platform::{Platform, fault_of_artifacts};
use tidemill_proto::names;
use tidemill_proto::training::v1::study::{Algorithm, Direction};
use tidemill_proto::training::v1::{Study, TrainingJob};
use tonic::Code;

use super::field::shown;
use super::halving::Halving;
use super::objectives::objectives;
use super::search::objective;
use super::space::{Space, Values};
use crate::validate;

/// Trials of a study; all stand in one resource.
const MOST_TRIALS: i32 = 1000;
/// Characters of a study's id: those of its jobs have a number behind it.
const LONGEST_ID: usize = 58;

/// Field and text of a mistake.
type Wrong = (String, String);

/// Checks a study that is asked for.
///
/// # Errors
/// All wrong fields; or what is needed to check them is away.
pub(super) async fn check(platform: &Platform, id: &str, study: &Study) -> Result<(), Fault> {
    let mut wrong: Vec<Wrong> = Vec::new();
    if !id.is_empty() {
        match names::check_id(id) {
            Err(error) => wrong.push(("study_id".to_owned(), error.to_string())),
            Ok(()) if id.len() > LONGEST_ID => {
                wrong.push(("study_id".to_owned(), format!("is longer than {LONGEST_ID} characters")));
            }
            Ok(()) => {}
        }
    }
    match &study.training_job {
        None => wrong.push(("training_job".to_owned(), "is required: what each trial trains".to_owned())),
        Some(job) if job.import.is_some() => {
            wrong.push(("training_job.import".to_owned(), "trains nothing; give spec and dataset_digest".to_owned()));
        }
        Some(job) => check_job(platform, study, job, &mut wrong).await?,
    }
    check_plan(study, &mut wrong);
    if wrong.is_empty() { Ok(()) } else { Err(Fault::invalid_fields(wrong)) }
}

/// The job as it stands, and with each parameter at its extremes.
async fn check_job(platform: &Platform, study: &Study, job: &TrainingJob, wrong: &mut Vec<Wrong>) -> Result<(), Fault> {
    let own = mistakes(platform, job).await?;
    wrong.extend(own.iter().map(|(field, text)| (format!("training_job.{field}"), text.clone())));
    if own.is_empty()
        && let Some(text) = unmeasured(platform, job).await?
    {
        wrong.push(("training_job.dataset_digest".to_owned(), text));
    }
    let halving = study.successive_halving.as_ref().filter(|asked| asked.min_steps >= 1).map(Halving::from);
    let unstoppable = |job: &TrainingJob| halving?.problem(job.spec.as_ref()?);
    let problem = unstoppable(job);
    wrong.extend(problem.clone().map(|text| ("successive_halving.min_steps".to_owned(), text)));

    let space = Space::read(job, &study.parameters, |field, text| wrong.push((field, text)));
    for dimension in &space.dimensions {
        let at = study.parameters.iter().position(|parameter| parameter.field == dimension.name).unwrap_or_default();
        for value in dimension.extremes() {
            let tried = space.job(&Values::from([(dimension.name.clone(), value.clone())]));
            let found = mistakes(platform, &tried).await?;
            let found = found.into_iter().filter(|mistake| !own.contains(mistake));
            let stops = unstoppable(&tried).filter(|_| problem.is_none());
            let stops = stops.map(|text| ("successive_halving.min_steps".to_owned(), text));
            for (field, text) in found.chain(stops) {
                let place = if field == dimension.name { String::new() } else { format!("{field}: ") };
                wrong.push((format!("parameters[{at}]"), format!("its value {}: {place}{text}", shown(&value))));
            }
        }
    }
    Ok(())
}

/// What is wrong with a job.
async fn mistakes(platform: &Platform, job: &TrainingJob) -> Result<Vec<Wrong>, Fault> {
    match validate::check(platform, "", job).await {
        Ok(()) => Ok(Vec::new()),
        Err(fault) if fault.code == Code::InvalidArgument => Ok(fault.fields),
        Err(fault) => Err(fault),
    }
}

/// Why the objective cannot be measured, if the dataset says so.
async fn unmeasured(platform: &Platform, job: &TrainingJob) -> Result<Option<String>, Fault> {
    let Ok(digest) = job.dataset_digest.parse() else { return Ok(None) };
    let manifest = platform.artifacts.manifest(&digest).await.map_err(fault_of_artifacts)?;
    let Ok(Prepared::Tokens(annotations)) = Prepared::from_map(&manifest.annotations) else { return Ok(None) };
    let tokens = annotations.splits.get(&Split::Validation).map_or(0, |size| size.token_count);
    Ok((tokens < 2).then(|| "has no validation split, by which trials are compared".to_owned()))
}

/// The fields beside the job and its parameters.
fn check_plan(study: &Study, wrong: &mut Vec<Wrong>) {
    let mut add = |field: &str, text: String| wrong.push((field.to_owned(), text));
    if study.parameters.is_empty() {
        add("parameters", "is required: the fields searched over".to_owned());
    }
    let method = study.training_job.as_ref().and_then(|job| job.spec.as_ref()).and_then(|spec| spec.method.as_ref());
    let known = objectives(method);
    if !known.iter().any(|name| name == objective(study)) {
        let text = format!("{:?} is not measured by this method; known are {}", objective(study), known.join(", "));
        add("objective", text);
    }
    if Direction::try_from(study.direction).is_err() {
        add("direction", format!("{} is not a direction", study.direction));
    }
    if !(1..=MOST_TRIALS).contains(&study.max_trials) {
        add("max_trials", format!("{} is not a number of trials; use 1 to {MOST_TRIALS}", study.max_trials));
    }
    let parallel = study.parallel_trials;
    if parallel < 0 || parallel > study.max_trials.clamp(1, MOST_TRIALS) {
        add(
            "parallel_trials",
            format!("{parallel} is not a number of trials at a time; use 1 to max_trials, or 0 for 1"),
        );
    }
    match &study.algorithm {
        None => add("algorithm", "one of random_search, tree_parzen_estimator must be given".to_owned()),
        Some(Algorithm::TreeParzenEstimator(asked)) if asked.startup_trials < 0 => {
            add("tree_parzen_estimator.startup_trials", format!("{} is negative; use 0 for 10", asked.startup_trials));
        }
        Some(_) => {}
    }
    if let Some(halving) = &study.successive_halving {
        if halving.reduction_factor != 0 && halving.reduction_factor < 2 {
            let text = format!("{} is not a factor; use at least 2, or 0 for 4", halving.reduction_factor);
            add("successive_halving.reduction_factor", text);
        }
        if halving.min_steps < 1 {
            add(
                "successive_halving.min_steps",
                format!("{} is not a number of steps; use at least 1", halving.min_steps),
            );
        }
    }
}
