//! Trains on rows of ids and prints each step's figures as one line of JSON: what `make parity` compares with its peers.
//!
//!     learn_rows CASE.json
//!
//! The case names a `base` model, `rows` (`{"inputs", "targets"}`, `{"chosen": {..}, "rejected": {..}}`, or with `"label"` or `"source"`),
//! a `spec` (TrainingSpec's JSON), an `output` folder, and perhaps an `adapter` to start from and a `teacher`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use prost::Message as _;
use prost_reflect::DynamicMessage;
use serde::Deserialize;
use tidemill_models::{ADAPTER_WEIGHTS_FILE, restore_weights};
use tidemill_proto::r#type::v1::TrainingSpec;
use tidemill_training::learning::{
    Data, Method, Row, Rows, Samples, Sequence, Spec, Start, Train, Trainer, Validation, World,
};

#[derive(Deserialize)]
struct Case {
    base: PathBuf,
    adapter: Option<PathBuf>,
    teacher: Option<PathBuf>,
    rows: Vec<Example>,
    spec: serde_json::Value,
    output: PathBuf,
    #[serde(default)]
    merge: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Example {
    Sourced { source: Box<[u32]>, inputs: Box<[u32]>, targets: Box<[i32]> },
    Pair { chosen: Ids, rejected: Ids },
    Judged { inputs: Box<[u32]>, targets: Box<[i32]>, label: bool },
    Answer(Ids),
}

#[derive(Deserialize)]
struct Ids {
    inputs: Box<[u32]>,
    targets: Box<[i32]>,
}

fn main() -> Result<()> {
    let path = std::env::args().nth(1).context("usage: learn_rows CASE.json")?;
    let case: Case = serde_json::from_slice(&std::fs::read(&path)?)?;
    let descriptor = tidemill_proto::pool()
        .get_message_by_name("tidemill.type.v1.TrainingSpec")
        .context("the pool describes TrainingSpec")?;
    let spec = DynamicMessage::deserialize(descriptor, case.spec)?;
    let spec = TrainingSpec::decode(&spec.encode_to_vec()[..])?;
    // Whether a T5's head is its embedding is told by its weights.
    let config = tidemill_models::load(&case.base, tch::Device::Cpu)?.config().clone();
    let spec = Spec::new(&spec, config)?;
    let rows: Vec<Row> = case.rows.into_iter().map(row).collect();
    let train = match spec.method {
        Method::MaskedLanguage { .. } => Train::Windows(Box::new(Hidden(rows))),
        _ => Train::Rows(Rows::new(rows, spec.order, spec.seed, spec.sequence_length)?),
    };
    let data = Data { train, validation: Validation::None };
    tidemill_torch::process::set_threads(std::env::var("THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(1));
    let mut trainer =
        Trainer::new(spec, String::new(), data, Start::From(&case.base), tch::Device::Cpu, World::alone())?;
    if let Some(teacher) = &case.teacher {
        trainer = trainer.with_teacher(tidemill_models::load(teacher, tch::Device::Cpu)?)?;
    }
    if let Some(adapter) = &case.adapter {
        tch::no_grad(|| restore_weights(trainer.model(), &adapter.join(ADAPTER_WEIGHTS_FILE)))?;
    }
    while !trainer.is_finished() {
        let step = trainer.step()?;
        let figures =
            serde_json::json!({"loss": step.loss, "gradient_norm": step.gradient_norm, "figures": step.figures});
        println!("{figures}");
    }
    export(trainer, &case.base, &case.output, case.merge)
}

/// Windows whose hidden tokens the case has chosen, in their order.
struct Hidden(Vec<Row>);

impl Samples for Hidden {
    fn fill(&self, position: u64, inputs: &mut [i64], targets: &mut [i64]) {
        let Row::Answer(window) = &self.0[position as usize % self.0.len()] else { return };
        inputs.iter_mut().zip(&window.inputs).for_each(|(place, id)| *place = i64::from(*id));
        targets.iter_mut().zip(&window.targets).for_each(|(place, id)| *place = i64::from(*id));
    }

    fn are_masked(&self) -> bool {
        true
    }
}

fn export(trainer: Trainer, base: &Path, output: &Path, merge: bool) -> Result<()> {
    std::fs::create_dir_all(output)?;
    Ok(trainer.export(output, &base.display().to_string(), merge)?)
}

fn row(example: Example) -> Row {
    let sequence = |ids: Ids| Sequence { inputs: ids.inputs, targets: ids.targets };
    match example {
        Example::Answer(ids) => Row::Answer(sequence(ids)),
        Example::Sourced { source, inputs, targets } => Row::Sourced { source, text: Sequence { inputs, targets } },
        Example::Pair { chosen, rejected } => Row::Pair([sequence(chosen), sequence(rejected)]),
        Example::Judged { inputs, targets, label } => {
            let prompt = 1 + targets.iter().take_while(|target| **target < 0).count();
            Row::Judged { sequence: Sequence { inputs, targets }, prompt, good: label }
        }
    }
}
