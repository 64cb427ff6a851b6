//! From the TLS sections of the configuration to rustls: certificates, keys, authorities.
//!
//! Reads files and builds configurations; opens no socket and shakes no hand.

mod client;
mod server;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub use client::{ClientConfigs, client_config};
pub use server::server_config;

use crate::config::{ClientTls, Secret, ServerTls};

/// Why a TLS configuration cannot be built; says which file and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct TlsError {
    /// The key of the configuration, and the file if it is one.
    place: String,
    reason: String,
}

// === impl TlsError ===

impl TlsError {
    /// The key of the `tls` section that is at fault, such as `certFile`.
    #[must_use]
    pub fn key(&self) -> &str {
        self.place.split(' ').next().unwrap_or_default()
    }
}

/// ALPN names, best first (RFC 7301).
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Makes ring the provider of everything in this process; a second call changes nothing.
pub fn install_provider() {
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
}

/// Everything that is wrong with a listener's files, each by itself before they are put together.
#[must_use]
pub fn server_faults(tls: &ServerTls) -> Vec<TlsError> {
    let client_ca = tls.client_ca.as_ref();
    let each = [
        certificates(&tls.cert, "cert").err(),
        private_key(&tls.key, "key").err(),
        client_ca.and_then(|ca| authorities(ca, "clientCa").err()),
    ];
    let faults: Vec<_> = each.into_iter().flatten().collect();
    if faults.is_empty() { server_config(tls).err().into_iter().collect() } else { faults }
}

/// Everything that is wrong with a route's files.
#[must_use]
pub fn client_faults(tls: &ClientTls) -> Vec<TlsError> {
    let each = [
        tls.ca.as_ref().and_then(|ca| authorities(ca, "ca").err()),
        tls.cert.as_ref().and_then(|cert| certificates(cert, "cert").err()),
        tls.key.as_ref().and_then(|key| private_key(key, "key").err()),
    ];
    let faults: Vec<_> = each.into_iter().flatten().collect();
    if faults.is_empty() { client_config(tls).err().into_iter().collect() } else { faults }
}

/// The bytes of a secret as they are now.
///
/// # Errors
/// When its file cannot be read.
pub fn read(secret: &Secret, key: &str) -> Result<Vec<u8>, TlsError> {
    match secret {
        Secret::Inline(text) => Ok(text.as_bytes().to_vec()),
        Secret::File(path) => std::fs::read(path)
            .map_err(|error| fault(secret, key, format!("cannot be read: {error}"))),
    }
}

fn fault(secret: &Secret, key: &str, reason: impl ToString) -> TlsError {
    let place = match secret {
        Secret::Inline(_) => key.to_owned(),
        Secret::File(path) => format!("{key}File {}", Path::display(path)),
    };
    TlsError { place, reason: reason.to_string() }
}

fn certificates(secret: &Secret, key: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(secret, key)?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| fault(secret, key, format!("is not PEM: {error}")))?;
    if chain.is_empty() {
        let reason = "has no certificate; it must have a block `-----BEGIN CERTIFICATE-----`";
        return Err(fault(secret, key, reason));
    }
    Ok(chain)
}

fn private_key(secret: &Secret, key: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = read(secret, key)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        let reason = format!("has no private key ({error}); write PKCS #8, PKCS #1 or SEC1 as PEM");
        fault(secret, key, reason)
    })
}

fn authorities(secret: &Secret, key: &str) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(secret, key)? {
        store
            .add(certificate)
            .map_err(|error| fault(secret, key, format!("has an unusable authority: {error}")))?;
    }
    Ok(Arc::new(store))
}

/// The system's authorities, read once: a store without any only means that no public name is trusted.
fn system_authorities() -> Arc<RootCertStore> {
    static STORE: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let load = || {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "cannot read the system's authorities");
        }
        let mut store = RootCertStore::empty();
        let (_, unusable) = store.add_parsable_certificates(found.certs);
        tracing::debug!(authorities = store.len(), unusable, "read the system's authorities");
        Arc::new(store)
    };
    Arc::clone(STORE.get_or_init(load))
}
