use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join("ca.pem");
        std::fs::write(&path, self.0.pem()).unwrap();
        path
    }

    /// A certificate for `localhost`, and its key, in two files.
    fn sign(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let (at, key_at) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        std::fs::write(&at, certificate.pem()).unwrap();
        std::fs::write(&key_at, key.serialize_pem()).unwrap();
        (at, key_at)
    }
}

/// One connection: the certificate that the server showed, or why there was none.
async fn meet(server: &ServerTls, client: &ClientTls) -> Result<Vec<u8>, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = server.clone();
    let accepted = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = server.accept(stream).await.map_err(|error| error.to_string())?;
        stream.write_all(b"hello").await.map_err(|error| error.to_string())?;
        stream.shutdown().await.map_err(|error| error.to_string())
    });
    let stream = TcpStream::connect(address).await.unwrap();
    let mut stream = client.connect("localhost", stream).await?;
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    let mut text = String::new();
    // In TLS 1.3 a client learns at its first read that its certificate was refused.
    stream.read_to_string(&mut text).await.map_err(|error| error.to_string())?;
    accepted.await.unwrap()?;
    assert_eq!(text, "hello");
    Ok(shown)
}

/// Files get a newer time than before, and the moment in which nobody looks passes.
async fn later() {
    tokio::time::sleep(LOOK * 2).await;
}

#[tokio::test]
async fn both_sides_must_be_known() {
    let folder = TempDir::new().unwrap();
    let (ours, theirs) = (Authority::new(), Authority::new());
    let ca = ours.write(folder.path());
    let (certificate, key) = ours.sign(folder.path(), "server");
    let (client_certificate, client_key) = ours.sign(folder.path(), "client");
    let (stranger, stranger_key) = theirs.sign(folder.path(), "stranger");
    let server = ServerTls::new(&certificate, &key, Some(&ca)).unwrap();
    meet(&server, &ClientTls::new(&ca, Some((&client_certificate, &client_key))).unwrap()).await.unwrap();
    meet(&server, &ClientTls::new(&ca, None).unwrap()).await.expect_err("a caller without a certificate");
    let unknown = ClientTls::new(&ca, Some((&stranger, &stranger_key))).unwrap();
    meet(&server, &unknown).await.expect_err("a caller that somebody else has signed");
    let impostor = ServerTls::new(&stranger, &stranger_key, None).unwrap();
    let error = meet(&impostor, &ClientTls::new(&ca, None).unwrap()).await.unwrap_err();
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test]
async fn certificates_are_rotated_without_a_restart() {
    let folder = TempDir::new().unwrap();
    let authority = Authority::new();
    let ca = authority.write(folder.path());
    let (certificate, key) = authority.sign(folder.path(), "server");
    let server = ServerTls::new(&certificate, &key, None).unwrap();
    let client = ClientTls::new(&ca, None).unwrap();
    let first = meet(&server, &client).await.unwrap();
    later().await;
    // Half of a pair: the former one stays in use.
    let (_, former_key) = (std::fs::read(&certificate).unwrap(), std::fs::read(&key).unwrap());
    authority.sign(folder.path(), "server");
    let new_key = std::fs::read(&key).unwrap();
    std::fs::write(&key, former_key).unwrap();
    later().await;
    assert_eq!(meet(&server, &client).await.unwrap(), first);
    std::fs::write(&key, new_key).unwrap();
    later().await;
    assert_ne!(meet(&server, &client).await.unwrap(), first);
}

#[test]
fn a_file_without_what_it_should_hold_is_named() {
    let folder = TempDir::new().unwrap();
    let (certificate, key) = Authority::new().sign(folder.path(), "server");
    let error = ServerTls::new(&key, &certificate, None).unwrap_err();
    assert!(error.contains("server.key holds no certificate"), "{error}");
    let error = ServerTls::new(&certificate, &folder.path().join("none"), None).unwrap_err();
    assert!(error.contains("none holds no private key"), "{error}");
}
