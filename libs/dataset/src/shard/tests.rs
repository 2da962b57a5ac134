use std::collections::BTreeMap;

use super::*;
use crate::{Document, Fate, Quarantined, Record, RecordId, Split};

fn record(i: usize) -> Record {
    let metadata = BTreeMap::from([("year".into(), (1790 + i).to_string()), ("author".into(), "Größe".into())]);
    Record::new(format!("a/{i}.txt"), format!("text {i} \u{1F600}").repeat(100 + i), metadata)
}

fn write(folder: &Path, roll_bytes: usize, rows: impl Iterator<Item = Record>) -> Vec<String> {
    let mut writer = ShardWriter::rolling(folder, "part", roll_bytes).unwrap();
    for row in rows {
        writer.push(row).unwrap();
    }
    writer.finish().unwrap()
}

fn bytes(path: &Path) -> Bytes {
    std::fs::read(path).unwrap().into()
}

#[test]
fn what_was_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let names = write(folder.path(), SHARD_TEXT_BYTES, (0..3000).map(record));
    assert_eq!(names, ["part-00000.parquet"]);
    let path = folder.path().join(&names[0]);
    let read: Vec<Record> = read_file(&path).unwrap().map(Result::unwrap).collect();
    assert_eq!(read, (0..3000).map(record).collect::<Vec<_>>());
    assert_eq!(count_rows(bytes(&path), "part").unwrap(), 3000);
    assert_eq!(read_page::<Record>(bytes(&path), "part", 2998, 10).unwrap(), [record(2998), record(2999)]);
}

#[test]
fn a_full_disk_beneath_a_shard_is_told_as_that() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/full", folder.path().join("part-00000.parquet")).unwrap();
    let mut writer = ShardWriter::rolling(folder.path(), "part", SHARD_TEXT_BYTES).unwrap();
    writer.push(record(1)).unwrap();
    match writer.finish() {
        Err(Error::Io { path, source }) => {
            assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
            assert!(path.ends_with("part-00000.parquet"), "{path}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_kind_of_row_survives() {
    let folder = tempfile::tempdir().unwrap();
    let id = RecordId::of(b"x");
    let refused = Quarantined {
        origin: "a".into(),
        reason: "EMPTY".into(),
        detail: "d".into(),
        excerpt: "e".into(),
        size: u64::MAX,
    };
    let document = Document { id, text: "t".into() };
    let fate = |split| Fate { id, split, reason: "r".into(), detail: "d".into(), redacted_count: 1, token_count: 2 };
    fn trip<T: Row>(folder: &Path, rows: Vec<T>) -> Vec<T> {
        let mut writer = ShardWriter::create(folder).unwrap();
        rows.into_iter().for_each(|row| writer.push(row).unwrap());
        let names = writer.finish().unwrap();
        read_file(&folder.join(&names[0])).unwrap().map(Result::unwrap).collect()
    }
    assert_eq!(trip(&folder.path().join("q"), vec![refused.clone()]), [refused]);
    assert_eq!(trip(&folder.path().join("d"), vec![document.clone()]), [document]);
    let fates = vec![fate(None), fate(Some(Split::Train)), fate(Some(Split::Test))];
    assert_eq!(trip(&folder.path().join("f"), fates.clone()), fates);
}

#[test]
fn the_same_rows_give_the_same_bytes() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let names = write(a.path(), 100_000, (0..500).map(record));
    assert_eq!(names, write(b.path(), 100_000, (0..500).map(record)));
    assert!(names.len() > 3, "{names:?}");
    for name in names {
        assert_eq!(bytes(&a.path().join(&name)), bytes(&b.path().join(&name)));
    }
}

#[test]
fn shards_roll_by_bytes_of_text() {
    let folder = tempfile::tempdir().unwrap();
    let names = write(folder.path(), 10_000, (0..50).map(record));
    let mut read = Vec::new();
    for name in &names {
        let rows: Vec<Record> = read_file(&folder.path().join(name)).unwrap().map(Result::unwrap).collect();
        assert!(rows.len() == 1 || rows.iter().map(Row::text_bytes).sum::<usize>() <= 10_000);
        read.extend(rows);
    }
    assert_eq!(read, (0..50).map(record).collect::<Vec<_>>());
}

#[test]
fn no_rows_give_one_empty_shard() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(write(folder.path(), 1, std::iter::empty()), ["part-00000.parquet"]);
    assert_eq!(read_shard::<Record>(bytes(&folder.path().join("part-00000.parquet")), "x").unwrap().count(), 0);
}

#[test]
fn a_damaged_or_foreign_shard_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), SHARD_TEXT_BYTES, (0..100).map(record));
    let good = bytes(&folder.path().join("part-00000.parquet"));
    for cut in [0, 3, good.len() / 2, good.len() - 1] {
        let error = read_shard::<Record>(good.slice(..cut), "data/part-00000.parquet").err().unwrap();
        assert!(error.to_string().contains("data/part-00000.parquet"), "{error}");
    }
    let error = read_shard::<Document>(good.clone(), "x").err().unwrap();
    assert!(error.to_string().contains("expected [id"), "{error}");
    // A flipped byte in the pages is an error or other text, never a panic.
    for at in (4..good.len() - 8).step_by(97) {
        let mut bad = good.to_vec();
        bad[at] ^= 0x40;
        if let Ok(rows) = read_shard::<Record>(bad.into(), "x") {
            assert!(rows.count() <= 101);
        }
    }
}

#[test]
fn a_shard_made_in_memory_reads_like_one_on_disk() {
    let rows: Vec<Record> = (0..3000).map(record).collect();
    let shard = encode_shard(&rows).unwrap();
    assert_eq!(read_shard::<Record>(shard, "segment").unwrap().map(Result::unwrap).collect::<Vec<_>>(), rows);
    assert_eq!(count_rows(encode_shard::<Record>(&[]).unwrap(), "segment").unwrap(), 0);
}
