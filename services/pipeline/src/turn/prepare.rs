//! From the source and from feedback to a prepared dataset.

use tidemill_chassis::Fault;
use tidemill_proto::ingestion::v1::dataset_version::{FeedbackSelection, Origin};
use tidemill_proto::ingestion::v1::*;
use tidemill_proto::preprocessing::v1::preprocessing_job::Input;
use tidemill_proto::preprocessing::v1::{CreatePreprocessingJobRequest, PreprocessingJob};
use tidemill_proto::r#type::v1::tokenizer_spec::Tokenizer;

use super::{Turn, Version, ensured, keys};

impl Turn {
    /// Reads the source into a raw dataset version; gives its digest. Reading the same source again gives the same digest.
    pub(super) async fn ingest(&self) -> Result<String, Fault> {
        let dataset = self.pipeline();
        let version = format!("datasets/{dataset}/versions/{}", self.id());
        let work = async {
            let spec = self.spec.source.clone().unwrap_or_default();
            let (source, format) = (keys::of_content(dataset, &spec), spec.format);
            let data_source = DataSource { labels: self.labels(), spec: Some(spec), ..DataSource::default() };
            let request = CreateDataSourceRequest {
                request_id: keys::stable(&format!("dataSources/{source}")),
                data_source_id: source.clone(),
                data_source: Some(data_source),
            };
            ensured(self.clients.ingestion().create_data_source(request).await)?;
            self.dataset(dataset, "Records of a pipeline's source.", format).await?;
            let origin = Origin::DataSource(format!("dataSources/{source}"));
            self.dataset_version("ingest", dataset, origin).await
        };
        self.step("ingest", version, work, String::clone).await
    }

    /// Reads the run's feedback into a raw dataset version of its own, if it has any; gives its digest.
    pub(super) async fn ingest_feedback(&self) -> Result<Option<String>, Fault> {
        if self.run.feedback.is_empty() {
            return Ok(None);
        }
        let dataset = format!("{}-feedback", self.pipeline());
        let version = format!("datasets/{dataset}/versions/{}", self.id());
        let work = async {
            self.dataset(&dataset, "Feedback that a pipeline learns from.", 0).await?;
            let origin = Origin::Feedback(FeedbackSelection { feedback: self.run.feedback.clone() });
            self.dataset_version("ingest-feedback", &dataset, origin).await
        };
        self.step("ingest-feedback", version, work, String::clone).await.map(Some)
    }

    async fn dataset(&self, id: &str, description: &str, format: i32) -> Result<(), Fault> {
        let dataset = Dataset { description: description.to_owned(), format, ..Dataset::default() };
        let request = CreateDatasetRequest {
            dataset_id: id.to_owned(),
            dataset: Some(dataset),
            request_id: keys::stable(&format!("datasets/{id}")),
        };
        ensured(self.clients.ingestion().create_dataset(request).await)
    }

    async fn dataset_version(&self, step: &str, dataset: &str, origin: Origin) -> Result<String, Fault> {
        let version = DatasetVersion { labels: self.labels(), origin: Some(origin), ..DatasetVersion::default() };
        let request = CreateDatasetVersionRequest {
            parent: format!("datasets/{dataset}"),
            dataset_version_id: self.id(),
            dataset_version: Some(version),
            request_id: self.request_id(step),
        };
        let created = self.clients.ingestion().create_dataset_version(request).await?.into_inner();
        Ok(self.follow::<DatasetVersion>(step, &created.name).await?.digest)
    }

    /// Prepares the raw versions; gives the prepared dataset's digest. A turn that goes on from a model keeps its tokenizer.
    pub(super) async fn preprocess(
        &self,
        raw: &str,
        feedback: Option<&str>,
        base: Option<&Version>,
    ) -> Result<String, Fault> {
        let name = format!("preprocessingJobs/{}", self.id());
        let work = async {
            let mut inputs = vec![Input { digest: raw.to_owned(), repeat: 1 }];
            if let Some(digest) = feedback {
                let repeat = self.spec.feedback.as_ref().map_or(1, |feedback| feedback.repeat.max(1));
                inputs.push(Input { digest: digest.to_owned(), repeat });
            }
            let mut recipe = self.spec.recipe.clone().unwrap_or_default();
            // Rows keep their text, so there is none to keep.
            if let (Some(base), Some(tokenizer)) = (base, &mut recipe.tokenizer) {
                tokenizer.tokenizer = Some(Tokenizer::Digest(base.tokenizer_digest.clone()));
            }
            let job =
                PreprocessingJob { labels: self.labels(), inputs, recipe: Some(recipe), ..PreprocessingJob::default() };
            let request = CreatePreprocessingJobRequest {
                preprocessing_job_id: self.id(),
                preprocessing_job: Some(job),
                request_id: self.request_id("preprocess"),
            };
            let created = self.clients.preprocessing().create_preprocessing_job(request).await?.into_inner();
            Ok(self.follow::<PreprocessingJob>("preprocess", &created.name).await?.digest)
        };
        self.step("preprocess", name, work, String::clone).await
    }
}
