//! Texts of a prepared dataset, verified as they are read.

use tidemill_artifacts::{Artifacts, Digest, Manifest};
use tidemill_dataset::{Document, Prepared, Split, read_shard};

use crate::error::{Error, Result};

/// The documents of one split, in the order of their ids.
pub(crate) async fn read(artifacts: &Artifacts, digest: &Digest, split: Split) -> Result<Vec<Document>> {
    let manifest: Manifest = artifacts.manifest(digest).await?;
    let prefix = format!("{split}/text-");
    let mut documents = Vec::new();
    for entry in manifest.entries.iter().filter(|entry| entry.path.starts_with(&prefix)) {
        let bytes = artifacts.get_entry(digest, &entry.path).await?;
        let failed = |source| Error::Dataset { digest: digest.to_string(), source };
        for document in read_shard::<Document>(bytes, &entry.path).map_err(failed)? {
            documents.push(document.map_err(failed)?);
        }
    }
    documents.sort_by_key(|document| document.id);
    Ok(documents)
}

/// Whether a prepared dataset holds rows.
pub(crate) async fn are_rows(artifacts: &Artifacts, digest: &Digest) -> Result<bool> {
    let manifest = artifacts.manifest(digest).await?;
    let failed = |source| Error::Dataset { digest: digest.to_string(), source };
    Ok(matches!(Prepared::from_map(&manifest.annotations).map_err(failed)?, Prepared::Rows(_)))
}

/// The texts one after the other, as compressors get them.
pub(crate) fn joined(documents: &[Document]) -> Vec<u8> {
    documents.iter().flat_map(|document| document.text.bytes()).collect()
}
