//! Rows to learn from: sequences of many lengths, laid end to end in a batch, so that nothing is padded and nothing sees its neighbour.

use tch::Device;
use tidemill_dataset::{Mixture, Sampler};

use super::{
    Error, Result,
    loader::{MicroBatch, Placed, Sources},
};

/// One row, as ids and the id to predict after each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// An answer to learn.
    Answer(Sequence),
    /// A chosen and a rejected answer to one prompt.
    Pair([Sequence; 2]),
    /// An answer that was judged, and the number of ids of its prompt.
    Judged {
        /// The prompt and the answer.
        sequence: Sequence,
        /// Ids before the answer's first.
        prompt: usize,
        /// Whether it is good.
        good: bool,
    },
    /// A prompt whose answers are drawn and rewarded.
    Prompt(Prompt),
    /// A text to write of a source.
    Sourced {
        /// Ids that the encoder reads.
        source: Box<[u32]>,
        /// What the decoder reads, and what it should write.
        text: Sequence,
    },
}

/// A prompt, and what a right answer to it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The ids that an answer continues; at least one.
    pub ids: Box<[u32]>,
    /// The reference that answers are compared with, where there is one.
    pub answer: Option<Box<str>>,
}

/// Ids, and what is to follow each: an id, or [`tidemill_models::IGNORED`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Ids, without the last.
    pub inputs: Box<[u32]>,
    /// As many targets.
    pub targets: Box<[i32]>,
}

/// The order of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Drawn anew for each epoch.
    Shuffled,
    /// As they stand.
    Sequential,
}

/// Rows by position, counted over all epochs.
#[derive(Debug)]
pub struct Rows {
    parts: Vec<Part>,
    mixture: Mixture,
    order: Order,
    longest: usize,
}

/// The rows of one dataset.
#[derive(Debug)]
struct Part {
    rows: Vec<Row>,
    sampler: Sampler,
}

impl Rows {
    /// Rows of one kind in an order that `seed` keys.
    ///
    /// # Errors
    /// There are none.
    pub fn new(rows: Vec<Row>, order: Order, seed: u64, longest: usize) -> Result<Self> {
        Self::mixed(vec![(rows, 1.0)], order, seed, longest)
    }

    /// As [`Self::new`], of several datasets, each with its weight.
    pub fn mixed(parts: Vec<(Vec<Row>, f64)>, order: Order, seed: u64, longest: usize) -> Result<Self> {
        let mixture = Mixture::new(&parts.iter().map(|(_, weight)| *weight).collect::<Vec<_>>())?;
        let part = |(rows, _): (Vec<Row>, f64)| {
            if rows.is_empty() {
                let problem = "the split for training has no rows".to_owned();
                return Err(Error::Spec { field: "dataset_digest", problem });
            }
            // Windows of one token: their starts are a keyed order of the rows.
            let sampler = Sampler::new(rows.len() as u64 + 1, 1, seed)?;
            Ok(Part { rows, sampler })
        };
        Ok(Self { parts: parts.into_iter().map(part).collect::<Result<_>>()?, mixture, order, longest })
    }

    /// Whether all rows have sources, or none has.
    pub(super) fn have_sources(&self, wanted: bool) -> bool {
        let mut rows = self.parts.iter().flat_map(|part| &part.rows);
        rows.all(|row| matches!(row, Row::Sourced { .. }) == wanted)
    }

    /// The row at a position.
    fn row(&self, position: u64) -> &Row {
        let (part, position) = self.mixture.place(position);
        let Part { rows, sampler } = &self.parts[part];
        match self.order {
            Order::Shuffled => &rows[sampler.start(position) as usize],
            Order::Sequential => &rows[(position % rows.len() as u64) as usize],
        }
    }

    /// The rows from a position on.
    pub(super) fn batch(&self, position: u64, count: usize, device: Device) -> Result<MicroBatch> {
        let rows: Vec<&Row> = (position..position + count as u64).map(|at| self.row(at)).collect();
        batch(&rows, self.longest, device)
    }

    /// The prompts from a position on, each with its position.
    pub(super) fn prompts(&self, position: u64, count: usize) -> Result<Placed<'_>> {
        (position..position + count as u64).map(|at| Ok((at, self.row(at).prompt()?))).collect()
    }

    /// All rows in their own order, so many at a time.
    pub(super) fn measured(&self, count: usize) -> impl Iterator<Item = Vec<&Row>> {
        self.parts.iter().flat_map(move |part| part.rows.chunks(count)).map(|rows| rows.iter().collect())
    }

    /// A batch of rows that [`Self::measured`] gave.
    pub(super) fn laid(&self, rows: &[&Row], device: Device) -> Result<MicroBatch> {
        batch(rows, self.longest, device)
    }
}

fn batch(rows: &[&Row], longest: usize, device: Device) -> Result<MicroBatch> {
    let mut documents: Vec<(&[u32], &[i32])> = Vec::new();
    let mut labels = Vec::new();
    let mut sources: Vec<&[u32]> = Vec::new();
    for row in rows {
        match row {
            Row::Answer(sequence) => documents.push(sequence.parts()),
            Row::Pair(pair) => documents.extend(pair.iter().map(Sequence::parts)),
            Row::Judged { sequence, good, .. } => {
                documents.push(sequence.parts());
                labels.push(*good);
            }
            // A prompt alone teaches nothing: its answers are drawn first.
            Row::Prompt(_) => {}
            Row::Sourced { source, text } => {
                documents.push(text.parts());
                sources.push(source);
            }
        }
    }
    let mut batch = MicroBatch::documents(&documents, device)?;
    if !sources.is_empty()
        && let Some(laid) = &mut batch.documents
    {
        laid.sources = Some(Sources::new(&sources, device)?);
    }
    if !labels.is_empty()
        && let Some(laid) = &mut batch.documents
    {
        laid.labels = labels;
        let mixed = mismatched(rows, longest);
        let documents: Vec<_> = mixed.iter().map(Sequence::parts).collect();
        laid.mismatched = Some(Box::new(MicroBatch::documents(&documents, device)?));
    }
    Ok(batch)
}

/// Each prompt with the answer of the row before it, the first with the last one's: what KTO estimates its divergence from.
fn mismatched(rows: &[&Row], longest: usize) -> Vec<Sequence> {
    let judged: Vec<(&Sequence, usize)> = rows
        .iter()
        .filter_map(|row| match row {
            Row::Judged { sequence, prompt, .. } => Some((sequence, *prompt)),
            _ => None,
        })
        .collect();
    let mix = |index: usize| {
        let (own, prompt) = judged[index];
        let (other, start) = judged[(index + judged.len() - 1) % judged.len()];
        let answer: Vec<u32> = other.targets[start - 1..].iter().map(|target| target.unsigned_abs()).collect();
        let ids: Vec<u32> = own.inputs[..prompt].iter().copied().chain(answer).take(longest).collect();
        let last = ids.len() - 1;
        let targets = (1..ids.len()).map(|at| if at < prompt { IGNORED } else { ids[at] as i32 });
        Sequence { inputs: ids[..last].into(), targets: targets.collect() }
    };
    (0..judged.len()).map(mix).collect()
}

impl Row {
    pub(super) fn prompt(&self) -> Result<&Prompt> {
        match self {
            Self::Prompt(prompt) => Ok(prompt),
            _ => Err(no_prompts()),
        }
    }
}

/// The error of a method that draws answers, and has nothing to answer.
pub(super) fn no_prompts() -> Error {
    let problem = "draws answers to prompts, and the dataset holds none".to_owned();
    Error::Spec { field: "group_relative_policy_optimization", problem }
}

const IGNORED: i32 = tidemill_models::IGNORED as i32;

impl Sequence {
    fn parts(&self) -> (&[u32], &[i32]) {
        (&self.inputs, &self.targets)
    }
}
