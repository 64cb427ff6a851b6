//! Opens one connection to one endpoint: TCP, TLS and the HTTP handshake under one deadline.
//!
//! The handshake of HTTP/2 ends with the backend's SETTINGS: from then on it is sure that the backend
//! speaks it, and how many streams it takes.
//!
//! Knows nothing of pools or requests.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use super::faults::{HeadLimits, is_malformed, is_tls};
use super::greeting::{Greeted, Greeting};
use super::h1::Connection;
use super::h1::io::Io;
use super::lent::Lent;
use super::parting::Parting;
use crate::config::{Scheme, Target};
use crate::socket::{Tcp, reserve};
use crate::tls::ClientConfigs;

/// Streams at once on one HTTP/2 connection.
pub const MAX_STREAMS: usize = 100;
/// What hyper says of the streams before the backend's SETTINGS; they cannot say this (RFC 9113 section
/// 6.5.1: 32 bits).
const UNKNOWN: usize = usize::MAX - 1;
/// Unread bytes of one stream, and of all of its connection: more than all streams together may have,
/// so that a client that does not read stops its own stream only.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 32 * 1024 * 1024;

/// A sender of either protocol.
#[derive(Debug)]
pub enum Sender {
    /// One request at a time.
    Http1(Box<Connection>),
    /// Many streams.
    Http2(Http2),
}

/// A sender of HTTP/2; each clone counts as one stream.
#[derive(Clone, Debug)]
pub struct Http2 {
    /// Hyper's.
    pub sender: http2::SendRequest<Lent>,
    /// Shared by all streams: how many the backend takes at once.
    limit: Arc<AtomicUsize>,
}

// === impl Http2 ===

impl Http2 {
    /// Whether another stream fits: the backend's limit, and one of ours so that no slow reader holds
    /// up the others of its connection.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.streams() < self.limit.load(Ordering::Relaxed).min(MAX_STREAMS)
    }

    /// Streams in flight.
    #[must_use]
    pub fn streams(&self) -> usize {
        // The pool's own clone is none.
        Arc::strong_count(&self.limit) - 1
    }

    /// What tells this connection from others, and is no stream.
    #[must_use]
    pub fn id(&self) -> Weak<AtomicUsize> {
        Arc::downgrade(&self.limit)
    }

    /// Whether it is this connection.
    #[must_use]
    pub fn is(&self, id: &Weak<AtomicUsize>) -> bool {
        Weak::as_ptr(id) == Arc::as_ptr(&self.limit)
    }
}

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// Refused, unreachable or reset: usually nothing listens there (yet).
    #[error("cannot connect to {0}: {1}")]
    Io(SocketAddr, #[source] Arc<io::Error>),
    /// No answer in time: usually the pod is gone and its address with it.
    #[error("no connection to {0} within {1:?}")]
    Timeout(SocketAddr, Duration),
    /// The name of the target cannot be in a certificate.
    #[error("{0:?} is no name for TLS; set serverName")]
    Name(String),
    /// TCP stands, TLS does not: usually the certificate is not trusted or for another name, or the
    /// port speaks plain text.
    #[error("TLS handshake with {1} ({0}) failed: {2}")]
    Tls(SocketAddr, Box<str>, #[source] Arc<io::Error>),
    /// TCP stands, HTTP does not: usually the wrong scheme.
    #[error("HTTP handshake with {0} failed: {1}")]
    Handshake(SocketAddr, #[source] Arc<hyper::Error>),
}

// === impl ConnectError ===

impl ConnectError {
    fn io(address: SocketAddr, error: io::Error) -> Self {
        Self::Io(address, Arc::new(error))
    }

    /// Whether it is for want of something of our own, a descriptor, a port or memory: that says nothing of the
    /// backend.
    #[must_use]
    pub fn is_our_own(&self) -> bool {
        const OURS: [i32; 5] =
            [libc::EMFILE, libc::ENFILE, libc::EADDRNOTAVAIL, libc::ENOBUFS, libc::ENOMEM];
        let Self::Io(_, error) = self else { return false };
        error.raw_os_error().is_some_and(|code| OURS.contains(&code))
    }

    fn handshake(address: SocketAddr, error: hyper::Error) -> Self {
        Self::Handshake(address, Arc::new(error))
    }
}

/// The client's side of TLS, replaced when its files change.
#[derive(Debug)]
pub struct Tls {
    configs: ArcSwap<ClientConfigs>,
    server_name: Option<String>,
}

// === impl Tls ===

impl Tls {
    /// With these configurations; `server_name` instead of the target's host.
    #[must_use]
    pub fn new(configs: ClientConfigs, server_name: Option<String>) -> Self {
        Self { configs: ArcSwap::from_pointee(configs), server_name }
    }

    /// With others, from the next dial on; whether they differ from those before.
    pub fn replace(&self, configs: ClientConfigs) -> bool {
        let print = configs.print;
        self.configs.swap(Arc::new(configs)).print != print
    }
}

/// What is dialled.
#[derive(Clone, Copy, Debug)]
pub struct Dial<'a> {
    /// Where.
    pub address: SocketAddr,
    /// What was configured.
    pub target: &'a Target,
    /// For `https` targets.
    pub tls: Option<&'a Tls>,
    /// What responses may measure.
    pub heads: HeadLimits,
    /// The request cannot travel over HTTP/2.
    pub http1: bool,
}

/// Dials and shakes hands.
///
/// # Errors
/// [`ConnectError`]; nothing of a request has been consumed.
pub async fn open(dial: Dial<'_>, deadline: Duration) -> Result<Sender, ConnectError> {
    tokio::time::timeout(deadline, connect(dial))
        .await
        .unwrap_or(Err(ConnectError::Timeout(dial.address, deadline)))
}

async fn connect(dial: Dial<'_>) -> Result<Sender, ConnectError> {
    let address = dial.address;
    let stream = reserve::connect(address).await.map_err(|e| ConnectError::io(address, e))?;
    let stream = Tcp::new(stream).map_err(|e| ConnectError::io(address, e))?;
    match dial.tls {
        Some(tls) => Box::pin(secure(dial, tls, stream)).await,
        None if dial.target.scheme == Scheme::H2c => {
            Box::pin(speak_http2(stream, address, dial.heads)).await.map(Sender::Http2)
        }
        None => Ok(speak_http1(Io::Plain(stream), dial.heads)),
    }
}

async fn secure(dial: Dial<'_>, tls: &Tls, stream: Tcp) -> Result<Sender, ConnectError> {
    let address = dial.address;
    let name = tls.server_name.as_ref().unwrap_or(&dial.target.host);
    let configs = tls.configs.load_full();
    let config = if dial.http1 { &configs.http1 } else { &configs.any };
    let server = ServerName::try_from(name.clone());
    let server = server.map_err(|_| ConnectError::Name(name.clone()))?;
    let stream = TlsConnector::from(Arc::clone(config))
        .connect(server, stream)
        .await
        .map_err(|error| ConnectError::Tls(address, name.as_str().into(), Arc::new(error)))?;
    let stream = Box::new(stream);
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        return Box::pin(speak_http2(stream, address, dial.heads)).await.map(Sender::Http2);
    }
    Ok(speak_http1(Io::Tls(stream), dial.heads))
}

/// HTTP/1.1 begins without a handshake.
pub(super) fn speak_http1(io: Io, heads: HeadLimits) -> Sender {
    Sender::Http1(Box::new(Connection::new(io, heads)))
}

/// The HTTP/2 handshake; the connection lives in a task of its own from then on.
pub(super) async fn speak_http2<I>(
    stream: I,
    address: SocketAddr,
    heads: HeadLimits,
) -> Result<Http2, ConnectError>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let greeting = Greeting::default();
    let stream = Parting::new(Greeted::new(stream, greeting.clone()), MAX_STREAMS);
    let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_max_send_streams(UNKNOWN)
        .max_header_list_size(heads.list_size())
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| ConnectError::handshake(address, error))?;
    let limit = Arc::new(AtomicUsize::new(UNKNOWN));
    // Weak, for each strong one is a stream.
    let told = Arc::downgrade(&limit);
    let (greet, greeted) = oneshot::channel();
    tokio::spawn(async move {
        let mut greet = Some(greet);
        let ended = poll_fn(|cx| {
            greeting.register(cx.waker());
            let polled = Pin::new(&mut connection).poll(cx);
            let streams = connection.current_max_send_streams();
            if streams != UNKNOWN {
                if let Some(limit) = told.upgrade() {
                    limit.store(streams, Ordering::Relaxed);
                }
                if let Some(greet) = greet.take() {
                    greeting.over();
                    // Whoever dialled may be gone.
                    let _ = greet.send(Ok(()));
                }
            }
            polled
        })
        .await;
        match (ended, greet) {
            (Ok(()), _) => {}
            // Whoever dialled may be gone.
            (Err(error), Some(greet)) => drop(greet.send(Err(error))),
            (Err(error), None) => tracing::debug!(%address, %error, "upstream connection ended"),
        }
    });
    match greeted.await {
        Ok(Ok(())) => Ok(Http2 { sender, limit }),
        Ok(Err(error)) if is_malformed(&error) || is_tls(&error) => {
            Err(ConnectError::handshake(address, error))
        }
        // It accepted and closed: as good as refused.
        Ok(Err(error)) => Err(ConnectError::io(address, io::Error::other(error))),
        Err(_) => Err(ConnectError::io(address, io::ErrorKind::UnexpectedEof.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_lack_ourselves_is_not_the_backends_fault() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let fails = |code| ConnectError::io(address, io::Error::from_raw_os_error(code));
        for ours in [libc::EMFILE, libc::ENFILE, libc::EADDRNOTAVAIL] {
            assert!(fails(ours).is_our_own(), "{ours}");
        }
        for theirs in [libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::ECONNRESET] {
            assert!(!fails(theirs).is_our_own(), "{theirs}");
        }
        assert!(!ConnectError::Timeout(address, Duration::from_secs(1)).is_our_own());
    }
}
