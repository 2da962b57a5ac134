use std::fs;

use tidemill_proto::r#type::v1::{RecordFormat, SourceSpec, State};
use tonic::Code;

use super::bad_input::tgz;
use super::bench::Bench;

const PAIR: &str = r#"{"conversations": [{"from": "human", "value": "Hi"}], "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}}"#;

#[tokio::test]
async fn rows_are_read_from_lines_and_arrays_of_an_archive() {
    let mut bench = Bench::start().await;
    let path = bench.folder.path().join("pack.tar.gz");
    let array = r#" [{"instruction": "Add.", "input": "1 2", "output": "3", "id": 7},
        {"instruction": "Greet.", "input": "", "output": "Hello"}, {"instruction": "Greet.", "output": ""}, [1], {"instruction": nothing}]"#;
    let lines = "{\"prompt\": [{\"role\": \"user\", \"content\": \"Greet.\"}], \"completion\": \"Hello\"}\n\n{\"output\"\n{\"messages\": 1}\n";
    let files: [(&str, &[u8]); 3] =
        [("p/data/a.json", array.as_bytes()), ("p/data/b.jsonl", lines.as_bytes()), ("p/data/pairs.json", b"[")];
    tgz(&path, &files);
    let spec = SourceSpec {
        include: vec!["p/data/[ab].json*".to_owned()],
        metadata_pattern: "data/(?P<file>.)".to_owned(),
        ..Bench::spec(&path, RecordFormat::Rows)
    };
    let version = bench.ingest(spec).await;
    assert_eq!(version.state(), State::Succeeded, "{:?}", version.error);
    let records = bench.records(&version, "").await;
    assert_eq!(
        records.iter().map(|record| record.origin.as_str()).collect::<Vec<_>>(),
        ["p/data/a.json:1", "p/data/a.json:2"]
    );
    assert_eq!(
        records[0].excerpt,
        r#"{"prompt":[{"role":"user","content":"Add.\n1 2"}],"completion":[{"role":"assistant","content":"3"}]}"#
    );
    let metadata = ["file", "id", "row_type"].map(|key| records[0].metadata[key].as_str());
    assert_eq!(metadata, ["a", "7", "prompt-completion"]);
    let refused: Vec<_> = bench.records(&version, "quarantined = true").await;
    let told: Vec<_> = refused.iter().map(|r| (r.origin.as_str(), r.reason.as_str())).collect();
    let expected = [
        ("p/data/a.json:3", "MALFORMED_ROW"),
        ("p/data/a.json:4", "MALFORMED_ROW"),
        ("p/data/a.json:5", "MALFORMED_JSON"),
        // The row is that of a.json:2, written in another way.
        ("p/data/b.jsonl:1", "DUPLICATE"),
        ("p/data/b.jsonl:3", "MALFORMED_JSON"),
        ("p/data/b.jsonl:4", "MALFORMED_ROW"),
    ];
    assert_eq!(told, expected);
    assert!(refused[0].detail.contains("column completion"), "{}", refused[0].detail);
    let manifest = bench.platform.artifacts.manifest(&version.digest.parse().unwrap()).await.unwrap();
    assert_eq!(manifest.annotations["row_type"], "prompt-completion");
}

#[tokio::test]
async fn rows_of_two_types_make_no_version() {
    let mut bench = Bench::start().await;
    let source = bench.folder.path().join("rows");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("pairs.jsonl"), PAIR).unwrap();
    let version = bench.ingest(Bench::spec(&source, RecordFormat::Rows)).await;
    assert_eq!(version.state(), State::Succeeded, "{:?}", version.error);
    fs::write(source.join("sft.json"), r#"[{"instruction": "a", "output": "b"}]"#).unwrap();
    let error = bench.ingest(Bench::spec(&source, RecordFormat::Rows)).await.error.unwrap();
    assert_eq!(Code::from(error.code), Code::FailedPrecondition);
    let expected = "pairs.jsonl:1 is a preference row and sft.json:1 a prompt-completion row";
    assert!(error.message.contains(expected), "{}", error.message);
}

#[tokio::test]
async fn a_broken_array_fails_with_its_file_and_place() {
    let mut bench = Bench::start().await;
    let source = bench.folder.path().join("a.json");
    let whole = format!("[{PAIR},\n{PAIR}]");
    fs::write(&source, &whole[..whole.len() - 3]).unwrap();
    let error = bench.ingest(Bench::spec(&source, RecordFormat::Rows)).await.error.unwrap();
    assert_eq!(Code::from(error.code), Code::DataLoss);
    assert!(error.message.contains("a.json is damaged: the array is not closed"), "{}", error.message);
    // A row too large is one of many.
    let long = format!("[{{\"prompt\": \"{}\"}}, {PAIR}]", "x".repeat(10_000));
    fs::write(&source, long).unwrap();
    let spec = SourceSpec { max_record_bytes: 5_000, ..Bench::spec(&source, RecordFormat::Rows) };
    let version = bench.ingest(spec).await;
    assert_eq!(bench.records(&version, "quarantined = true").await[0].reason, "RECORD_TOO_LARGE");
    assert_eq!(version.record_count, 1);
}

#[tokio::test]
async fn a_file_of_a_web_server_is_taken_from_the_cache_and_only_from_named_hosts() {
    let mut bench = Bench::with("https_hosts = [\"data.example\"]").await;
    let bytes = format!("[{PAIR}]");
    let sha256 = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&bytes));
    let cached = bench.folder.path().join("cache").join(&sha256[..16]);
    fs::create_dir_all(&cached).unwrap();
    fs::write(cached.join("pairs.json"), bytes).unwrap();
    let uri = "https://data.example/packages/pairs.json".to_owned();
    let spec = SourceSpec { uri, sha256, ..Bench::spec("/".as_ref(), RecordFormat::Rows) };
    let version = bench.ingest(spec.clone()).await;
    assert_eq!((version.state(), version.record_count), (State::Succeeded, 1), "{:?}", version.error);
    assert_eq!(bench.records(&version, "").await[0].origin, "pairs.json:1");
    let elsewhere = SourceSpec { uri: "https://internal.example/pairs.json".to_owned(), sha256: String::new(), ..spec };
    let status = bench.create(elsewhere).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    for part in ["spec.uri: internal.example is not among", "ingestion.https_hosts", "spec.sha256: "] {
        assert!(status.message().contains(part), "{part}: {}", status.message());
    }
}

/// The files of PyPI's `llamafactory`, where they were downloaded before: every row is read.
#[tokio::test]
async fn llama_factorys_files_are_read() {
    let home = std::env::var("HOME").unwrap_or_default();
    let path = std::path::Path::new(&home).join(".cache/tidemill/sources/llamafactory-0.9.5.tar.gz");
    if !path.is_file() {
        eprintln!("skipped: {} is not there", path.display());
        return;
    }
    let mut bench = Bench::start().await;
    for (file, row_type, rows) in [
        ("alpaca_en_demo.json", "prompt-completion", 999),
        ("alpaca_zh_demo.json", "prompt-completion", 1000),
        ("dpo_en_demo.json", "preference", 300),
        ("dpo_zh_demo.json", "preference", 300),
        ("kto_en_demo.json", "judged", 300),
        ("v1_sft_demo.jsonl", "conversation", 500),
        ("v1_dpo_demo.jsonl", "preference", 10),
        ("identity.json", "prompt-completion", 91),
    ] {
        let spec = SourceSpec {
            include: vec![format!("llamafactory-0.9.5/data/{file}")],
            ..Bench::spec(&path, RecordFormat::Rows)
        };
        let version = bench.ingest(spec).await;
        assert_eq!(version.state(), State::Succeeded, "{file}: {:?}", version.error);
        // Some rows stand in a file more than once; no other is refused.
        let refused = bench.records(&version, "quarantined = true").await;
        let unlike: Vec<_> = refused.iter().filter(|record| record.reason != "DUPLICATE").collect();
        assert_eq!((version.record_count + version.quarantined_count, unlike), (rows, vec![]), "{file}");
        let manifest = bench.platform.artifacts.manifest(&version.digest.parse().unwrap()).await.unwrap();
        assert_eq!(manifest.annotations["row_type"], row_type, "{file}");
    }
}
