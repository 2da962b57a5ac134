//! Models out of the artifact store. An adapter is fetched with the model that it is for, which makes its folder complete.

use std::path::Path;

use tidemill_artifacts::{Artifacts, Digest, Manifest, Result};

/// The annotation of an adapter's manifest that names its base model; other models have none.
pub const BASE_MODEL_DIGEST: &str = "base_model_digest";
/// Where the folder of an adapter keeps its base model.
const BASE_FOLDER: &str = "base";
/// Adapters upon adapters are followed so far: more is a circle, or a mistake.
const DEEPEST: usize = 8;

/// Copies a model into a folder, an adapter's base into its folder `base`.
///
/// # Errors
/// The model or its base is missing, damaged, or cannot be written.
pub async fn fetch(artifacts: &Artifacts, digest: &Digest, folder: &Path) -> Result<Manifest> {
    let first = artifacts.fetch_directory(digest, folder).await?;
    let (mut base, mut folder) = (base_of(&first)?, folder.to_owned());
    for _ in 0..DEEPEST {
        let Some(digest) = base else { break };
        folder = folder.join(BASE_FOLDER);
        base = base_of(&artifacts.fetch_directory(&digest, &folder).await?)?;
    }
    Ok(first)
}

fn base_of(manifest: &Manifest) -> Result<Option<Digest>> {
    manifest.annotations.get(BASE_MODEL_DIGEST).map(|digest| digest.parse()).transpose()
}
