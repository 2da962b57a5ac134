//! Both embedded adapters keep the promises; what only a folder on a disk can show comes after.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::*;
use crate::Manifest;
use crate::contract;

macro_rules! promises {
    ($($promise:ident)*) => {
        mod promises_of_folder {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                let (_folder, artifacts) = super::folder().await;
                super::contract::$promise(&artifacts).await;
            })*
        }
        mod promises_of_memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                super::contract::$promise(&super::Artifacts::connect("memory:").await.unwrap()).await;
            })*
        }
    };
}

promises! {
    what_was_put_is_read_back
    what_is_missing_is_named
    the_same_bytes_may_be_put_by_many
    ranges_are_exact
    a_deleted_blob_is_gone
    a_manifest_comes_last
    a_blob_is_no_manifest
    a_folder_comes_out_as_it_went_in
    a_damaged_copy_is_fetched_anew
    a_file_is_fetched_whole
    a_reference_never_moves
    of_many_claims_one_wins
    references_are_listed_in_order
    a_strange_reference_is_refused
}

async fn folder() -> (tempfile::TempDir, Artifacts) {
    let folder = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::connect(&format!("file://{}", folder.path().display())).await.unwrap();
    (folder, artifacts)
}

fn blob(folder: &tempfile::TempDir, digest: &Digest) -> PathBuf {
    folder.path().join(blob_key(digest).as_ref())
}

#[tokio::test]
async fn damage_is_named_wherever_it_is_read() {
    let (folder, artifacts) = folder().await;
    let from = tempfile::tempdir().unwrap();
    std::fs::write(from.path().join("model.safetensors"), "weights").unwrap();
    let whole = artifacts.put_directory(from.path(), "model", Vec::new(), BTreeMap::new()).await.unwrap();
    let digest = Digest::of("weights");
    std::fs::write(blob(&folder, &digest), "weightz").unwrap();
    let to = from.path().join("to");
    let errors = [
        artifacts.get(&digest).await.map(drop),
        artifacts.verify(&digest).await,
        artifacts.fetch(&digest, &to).await,
        artifacts.fetch_directory(&whole, &to).await.map(drop),
        artifacts.verify_directory(&whole).await.map(drop),
        artifacts.get_entry(&whole, "model.safetensors").await.map(drop),
    ];
    for (index, error) in errors.into_iter().enumerate() {
        let error = error.unwrap_err();
        assert!(matches!(&error, Error::Mismatch { found, .. } if *found == Digest::of("weightz")), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&digest.to_string()) && text.contains("restore it from a backup"), "{text}");
        if index >= 3 {
            assert!(text.contains(&format!("file model.safetensors of artifact {whole}")), "{text}");
        }
    }
    assert!(!to.exists());
    assert_eq!(std::fs::read_dir(from.path()).unwrap().count(), 1, "a temporary file was left");
}

#[tokio::test]
async fn a_shortened_blob_is_not_taken_for_stored() {
    let (folder, artifacts) = folder().await;
    let (digest, _) = artifacts.put("0123456789").await.unwrap();
    std::fs::write(blob(&folder, &digest), "01234").unwrap();
    assert!(matches!(artifacts.put("0123456789").await, Err(Error::Mismatch { .. })));
    artifacts.delete_blob(&digest).await.unwrap();
    artifacts.put("0123456789").await.unwrap();
    assert_eq!(artifacts.get(&digest).await.unwrap(), "0123456789");
}

#[tokio::test]
async fn a_damaged_manifest_or_reference_is_named() {
    let (folder, artifacts) = folder().await;
    let manifest = Manifest { kind: "test".to_owned(), ..Manifest::default() };
    let digest = artifacts.put_manifest(&manifest).await.unwrap();
    std::fs::write(blob(&folder, &digest), "{}").unwrap();
    let text = artifacts.manifest(&digest).await.unwrap_err().to_string();
    assert!(text.contains(&format!("manifest {digest} is damaged")), "{text}");
    artifacts.claim("a/b", &digest).await.unwrap();
    std::fs::write(folder.path().join("refs/a/b.ref"), "sha256:12").unwrap();
    let text = artifacts.resolve("a/b").await.unwrap_err().to_string();
    assert!(text.contains("reference a/b"), "{text}");
}

#[tokio::test]
async fn what_is_stored_survives_a_new_connection() {
    let (folder, artifacts) = folder().await;
    let (digest, _) = artifacts.put("abc").await.unwrap();
    artifacts.claim("a", &digest).await.unwrap();
    drop(artifacts);
    let artifacts = Artifacts::connect(&format!("file://{}", folder.path().display())).await.unwrap();
    assert_eq!(artifacts.resolve("a").await.unwrap(), Some(digest));
    assert_eq!(artifacts.get(&digest).await.unwrap(), "abc");
}

#[tokio::test]
async fn what_a_killed_writer_left_is_never_seen_and_swept_when_it_is_old() {
    let (folder, artifacts) = folder().await;
    let digest = Digest::of("half written");
    let staged = |number: u32| PathBuf::from(format!("{}#{number}", blob(&folder, &digest).display()));
    let half_claimed = folder.path().join("refs/a.ref#1");
    for file in [&staged(1), &staged(2), &half_claimed] {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "half").unwrap();
    }
    let old = SystemTime::now() - Duration::from_secs(2 * 3600);
    std::fs::File::options().write(true).open(staged(1)).unwrap().set_modified(old).unwrap();
    assert_eq!(artifacts.size(&digest).await.unwrap(), None);
    assert_eq!(artifacts.resolve("a").await.unwrap(), None);
    assert_eq!(artifacts.list("").await.unwrap(), []);
    artifacts.put("half written").await.unwrap();
    assert_eq!(artifacts.get(&digest).await.unwrap(), "half written");
    Artifacts::connect(&format!("file://{}", folder.path().display())).await.unwrap();
    assert!(!staged(1).exists(), "an old one is left");
    assert!(staged(2).exists(), "one that may still be written to was swept");
    assert!(blob(&folder, &digest).exists());
}

#[tokio::test]
async fn a_file_that_is_given_away_becomes_the_blob() {
    use std::os::unix::fs::MetadataExt;
    let (folder, artifacts) = folder().await;
    let given = folder.path().join("given");
    std::fs::create_dir(&given).unwrap();
    std::fs::write(given.join("file"), b"large").unwrap();
    let inode = std::fs::metadata(given.join("file")).unwrap().ino();
    let (digest, size) = artifacts.take_file(&given.join("file")).await.unwrap();
    assert_eq!((size, artifacts.get(&digest).await.unwrap().as_ref()), (5, b"large".as_slice()));
    assert_eq!(std::fs::metadata(blob(&folder, &digest)).unwrap().ino(), inode, "it was copied");
    assert!(!given.join("file").exists());
    // What is there already stays as it is; other stores, and other disks, take a copy.
    std::fs::write(given.join("file"), b"large").unwrap();
    assert_eq!(artifacts.take_file(&given.join("file")).await.unwrap().0, digest);
    assert_eq!(std::fs::metadata(blob(&folder, &digest)).unwrap().ino(), inode);
    let other = Artifacts::connect("memory:").await.unwrap();
    assert_eq!(other.take_file(&given.join("file")).await.unwrap().0, digest);
    let manifest = artifacts.take_directory(&given, "model", vec![], Default::default()).await.unwrap();
    assert_eq!(artifacts.verify_directory(&manifest).await.unwrap().entries[0].path, "file");
}

#[tokio::test]
async fn a_fetched_file_is_readable_by_others() {
    let (folder, artifacts) = folder().await;
    let (digest, _) = artifacts.put("abc").await.unwrap();
    let to = folder.path().join("copy");
    artifacts.fetch(&digest, &to).await.unwrap();
    assert_eq!(std::fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o644);
}

#[tokio::test]
async fn a_missing_file_or_folder_is_named() {
    let (folder, artifacts) = folder().await;
    let missing = folder.path().join("missing");
    let directory = artifacts.put_directory(&missing, "test", Vec::new(), BTreeMap::new()).await.map(drop);
    for error in [artifacts.put_file(&missing).await.map(drop), directory] {
        let text = error.unwrap_err().to_string();
        assert!(text.contains("missing"), "{text}");
    }
}

#[tokio::test]
async fn a_url_that_cannot_be_opened_is_named_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    for (url, hint) in [
        ("http://bucket".to_owned(), "file:///path/to/folder"),
        ("file://relative".to_owned(), "absolute"),
        (format!("file://{}", file.display()), "file"),
    ] {
        let text = Artifacts::connect(&url).await.unwrap_err().to_string();
        assert!(text.contains(&url) && text.contains(hint), "{text}");
    }
}

/// Needs a file system that is full: /dev/full is one for writes, and stands in for what the store reads its sources through.
#[test]
fn a_full_disk_is_recognised_beneath_the_stores_errors() {
    use std::io::Write;
    let source = std::fs::File::options().write(true).open("/dev/full").unwrap().write_all(b"x").unwrap_err();
    let error = object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(source) };
    assert!(matches!(Error::store("file:///data", "artifact x", error), Error::DiskFull(url) if url == "file:///data"));
}
