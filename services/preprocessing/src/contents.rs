//! What the inputs of a job hold: all text, or all rows of one type. It decides whether the recipe needs a tokenizer.

use tidemill_artifacts::Artifacts;
use tidemill_chassis::Fault;
use tidemill_dataset::{RawAnnotations, RowType};
use tidemill_proto::preprocessing::v1::PreprocessingJob;
use tidemill_proto::r#type::v1::Recipe;

/// Refuses a job whose inputs or recipe do not go together, as far as the inputs are there; what is missing is for the job to tell.
pub(crate) async fn check(artifacts: &Artifacts, job: &PreprocessingJob) -> Result<(), Fault> {
    let mut types = Vec::new();
    for input in &job.inputs {
        let Ok(digest) = input.digest.parse() else { return Ok(()) };
        let Ok(manifest) = artifacts.manifest(&digest).await else { return Ok(()) };
        let Ok(annotations) = RawAnnotations::from_map(&manifest.annotations) else { return Ok(()) };
        types.push(annotations.row_type);
    }
    fits(job.recipe.as_ref().unwrap_or(&Recipe::default()), one_type(&types)?)
}

/// The type of the rows of all inputs; none if they hold text.
pub(crate) fn one_type(types: &[Option<RowType>]) -> Result<Option<RowType>, Fault> {
    let Some((first, rest)) = types.split_first() else { return Ok(None) };
    match rest.iter().position(|other| other != first) {
        None => Ok(*first),
        Some(at) => {
            let text = format!("it holds {} and inputs[0] {}: prepare them apart", words(rest[at]), words(*first));
            Err(Fault::invalid(format!("preprocessing_job.inputs[{}].digest", at + 1), text))
        }
    }
}

/// Refuses a recipe that lacks a tokenizer for text, or has one for rows.
pub(crate) fn fits(recipe: &Recipe, row_type: Option<RowType>) -> Result<(), Fault> {
    let wrong = |text: String| Err(Fault::invalid("preprocessing_job.recipe.tokenizer", text));
    match (&recipe.tokenizer, row_type) {
        (None, None) => wrong("it is required for text: byte_level_bpe, characters or digest".to_owned()),
        (Some(_), Some(row_type)) => wrong(format!(
            "the inputs hold {}, which keep their text: leave it out, the model that learns them brings its own",
            words(Some(row_type))
        )),
        _ => Ok(()),
    }
}

fn words(row_type: Option<RowType>) -> String {
    row_type.map_or_else(|| "text".to_owned(), |row_type| format!("{row_type} rows"))
}
