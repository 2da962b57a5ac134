//! The service over its generated client, with a registry that only writes down what it is told.

mod bench;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bench::{Bench, job, recipe, record, tokenizer};
use tidemill_dataset::{Document, Record, TokenWidth, Tokens, read_shard};
use tidemill_proto::preprocessing::v1::*;
use tidemill_proto::r#type::v1::recipe::{Deduplicate, Normalize, Quality, Redact, Step as RecipeStep, step::Step};
use tidemill_proto::r#type::v1::tokenizer_spec::{ByteLevelBpe, Characters, Tokenizer};
use tidemill_proto::r#type::v1::{Recipe, Split, State};
use tonic::Code;

fn records(count: usize) -> Vec<Record> {
    (0..count).map(record).collect()
}

fn plain(text: &str) -> Record {
    Record::new("x", text, BTreeMap::new())
}

fn feedback(text: &str) -> Record {
    Record::new("feedback", text, [("kind".to_owned(), "feedback".to_owned())].into())
}

fn failure(job: &PreprocessingJob) -> (Code, &str) {
    assert_eq!(job.state(), State::Failed);
    let error = job.error.as_ref().unwrap();
    (Code::from(error.code), &error.message)
}

#[tokio::test]
async fn records_are_prepared_and_every_fate_is_told() {
    let mut bench = Bench::start().await;
    let mut input = records(60);
    let longer = format!("{} and one more", record(0).text);
    let personal = format!("{} jo@example.org or 212-555-0123", record(1000).text);
    input.extend([plain("too short"), plain(&longer), plain(&personal), plain("\u{0}\u{1} ")]);
    let raw = bench.raw(&input, false).await;
    let done = bench.run(&[(&raw, 0)], recipe()).await;
    assert_eq!(done.state(), State::Succeeded, "{:?}", done.error);
    let expected = [("EMPTY", 1), ("NEAR_DUPLICATE", 1), ("TOO_FEW_WORDS", 1)];
    assert_eq!(done.dropped_counts, expected.map(|(reason, count)| (reason.to_owned(), count)).into());
    assert_eq!(done.redacted_count, 2);
    assert_eq!(done.splits.values().map(|split| split.document_count).sum::<i64>(), 61);
    assert!(done.splits.values().all(|split| split.document_count > 0), "{:?}", done.splits);

    let fates = bench.fates(&done, "").await;
    assert_eq!(fates.len(), 64);
    assert_eq!(fates.iter().map(|fate| fate.record.as_str()).collect::<BTreeSet<_>>().len(), 64);
    let dropped = bench.fates(&done, "dropped = true").await;
    assert_eq!(dropped.len(), 3);
    let near = dropped.iter().find(|fate| fate.reason == "NEAR_DUPLICATE").unwrap();
    let pair = BTreeSet::from([record(0).id.to_string(), plain(&longer).id.to_string()]);
    let first = pair.iter().find(|id| **id != near.record).unwrap();
    assert!(pair.contains(&near.record) && near.detail.contains(first), "{}", near.detail);

    // What is stored is what was told.
    let tokenizer = bench.file(&done.digest, "tokenizer/tokenizer.json").await;
    assert_eq!(bench.file(&done.tokenizer_digest, "tokenizer.json").await, tokenizer);
    let tokenizer = tidemill_text::Tokenizer::from_bytes(&tokenizer).unwrap();
    for (split, counts) in &done.splits {
        let bytes = bench.file(&done.digest, &format!("{split}/text-00000.parquet")).await;
        let texts: Vec<Document> = read_shard(bytes, "text").unwrap().map(Result::unwrap).collect();
        assert_eq!(texts.len() as i64, counts.document_count);
        assert_eq!(texts.iter().map(|document| document.text.len() as i64).sum::<i64>(), counts.text_bytes);
        let bytes = bench.file(&done.digest, &format!("{split}/tokens-00000.bin")).await;
        let tokens = Tokens::read(vec![bytes], TokenWidth::U16, tokenizer.vocabulary_size()).unwrap();
        assert_eq!(tokens.len() as i64, counts.token_count);
        let end = tokenizer.end_of_text().unwrap();
        let ids: Vec<u32> = tokens.iter().collect();
        let packed: BTreeSet<String> = ids.split(|id| *id == end).map(|ids| tokenizer.decode(ids).unwrap()).collect();
        let texts: BTreeSet<String> = texts.into_iter().map(|document| document.text).chain([String::new()]).collect();
        assert_eq!(packed, texts);
        assert!(!texts.iter().any(|text| text.contains("jo@example.org") || text.contains("212-555-0123")));
    }
    let manifest = bench.platform.artifacts.manifest(&done.digest.parse().unwrap()).await.unwrap();
    let parents: Vec<String> = manifest.parents.iter().map(ToString::to_string).collect();
    assert_eq!(parents, [raw.clone(), done.tokenizer_digest.clone()]);
    let told = bench.lineage.lock().unwrap().pop().unwrap();
    let edges: Vec<_> = told.edges.iter().map(|edge| (edge.parent.clone(), edge.child.clone())).collect();
    assert_eq!(edges, [(raw, done.digest.clone()), (done.digest, done.tokenizer_digest)]);
}

#[tokio::test]
async fn equal_work_gives_equal_bytes_and_is_done_once() {
    let mut results = Vec::new();
    for _ in 0..2 {
        let mut bench = Bench::start().await;
        let raw = bench.raw(&records(50), false).await;
        let first = bench.run(&[(&raw, 0)], recipe()).await;
        let begun = Instant::now();
        let again = bench.run(&[(&raw, 1)], recipe()).await;
        assert_eq!(
            (&first.digest, &first.splits, &first.tokenizer_digest),
            (&again.digest, &again.splits, &again.tokenizer_digest)
        );
        assert!(begun.elapsed() < Duration::from_secs(5));
        // The reference is how the second job knew.
        let name = crate::cache::reference(&again);
        let found = bench.platform.artifacts.resolve(&name).await.unwrap();
        assert_eq!(found.unwrap().to_string(), first.digest);
        let other = bench.run(&[(&raw, 2)], recipe()).await;
        assert_ne!(other.digest, first.digest);
        results.push((first.digest, other.digest));
    }
    assert_eq!(results[0], results[1], "another data directory gives the same digests");
}

#[tokio::test]
async fn a_record_keeps_its_side_in_a_later_version() {
    let mut bench = Bench::start().await;
    let mut sides = Vec::new();
    for count in [40, 60] {
        let raw = bench.raw(&records(count), false).await;
        let done = bench.run(&[(&raw, 0)], recipe()).await;
        let fates = bench.fates(&done, "").await.into_iter();
        sides.push(fates.map(|fate| (fate.record, fate.split)).collect::<BTreeMap<_, _>>());
    }
    assert!(sides[0].iter().all(|(record, side)| sides[1][record] == *side));
}

#[tokio::test]
async fn feedback_always_trains_and_repeats_in_the_stream() {
    let mut bench = Bench::start().await;
    let raw = bench.raw(&records(40), false).await;
    let answers: Vec<Record> = (0..30).map(|i| feedback(&format!("answer {i} is right"))).collect();
    // A judgement that repeats a held-out text does not pull it into training.
    let mut judged = answers.clone();
    let alone = bench.run(&[(&raw, 0)], recipe()).await;
    let held_out = bench.fates(&alone, "").await.into_iter().find(|fate| fate.split == "test").unwrap();
    let text = records(40).into_iter().find(|record| record.id.to_string() == held_out.record).unwrap().text;
    judged.push(feedback(&text));
    let feedback = bench.raw(&judged, true).await;
    let once = bench.run(&[(&raw, 1), (&feedback, 1)], recipe()).await;
    let thrice = bench.run(&[(&raw, 1), (&feedback, 3)], recipe()).await;
    assert_eq!(once.state(), State::Succeeded, "{:?}", once.error);
    let fates = bench.fates(&once, "").await;
    let side = |id: &str| fates.iter().find(|fate| fate.record == id).unwrap().split.clone();
    assert!(answers.iter().all(|answer| side(&answer.id.to_string()) == "train"));
    assert_eq!(side(&held_out.record), "test");
    for split in ["validation", "test"] {
        // Other training text gives another tokenizer, so only documents and bytes can be compared.
        let size = |job: &PreprocessingJob| (job.splits[split].document_count, job.splits[split].text_bytes);
        assert_eq!(size(&once), size(&alone));
    }
    assert_eq!(once.splits["train"].document_count, alone.splits["train"].document_count + 30);
    assert_eq!(once.splits["train"].document_count, thrice.splits["train"].document_count);
    let ids: BTreeSet<String> = answers.iter().map(|answer| answer.id.to_string()).collect();
    let share: i64 = fates.iter().filter(|fate| ids.contains(&fate.record)).map(|fate| fate.token_count).sum();
    assert_eq!(thrice.splits["train"].token_count, once.splits["train"].token_count + 2 * share);
}

#[tokio::test]
async fn a_tokenizer_is_used_again_by_its_digest() {
    let mut bench = Bench::start().await;
    let raw = bench.raw(&records(40), false).await;
    let first = bench.run(&[(&raw, 0)], recipe()).await;
    let other = bench.raw(&(100..140).map(record).collect::<Vec<_>>(), false).await;
    let again = Recipe { tokenizer: tokenizer(Tokenizer::Digest(first.tokenizer_digest.clone())), ..recipe() };
    let second = bench.run(&[(&other, 0)], again).await;
    assert_eq!(second.tokenizer_digest, first.tokenizer_digest, "{:?}", second.error);
    let told = bench.lineage.lock().unwrap().pop().unwrap();
    let last = told.edges.last().unwrap();
    assert_eq!((&last.parent, &last.child), (&first.tokenizer_digest, &second.digest));
    let wrong = Recipe { tokenizer: tokenizer(Tokenizer::Digest(raw.clone())), ..recipe() };
    let failed = bench.run(&[(&other, 0)], wrong).await;
    assert!(failure(&failed).1.contains("tokenizer.json"), "{}", failure(&failed).1);
}

#[tokio::test]
async fn documents_of_an_encoders_tokenizer_lie_between_its_two_tokens() {
    const WORD_PIECES: &str = r###"{"version":"1.0","truncation":null,"padding":null,
        "added_tokens":[{"id":0,"content":"[CLS]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
        {"id":1,"content":"[SEP]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
        "normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true},
        "pre_tokenizer":{"type":"BertPreTokenizer"},"post_processor":{"type":"BertProcessing","sep":["[SEP]",1],"cls":["[CLS]",0]},
        "decoder":{"type":"WordPiece","prefix":"##","cleanup":true},
        "model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,
        "vocab":{"[CLS]":0,"[SEP]":1,"[UNK]":2,"a":3,"text":4}}}"###;
    let mut bench = Bench::start().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), WORD_PIECES).unwrap();
    let stored = bench.platform.artifacts.put_directory(folder.path(), "tokenizer", Vec::new(), BTreeMap::new()).await;
    let digest = Tokenizer::Digest(stored.unwrap().to_string());
    let raw = bench.raw(&(0..40).map(|i| plain(&format!("A text {i}"))).collect::<Vec<_>>(), false).await;
    let done = bench.run(&[(&raw, 0)], Recipe { steps: vec![], tokenizer: tokenizer(digest), ..recipe() }).await;
    assert_eq!(done.state(), State::Succeeded, "{:?}", done.error);
    let bytes = bench.file(&done.digest, "train/tokens-00000.bin").await;
    let ids: Vec<u32> = Tokens::read(vec![bytes], TokenWidth::U16, 5).unwrap().iter().collect();
    assert!(!ids.is_empty() && ids.chunks(5).all(|document| document == [0, 3, 4, 2, 1]), "{ids:?}");
}

#[tokio::test]
async fn characters_become_ids_and_unknown_ones_are_told() {
    let mut bench = Bench::start().await;
    let mut input: Vec<Record> = (0..50).map(|i| plain(&format!("text {i}"))).collect();
    // Held-out documents may hold characters that the training documents lack.
    input.extend((0..40).map(|i| plain(&format!("text {}", char::from_u32(0x4e00 + i).unwrap()))));
    let raw = bench.raw(&input, false).await;
    let recipe = Recipe { steps: vec![], tokenizer: tokenizer(Tokenizer::Characters(Characters {})), ..recipe() };
    let done = bench.run(&[(&raw, 0)], recipe).await;
    assert_eq!(done.state(), State::Succeeded, "{:?}", done.error);
    let dropped = bench.fates(&done, "dropped = true").await;
    assert!(!dropped.is_empty());
    assert!(dropped.iter().all(|fate| fate.reason == "NOT_ENCODABLE" && fate.detail.contains("has no id for")));
}

#[tokio::test]
async fn inputs_that_cannot_be_prepared_fail_by_name() {
    let mut bench = Bench::start().await;
    let short = bench.raw(&[plain("too short")], false).await;
    let failed = bench.run(&[(&short, 0)], recipe()).await;
    let (code, message) = failure(&failed);
    assert_eq!(code, Code::FailedPrecondition);
    assert!(message.contains("nothing is left to train on after dropping 1 TOO_FEW_WORDS"), "{message}");

    let absent = format!("sha256:{}", "0".repeat(64));
    let failed = bench.run(&[(&absent, 0)], recipe()).await;
    assert_eq!(failure(&failed).0, Code::NotFound);
    assert!(failure(&failed).1.contains(&absent));

    let raw = bench.raw(&records(30), false).await;
    let prepared = bench.run(&[(&raw, 0)], recipe()).await;
    let failed = bench.run(&[(&prepared.digest, 0)], recipe()).await;
    assert!(failure(&failed).1.contains("is a prepared-dataset, not a raw dataset version"));
}

#[tokio::test]
async fn a_damaged_shard_is_named() {
    let mut bench = Bench::start().await;
    let raw = bench.raw(&records(30), false).await;
    let manifest = bench.platform.artifacts.manifest(&raw.parse().unwrap()).await.unwrap();
    let shard = manifest.entry("data/part-00000.parquet").unwrap().digest.hex();
    let root = bench.platform.artifacts_url().strip_prefix("file://").unwrap().to_owned();
    let path = find(root.as_ref(), &shard).expect("the blob lies under its digest");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let failed = bench.run(&[(&raw, 0)], recipe()).await;
    let (code, message) = failure(&failed);
    assert_eq!(code, Code::DataLoss);
    assert!(message.contains("data/part-00000.parquet") && message.contains(&shard), "{message}");
}

fn find(folder: &std::path::Path, hex: &str) -> Option<std::path::PathBuf> {
    std::fs::read_dir(folder).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        let full = path.to_string_lossy().replace('/', "");
        if path.is_dir() { find(&path, hex) } else { full.contains(hex).then_some(path) }
    })
}

#[tokio::test]
async fn every_wrong_field_is_named_at_once() {
    let mut bench = Bench::start().await;
    let steps = [
        None,
        Some(Step::Normalize(Normalize { form: 9 })),
        Some(Step::Quality(Quality { min_words: -1, max_symbol_ratio: f64::NAN, ..Default::default() })),
        Some(Step::Deduplicate(Deduplicate { threshold: 2.0 })),
        Some(Step::Redact(Redact { kinds: vec![0] })),
    ];
    let wrong = Recipe {
        steps: steps.into_iter().map(|step| RecipeStep { step }).collect(),
        split: Some(Split { validation_ratio: 0.9, ..Default::default() }),
        tokenizer: tokenizer(Tokenizer::ByteLevelBpe(ByteLevelBpe { vocabulary_size: 10 })),
    };
    let status = bench.create(job(&[("x", -1)], wrong)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    for field in [
        "inputs[0].digest",
        "inputs[0].repeat",
        "recipe.steps[0]",
        "recipe.steps[1].normalize.form",
        "recipe.steps[2].quality.min_words",
        "recipe.steps[2].quality.max_symbol_ratio",
        "recipe.steps[3].deduplicate.threshold",
        "recipe.steps[4].redact.kinds[0]",
        "recipe.split: validation_ratio",
        "recipe.tokenizer.byte_level_bpe.vocabulary_size",
    ] {
        assert!(status.message().contains(&format!("preprocessing_job.{field}")), "{field}: {}", status.message());
    }
    let status = bench.create(PreprocessingJob::default()).await.unwrap_err();
    assert!(status.message().contains("inputs") && status.message().contains("recipe: it is required"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_job_stops_and_leaves_nothing() {
    let mut bench = Bench::start().await;
    let long: Vec<Record> = (0..3000).map(|i| plain(&record(i).text.repeat(20))).collect();
    let raw = bench.raw(&long, false).await;
    let running = bench.create(job(&[(&raw, 0)], recipe())).await.unwrap();
    let request = WatchPreprocessingJobRequest { name: running.name.clone() };
    let mut changes = bench.client.watch_preprocessing_job(request).await.unwrap().into_inner();
    while changes.message().await.unwrap().is_some_and(|job| job.progress.is_none_or(|p| p.phase == "reading")) {}
    let begun = Instant::now();
    bench.client.cancel_preprocessing_job(CancelPreprocessingJobRequest { name: running.name.clone() }).await.unwrap();
    assert_eq!(bench.end(&running.name).await.state(), State::Cancelled);
    let work = bench.platform.work_dir("preprocessing").unwrap();
    while std::fs::read_dir(&work).unwrap().count() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "the work goes on");
        tokio::task::yield_now().await;
    }
    assert!(bench.platform.artifacts.resolve(&crate::cache::reference(&running)).await.unwrap().is_none());
}
