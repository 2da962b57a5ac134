//! The promises of an artifact store, one function each; every adapter is held to them. Each takes an empty store.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;

use crate::{Artifacts, Digest, Entry, Error, Manifest};

/// What was put is read back, under the sha256 that everybody computes.
pub async fn what_was_put_is_read_back(artifacts: &Artifacts) {
    let (digest, size) = artifacts.put("abc").await.expect("put");
    assert_eq!((digest, size), (Digest::of("abc"), 3));
    assert_eq!(artifacts.get(&digest).await.expect("get"), "abc");
    assert_eq!(artifacts.size(&digest).await.expect("size"), Some(3));
    artifacts.verify(&digest).await.expect("verify");
    let (empty, size) = artifacts.put("").await.expect("put nothing");
    assert_eq!(size, 0);
    assert_eq!(artifacts.get(&empty).await.expect("get nothing"), "");
}

/// What is not there is said to be missing, by its digest.
pub async fn what_is_missing_is_named(artifacts: &Artifacts) {
    let digest = Digest::of("never stored");
    assert_eq!(artifacts.size(&digest).await.expect("size"), None);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("file");
    let errors = [
        artifacts.get(&digest).await.map(drop),
        artifacts.get_range(&digest, 0..1).await.map(drop),
        artifacts.verify(&digest).await,
        artifacts.manifest(&digest).await.map(drop),
        artifacts.fetch(&digest, &file).await,
        artifacts.fetch_directory(&digest, &file).await.map(drop),
    ];
    for error in errors {
        match error {
            Err(Error::NotFound(what)) => assert!(what.contains(&digest.to_string()), "{what}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(!file.exists());
}

/// Many may store the same bytes at once, and again.
pub async fn the_same_bytes_may_be_put_by_many(artifacts: &Artifacts) {
    let bytes = Bytes::from(vec![7; 300_000]);
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (artifacts, bytes) = (artifacts.clone(), bytes.clone());
        writers.spawn(async move { artifacts.put(bytes).await.expect("put").0 });
    }
    let digests = writers.join_all().await;
    assert!(digests.iter().all(|digest| *digest == Digest::of(&bytes)));
    assert_eq!(artifacts.get(&digests[0]).await.expect("get"), bytes);
}

/// Parts of a blob are read by range; a range beyond its end is an error.
pub async fn ranges_are_exact(artifacts: &Artifacts) {
    let (digest, _) = artifacts.put("0123456789").await.expect("put");
    assert_eq!(artifacts.get_range(&digest, 2..5).await.expect("range"), "234");
    assert_eq!(artifacts.get_range(&digest, 0..10).await.expect("range"), "0123456789");
    assert_eq!(artifacts.get_range(&digest, 10..10).await.expect("range"), "");
    for range in [5..11, 11..12] {
        assert!(
            matches!(artifacts.get_range(&digest, range).await, Err(Error::Invalid { field, .. }) if field == "range")
        );
    }
}

/// A deleted blob is gone, and may be put again.
pub async fn a_deleted_blob_is_gone(artifacts: &Artifacts) {
    let (digest, _) = artifacts.put("abc").await.expect("put");
    artifacts.delete_blob(&digest).await.expect("delete");
    artifacts.delete_blob(&digest).await.expect("delete again");
    assert_eq!(artifacts.size(&digest).await.expect("size"), None);
    artifacts.put("abc").await.expect("put again");
    assert_eq!(artifacts.get(&digest).await.expect("get"), "abc");
}

/// A manifest is refused while something that it lists is missing or has another size.
pub async fn a_manifest_comes_last(artifacts: &Artifacts) {
    let entry = Entry { path: "a".to_owned(), digest: Digest::of("abc"), size: 3 };
    let mut manifest = Manifest { kind: "test".to_owned(), entries: vec![entry], ..Manifest::default() };
    let refused = async |manifest: &Manifest| match artifacts.put_manifest(manifest).await {
        Err(Error::Invalid { field, .. }) => assert_eq!(field, "entries[\"a\"]"),
        other => panic!("{other:?}"),
    };
    refused(&manifest).await;
    artifacts.put("abc").await.expect("put");
    manifest.entries[0].size = 4;
    refused(&manifest).await;
    manifest.entries[0].size = 3;
    let digest = artifacts.put_manifest(&manifest).await.expect("put_manifest");
    assert_eq!(digest, manifest.digest().expect("digest"));
    assert_eq!(artifacts.manifest(&digest).await.expect("manifest"), manifest);
}

/// What is not a manifest is not taken for one.
pub async fn a_blob_is_no_manifest(artifacts: &Artifacts) {
    let (digest, _) = artifacts.put("{}").await.expect("put");
    match artifacts.manifest(&digest).await {
        Err(Error::Corrupt { what, .. }) => assert!(what.contains(&digest.to_string()), "{what}"),
        other => panic!("{other:?}"),
    }
}

/// A folder comes out as it went in, with the same digest from every copy of it, large files included.
pub async fn a_folder_comes_out_as_it_went_in(artifacts: &Artifacts) {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let (from, to) = (temporary.path().join("from"), temporary.path().join("deep/to"));
    // One file is above the size at which files are sent in parts.
    let large: Vec<u8> = (0..40u32 << 20).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    write(&from, "b.txt", b"b");
    write(&from, "a/large.bin", &large);
    write(&from, "a/empty", b"");
    let annotations = BTreeMap::from([("license".to_owned(), "CC0".to_owned())]);
    let parents = vec![Digest::of("parent")];
    let digest =
        artifacts.put_directory(&from, "test", parents.clone(), annotations.clone()).await.expect("put_directory");
    let manifest = artifacts.fetch_directory(&digest, &to).await.expect("fetch_directory");
    assert_eq!((&*manifest.kind, &manifest.parents, &manifest.annotations), ("test", &parents, &annotations));
    let paths: Vec<&str> = manifest.entries.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["a/empty", "a/large.bin", "b.txt"]);
    assert_eq!(std::fs::read(to.join("b.txt")).expect("b.txt"), b"b");
    assert_eq!(std::fs::read(to.join("a/empty")).expect("a/empty"), b"");
    assert!(std::fs::read(to.join("a/large.bin")).expect("a/large.bin") == large);
    let again = artifacts.put_directory(&to, "test", parents, annotations).await.expect("put_directory again");
    assert_eq!(again, digest);
    assert_eq!(artifacts.get_entry(&digest, "b.txt").await.expect("get_entry"), "b");
    artifacts.verify_directory(&digest).await.expect("verify_directory");
}

/// A folder that was fetched before is kept if it is right, and replaced if it is not; nothing else is left beside it.
pub async fn a_damaged_copy_is_fetched_anew(artifacts: &Artifacts) {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let (from, to) = (temporary.path().join("from"), temporary.path().join("to"));
    write(&from, "a", b"right");
    let digest = artifacts.put_directory(&from, "test", Vec::new(), BTreeMap::new()).await.expect("put_directory");
    artifacts.fetch_directory(&digest, &to).await.expect("fetch_directory");
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).expect("metadata"));
    let first = inode(&to);
    artifacts.fetch_directory(&digest, &to).await.expect("fetch_directory again");
    assert_eq!(inode(&to), first);
    write(&to, "a", b"wrong");
    write(&to, "stray", b"");
    artifacts.fetch_directory(&digest, &to).await.expect("fetch_directory over a damaged copy");
    assert_eq!(std::fs::read(to.join("a")).expect("a"), b"right");
    let mut left: Vec<_> =
        std::fs::read_dir(temporary.path()).expect("list").flatten().map(|e| e.file_name()).collect();
    left.sort();
    assert_eq!(left, ["from", "to"]);
    assert_eq!(std::fs::read_dir(&to).expect("list").count(), 1);
}

/// A file is fetched whole, replacing one that is there.
pub async fn a_file_is_fetched_whole(artifacts: &Artifacts) {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let file = temporary.path().join("deep/file");
    let (digest, _) = artifacts.put("abc").await.expect("put");
    artifacts.fetch(&digest, &file).await.expect("fetch");
    assert_eq!(artifacts.put_file(&file).await.expect("put_file"), (digest, 3));
    write(temporary.path(), "deep/file", b"something longer");
    artifacts.fetch(&digest, &file).await.expect("fetch again");
    assert_eq!(std::fs::read(&file).expect("file"), b"abc");
    assert_eq!(std::fs::read_dir(file.parent().expect("parent")).expect("list").count(), 1);
}

/// A reference is given once: the same again is fine, another digest is refused, and what is released may be given anew.
pub async fn a_reference_never_moves(artifacts: &Artifacts) {
    let (one, two) = (Digest::of("1"), Digest::of("2"));
    assert_eq!(artifacts.resolve("a/b").await.expect("resolve"), None);
    artifacts.claim("a/b", &one).await.expect("claim");
    artifacts.claim("a/b", &one).await.expect("claim again");
    match artifacts.claim("a/b", &two).await {
        Err(Error::AlreadyExists { name, present }) => assert_eq!((&*name, present), ("a/b", one)),
        other => panic!("{other:?}"),
    }
    assert_eq!(artifacts.resolve("a/b").await.expect("resolve"), Some(one));
    artifacts.release("a/b").await.expect("release");
    artifacts.release("a/b").await.expect("release again");
    artifacts.claim("a/b", &two).await.expect("claim anew");
    assert_eq!(artifacts.resolve("a/b").await.expect("resolve"), Some(two));
}

/// Many claim one name for different digests at once: exactly one wins.
pub async fn of_many_claims_one_wins(artifacts: &Artifacts) {
    let mut racers = tokio::task::JoinSet::new();
    for racer in 0..16u8 {
        let artifacts = artifacts.clone();
        racers.spawn(async move {
            let digest = Digest::of([racer]);
            match artifacts.claim("race", &digest).await {
                Ok(()) => Some(digest),
                Err(Error::AlreadyExists { .. }) => None,
                Err(error) => panic!("{error:?}"),
            }
        });
    }
    let winners: Vec<Digest> = racers.join_all().await.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1, "{winners:?}");
    assert_eq!(artifacts.resolve("race").await.expect("resolve"), winners.first().copied());
}

/// References are listed by the beginning of their names, sorted; a name may also begin other names.
pub async fn references_are_listed_in_order(artifacts: &Artifacts) {
    let names =
        ["checkpoints/j/0000000010", "checkpoints/j", "checkpoints/j/0000000002", "checkpoints/jk/1", "results/j"];
    for name in names {
        artifacts.claim(name, &Digest::of(name)).await.expect("claim");
    }
    let list = async |prefix: &str| -> Vec<String> {
        let listed = artifacts.list(prefix).await.expect("list");
        assert!(listed.iter().all(|(name, digest)| *digest == Digest::of(name)));
        listed.into_iter().map(|(name, _)| name).collect()
    };
    assert_eq!(list("checkpoints/j/").await, ["checkpoints/j/0000000002", "checkpoints/j/0000000010"]);
    assert_eq!(list("checkpoints/j/00000000").await, ["checkpoints/j/0000000002", "checkpoints/j/0000000010"]);
    assert_eq!(list("checkpoints/j").await.len(), 4);
    assert_eq!(list("").await.len(), names.len());
    assert_eq!(list("nothing/").await, Vec::<String>::new());
}

/// Names that could leave their place are refused.
pub async fn a_strange_reference_is_refused(artifacts: &Artifacts) {
    for name in ["", "/a", "a/", "a//b", "../a", "a/./b", "a b", "a#1", "ä", "a.ref"] {
        match artifacts.claim(name, &Digest::of("1")).await {
            Err(Error::Invalid { field, .. }) => assert_eq!(field, "name"),
            other => panic!("{name:?}: {other:?}"),
        }
    }
}

fn write(folder: &Path, path: &str, bytes: &[u8]) {
    let file = folder.join(path);
    std::fs::create_dir_all(file.parent().expect("parent")).expect("create folder");
    std::fs::write(file, bytes).expect("write file");
}
