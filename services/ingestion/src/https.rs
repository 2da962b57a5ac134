//! Files of web servers: of the hosts that the settings name, over TLS only, and without following a server elsewhere.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use futures::StreamExt;
use reqwest::{StatusCode, Url, redirect::Policy};
use tokio::io::AsyncWriteExt;

use crate::{download::Place, error::Error, settings::IngestionSettings, watch::Watch};

/// Digits of the sha256 that tell files of one name apart in the cache.
const DIGITS: usize = 16;

/// Whether sources may be on a url's host.
pub(crate) fn allowed(settings: &IngestionSettings, url: &Url) -> Result<(), String> {
    let host = url.host_str().unwrap_or_default();
    if settings.https_hosts.iter().any(|allowed| allowed == host) {
        return Ok(());
    }
    Err(format!(
        "{host} is not among the hosts of the setting ingestion.https_hosts: {}",
        settings.https_hosts.join(", ")
    ))
}

/// The file in the cache, verified.
pub(crate) async fn fetch(
    settings: &IngestionSettings,
    cache: &Path,
    url: &Url,
    sha256: &str,
    watch: &Watch,
) -> Result<PathBuf, Error> {
    let uri = url.as_str();
    allowed(settings, url).map_err(|detail| Error::Forbidden { uri: uri.to_owned(), detail })?;
    let name = url.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or("file");
    let folder = sha256.get(..DIGITS).unwrap_or(sha256).to_ascii_lowercase();
    let place = Place { path: cache.join(folder).join(name), uri, sha256, watch };
    if let Some(path) = place.found().await? {
        return Ok(path);
    }
    let folder = place.beside()?;
    let file = folder.path().join("part");
    get(url, &file, settings.max_unpacked_bytes, settings.download_timeout(), watch).await?;
    place.take(&file).await
}

/// Gets a file of at most `most` bytes.
async fn get(url: &Url, to: &Path, most: u64, patience: Duration, watch: &Watch) -> Result<(), Error> {
    let failed = |error: reqwest::Error| {
        // The cause is what helps: "error sending request" does not.
        let mut cause: &dyn std::error::Error = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        Error::Download { uri: url.to_string(), detail: cause.to_string() }
    };
    let client = reqwest::Client::builder().redirect(Policy::none()).timeout(patience).build().map_err(failed)?;
    let response = client.get(url.clone()).send().await.map_err(failed)?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND | StatusCode::GONE => return Err(Error::Missing { uri: url.to_string() }),
        status => return Err(Error::Download { uri: url.to_string(), detail: format!("the server answers {status}") }),
    }
    watch.phase("downloading", "bytes", response.content_length().unwrap_or(0));
    let mut file = tokio::fs::File::create(to).await.map_err(|error| Error::file(to, error))?;
    let (mut body, mut written) = (response.bytes_stream(), 0);
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(failed)?;
        watch.check()?;
        watch.advance(piece.len() as u64);
        written += piece.len() as u64;
        if written > most {
            return Err(Error::TooLarge { uri: url.to_string(), limit: most });
        }
        file.write_all(&piece).await.map_err(|error| Error::file(to, error))?;
    }
    file.flush().await.map_err(|error| Error::file(to, error))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio_util::sync::CancellationToken;

    use super::*;

    /// A server that gives one answer, whatever it is asked.
    async fn answered(answer: &'static str) -> Result<Vec<u8>, Error> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/a.json", listener.local_addr().unwrap())).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _asked = stream.read(&mut [0; 4096]).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let folder = tempfile::tempdir().unwrap();
        let (file, watch) = (folder.path().join("a"), Watch::new(CancellationToken::new(), |_| {}));
        let got = get(&url, &file, 10, Duration::from_secs(10), &watch).await;
        server.await.unwrap();
        got.map(|()| std::fs::read(&file).unwrap())
    }

    #[tokio::test]
    async fn a_file_is_taken_and_what_is_none_is_said() {
        assert_eq!(answered("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]").await.unwrap(), b"[]");
        let elsewhere = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/x\r\ncontent-length: 0\r\n\r\n";
        for (answer, part) in [
            ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "does not exist"),
            (elsewhere, "the server answers 302"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n12345678901", "more than 10 bytes"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n12", "cannot be downloaded"),
        ] {
            let error = answered(answer).await.unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
