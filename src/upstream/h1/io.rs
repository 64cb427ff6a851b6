//! The bytes of a connection, plain or through TLS.
//!
//! Knows no HTTP.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};
use tokio_rustls::client::TlsStream;

use crate::socket::Tcp;

/// A connection's bytes.
#[derive(Debug)]
pub enum Io {
    /// As they are.
    Plain(Tcp),
    /// Encrypted; boxed, as its state is large.
    Tls(Box<TlsStream<Tcp>>),
    /// One direction of a connection whose other one belongs to another task; boxed, for it is rare.
    Reading(ReadHalf<Box<Io>>),
    /// The other direction.
    Writing(WriteHalf<Box<Io>>),
    /// None any more: it ends at once.
    Closed,
    /// In memory, for tests and fuzz targets.
    #[cfg(any(test, fuzzing))]
    Memory(tokio::io::DuplexStream),
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
            Self::Reading(half) => Pin::new(half).poll_read(cx, buf),
            Self::Writing(_) | Self::Closed => Poll::Ready(Ok(())),
            #[cfg(any(test, fuzzing))]
            Self::Memory(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
            Self::Writing(half) => Pin::new(half).poll_write(cx, buf),
            Self::Reading(_) | Self::Closed => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            #[cfg(any(test, fuzzing))]
            Self::Memory(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // What TCP has taken is on its way.
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
            Self::Writing(half) => Pin::new(half).poll_flush(cx),
            Self::Reading(_) | Self::Closed => Poll::Ready(Ok(())),
            #[cfg(any(test, fuzzing))]
            Self::Memory(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Self::Writing(half) => Pin::new(half).poll_shutdown(cx),
            Self::Reading(_) | Self::Closed => Poll::Ready(Ok(())),
            #[cfg(any(test, fuzzing))]
            Self::Memory(io) => Pin::new(io).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
            Self::Writing(half) => Pin::new(half).poll_write_vectored(cx, bufs),
            Self::Reading(_) | Self::Closed => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            #[cfg(any(test, fuzzing))]
            Self::Memory(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
