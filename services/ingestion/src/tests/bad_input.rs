use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::{Compression, write::GzEncoder};
use tidemill_proto::ingestion::v1::*;
use tidemill_proto::r#type::v1::{KafkaOptions, RecordFormat, SourceSpec, State};
use tonic::Code;

use super::bench::Bench;

fn reasons(records: &[Record]) -> Vec<(&str, &str)> {
    records.iter().map(|record| (record.origin.as_str(), record.reason.as_str())).collect()
}

fn error(version: &DatasetVersion) -> (Code, &str) {
    assert_eq!(version.state(), State::Failed);
    let error = version.error.as_ref().unwrap();
    (Code::from(error.code), &error.message)
}

pub(super) fn tgz(path: &Path, files: &[(&str, &[u8])]) {
    let mut archive = tar::Builder::new(GzEncoder::new(fs::File::create(path).unwrap(), Compression::fast()));
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, *bytes).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap();
}

#[tokio::test]
async fn unusable_files_are_quarantined_with_the_reason() {
    let mut bench = Bench::start().await;
    let source = bench.folder.path().join("texts");
    fs::create_dir_all(source.join("sub")).unwrap();
    fs::write(source.join("a.txt"), "A text.").unwrap();
    fs::write(source.join("b-same.txt"), "A text.").unwrap();
    fs::write(source.join("c-latin1.txt"), b"caf\xe9").unwrap();
    fs::write(source.join("d-binary.txt"), (0..=255u8).collect::<Vec<_>>()).unwrap();
    fs::write(source.join("e-empty.txt"), " \n\t").unwrap();
    fs::write(source.join("f-large.txt"), "x".repeat(2_000)).unwrap();
    fs::write(source.join("g-utf16.txt"), b"\xff\xfea\0").unwrap();
    fs::write(source.join("sub/h.txt"), "Another text.").unwrap();
    fs::write(source.join("z.md"), "not included").unwrap();
    std::os::unix::fs::symlink("/nowhere", source.join("i-dangling.txt")).unwrap();
    let include = vec!["*.txt".to_owned(), "sub/**".to_owned()];
    let spec = SourceSpec { include, max_record_bytes: 1_000, ..Bench::spec(&source, RecordFormat::Text) };
    let version = bench.ingest(spec).await;
    assert_eq!(version.state(), State::Succeeded, "{:?}", version.error);
    assert_eq!((version.record_count, version.quarantined_count, version.text_bytes), (2, 7, 20));
    let kept = bench.records(&version, "").await;
    assert_eq!(kept.iter().map(|record| record.origin.as_str()).collect::<Vec<_>>(), ["a.txt", "sub/h.txt"]);
    let refused = bench.records(&version, "quarantined = true").await;
    let expected = [
        ("b-same.txt", "DUPLICATE"),
        ("c-latin1.txt", "INVALID_UTF8"),
        ("d-binary.txt", "BINARY"),
        ("e-empty.txt", "EMPTY"),
        ("f-large.txt", "RECORD_TOO_LARGE"),
        ("g-utf16.txt", "BINARY"),
        ("i-dangling.txt", "UNREADABLE"),
    ];
    assert_eq!(reasons(&refused), expected);
    assert_eq!(refused[0].detail, "the same text as a.txt");
    assert_eq!(refused[1].detail, "byte 3 (0xe9) is not valid UTF-8");
    assert!(refused[5].detail.contains("UTF-16"));
    assert_eq!(refused[4].text_bytes, 2_000);
}

#[tokio::test]
async fn broken_lines_are_quarantined_with_their_numbers() {
    let mut bench = Bench::start().await;
    let source = bench.folder.path().join("rows.jsonl");
    let lines: [&[u8]; 8] = [
        br#"{"text": "one", "year": 1790, "good": true, "nested": {"a": 1}, "author": "GW"}"#,
        b"{\"text\": \"half",
        b"",
        b"[1, 2]",
        br#"{"txt": "no text"}"#,
        b"{\"text\": \"\xff\"}",
        br#"{"text": "  "}"#,
        br#"{"text": "two"}"#,
    ];
    fs::write(&source, lines.join(&b"\n"[..])).unwrap();
    let version = bench.ingest(Bench::spec(&source, RecordFormat::Jsonl)).await;
    let kept = bench.records(&version, "").await;
    assert_eq!(kept.iter().map(|r| r.origin.as_str()).collect::<Vec<_>>(), ["rows.jsonl:1", "rows.jsonl:8"]);
    let metadata = [("author", "GW"), ("good", "true"), ("year", "1790")];
    assert_eq!(kept[0].metadata, metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    let refused = bench.records(&version, "quarantined=true").await;
    let expected = [
        ("rows.jsonl:2", "MALFORMED_JSON"),
        ("rows.jsonl:4", "MALFORMED_JSON"),
        ("rows.jsonl:5", "MALFORMED_JSON"),
        ("rows.jsonl:6", "INVALID_UTF8"),
        ("rows.jsonl:7", "EMPTY"),
    ];
    assert_eq!(reasons(&refused), expected);
}

/// The process' largest memory so far, in bytes.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn a_line_of_one_gibibyte_is_quarantined_in_little_memory() {
    let mut bench = Bench::start().await;
    let source = bench.folder.path().join("huge.jsonl");
    let mut file = fs::File::create(&source).unwrap();
    file.write_all(b"{\"text\": \"before\"}\n{\"text\": \"").unwrap();
    // Sparse: the line is 1 GiB long and needs no disk.
    let start = file.metadata().unwrap().len();
    file.set_len(start + (1 << 30)).unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(&source).unwrap();
    file.write_all(b"\n{\"text\": \"after\"}\n").unwrap();
    let before = peak_memory();
    let version = bench.ingest(Bench::spec(&source, RecordFormat::Jsonl)).await;
    let grown = peak_memory() - before;
    assert_eq!((version.record_count, version.quarantined_count), (2, 1), "{:?}", version.error);
    let refused = bench.records(&version, "quarantined = true").await;
    assert_eq!(reasons(&refused), [("huge.jsonl:2", "RECORD_TOO_LARGE")]);
    assert_eq!(refused[0].text_bytes, (1 << 30) + 10);
    assert!(grown < 400 << 20, "reading took {} MiB", grown >> 20);
}

#[tokio::test]
async fn a_missing_source_fails_by_name() {
    let mut bench = Bench::start().await;
    let version = bench.ingest(Bench::spec(Path::new("/nowhere/at-all"), RecordFormat::Text)).await;
    let (code, message) = error(&version);
    assert_eq!(code, Code::NotFound);
    assert!(message.contains("file:///nowhere/at-all does not exist"), "{message}");
}

#[tokio::test]
async fn an_empty_source_fails_as_empty() {
    let mut bench = Bench::start().await;
    let source = bench.folder.path().join("empty");
    fs::create_dir(&source).unwrap();
    let version = bench.ingest(Bench::spec(&source, RecordFormat::Text)).await;
    let (code, message) = error(&version);
    assert_eq!(code, Code::FailedPrecondition);
    assert!(message.contains("is empty: no usable record: no file was found"), "{message}");
    fs::write(source.join("a"), "").unwrap();
    fs::write(source.join("b"), b"\xff").unwrap();
    let version = bench.ingest(Bench::spec(&source, RecordFormat::Text)).await;
    assert!(error(&version).1.contains("among 2 refused (1 EMPTY, 1 INVALID_UTF8)"), "{}", error(&version).1);
}

#[tokio::test]
async fn another_checksum_is_named_with_both_values() {
    let mut bench = Bench::start().await;
    let source = bench.folder.path().join("a.txt");
    fs::write(&source, "text").unwrap();
    let expected = "0".repeat(64);
    let spec = SourceSpec { sha256: expected.clone(), ..Bench::spec(&source, RecordFormat::Text) };
    let version = bench.ingest(spec).await;
    let (code, message) = error(&version);
    assert_eq!(code, Code::FailedPrecondition);
    let found = "982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1";
    assert!(message.contains(&expected) && message.contains(found), "{message}");
}

#[tokio::test]
async fn a_damaged_archive_fails_as_damaged() {
    let mut bench = Bench::start().await;
    let good = bench.folder.path().join("good.tgz");
    let noise: Vec<u8> =
        (0..200_000u32).flat_map(|i| format!("{:x} ", i.wrapping_mul(2_654_435_761)).into_bytes()).collect();
    tgz(&good, &[("a.txt", b"a"), ("b.txt", &noise)]);
    let bytes = fs::read(&good).unwrap();
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 0xff;
    for (name, bytes) in [
        ("cut.tgz", &bytes[..bytes.len() / 2]),
        ("cut-checksum.tgz", &bytes[..bytes.len() - 4]),
        ("flipped.tgz", &flipped),
        ("text.tgz", b"this is no archive"),
    ] {
        let path = bench.folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let version = bench.ingest(Bench::spec(&path, RecordFormat::Text)).await;
        let (code, message) = error(&version);
        assert_eq!(code, Code::DataLoss, "{name}: {message}");
        assert!(message.contains(name) && message.contains("is damaged"), "{message}");
    }
}

#[tokio::test]
async fn a_decompression_bomb_is_stopped() {
    let mut bench = Bench::with("max_unpacked_bytes = 1000000").await;
    let path = bench.folder.path().join("bomb.tgz");
    tgz(&path, &[("zeros", &vec![b'0'; 5_000_000])]);
    let version = bench.ingest(Bench::spec(&path, RecordFormat::Jsonl)).await;
    let (code, message) = error(&version);
    assert_eq!(code, Code::FailedPrecondition);
    assert!(message.contains("unpacks to more than 1000000 bytes"), "{message}");
}

#[tokio::test]
async fn every_wrong_field_is_named_at_once() {
    let mut bench = Bench::start().await;
    let spec = SourceSpec {
        uri: "ftp://x".to_owned(),
        sha256: "xyz".to_owned(),
        include: vec!["ok".to_owned(), "[".to_owned()],
        metadata_pattern: "(".to_owned(),
        max_record_bytes: -1,
        ..SourceSpec::default()
    };
    let data_source = Some(DataSource { spec: Some(spec), ..DataSource::default() });
    let status = bench
        .client
        .create_data_source(CreateDataSourceRequest { data_source, ..Default::default() })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    for field in
        ["uri", "sha256", "include[1]", "format", "metadata_pattern", "license", "consent_basis", "max_record_bytes"]
    {
        assert!(status.message().contains(&format!("data_source.spec.{field}: ")), "{field}: {}", status.message());
    }
}

#[tokio::test]
async fn every_wrong_field_of_a_topic_is_named_at_once() {
    let mut bench = Bench::with("kafka_files_dir = \"/etc/tidemill/kafka\"").await;
    let topic = |query: &str| SourceSpec {
        uri: format!("kafka://127.0.0.1:1/docs{query}"),
        format: RecordFormat::Json.into(),
        ..Bench::spec("/".as_ref(), RecordFormat::Json)
    };
    let mut wrong = async |spec: SourceSpec| {
        let data_source = Some(DataSource { spec: Some(spec), ..DataSource::default() });
        let request = CreateDataSourceRequest { data_source, ..Default::default() };
        let status = bench.client.create_data_source(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        status.message().to_owned()
    };
    let kafka = KafkaOptions { text_field: "a..b".to_owned(), envelope: 7, ..KafkaOptions::default() };
    let for_files = SourceSpec {
        sha256: "0".repeat(64),
        include: vec!["*".to_owned()],
        metadata_pattern: "x".to_owned(),
        license: String::new(),
        kafka: Some(kafka),
        ..topic("?colour=blue")
    };
    let said = wrong(for_files).await;
    for field in ["uri", "sha256", "include", "metadata_pattern", "license", "kafka.text_field", "kafka.envelope"] {
        assert!(said.contains(&format!("data_source.spec.{field}: ")), "{field}: {said}");
    }
    assert!(wrong(SourceSpec { uri: "kafka://127.0.0.1:1".to_owned(), ..topic("") }).await.contains("name the topic"));
    assert!(
        wrong(SourceSpec { kafka: None, format: RecordFormat::Jsonl.into(), ..topic("") })
            .await
            .contains("spec.format: ")
    );
    // A file that is not for Kafka could be sent to whoever's server the uri names.
    for file in ["/etc/shadow", "/etc/tidemill/kafka/../keys", "/etc/tidemill/kafka%2f..%2fkeys", "keys"] {
        let said = wrong(topic(&format!("?security_protocol=ssl&ssl_ca_file={file}"))).await;
        assert!(said.contains("ssl_ca_file should be a file below /etc/tidemill/kafka"), "{said}");
    }
}
