//! One client connection: who it is, and the task that serves it.
//!
//! Plain data that every request of the connection shares. Knows no request, no route and no backend.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};

use http::HeaderValue;
use tokio::task::AbortHandle;

/// Whatever has to live as long as the connection.
pub type Place = Box<dyn Any + Send + Sync>;

/// One client connection.
#[derive(Debug)]
pub struct Connection {
    /// The client's address; on a socket for both families an IPv4 client has an IPv4 one.
    pub peer: SocketAddr,
    /// The same for access lines, and without its port for `x-forwarded-for`: made once.
    pub peer_text: Box<str>,
    /// See `peer_text`.
    pub forwarded_for: HeaderValue,
    /// Whether it came through TLS.
    pub is_tls: bool,
    /// Name of the listener it came on.
    pub listener: Arc<str>,
    /// Requests of this connection whose body or answer has not ended; each exchange and each body
    /// counts itself.
    pub open: Arc<AtomicUsize>,
    /// Those of them whose response has not ended, while their body may have.
    pub unanswered: AtomicUsize,
    /// Its place among the connections, which a tunnel keeps.
    pub place: Option<Place>,
}

// === impl Connection ===

impl Connection {
    /// A connection without requests.
    #[must_use]
    pub fn new(peer: SocketAddr, is_tls: bool, listener: Arc<str>, place: Option<Place>) -> Self {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let ip = peer.ip().to_string();
        // An address has no byte that a field may not have.
        let forwarded_for =
            HeaderValue::try_from(ip).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        let peer_text = peer.to_string().into();
        Self {
            peer,
            peer_text,
            forwarded_for,
            is_tls,
            listener,
            open: Arc::default(),
            unanswered: AtomicUsize::new(0),
            place,
        }
    }

    /// `http` or `https`.
    #[must_use]
    pub const fn scheme(&self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }
}

/// The task that a request lives in, as far as it is known: the connection in HTTP/1, the stream in HTTP/2.
#[derive(Clone, Debug, Default)]
pub struct ConnTask(Arc<OnceLock<AbortHandle>>);

// === impl ConnTask ===

impl ConnTask {
    /// Says what it is; once.
    pub fn set(&self, task: AbortHandle) {
        let _said_already = self.0.set(task);
    }

    /// Ends it at once.
    pub fn cut(&self) {
        if let Some(task) = self.0.get() {
            task.abort();
        }
    }
}
