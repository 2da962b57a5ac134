//! S3 keeps the promises, below a prefix of each test's own. Runs where TIDEMILL_TEST_S3 is set.

use crate::{Artifacts, Digest, Error, contract};

macro_rules! promises {
    ($($promise:ident)*) => {
        mod promises {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                let Some(url) = url(stringify!($promise)) else { return };
                contract::$promise(&Artifacts::connect(&url).await.unwrap()).await;
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

/// The server's URL with a prefix of the test's own.
fn url(test: &str) -> Option<String> {
    let Ok(url) = std::env::var("TIDEMILL_TEST_S3") else {
        println!("skipped: s3 contract: TIDEMILL_TEST_S3 is not set; run make deps-up");
        return None;
    };
    let mark = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    Some(url.replacen('?', &format!("/deep/{test}-{mark}?"), 1))
}

#[tokio::test]
async fn prefixes_keep_apart() {
    let (Some(one), Some(two)) = (url("one"), url("two")) else { return };
    let (one, two) = (Artifacts::connect(&one).await.unwrap(), Artifacts::connect(&two).await.unwrap());
    let (digest, _) = one.put("abc").await.unwrap();
    one.claim("a", &digest).await.unwrap();
    assert_eq!(two.size(&digest).await.unwrap(), None);
    assert_eq!(two.list("").await.unwrap(), []);
}

#[tokio::test]
async fn a_missing_bucket_is_named_with_the_remedy() {
    let Some(url) = url("bucket") else { return };
    let url = url.replacen("s3://tidemill/", "s3://no-such-bucket/", 1);
    match Artifacts::connect(&url).await {
        Err(Error::Unavailable { reason, .. }) => {
            assert!(reason.contains("the bucket does not exist; create it"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn wrong_credentials_are_said_to_be_wrong() {
    let Some(url) = url("credentials") else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    std::fs::write(&file, "access_key_id=tidemill\nsecret_access_key=wrong-secret\n").unwrap();
    let (before, _) = url.split_once("credentials_file=").unwrap();
    match Artifacts::connect(&format!("{before}credentials_file={}", file.display())).await {
        Err(error @ Error::Denied { .. }) => {
            let text = error.to_string();
            assert!(text.contains("credentials") && !text.contains("wrong-secret"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_unavailable_within_its_bounds() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    std::fs::write(&file, "access_key_id=a\nsecret_access_key=b\n").unwrap();
    let url = format!("s3://bucket?endpoint=http://{address}&region=x&credentials_file={}", file.display());
    let begin = std::time::Instant::now();
    assert!(matches!(Artifacts::connect(&url).await, Err(Error::Unavailable { .. })));
    assert!(begin.elapsed() < super::RETRYING + super::CONNECT, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_strange_url_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    std::fs::write(&file, "secret_access_key=secret").unwrap();
    for (url, hint) in [
        ("s3://bucket?endpint=x".to_owned(), "endpoint, region"),
        ("s3:///prefix".to_owned(), "names no bucket"),
        ("s3://bucket?credentials_file=/does/not/exist".to_owned(), "/does/not/exist"),
        (format!("s3://bucket?credentials_file={}", file.display()), "access_key_id="),
    ] {
        let text = Artifacts::connect(&url).await.unwrap_err().to_string();
        assert!(text.contains(hint), "{text}");
    }
}

/// A digest is the same wherever it is stored.
#[tokio::test]
async fn large_files_have_the_digest_of_their_bytes() {
    let Some(url) = url("large") else { return };
    let artifacts = Artifacts::connect(&url).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large");
    let bytes: Vec<u8> = (0..50u32 << 20).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(&file, &bytes).unwrap();
    let (one, two) = tokio::join!(artifacts.put_file(&file), artifacts.put_file(&file));
    assert_eq!(one.unwrap(), (Digest::of(&bytes), bytes.len() as u64));
    two.unwrap();
    artifacts.verify(&Digest::of(&bytes)).await.unwrap();
}
