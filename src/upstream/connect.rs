//! Opens one connection to one endpoint: TCP, TLS and the HTTP handshake under one deadline.
//!
//! Knows nothing of pools or requests. `upstream/endpoint.rs` keeps what it opens.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::heard::{Ear, Heard};
use crate::body::RequestBody;
use crate::config::{Scheme, Target};
use crate::socket::Tcp;
use crate::tls::ClientConfigs;

/// Bytes of an upstream answer's head.
const MAX_HEAD: usize = 128 * 1024;
/// Streams at once on one HTTP/2 connection.
const MAX_STREAMS: usize = 100;
/// Unread bytes of one stream, and of all of its connection: more than all streams together may have,
/// so that a client that does not read stops its own stream only.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 32 * 1024 * 1024;

/// A sender of either protocol.
#[derive(Debug)]
pub enum Sender {
    /// One request at a time.
    Http1(Http1),
    /// Many streams.
    Http2(Http2),
}

/// A sender of HTTP/2; each clone counts as one stream.
#[derive(Clone, Debug)]
pub struct Http2 {
    /// Hyper's.
    pub sender: http2::SendRequest<RequestBody>,
    /// Shared by all streams: how many the backend takes at once.
    limit: Arc<AtomicUsize>,
}

// === impl Http2 ===

impl Http2 {
    /// Whether another stream fits: the backend's limit, and one of ours so that no slow reader holds
    /// up the others of its connection.
    #[must_use]
    pub fn has_room(&self) -> bool {
        // The pool's own clone is none.
        let streams = Arc::strong_count(&self.limit) - 1;
        streams < self.limit.load(Ordering::Relaxed).min(MAX_STREAMS)
    }
}

/// A sender of HTTP/1, and what its connection has brought.
#[derive(Debug)]
pub struct Http1 {
    /// Hyper's.
    pub sender: http1::SendRequest<RequestBody>,
    /// Since the last request.
    pub ear: Ear,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Refused, unreachable or reset: usually nothing listens there (yet).
    #[error("cannot connect to {0}: {1}")]
    Io(SocketAddr, #[source] io::Error),
    /// No answer in time: usually the pod is gone and its address with it.
    #[error("no connection to {0} within {1:?}")]
    Timeout(SocketAddr, Duration),
    /// The name of the target cannot be in a certificate.
    #[error("{0:?} is no name for TLS; set serverName")]
    Name(String),
    /// TCP stands, TLS does not: usually the certificate is not trusted or for another name, or the
    /// port speaks plain text.
    #[error("TLS handshake with {1} ({0}) failed: {2}")]
    Tls(SocketAddr, String, #[source] io::Error),
    /// TCP stands, HTTP does not: usually the wrong scheme.
    #[error("HTTP handshake with {0} failed: {1}")]
    Handshake(SocketAddr, #[source] hyper::Error),
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
    let stream = TcpStream::connect(address).await.map_err(|e| ConnectError::Io(address, e))?;
    let stream = Tcp::new(stream).map_err(|e| ConnectError::Io(address, e))?;
    match dial.tls {
        Some(tls) => Box::pin(secure(dial, tls, stream)).await,
        None => {
            let http2 = dial.target.scheme == Scheme::H2c;
            Box::pin(speak(stream, address, http2)).await
        }
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
        .map_err(|error| ConnectError::Tls(address, name.clone(), error))?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Box::pin(speak(Box::new(stream), address, http2)).await
}

/// The HTTP handshake; the connection lives in a task of its own from then on.
async fn speak<I>(stream: I, address: SocketAddr, http2: bool) -> Result<Sender, ConnectError>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handshake = |error| ConnectError::Handshake(address, error);
    if http2 {
        let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(handshake)?;
        let limit = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
        // Weak, for each strong one is a stream.
        let told = Arc::downgrade(&limit);
        let connection = poll_fn(move |cx| {
            let polled = Pin::new(&mut connection).poll(cx);
            if let Some(limit) = told.upgrade() {
                limit.store(connection.current_max_send_streams(), Ordering::Relaxed);
            }
            polled
        });
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, %error, "upstream connection ended");
            }
        });
        return Ok(Sender::Http2(Http2 { sender, limit }));
    }
    let ear = Ear::default();
    let io = TokioIo::new(Heard::new(stream, ear.clone()));
    let (sender, connection) =
        http1::Builder::new().max_buf_size(MAX_HEAD).handshake(io).await.map_err(handshake)?;
    let mut connection = connection.with_upgrades();
    tokio::spawn(async move {
        // By reference: awaited itself it would lie twice in the task, which lives as long as it.
        if let Err(error) = (&mut connection).await {
            tracing::debug!(%address, %error, "upstream connection ended");
        }
    });
    Ok(Sender::Http1(Http1 { sender, ear }))
}
