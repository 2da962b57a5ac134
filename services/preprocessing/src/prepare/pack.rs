//! The files of a prepared dataset: texts by split, fates, index; of text also packed tokens and the tokenizer.

use std::{collections::BTreeMap, path::Path};

use tidemill_dataset::{Example, Fate, RecordIndex, ShardWriter, Split, SplitSize, TokenWidth, TokenWriter};
use tidemill_text::Tokenizer;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Document;
use crate::{error::Error, watch::Watch};

/// Writes all files below `folder`.
pub(crate) fn write(
    documents: &[Document],
    side: impl Fn(&Document) -> Split,
    tokenizer: Option<&Tokenizer>,
    folder: &Path,
    watch: &Watch,
) -> Result<BTreeMap<Split, SplitSize>, Error> {
    watch.phase("packing", "records", documents.len())?;
    let mut by_id: Vec<&Document> = documents.iter().collect();
    by_id.sort_by_key(|document| document.id);
    let mut sizes = BTreeMap::new();
    for split in Split::ALL {
        let kept: Vec<&Document> =
            by_id.iter().filter(|document| document.dropped.is_none() && side(document) == split).copied().collect();
        let folder = folder.join(split.as_str());
        let size = match tokenizer {
            Some(tokenizer) => write_text(&kept, split, TokenWidth::of(tokenizer.vocabulary_size()), &folder, watch)?,
            None => write_rows(&kept, split, &folder, watch)?,
        };
        sizes.insert(split, size);
    }
    write_fates(&by_id, side, folder)?;
    if let Some(tokenizer) = tokenizer {
        write_file(&folder.join("tokenizer"), "tokenizer.json", tokenizer.json())?;
    }
    let index = RecordIndex::of(by_id.iter().filter(|document| document.dropped.is_none()).map(|document| document.id));
    write_file(folder, "records.index", index.bytes())?;
    Ok(sizes)
}

fn write_text(
    documents: &[&Document],
    split: Split,
    width: TokenWidth,
    folder: &Path,
    watch: &Watch,
) -> Result<SplitSize, Error> {
    let mut texts = ShardWriter::named(folder, "text")?;
    let mut size = SplitSize { document_count: documents.len() as u64, ..SplitSize::default() };
    for document in documents {
        watch.advance(1)?;
        size.text_bytes += document.text.len() as u64;
        texts.push(tidemill_dataset::Document { id: document.id, text: document.text.clone() })?;
    }
    texts.finish()?;
    let mut tokens = TokenWriter::create(folder, width)?;
    for document in stream(documents, split) {
        watch.advance(0)?;
        tokens.push(&document.ids)?;
    }
    size.token_count = tokens.tokens();
    tokens.finish()?;
    Ok(size)
}

/// Rows have no stream of tokens to repeat in: they themselves come as often, and in the order, that their tokens would.
fn write_rows(documents: &[&Document], split: Split, folder: &Path, watch: &Watch) -> Result<SplitSize, Error> {
    let mut size = SplitSize { document_count: documents.len() as u64, ..SplitSize::default() };
    let json = |document: &Document| document.row.as_ref().map_or_else(String::new, Example::to_json);
    size.text_bytes = documents.iter().map(|document| json(document).len() as u64).sum();
    let mut rows = ShardWriter::named(folder, "text")?;
    for document in stream(documents, split) {
        watch.advance(1)?;
        rows.push(tidemill_dataset::Document { id: document.id, text: json(document) })?;
    }
    rows.finish()?;
    Ok(size)
}

/// The order of a packed stream. Training documents come as often as their input repeats, in an order drawn from their ids, so
/// that repetitions lie apart.
fn stream<'a>(documents: &[&'a Document], split: Split) -> Vec<&'a Document> {
    if split != Split::Train {
        return documents.to_vec();
    }
    let places = documents.iter().flat_map(|document| {
        (0..document.repeat).map(|time| (xxh3_64_with_seed(&document.id.0, u64::from(time)), document.id, *document))
    });
    let mut places: Vec<_> = places.collect();
    places.sort_by_key(|(place, id, _)| (*place, *id));
    places.into_iter().map(|(_, _, document)| document).collect()
}

fn write_fates(documents: &[&Document], side: impl Fn(&Document) -> Split, folder: &Path) -> Result<(), Error> {
    let mut fates = ShardWriter::create(folder.join("fates"))?;
    for document in documents {
        let (reason, detail) = match &document.dropped {
            Some((reason, detail)) => ((*reason).to_owned(), detail.clone()),
            None => Default::default(),
        };
        fates.push(Fate {
            id: document.id,
            split: document.dropped.is_none().then(|| side(document)),
            reason,
            detail,
            redacted_count: document.redacted,
            token_count: if document.dropped.is_none() { document.ids.len() as u64 } else { 0 },
        })?;
    }
    fates.finish()?;
    Ok(())
}

fn write_file(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, error))?;
    let path = folder.join(name);
    std::fs::write(&path, bytes).map_err(|error| Error::file(&path, error))
}
