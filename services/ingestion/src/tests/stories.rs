use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use prost::Message;
use sha2::Digest as _;
use tidemill_proto::event::v1::FeedbackCreated;
use tidemill_proto::ingestion::v1::dataset_version::Origin;
use tidemill_proto::ingestion::v1::feedback::Rating;
use tidemill_proto::ingestion::v1::*;
use tidemill_proto::topics;
use tidemill_proto::r#type::v1::{RecordFormat, SourceSpec, State};
use tonic::Code;

use super::bad_input::tgz;
use super::bench::Bench;

#[tokio::test]
async fn an_archive_is_read_with_metadata_and_lineage() {
    let mut bench = Bench::start().await;
    let path = bench.folder.path().join("sotu.tgz");
    let files: [(&str, &[u8]); 3] = [
        ("package/data/1791_george_washington_n.txt", b"second"),
        ("package/data/1790_george_washington_n.txt", b"first"),
        ("package/README.md", b"not a text"),
    ];
    tgz(&path, &files);
    let spec = SourceSpec {
        include: vec!["package/data/*.txt".to_owned()],
        metadata_pattern: r"(?P<year>\d{4})_(?P<author>.+)_(?P<party>[a-z]+)\.txt$".to_owned(),
        ..Bench::spec(&path, RecordFormat::Text)
    };
    let version = bench.ingest(spec.clone()).await;
    assert_eq!(version.state(), State::Succeeded, "{:?}", version.error);
    let records = bench.records(&version, "").await;
    assert_eq!(records.iter().map(|record| record.excerpt.as_str()).collect::<Vec<_>>(), ["first", "second"]);
    assert_eq!(records[0].metadata["year"], "1790");
    assert_eq!(records[0].metadata["author"], "george_washington");
    assert_eq!(records[0].metadata["party"], "n");

    let told = bench.lineage.lock().unwrap().clone();
    let Some(Origin::DataSource(source)) = &version.origin else { panic!("no source") };
    assert_eq!(told[0].edges[0].parent, *source);
    assert_eq!(told[0].edges[0].child, version.digest);
    let dataset = told[0].nodes.iter().find(|node| node.id == version.digest).unwrap();
    let digest = version.digest.parse().unwrap();
    let manifest = bench.platform.artifacts.manifest(&digest).await.unwrap();
    assert_eq!(dataset.record_index_digest, manifest.entry("records.index").unwrap().digest.to_string());
    assert_eq!(manifest.annotations["license"], "CC0-1.0");

    // The same files in another order give the same dataset, apart from what the source says of its own bytes.
    let shards = |manifest: &tidemill_artifacts::Manifest| manifest.entries.clone();
    let reversed: Vec<_> = files.into_iter().rev().collect();
    tgz(&path, &reversed);
    let again = bench.ingest(spec).await;
    let other = bench.platform.artifacts.manifest(&again.digest.parse().unwrap()).await.unwrap();
    assert_eq!(shards(&other), shards(&manifest));
}

#[tokio::test]
async fn a_folder_gives_the_same_digest_every_time() {
    let mut bench = Bench::start().await;
    let source = bench.folder.path().join("texts");
    let mut digests = Vec::new();
    for order in [[1, 2, 3], [3, 1, 2]] {
        fs::create_dir(&source).unwrap();
        for i in order {
            fs::write(source.join(format!("{i}.txt")), format!("text {}", i % 3)).unwrap();
        }
        digests.push(bench.ingest(Bench::spec(&source, RecordFormat::Text)).await.digest);
        fs::remove_dir_all(&source).unwrap();
    }
    assert_eq!(digests[0], digests[1]);
    assert!(digests[0].starts_with("sha256:"));
}

fn judgement(completion: &str, rating: Rating, correction: &str, consent: bool) -> Feedback {
    Feedback {
        answer: "answers/cmpl-1".to_owned(),
        prompt: "The state of the Union is".to_owned(),
        completion: completion.to_owned(),
        rating: rating.into(),
        correction: correction.to_owned(),
        consent,
        model: "models/sotu".to_owned(),
        model_digest: "sha256:00".to_owned(),
        ..Feedback::default()
    }
}

async fn give(bench: &mut Bench, feedback: Feedback) -> Feedback {
    let request = CreateFeedbackRequest { feedback: Some(feedback), ..Default::default() };
    bench.client.create_feedback(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn feedback_becomes_records_without_names_or_times() {
    let mut bench = Bench::start().await;
    let mut events = bench.platform.log.subscribe(&[topics::FEEDBACK_EVENTS], "test").await.unwrap();
    let mut digests = Vec::new();
    for _ in 0..2 {
        let mut names = Vec::new();
        for feedback in [
            judgement(" strong.", Rating::Up, "", true),
            judgement(" weak.", Rating::Down, " sound.", true),
            judgement(" bad.", Rating::Down, "", true),
            judgement(" secret.", Rating::Up, "", false),
        ] {
            names.push(give(&mut bench, feedback).await.name);
        }
        let version = bench.ingest_feedback(names.clone()).await;
        assert_eq!((version.state(), version.record_count), (State::Succeeded, 2), "{:?}", version.error);
        let mut texts: Vec<_> = bench.records(&version, "").await.into_iter().map(|record| record.excerpt).collect();
        texts.sort();
        assert_eq!(texts, ["The state of the Union is sound.", "The state of the Union is strong."]);
        let refused = bench.records(&version, "quarantined = true").await;
        assert_eq!(refused.iter().map(|r| r.reason.as_str()).collect::<Vec<_>>(), ["NOT_USABLE", "NO_CONSENT"]);
        assert!(refused.iter().all(|record| record.excerpt.is_empty()), "{refused:?}");
        let told = bench.lineage.lock().unwrap().pop().unwrap();
        let parents: Vec<_> = told.edges.iter().map(|edge| edge.parent.as_str()).collect();
        assert_eq!(parents, [names[0].as_str(), names[1].as_str()], "only what was used is a parent");
        digests.push(version.digest);
        names.clear();
    }
    assert_eq!(digests[0], digests[1], "equal judgements give equal digests");
    let mut usable = Vec::new();
    for _ in 0..8 {
        let delivery = tokio::time::timeout(Duration::from_secs(10), events.next()).await.unwrap().unwrap();
        usable.push(FeedbackCreated::decode(delivery.event.payload.clone()).unwrap().usable);
        events.commit(&delivery).await.unwrap();
    }
    assert_eq!(usable.iter().filter(|usable| **usable).count(), 4);
}

#[tokio::test]
async fn feedback_is_checked_and_a_retry_writes_once() {
    let mut bench = Bench::start().await;
    let mut create = async |feedback: Feedback, request_id: &str| {
        let request_id = request_id.to_owned();
        bench
            .client
            .create_feedback(CreateFeedbackRequest { feedback: Some(feedback), request_id, ..Default::default() })
            .await
    };
    let wrong =
        Feedback { answer: "x".to_owned(), model: "y".to_owned(), ..judgement("a", Rating::Unspecified, "", true) };
    let status = create(wrong, "").await.unwrap_err();
    for field in ["feedback.answer", "feedback.rating", "feedback.model"] {
        assert!(status.message().contains(field), "{}", status.message());
    }
    let untold = Feedback { prompt: String::new(), completion: String::new(), ..judgement("a", Rating::Up, "", true) };
    assert_eq!(create(untold, "").await.unwrap_err().code(), Code::FailedPrecondition);
    let request = "00000000-0000-4000-8000-000000000001";
    let first = create(judgement("a", Rating::Up, "", true), request).await.unwrap().into_inner();
    let again = create(judgement("a", Rating::Up, "", true), request).await.unwrap().into_inner();
    assert_eq!((first.name, first.uid), (again.name, again.uid));
    let mut list = async |filter: &str| {
        let request = ListFeedbacksRequest { filter: filter.to_owned(), ..Default::default() };
        bench.client.list_feedbacks(request).await.map(|page| page.into_inner().feedback.len())
    };
    assert_eq!(list("model = models/sotu").await.unwrap(), 1);
    assert_eq!(list("model = models/other").await.unwrap(), 0);
    assert_eq!(list("rating = up").await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn unusable_feedback_alone_makes_no_version() {
    let mut bench = Bench::start().await;
    let name = give(&mut bench, judgement(" no.", Rating::Down, "", true)).await.name;
    let version = bench.ingest_feedback(vec![name]).await;
    assert_eq!(version.state(), State::Failed);
    assert!(version.error.unwrap().message.contains("1 NOT_USABLE"));
}

/// A stand-in for npm that packs what lies beside it, and counts its calls.
fn npm(bench: &Bench) -> std::path::PathBuf {
    let path = bench.folder.path().join("npm");
    let archive = bench.folder.path().join("packed.tgz");
    tgz(&archive, &[("package/a.txt", b"A text.")]);
    let folder = bench.folder.path().display();
    let script = format!("#!/bin/sh\necho \"$@\" >> {folder}/calls\ncp {folder}/packed.tgz ./scope-pack-1.0.0.tgz\n");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    archive
}

#[tokio::test]
async fn a_package_is_downloaded_once_and_verified() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("npm");
    let mut bench = Bench::with(&format!("npm = {program:?}")).await;
    let archive = npm(&bench);
    fs::copy(bench.folder.path().join("npm"), &program).unwrap();
    let sha256 = hex::encode(sha2::Sha256::digest(fs::read(&archive).unwrap()));
    let spec =
        SourceSpec { uri: "npm:@scope/pack@1.0.0".to_owned(), sha256, ..Bench::spec(&archive, RecordFormat::Text) };
    let first = bench.ingest(spec.clone()).await;
    assert_eq!(first.state(), State::Succeeded, "{:?}", first.error);
    assert_eq!(bench.ingest(spec.clone()).await.digest, first.digest);
    let calls = fs::read_to_string(bench.folder.path().join("calls")).unwrap();
    assert_eq!(calls, "pack @scope/pack@1.0.0 --silent --ignore-scripts --pack-destination .\n");

    // A cached file that was changed is downloaded again, and one that never fits fails.
    fs::write(bench.folder.path().join("cache/scope-pack-1.0.0.tgz"), "changed").unwrap();
    assert_eq!(bench.ingest(spec.clone()).await.digest, first.digest);
    let version = bench.ingest(SourceSpec { sha256: "0".repeat(64), ..spec }).await;
    assert!(version.error.unwrap().message.contains("npm:@scope/pack@1.0.0 has sha256"));
}

#[tokio::test]
async fn a_missing_npm_is_named_with_its_remedy() {
    let mut bench = Bench::with("npm = \"/nowhere/npm\"").await;
    let uri = "npm:@scope/pack@1.0.0".to_owned();
    let spec = SourceSpec { uri, sha256: "0".repeat(64), ..Bench::spec("/".as_ref(), RecordFormat::Text) };
    let version = bench.ingest(spec).await;
    let message = version.error.unwrap().message;
    assert!(message.contains("/nowhere/npm") && message.contains("apt-get install npm"), "{message}");
}

#[tokio::test]
async fn a_cancelled_version_stops_soon() {
    let mut bench = Bench::start().await;
    let source = bench.folder.path().join("long.jsonl");
    fs::File::create(&source).unwrap().set_len(1 << 40).unwrap();
    let spec = SourceSpec { sha256: String::new(), ..Bench::spec(&source, RecordFormat::Jsonl) };
    let data_source = Some(DataSource { spec: Some(spec), ..DataSource::default() });
    let request = CreateDataSourceRequest { data_source, ..Default::default() };
    let name = bench.client.create_data_source(request).await.unwrap().into_inner().name;
    let version = bench.begin(Origin::DataSource(name)).await;
    let request = WatchDatasetVersionRequest { name: version.name.clone() };
    let mut changes = bench.client.watch_dataset_version(request).await.unwrap().into_inner();
    while changes.message().await.unwrap().is_some_and(|v| v.progress.is_none_or(|p| p.done_count == 0)) {}
    let begun = Instant::now();
    let request = CancelDatasetVersionRequest { name: version.name.clone() };
    bench.client.cancel_dataset_version(request).await.unwrap();
    assert_eq!(bench.end(&version.name).await.state(), State::Cancelled);
    let work = bench.platform.work_dir("ingestion").unwrap();
    while fs::read_dir(&work).unwrap().count() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "the work goes on");
        tokio::task::yield_now().await;
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "stopping took {:?}", begun.elapsed());
}
