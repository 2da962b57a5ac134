//! Batches by step number: what a step sees is a function of the data, the spec and the step, so a run resumes anywhere.

use tch::{Device, Kind, Tensor};
use tidemill_dataset::{Mixture, Sampler, Tokens};
use tidemill_models::{Attention, Documents, IGNORED, Pairs};

use super::{Prompt, Result, Rows, drawn::Drawn, rows::no_prompts};

/// Samples of one length by position, counted over all epochs.
pub trait Samples: Send {
    /// Fills a window of tokens and what is to follow each of them; [`IGNORED`] targets are not learned.
    fn fill(&self, position: u64, inputs: &mut [i64], targets: &mut [i64]);

    /// Whether targets are tokens that are hidden at their own places, for encoders, and not those that follow.
    fn are_masked(&self) -> bool {
        false
    }
}

/// Windows of a packed token stream in a keyed order; every token is learned.
#[derive(Debug)]
pub struct Packed {
    tokens: Tokens,
    sampler: Sampler,
}

impl Packed {
    /// Windows of `window` tokens, their order keyed by `seed`; refuses a stream shorter than one window.
    pub fn new(tokens: Tokens, window: usize, seed: u64) -> Result<Self> {
        let sampler = Sampler::new(tokens.len() as u64, window as u64, seed)?;
        Ok(Self { tokens, sampler })
    }
}

impl Samples for Packed {
    fn fill(&self, position: u64, inputs: &mut [i64], targets: &mut [i64]) {
        let start = self.sampler.start(position) as usize;
        self.tokens.copy_to(start, inputs);
        self.tokens.copy_to(start + 1, targets);
    }
}

/// Windows of several streams, interleaved by weight.
pub(super) struct Mixed {
    pub(super) parts: Vec<Packed>,
    pub(super) mixture: Mixture,
}

impl Samples for Mixed {
    fn fill(&self, position: u64, inputs: &mut [i64], targets: &mut [i64]) {
        let (part, position) = self.mixture.place(position);
        self.parts[part].fill(position, inputs, targets);
    }
}

/// What is learned from.
pub enum Train {
    /// Windows of one length.
    Windows(Box<dyn Samples>),
    /// Rows of many lengths.
    Rows(Rows),
}

/// One forward pass: ids and targets [batch, time], or documents end to end [1, time].
pub(super) struct MicroBatch {
    pub(super) inputs_bt: Tensor,
    pub(super) targets_bt: Tensor,
    /// Targets to learn.
    pub(super) supervised: usize,
    /// Where the batch is of rows.
    pub(super) documents: Option<Laid>,
}

/// How documents lie in a batch of one row.
pub(super) struct Laid {
    pub(super) lengths: Documents,
    /// The document of each token, [time].
    pub(super) owners: Tensor,
    /// Targets to learn of each document.
    pub(super) supervised: Vec<usize>,
    /// Of judged answers: which are good.
    pub(super) labels: Vec<bool>,
    /// Of judged answers: each prompt with the answer of another row.
    pub(super) mismatched: Option<Box<MicroBatch>>,
    /// Of answers that the model drew: how each compares with its group.
    pub(super) drawn: Option<Drawn>,
    /// Of texts that are written of sources: those.
    pub(super) sources: Option<Sources>,
}

/// Sources of the documents of a batch, end to end in the same order.
pub(super) struct Sources {
    /// [1, time].
    ids: Tensor,
    lengths: Documents,
}

impl Sources {
    pub(super) fn new(sources: &[&[u32]], device: Device) -> Result<Self> {
        let ids: Vec<i64> = sources.iter().flat_map(|ids| ids.iter().map(|id| i64::from(*id))).collect();
        let lengths = sources.iter().map(|ids| ids.len() as i64).collect();
        let ids = Tensor::f_from_slice(&ids)?.f_unsqueeze(0)?.f_to_device(device)?;
        Ok(Self { ids, lengths: Documents::new(lengths, device)? })
    }
}

impl MicroBatch {
    /// Whole windows.
    pub(super) fn windows(inputs: &[i64], targets: &[i64], rows: usize, device: Device) -> Result<Self> {
        let shape = [rows as i64, (inputs.len() / rows) as i64];
        let tensor = |ids: &[i64]| Tensor::f_from_slice(ids)?.f_view(shape)?.f_to_device(device);
        let supervised = targets.iter().filter(|target| **target != IGNORED).count();
        Ok(Self { inputs_bt: tensor(inputs)?, targets_bt: tensor(targets)?, supervised, documents: None })
    }

    /// Documents end to end, each as inputs and targets.
    pub(super) fn documents(documents: &[(&[u32], &[i32])], device: Device) -> Result<Self> {
        let (mut inputs, mut targets, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        let (mut lengths, mut supervised) = (Vec::new(), Vec::new());
        for (number, (ids, wanted)) in documents.iter().enumerate() {
            inputs.extend(ids.iter().map(|id| i64::from(*id)));
            targets.extend(wanted.iter().map(|target| i64::from(*target)));
            owners.extend(std::iter::repeat_n(number as i64, ids.len()));
            lengths.push(ids.len() as i64);
            supervised.push(wanted.iter().filter(|target| i64::from(**target) != IGNORED).count());
        }
        let row = |ids: &[i64]| Tensor::f_from_slice(ids)?.f_unsqueeze(0)?.f_to_device(device);
        let laid = Laid {
            lengths: Documents::new(lengths, device)?,
            owners: Tensor::f_from_slice(&owners)?.f_to_device(device)?,
            supervised,
            labels: Vec::new(),
            mismatched: None,
            drawn: None,
            sources: None,
        };
        let supervised = laid.supervised.iter().sum();
        Ok(Self { inputs_bt: row(&inputs)?, targets_bt: row(&targets)?, supervised, documents: Some(laid) })
    }

    /// Tokens that the model reads.
    pub(super) fn read(&self) -> usize {
        let sources = self.documents.as_ref().and_then(|laid| laid.sources.as_ref());
        self.inputs_bt.numel() + sources.map_or(0, |sources| sources.ids.numel())
    }

    /// Sources and texts, where it has sources.
    pub(super) fn pairs(&self) -> Option<Pairs<'_>> {
        let laid = self.documents.as_ref()?;
        let Sources { ids, lengths } = laid.sources.as_ref()?;
        let (texts, text_documents) = (&self.inputs_bt, &laid.lengths);
        Some(Pairs { sources: ids, source_documents: lengths, texts, text_documents })
    }

    /// How the batch is attended.
    pub(super) fn attention(&self) -> Attention<'_> {
        self.documents.as_ref().map_or(Attention::Full, |laid| Attention::Documents(&laid.lengths))
    }
}

impl Laid {
    /// Sums of a figure of each token over the documents: [time] -> [documents].
    pub(super) fn sums(&self, figures: &Tensor) -> Result<Tensor> {
        let zeros = Tensor::f_zeros([self.supervised.len() as i64], (Kind::Float, figures.device()))?;
        Ok(zeros.f_index_add(0, &self.owners, figures)?)
    }

    /// Targets to learn of each document, as a tensor beside `like`.
    pub(super) fn counts(&self, like: &Tensor) -> Result<Tensor> {
        let counts: Vec<f32> = self.supervised.iter().map(|count| *count as f32).collect();
        Ok(Tensor::f_from_slice(&counts)?.f_to_device(like.device())?)
    }
}

/// Prompts, each with its position in the run.
pub(super) type Placed<'a> = Vec<(u64, &'a Prompt)>;

/// Cuts steps into micro-batches.
pub(super) struct Loader {
    pub(super) train: Train,
    pub(super) batch_size: usize,
    /// Of a step, over all ranks.
    pub(super) micro_batches: usize,
    pub(super) window: usize,
    pub(super) device: Device,
}

impl Loader {
    /// The micro-batches, and their numbers, that a rank of `size` has in the step that follows `done` steps.
    pub(super) fn step(&self, done: u64, rank: usize, size: usize) -> Result<Vec<(u64, MicroBatch)>> {
        self.places(done, rank, size).map(|(index, position)| Ok((index, self.micro(position)?))).collect()
    }

    /// The prompts of the same micro-batches, each with its position, where answers are to be drawn.
    pub(super) fn prompts(&self, done: u64, rank: usize, size: usize) -> Result<Vec<(u64, Placed<'_>)>> {
        let prompts = |(index, position): (u64, u64)| match &self.train {
            Train::Rows(rows) => Ok((index, rows.prompts(position, self.batch_size)?)),
            Train::Windows(_) => Err(no_prompts()),
        };
        self.places(done, rank, size).map(prompts).collect()
    }

    /// Numbers of micro-batches, and where each begins.
    fn places(&self, done: u64, rank: usize, size: usize) -> impl Iterator<Item = (u64, u64)> + use<> {
        let (batch_size, count) = (self.batch_size as u64, self.micro_batches as u64);
        (rank as u64..count).step_by(size).map(move |index| (index, (done * count + index) * batch_size))
    }

    fn micro(&self, position: u64) -> Result<MicroBatch> {
        match &self.train {
            Train::Rows(rows) => rows.batch(position, self.batch_size, self.device),
            Train::Windows(samples) => {
                let size = self.batch_size * self.window;
                let (mut inputs, mut targets) = (vec![0i64; size], vec![0i64; size]);
                let windows = inputs.chunks_mut(self.window).zip(targets.chunks_mut(self.window));
                for (index, (inputs, targets)) in windows.enumerate() {
                    samples.fill(position + index as u64, inputs, targets);
                }
                MicroBatch::windows(&inputs, &targets, self.batch_size, self.device)
            }
        }
    }

    /// Consecutive windows of a stream, for validation: every token but the first is predicted once.
    pub(super) fn windows(&self, tokens: &Tokens, start: usize, count: usize) -> Result<MicroBatch> {
        let size = count * self.window;
        let (mut inputs, mut targets) = (vec![0i64; size], vec![IGNORED; size]);
        let known = (tokens.len() - 1).saturating_sub(start).min(size);
        tokens.copy_to(start, &mut inputs[..known]);
        tokens.copy_to(start + 1, &mut targets[..known]);
        MicroBatch::windows(&inputs, &targets, count, self.device)
    }
}
