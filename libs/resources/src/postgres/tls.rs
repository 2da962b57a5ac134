//! What the modes of `sslmode` verify.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

type Error = Box<dyn std::error::Error>;

/// Accepts whoever answers: against those who listen, not against those who stand in between.
pub(super) fn unverified() -> Result<ClientConfig, Error> {
    dangerous(None)
}

/// The certificate must be signed by an authority of ours; its name may be another.
pub(super) fn verify_ca(roots: Option<Vec<u8>>) -> Result<ClientConfig, Error> {
    let roots = Arc::new(authorities(roots)?);
    dangerous(Some(WebPkiServerVerifier::builder_with_provider(roots, provider()).build()?))
}

/// The certificate must be signed by an authority of ours, for the host that was asked for.
pub(super) fn verify_full(roots: Option<Vec<u8>>) -> Result<ClientConfig, Error> {
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(authorities(roots)?).with_no_client_auth())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The authorities of a PEM file, or else those that this machine trusts.
fn authorities(pem: Option<Vec<u8>>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    match pem {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                roots.add(certificate.map_err(|error| format!("sslrootcert: {error}"))?)?;
            }
            if roots.is_empty() {
                return Err("sslrootcert: the file holds no certificate in PEM form".into());
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(roots)
}

fn dangerous(chain: Option<Arc<WebPkiServerVerifier>>) -> Result<ClientConfig, Error> {
    let algorithms = provider().signature_verification_algorithms;
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let verifier = Arc::new(AnyName { chain, algorithms });
    Ok(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Verifies the chain, if there are authorities to verify it with, and whatever the name is.
#[derive(Debug)]
struct AnyName {
    chain: Option<Arc<WebPkiServerVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last, when the chain was found good.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use super::*;

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    #[test]
    fn verify_ca_takes_any_name_that_an_authority_of_ours_has_signed() {
        let (ours, other) = (authority(), authority());
        let key = KeyPair::generate().unwrap();
        let sign = |authority: &CertifiedIssuer<'_, KeyPair>| {
            CertificateParams::new(vec!["elsewhere".to_owned()]).unwrap().signed_by(&key, authority).unwrap()
        };
        let roots = Arc::new(authorities(Some(ours.pem().into_bytes())).unwrap());
        let chain = WebPkiServerVerifier::builder_with_provider(roots, provider()).build().unwrap();
        let verifier = AnyName { chain: Some(chain), algorithms: provider().signature_verification_algorithms };
        let verify = |certificate: &rcgen::Certificate| {
            let name = ServerName::try_from("here").unwrap();
            verifier.verify_server_cert(certificate.der(), &[], &name, &[], UnixTime::now())
        };
        verify(&sign(&ours)).unwrap();
        // The other authority has the same name, and another key.
        let refused = verify(&sign(&other)).unwrap_err();
        assert!(matches!(refused, rustls::Error::InvalidCertificate(CertificateError::BadSignature)), "{refused:?}");
    }
}
