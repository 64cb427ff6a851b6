//! The server's side: our certificate, and whose client certificates we ask for.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;

use super::{ALPN, TlsError, authorities, certificates, fault, private_key};
use crate::config::ServerTls;

/// A configuration from what stands in the files now.
///
/// # Errors
/// Names the file that cannot be used.
pub fn server_config(tls: &ServerTls) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(&tls.cert, "cert")?;
    let key = private_key(&tls.key, "key")?;
    let builder = ServerConfig::builder();
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let verifier = WebPkiClientVerifier::builder(authorities(ca, "clientCa")?);
            let verifier =
                if tls.require_client_cert { verifier } else { verifier.allow_unauthenticated() };
            let verifier = verifier.build().map_err(|error| fault(ca, "clientCa", error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| fault(&tls.cert, "cert", format!("does not fit the key: {error}")))?;
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}
