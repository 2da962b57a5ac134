//! Mutual TLS from files that may change: each new connection uses what the files hold then, so that certificates are rotated
//! without a restart. A pair that does not fit (half of it written) leaves the former one in use.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// How long what was read is used before the files are looked at again.
const LOOK: Duration = Duration::from_secs(1);

/// What a listener shows, and what it asks of callers.
#[derive(Clone, Debug)]
pub(crate) struct ServerTls(Arc<Reloaded<ServerConfig>>);

/// What a caller trusts, and what it shows.
#[derive(Clone, Debug)]
pub struct ClientTls(Arc<Reloaded<ClientConfig>>);

impl ServerTls {
    /// TLS with this certificate; with `client_ca` callers must show one that it has signed.
    ///
    /// # Errors
    /// A file that cannot be read, or does not hold what it should.
    pub(crate) fn new(certificate: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Self, String> {
        let files = [Some(certificate), Some(key), client_ca].into_iter().flatten().map(Path::to_owned).collect();
        let (certificate, key, client_ca) = (certificate.to_owned(), key.to_owned(), client_ca.map(Path::to_owned));
        let read = move || {
            let builder = match &client_ca {
                Some(ca) => {
                    let verifier = WebPkiClientVerifier::builder(Arc::new(roots(ca)?)).build();
                    let verifier = verifier.map_err(|error| format!("{}: {error}", ca.display()))?;
                    ServerConfig::builder().with_client_cert_verifier(verifier)
                }
                None => ServerConfig::builder().with_no_client_auth(),
            };
            let config = builder.with_single_cert(certificates(&certificate)?, private_key(&key)?);
            let mut config =
                config.map_err(|error| format!("{} and {}: {error}", certificate.display(), key.display()))?;
            config.alpn_protocols = vec![b"h2".to_vec()];
            Ok(config)
        };
        Reloaded::new(files, read).map(|reloaded| Self(Arc::new(reloaded)))
    }

    /// Greets a caller.
    pub(crate) async fn accept(&self, stream: TcpStream) -> std::io::Result<server::TlsStream<TcpStream>> {
        TlsAcceptor::from(self.0.current()).accept(stream).await
    }
}

impl ClientTls {
    /// Trusts servers that `ca` has signed, and shows a certificate where a pair of files is given.
    ///
    /// # Errors
    /// A file that cannot be read, or does not hold what it should.
    pub fn new(ca: &Path, own: Option<(&Path, &Path)>) -> Result<Self, String> {
        let mut files = vec![ca.to_owned()];
        files.extend(own.iter().flat_map(|(certificate, key)| [certificate.to_path_buf(), key.to_path_buf()]));
        let (ca, own) = (ca.to_owned(), own.map(|(certificate, key)| (certificate.to_owned(), key.to_owned())));
        let read = move || {
            let builder = ClientConfig::builder().with_root_certificates(roots(&ca)?);
            let mut config = match &own {
                Some((certificate, key)) => builder
                    .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
                    .map_err(|error| format!("{} and {}: {error}", certificate.display(), key.display()))?,
                None => builder.with_no_client_auth(),
            };
            config.alpn_protocols = vec![b"h2".to_vec()];
            Ok(config)
        };
        Reloaded::new(files, read).map(|reloaded| Self(Arc::new(reloaded)))
    }

    /// Greets a server that must have a certificate for `host`.
    pub(crate) async fn connect(&self, host: &str, stream: TcpStream) -> Result<client::TlsStream<TcpStream>, String> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| format!("{host}: {error}"))?;
        let greeted = TlsConnector::from(self.0.current()).connect(name, stream).await;
        greeted.map_err(|error| format!("TLS: {error}"))
    }
}

/// Something made of files, made anew when they change.
struct Reloaded<T> {
    files: Vec<PathBuf>,
    read: Box<dyn Fn() -> Result<T, String> + Send + Sync>,
    present: Mutex<Present<T>>,
}

struct Present<T> {
    made: Arc<T>,
    stamps: Vec<Option<SystemTime>>,
    looked: SystemTime,
}

impl<T> Reloaded<T> {
    fn new(files: Vec<PathBuf>, read: impl Fn() -> Result<T, String> + Send + Sync + 'static) -> Result<Self, String> {
        let stamps = stamps(&files);
        let present = Present { made: Arc::new(read()?), stamps, looked: SystemTime::now() };
        Ok(Self { files, read: Box::new(read), present: Mutex::new(present) })
    }

    fn current(&self) -> Arc<T> {
        let mut present = self.present.lock().expect("no holder of this lock panics");
        let now = SystemTime::now();
        if now.duration_since(present.looked).is_ok_and(|age| age < LOOK) {
            return present.made.clone();
        }
        present.looked = now;
        let stamps = stamps(&self.files);
        if stamps != present.stamps {
            match (self.read)() {
                Ok(made) => {
                    tracing::info!(files = ?self.files, "certificates were read anew");
                    (present.made, present.stamps) = (Arc::new(made), stamps);
                }
                // Looked at again in a moment: the stamps stay the old ones.
                Err(reason) => tracing::warn!(reason, "the new certificates cannot be used; the former ones stay"),
            }
        }
        present.made.clone()
    }
}

impl<T> std::fmt::Debug for Reloaded<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reloaded").field("files", &self.files).finish_non_exhaustive()
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<SystemTime>> {
    files.iter().map(|file| std::fs::metadata(file).and_then(|meta| meta.modified()).ok()).collect()
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error| format!("{} holds no certificate in PEM: {error}", path.display());
    let read = CertificateDer::pem_file_iter(path).map_err(wrong)?.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    if read.is_empty() { Err(format!("{} holds no certificate in PEM", path.display())) } else { Ok(read) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|error| format!("{} holds no private key in PEM: {error}", path.display()))
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests;
