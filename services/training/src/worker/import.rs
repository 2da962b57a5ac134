//! The work of a job that imports: a model that was trained elsewhere becomes an artifact.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use tidemill_artifacts::{Artifacts, Digest};
use tidemill_platform::worker;
use tidemill_proto::r#type::v1::ImportSpec;

use super::pace;
use crate::error::{Error, Result};
use crate::import;

/// Reads, checks, converts and stores. Equal sources give equal artifacts.
pub(super) async fn run(artifacts: &Artifacts, uid: &str, spec: &ImportSpec, work_dir: &Path) -> Result<Digest> {
    let unfit = |reason| Error::Unfit { field: "import.uri", reason };
    let source = import::path_of(&spec.uri).map_err(unfit)?;
    if !source.exists() {
        return Err(unfit(format!("{} is not there, as the worker sees it", source.display())));
    }
    if !spec.sha256.is_empty() {
        pace::phase("checking the file");
        check(&source, &spec.sha256)?;
    }
    pace::phase("converting the model");
    let scratch = work_dir.join("scratch");
    let _former = std::fs::remove_dir_all(&scratch);
    let (folder, tokenizer) = (scratch.join("model"), scratch.join("tokenizer"));
    for folder in [&folder, &tokenizer] {
        std::fs::create_dir_all(folder).map_err(Error::file(folder))?;
    }
    let model = import::convert(&source, &folder)?;
    pace::phase("storing the model");
    let mut annotations = BTreeMap::from([("parameter_count".to_owned(), model.parameter_count().to_string())]);
    let json = folder.join("tokenizer.json");
    if json.exists() {
        let copy = tokenizer.join("tokenizer.json");
        std::fs::copy(&json, &copy).map_err(Error::file(&copy))?;
        let digest = artifacts.put_directory(&tokenizer, "tokenizer", Vec::new(), BTreeMap::new()).await?;
        annotations.insert("tokenizer_digest".to_owned(), digest.to_string());
    }
    let digest = artifacts.put_directory(&folder, "model", Vec::new(), annotations).await?;
    artifacts.claim(&worker::result_reference(uid), &digest).await?;
    tracing::info!(model = %digest, source = %source.display(), "model imported");
    Ok(digest)
}

fn check(path: &Path, expected: &str) -> Result<()> {
    let mut hasher = Sha256::new();
    let mut file = std::fs::File::open(path).map_err(Error::file(path))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(Error::file(path))? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    let found = hex::encode(hasher.finalize());
    if found == expected.to_lowercase() {
        return Ok(());
    }
    let reason = format!("{} has {found}: another file, or a damaged one", path.display());
    Err(Error::Unfit { field: "import.sha256", reason })
}
