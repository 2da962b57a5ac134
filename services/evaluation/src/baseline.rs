//! What compressors need for the text that the model is measured on. Each is measured once a dataset and kept under a reference.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidemill_artifacts::{Artifacts, Digest};
use tidemill_dataset::Split;
use tidemill_proto::r#type::v1::suite_spec::Baseline;

use crate::error::Result;
use crate::outcome::rounded;
use crate::xz::Compression;

/// A baseline that knows nothing but bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compressor {
    /// `xz -9e`.
    Xz,
    /// Byte frequencies.
    Unigram,
}

impl Compressor {
    /// The compressor that a suite names; none where it names the base model.
    pub(crate) fn of(baseline: Baseline) -> Option<Self> {
        match baseline {
            Baseline::Xz => Some(Self::Xz),
            Baseline::Unigram => Some(Self::Unigram),
            Baseline::BaseModel | Baseline::Unspecified => None,
        }
    }
}

/// A measured baseline.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// Bits for each byte of the text.
    pub(crate) bits_per_byte: f64,
    /// Bytes of the text.
    pub(crate) text_bytes: u64,
}

/// The name of a baseline's figure among the metrics.
pub(crate) fn metric(compressor: Compressor) -> &'static str {
    match compressor {
        Compressor::Xz => "xz_bits_per_byte",
        Compressor::Unigram => "unigram_bits_per_byte",
    }
}

/// Where a baseline is kept: the dataset, the split and the number of documents determine its text.
fn reference(compressor: Compressor, dataset: &Digest, split: Split, max_documents: i32) -> String {
    let kind = match compressor {
        Compressor::Xz => "xz",
        Compressor::Unigram => "unigram",
    };
    let count = if max_documents > 0 { max_documents.to_string() } else { "all".to_owned() };
    format!("baselines/{}-{kind}-{split}-{count}", dataset.hex())
}

/// Finds a figure that was measured before. One that cannot be read is measured again.
pub(crate) async fn find(
    artifacts: &Artifacts,
    compressor: Compressor,
    dataset: &Digest,
    split: Split,
    max_documents: i32,
) -> Result<Option<Figure>> {
    let name = reference(compressor, dataset, split, max_documents);
    let Some(digest) = artifacts.resolve(&name).await? else { return Ok(None) };
    match artifacts.get(&digest).await {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) => {
            tracing::warn!(reference = name, %error, "a kept baseline cannot be read and is measured again");
            Ok(None)
        }
    }
}

/// Keeps a figure for later evaluations.
pub(crate) async fn keep(
    artifacts: &Artifacts,
    compressor: Compressor,
    dataset: &Digest,
    split: Split,
    max_documents: i32,
    figure: Figure,
) -> Result<()> {
    let bytes = serde_json::to_vec(&figure).unwrap_or_default();
    let (digest, _) = artifacts.put(bytes).await?;
    match artifacts.claim(&reference(compressor, dataset, split, max_documents), &digest).await {
        // Another version of the compressor answered before: the first figure stays.
        Ok(()) | Err(tidemill_artifacts::Error::AlreadyExists { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Bits per byte of `text` by the byte frequencies of `train`, each byte counted once more than it occurs.
pub(crate) fn unigram(train: &[u8], text: &[u8]) -> Figure {
    let count = |bytes: &[u8]| {
        let mut counts = [0u64; 256];
        bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        counts
    };
    let total = (train.len() + 256) as f64;
    let bits: f64 = count(train)
        .iter()
        .zip(count(text))
        .map(|(trained, occurs)| occurs as f64 * (total / (trained + 1) as f64).log2())
        .sum();
    Figure { bits_per_byte: rounded(bits / text.len() as f64), text_bytes: text.len() as u64 }
}

/// `xz -9e` on the text after the training text, less on the training text alone; both run at the same time.
pub(crate) struct Xz {
    prefix: Compression,
    whole: Compression,
    text_bytes: u64,
}

impl Xz {
    /// Starts both.
    pub(crate) fn start(train: Bytes, text: Bytes) -> Result<Self> {
        let text_bytes = text.len() as u64;
        let prefix = Compression::start(vec![train.clone()])?;
        Ok(Self { prefix, whole: Compression::start(vec![train, text])?, text_bytes })
    }

    /// Whether [`Xz::figure`] would answer at once.
    pub(crate) fn is_done(&self) -> bool {
        self.prefix.is_done() && self.whole.is_done()
    }

    /// Waits for both.
    pub(crate) fn figure(self) -> Result<Figure> {
        let bytes = self.whole.size()?.saturating_sub(self.prefix.size()?);
        let bits_per_byte = rounded(8.0 * bytes as f64 / self.text_bytes as f64);
        Ok(Figure { bits_per_byte, text_bytes: self.text_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unigram_is_the_cross_entropy_of_smoothed_frequencies() {
        // 3 + 1 and 1 + 1 of 4 + 256.
        let figure = unigram(b"aaab", b"abbz");
        let expected = ((260f64 / 4.0).log2() + 2.0 * (260f64 / 2.0).log2() + 260f64.log2()) / 4.0;
        assert!((figure.bits_per_byte - expected).abs() < 1e-8);
        assert_eq!(figure.text_bytes, 4);
        // Without training text every byte costs 8 bits.
        assert!((unigram(b"", b"any text").bits_per_byte - 8.0).abs() < 1e-8);
    }

    #[test]
    fn xz_profits_from_the_training_text() {
        let text = Bytes::from("we the people of the united states, in order to form a more perfect union ".repeat(3));
        let known = Xz::start(text.clone(), text.clone()).unwrap().figure().unwrap();
        let unknown = Xz::start(Bytes::from_static(b"1234567890"), text.clone()).unwrap().figure().unwrap();
        assert!(known.bits_per_byte < unknown.bits_per_byte / 2.0, "{known:?} {unknown:?}");
        assert_eq!(known.text_bytes, text.len() as u64);
    }

    #[tokio::test]
    async fn a_figure_is_kept_for_its_dataset_split_and_count() {
        let artifacts = Artifacts::connect("memory:").await.unwrap();
        let (dataset, other) = (Digest::of("a"), Digest::of("b"));
        let figure = Figure { bits_per_byte: 1.75, text_bytes: 10 };
        keep(&artifacts, Compressor::Xz, &dataset, Split::Test, 0, figure).await.unwrap();
        keep(&artifacts, Compressor::Xz, &dataset, Split::Test, 0, figure).await.unwrap();
        let find =
            async |baseline, dataset, split, count| find(&artifacts, baseline, dataset, split, count).await.unwrap();
        assert_eq!(find(Compressor::Xz, &dataset, Split::Test, 0).await, Some(figure));
        assert_eq!(find(Compressor::Unigram, &dataset, Split::Test, 0).await, None);
        assert_eq!(find(Compressor::Xz, &other, Split::Test, 0).await, None);
        assert_eq!(find(Compressor::Xz, &dataset, Split::Validation, 0).await, None);
        assert_eq!(find(Compressor::Xz, &dataset, Split::Test, 5).await, None);
    }
}
