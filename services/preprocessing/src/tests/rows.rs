//! Rows through recipes: they keep their text, cleaned, and there is no tokenizer.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tidemill_dataset::{Document, read_shard};
use tidemill_proto::preprocessing::v1::PreprocessingJob;
use tidemill_proto::r#type::v1::recipe::{Deduplicate, Normalize, Quality, Redact, Step as RecipeStep, step::Step};
use tidemill_proto::r#type::v1::{Recipe, Split, State};
use tonic::Code;

use super::bench::{Bench, job, recipe, record};

fn pair(index: usize) -> Value {
    let words = record(index).text;
    json!({"prompt": [{"role": "user", "content": words}], "chosen": format!("Yes, {index}."), "rejected": format!("No, {index}.")})
}

fn for_rows() -> Recipe {
    let steps = [
        Step::Normalize(Normalize::default()),
        Step::Quality(Quality { min_words: 3, ..Quality::default() }),
        Step::Deduplicate(Deduplicate::default()),
        Step::Redact(Redact::default()),
    ];
    Recipe {
        steps: steps.map(|step| RecipeStep { step: Some(step) }).into(),
        split: Some(Split { validation_ratio: 0.1, test_ratio: 0.1 }),
        tokenizer: None,
    }
}

async fn texts(bench: &Bench, done: &PreprocessingJob, split: &str) -> Vec<String> {
    let bytes = bench.file(&done.digest, &format!("{split}/text-00000.parquet")).await;
    read_shard::<Document>(bytes, "text").unwrap().map(|document| document.unwrap().text).collect()
}

#[tokio::test]
async fn rows_are_cleaned_and_keep_their_text() {
    let mut bench = Bench::start().await;
    let mut rows: Vec<Value> = (0..60).map(pair).collect();
    let near = format!("{} and one more", record(0).text);
    rows.push(json!({"prompt": [{"role": "user", "content": near}], "chosen": "Yes, 0.", "rejected": "No, 0."}));
    rows.push(json!({"prompt": record(1000).text, "chosen": "Write to\r\njo@example.org", "rejected": "No\u{7}."}));
    // Only what cleaning removes tells the two answers apart.
    rows.push(json!({"prompt": record(2000).text, "chosen": "Yes.", "rejected": "Yes\u{7}."}));
    rows.push(json!({"prompt": "?", "chosen": "a", "rejected": "b"}));
    let raw = bench.rows(&rows).await;
    let done = bench.run(&[(&raw, 0)], for_rows()).await;
    assert_eq!(done.state(), State::Succeeded, "{:?}", done.error);
    let expected = [("NEAR_DUPLICATE", 1), ("UNUSABLE_ROW", 1), ("WORD_LENGTH", 1)];
    assert_eq!(done.dropped_counts, expected.map(|(reason, count)| (reason.to_owned(), count)).into());
    assert_eq!((done.redacted_count, done.tokenizer_digest.as_str()), (1, ""));

    let manifest = bench.platform.artifacts.manifest(&done.digest.parse().unwrap()).await.unwrap();
    assert_eq!((manifest.annotations["row_type"].as_str(), manifest.parents.len()), ("preference", 1));
    let files: BTreeSet<&str> = manifest.entries.iter().map(|entry| entry.path.as_str()).collect();
    let expected = [
        "fates/part-00000.parquet",
        "records.index",
        "test/text-00000.parquet",
        "train/text-00000.parquet",
        "validation/text-00000.parquet",
    ];
    assert_eq!(files, expected.into());
    let mut all = Vec::new();
    for (split, counts) in &done.splits {
        let texts = texts(&bench, &done, split).await;
        assert!(!texts.is_empty(), "{split}");
        assert_eq!(
            (counts.document_count, counts.text_bytes, counts.token_count),
            (texts.len() as i64, texts.iter().map(|text| text.len() as i64).sum::<i64>(), 0)
        );
        all.extend(texts);
    }
    assert_eq!(all.len(), 61);
    assert!(all.iter().any(|text| text.contains(r#""chosen":"Write to\n<EMAIL>","rejected":"No.""#)), "{all:?}");
    let told = bench.lineage.lock().unwrap().pop().unwrap();
    let edges: Vec<_> = told.edges.iter().map(|edge| (edge.parent.clone(), edge.child.clone())).collect();
    assert_eq!(edges, [(raw, done.digest.clone())]);
    let fates = bench.fates(&done, "dropped = true").await;
    let unusable = fates.iter().find(|fate| fate.reason == "UNUSABLE_ROW").unwrap();
    assert!(unusable.detail.contains("chosen and rejected are equal"), "{}", unusable.detail);
}

#[tokio::test]
async fn training_rows_come_as_often_as_their_input_repeats() {
    let mut bench = Bench::start().await;
    let raw = bench.rows(&(0..40).map(pair).collect::<Vec<_>>()).await;
    let more = bench.rows(&(100..110).map(pair).collect::<Vec<_>>()).await;
    let done = bench.run(&[(&raw, 1), (&more, 3)], for_rows()).await;
    let texts = texts(&bench, &done, "train").await;
    let distinct: BTreeSet<&String> = texts.iter().collect();
    assert_eq!(distinct.len() as i64, done.splits["train"].document_count);
    let repeated = distinct.iter().filter(|text| texts.iter().filter(|other| other == *text).count() == 3).count();
    assert_eq!(texts.len(), distinct.len() + 2 * repeated);
    assert!(repeated >= 5, "{repeated}");
}

#[tokio::test]
async fn a_tokenizer_is_refused_for_rows_and_wanted_for_text() {
    let mut bench = Bench::start().await;
    let rows = bench.rows(&(0..20).map(pair).collect::<Vec<_>>()).await;
    let other = bench.rows(&[json!({"prompt": "p", "completion": "c"})]).await;
    let text = bench.raw(&(0..20).map(record).collect::<Vec<_>>(), false).await;
    for (inputs, recipe, parts) in [
        (
            vec![(rows.as_str(), 0)],
            recipe(),
            ["recipe.tokenizer: ", "preference rows, which keep their text: leave it out"],
        ),
        (vec![(&text, 0)], for_rows(), ["recipe.tokenizer: ", "required for text"]),
        (
            vec![(&rows, 0), (&text, 0)],
            for_rows(),
            ["inputs[1].digest: ", "it holds text and inputs[0] preference rows"],
        ),
        (vec![(&rows, 0), (&other, 0)], for_rows(), ["inputs[1].digest: ", "it holds prompt-completion rows"]),
    ] {
        let status = bench.create(job(&inputs, recipe)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(parts.iter().all(|part| status.message().contains(part)), "{}", status.message());
    }
}
