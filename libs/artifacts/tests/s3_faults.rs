//! What callers of the artifact store see while S3 fails, is slow, or breaks off. Runs where TIDEMILL_TEST_S3 is set.

use std::time::{Duration, Instant};

use tidemill_artifacts::{Artifacts, Digest, Error};
use tidemill_faults::{Fault, Proxy};

/// The server by way of a proxy, and without, below a prefix of the test's own.
async fn proxied(test: &str) -> Option<(Proxy, String, Artifacts)> {
    let Ok(url) = std::env::var("TIDEMILL_TEST_S3") else {
        println!("skipped: s3 faults: TIDEMILL_TEST_S3 is not set; run make deps-up");
        return None;
    };
    let mark =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970").as_nanos();
    let url = url.replacen('?', &format!("/{test}-{mark}?"), 1);
    let (_, rest) = url.split_once("endpoint=http://").expect("an endpoint without TLS");
    let place = rest.split('&').next().expect("the first part of a text");
    let proxy = Proxy::start(place.parse().expect("an address with a port")).await;
    let by_proxy = url.replace(place, &proxy.address().to_string());
    Some((proxy, by_proxy, Artifacts::connect(&url).await.expect("the server")))
}

fn bytes(size: u32) -> Vec<u8> {
    (0..size).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_answers_500_a_few_times_is_asked_again() {
    let Some((proxy, url, direct)) = proxied("500").await else { return };
    proxy.set(Fault::Http500(3));
    let artifacts = Artifacts::connect(&url).await.unwrap();
    assert_eq!(proxy.fault(), Fault::None);
    let again = async || proxy.set_anew(Fault::Http500(3)).await;
    again().await;
    let (digest, _) = artifacts.put("abc").await.unwrap();
    assert_eq!(direct.get(&digest).await.unwrap(), "abc");
    again().await;
    assert_eq!(artifacts.get(&digest).await.unwrap(), "abc");
    again().await;
    artifacts.claim("a", &digest).await.unwrap();
    assert_eq!(direct.resolve("a").await.unwrap(), Some(digest));
    let folder = tempfile::tempdir().unwrap();
    let (file, large) = (folder.path().join("large"), bytes(40 << 20));
    std::fs::write(&file, &large).unwrap();
    again().await;
    let (digest, _) = artifacts.put_file(&file).await.unwrap();
    direct.verify(&digest).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_keeps_answering_500_is_unavailable_within_its_bounds() {
    let Some((proxy, url, _)) = proxied("down").await else { return };
    let artifacts = Artifacts::connect(&url).await.unwrap();
    proxy.set_anew(Fault::Http500(1000)).await;
    let begin = Instant::now();
    match artifacts.put("abc").await {
        Err(Error::Unavailable { reason, .. }) => assert!(reason.contains("500"), "{reason}"),
        other => panic!("{other:?}"),
    }
    println!("unavailable after {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    proxy.heal();
    artifacts.put("abc").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_off_is_resumed_or_an_error_and_never_taken_for_whole() {
    let Some((proxy, url, direct)) = proxied("cut").await else { return };
    let artifacts = Artifacts::connect(&url).await.unwrap();
    let large = bytes(3 << 20);
    let (digest, _) = direct.put(large.clone()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("file");
    for most in [100_000, 1_500_000] {
        proxy.set_anew(Fault::Cut(most)).await;
        match artifacts.get(&digest).await {
            Ok(whole) => assert!(whole == large),
            Err(Error::Unavailable { .. }) => println!("cut after {most} bytes: unavailable"),
            Err(error) => panic!("{error}"),
        }
        match artifacts.fetch(&digest, &to).await {
            Ok(()) => assert!(std::fs::read(&to).unwrap() == large),
            Err(Error::Unavailable { .. }) => assert!(!to.exists(), "half a file is there"),
            Err(error) => panic!("{error}"),
        }
    }
    proxy.heal();
    artifacts.fetch(&digest, &to).await.unwrap();
    assert_eq!(Digest::of(std::fs::read(&to).unwrap()), digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_server_is_waited_for() {
    let Some((proxy, url, direct)) = proxied("slow").await else { return };
    let artifacts = Artifacts::connect(&url).await.unwrap();
    proxy.set(Fault::Delay(Duration::from_millis(100)));
    let large = bytes(1 << 20);
    let (digest, _) = artifacts.put(large.clone()).await.unwrap();
    assert!(artifacts.get(&digest).await.unwrap() == large);
    direct.verify(&digest).await.unwrap();
}
