//! The handshake of a TLS listener, with the certificate of the moment.
//!
//! Knows no HTTP. Changed files arrive through [`Acceptor::replace`]; connections that stand keep what they began
//! with.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::socket::Tcp;

/// Shakes hands.
#[derive(Debug)]
pub struct Acceptor(ArcSwap<ServerConfig>);

// === impl Acceptor ===

impl Acceptor {
    /// With this configuration.
    #[must_use]
    pub fn new(config: Arc<ServerConfig>) -> Self {
        Self(ArcSwap::new(config))
    }

    /// With another one, from the next handshake on.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        self.0.store(config);
    }

    /// One handshake within `deadline`.
    ///
    /// # Errors
    /// When the client is too slow, speaks no TLS, or brings a certificate that is not trusted.
    pub async fn accept(&self, stream: Tcp, deadline: Duration) -> io::Result<TlsStream<Tcp>> {
        let acceptor = TlsAcceptor::from(self.0.load_full());
        let handshake = tokio::time::timeout(deadline, acceptor.accept(stream));
        handshake.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}
