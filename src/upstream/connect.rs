//! Opens one connection to one endpoint: TCP and the HTTP handshake under one deadline.
//!
//! Knows nothing of pools or requests. `upstream/endpoint.rs` keeps what it opens.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::body::RequestBody;
use crate::config::Scheme;

/// Bytes of an upstream answer's head.
const MAX_HEAD: usize = 128 * 1024;

/// A sender of either protocol.
#[derive(Debug)]
pub enum Sender {
    /// One request at a time.
    Http1(http1::SendRequest<RequestBody>),
    /// Many streams.
    Http2(http2::SendRequest<RequestBody>),
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
    /// TCP stands, HTTP does not: usually the wrong scheme.
    #[error("HTTP handshake with {0} failed: {1}")]
    Handshake(SocketAddr, #[source] hyper::Error),
}

/// Dials and shakes hands.
///
/// # Errors
/// [`ConnectError`]; nothing of a request has been consumed.
pub async fn open(
    address: SocketAddr,
    scheme: Scheme,
    deadline: Duration,
) -> Result<Sender, ConnectError> {
    tokio::time::timeout(deadline, dial(address, scheme))
        .await
        .unwrap_or(Err(ConnectError::Timeout(address, deadline)))
}

async fn dial(address: SocketAddr, scheme: Scheme) -> Result<Sender, ConnectError> {
    let stream = TcpStream::connect(address).await.map_err(|e| ConnectError::Io(address, e))?;
    tune(&stream).map_err(|e| ConnectError::Io(address, e))?;
    let io = TokioIo::new(stream);
    let handshake = |error| ConnectError::Handshake(address, error);
    if scheme == Scheme::H2c {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20))
            .handshake(io)
            .await
            .map_err(handshake)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, %error, "upstream connection ended");
            }
        });
        return Ok(Sender::Http2(sender));
    }
    let (sender, connection) =
        http1::Builder::new().max_buf_size(MAX_HEAD).handshake(io).await.map_err(handshake)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%address, %error, "upstream connection ended");
        }
    });
    Ok(Sender::Http1(sender))
}

/// No Nagle delay; dead peers found by keepalive probes and the user timeout (D16).
///
/// # Errors
/// When the kernel refuses an option, which means the socket is gone.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(Duration::from_secs(60)))
}
