//! The client's side: whom we trust, and who we are.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{
    ALPN, TlsError, authorities, certificates, fault, private_key, read, system_authorities,
};
use crate::config::ClientTls;

/// The configurations of one route.
#[derive(Clone, Debug)]
pub struct ClientConfigs {
    /// Offers HTTP/2 and HTTP/1.1.
    pub any: Arc<ClientConfig>,
    /// Offers HTTP/1.1 only, for what HTTP/2 cannot carry: upgrades.
    pub http1: Arc<ClientConfig>,
    /// Of the files' contents: equal for equal trust and identity.
    pub print: u64,
}

/// Configurations from what stands in the files now.
///
/// # Errors
/// Names the file that cannot be used.
pub fn client_config(tls: &ClientTls) -> Result<ClientConfigs, TlsError> {
    let trust = match &tls.ca {
        Some(ca) if tls.system_too => {
            let mut both = RootCertStore::clone(&*authorities(ca, "ca")?);
            both.extend(system_authorities().roots.iter().cloned());
            Arc::new(both)
        }
        Some(ca) => authorities(ca, "ca")?,
        None => system_authorities(),
    };
    let builder = ClientConfig::builder();
    let builder = if tls.insecure_skip_verify {
        let provider = Arc::clone(builder.crypto_provider());
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
    } else if trust.is_empty() {
        builder.with_root_certificates(trust)
    } else {
        let verifier = WebPkiServerVerifier::builder(trust)
            .build()
            .map_err(|error| TlsError { place: "ca".to_owned(), reason: error.to_string() })?;
        builder.with_webpki_verifier(verifier)
    };
    let mut config = match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => {
            let (chain, private) = (certificates(cert, "cert")?, private_key(key, "key")?);
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|error| fault(cert, "cert", format!("does not fit the key: {error}")))?
        }
        _ => builder.with_no_client_auth(),
    };
    let mut http1 = config.clone();
    http1.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    Ok(ClientConfigs { any: Arc::new(config), http1: Arc::new(http1), print: print(tls)? })
}

fn print(tls: &ClientTls) -> Result<u64, TlsError> {
    let mut hasher = DefaultHasher::new();
    for (secret, key) in [(&tls.ca, "ca"), (&tls.cert, "cert"), (&tls.key, "key")] {
        secret.as_ref().map(|secret| read(secret, key)).transpose()?.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

/// Takes any certificate (`insecureSkipVerify`); the signatures of the handshake are still checked.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

// === impl Anyone ===

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
