//! Models and their versions: numbered 1, 2, 3 …, one for each digest, with the figures of evaluations attached.
//!
//! Beside a model stand two kinds of small records: `<model>/counters/versions`, the last number given, and `<model>/digests/<hex>`,
//! the version that has a digest. Number, digest and version are one batch, so neither gaps nor doubles can appear.

use tidemill_artifacts::{Artifacts, Digest};
use tidemill_platform::Platform;
use tidemill_proto::registry::v1::{EvaluationResult, Model, ModelVersion};
use tidemill_resources::Collection;

use crate::draft::Draft;
use crate::error::{Error, Result};
use crate::violations::Violations;

/// The kind of manifest that a version may have.
const KIND: &str = "model";

/// Models and their versions. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Models {
    pub(crate) models: Collection<Model>,
    pub(crate) versions: Collection<ModelVersion>,
    artifacts: Artifacts,
}

impl Models {
    pub(crate) fn new(platform: &Platform) -> Self {
        Self { models: platform.collection(), versions: platform.collection(), artifacts: platform.artifacts.clone() }
    }

    /// Creates a model.
    pub(crate) async fn create(&self, mut model: Model, id: &str, request_id: &str) -> Result<Model> {
        let id = id_or_new(id, request_id);
        model.name = format!("models/{id}");
        let mut wrong = Violations::default();
        wrong.id("model_id", &id);
        wrong.check()?;
        Ok(self.models.create(&model, Some(request_id), Vec::new()).await?.0)
    }

    /// Registers a directory of artifacts under the next number; a digest that the model has already answers with that version.
    pub(crate) async fn create_version(&self, parent: &str, version: ModelVersion) -> Result<ModelVersion> {
        let digest: Digest = version.digest.parse()?;
        self.models.get(parent).await?;
        let manifest = self.artifacts.manifest(&digest).await?;
        if manifest.kind != KIND {
            return Err(Error::NotAModel { digest: version.digest, kind: manifest.kind });
        }
        let mut version = ModelVersion { evaluations: Vec::new(), decisions: Vec::new(), ..version };
        let (counter, by_digest) =
            (format!("{parent}/counters/versions"), format!("{parent}/digests/{}", digest.hex()));
        for attempt in 1.. {
            let mut draft = Draft::new(&**self.versions.store());
            if let Some(name) = draft.read(&by_digest).await? {
                return Ok(self.versions.get(&text(&by_digest, &name)?).await?);
            }
            let last = match draft.read(&counter).await? {
                Some(body) => text(&counter, &body)?.parse().map_err(|error| corrupt(&counter, error))?,
                None => 0_u64,
            };
            let name = format!("{parent}/versions/{}", last + 1);
            version.name.clone_from(&name);
            draft.write(&counter, (last + 1).to_string());
            draft.write(&by_digest, name.clone());
            draft.put(&version);
            if let Some(committed) = draft.commit(attempt).await?
                && let Some(created) = committed.get(&name)?
            {
                tracing::info!(version = name, digest = version.digest, "model version registered");
                return Ok(created);
            }
        }
        unreachable!("the last attempt ends with an error")
    }

    /// Attaches figures to the version of that very digest. The same evaluation again changes nothing.
    pub(crate) async fn record_evaluation(&self, name: &str, result: EvaluationResult) -> Result<ModelVersion> {
        self.versions
            .modify(name, |version: &mut ModelVersion| {
                if version.digest != result.model_digest {
                    return Err(Error::OtherDigest {
                        evaluation: result.evaluation.clone(),
                        measured: result.model_digest.clone(),
                        version: name.to_owned(),
                        digest: version.digest.clone(),
                    });
                }
                if !version.evaluations.iter().any(|known| known.evaluation == result.evaluation) {
                    version.evaluations.push(result.clone());
                }
                Ok(Vec::new())
            })
            .await
    }
}

/// The id given, or one that is the same for the same request, or a new one.
pub(crate) fn id_or_new(id: &str, request_id: &str) -> String {
    match (id, request_id) {
        ("", "") => uuid::Uuid::now_v7().simple().to_string(),
        ("", request_id) => uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, request_id.as_bytes()).simple().to_string(),
        (id, _) => id.to_owned(),
    }
}

/// A body that holds text.
fn text(name: &str, body: &[u8]) -> Result<String> {
    String::from_utf8(body.to_vec()).map_err(|error| corrupt(name, error))
}

fn corrupt(name: &str, reason: impl std::fmt::Display) -> Error {
    tidemill_resources::Error::Corrupt { name: name.to_owned(), reason: reason.to_string() }.into()
}
