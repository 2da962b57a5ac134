//! Trains on rows of ids and prints each step's figures as one line of JSON: what `make parity` compares with its peers.
//!
//!     learn_rows CASE.json
//!
//! The case names a `base` model, `rows` (`{"inputs", "targets"}`, `{"chosen": {..}, "rejected": {..}}`, with `"label"` or `"source"`, or
//! `{"prompt"}`), a `spec` (TrainingSpec's JSON), an `output` folder, and perhaps an `adapter` to start from and a `teacher`. Answers that
//! were drawn to prompts are printed with the step, so that a peer can learn from the same ones.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use prost::Message as _;
use prost_reflect::DynamicMessage;
use serde::Deserialize;
use tidemill_models::{ADAPTER_WEIGHTS_FILE, restore_weights};
use tidemill_proto::r#type::v1::TrainingSpec;
use tidemill_text::Tokenizer;
use tidemill_training::learning::{
    Data, Judge, Method, Prompt, Rewards, Row, Rows, Samples, Sequence, Spec, Start, Train, Trainer, Validation,
    Verdict, World,
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
    Prompt { prompt: Box<[u32]> },
}

#[derive(Deserialize)]
struct Ids {
    inputs: Box<[u32]>,
    targets: Box<[i32]>,
}

/// Judges as a job does, and takes notes.
struct Noting {
    rewards: Rewards,
    notes: Arc<Mutex<Vec<serde_json::Value>>>,
}

impl Judge for Noting {
    fn judge(&self, prompt: &Prompt, answer: &[u32]) -> tidemill_training::learning::Result<Verdict> {
        let verdict = self.rewards.judge(prompt, answer)?;
        let note = serde_json::json!({"prompt": prompt.ids, "answer": answer, "reward": verdict.reward});
        self.notes.lock().expect("one thread takes notes").push(note);
        Ok(verdict)
    }
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
    let (rewards, notes) = (spec.rewards.clone(), Arc::default());
    let mut trainer =
        Trainer::new(spec, String::new(), data, Start::From(&case.base), tch::Device::Cpu, World::alone())?;
    if !rewards.is_empty() {
        let tokenizer = Tokenizer::from_bytes(&std::fs::read(case.base.join("tokenizer.json"))?)?;
        let ends = tokenizer.end_of_text().into_iter().collect();
        let rewards = Rewards::new(&rewards, tokenizer)?;
        trainer = trainer.with_judge(Noting { rewards, notes: Arc::clone(&notes) }, ends);
    }
    if let Some(teacher) = &case.teacher {
        trainer = trainer.with_teacher(tidemill_models::load(teacher, tch::Device::Cpu)?)?;
    }
    if let Some(adapter) = &case.adapter {
        tch::no_grad(|| restore_weights(trainer.model(), &adapter.join(ADAPTER_WEIGHTS_FILE), |_| true))?;
    }
    while !trainer.is_finished() {
        let step = trainer.step()?;
        let answers = std::mem::take(&mut *notes.lock().expect("one thread takes notes"));
        let line = serde_json::json!({
            "loss": step.loss, "gradient_norm": step.gradient_norm, "figures": step.figures, "answers": answers
        });
        println!("{line}");
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

fn export(mut trainer: Trainer, base: &Path, output: &Path, merge: bool) -> Result<()> {
    std::fs::create_dir_all(output)?;
    trainer.gather()?;
    Ok(trainer.export(output, &base.display().to_string(), merge)?)
}

fn row(example: Example) -> Row {
    let sequence = |ids: Ids| Sequence { inputs: ids.inputs, targets: ids.targets };
    match example {
        Example::Answer(ids) => Row::Answer(sequence(ids)),
        Example::Sourced { source, inputs, targets } => Row::Sourced { source, text: Sequence { inputs, targets } },
        Example::Pair { chosen, rejected } => Row::Pair([sequence(chosen), sequence(rejected)]),
        Example::Prompt { prompt } => Row::Prompt(Prompt { ids: prompt, answer: None }),
        Example::Judged { inputs, targets, label } => {
            let prompt = 1 + targets.iter().take_while(|target| **target < 0).count();
            Row::Judged { sequence: Sequence { inputs, targets }, prompt, good: label }
        }
    }
}
