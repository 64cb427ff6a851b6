//! Whether a connection has brought any byte since its last request was sent.
//!
//! A request may be repeated only if its connection closed before any byte of an answer (D11), and to
//! hyper half an answer's head and none are the same error. Knows nothing of HTTP.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What was heard; the sender's side.
#[derive(Clone, Debug, Default)]
pub struct Ear(Arc<AtomicBool>);

/// The stream itself, listened to.
#[derive(Debug)]
pub struct Heard<T> {
    stream: T,
    ear: Ear,
}

// === impl Ear ===

impl Ear {
    /// Forgets: a request is about to be sent on a connection that is idle.
    pub fn forget(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether a byte has come since.
    #[must_use]
    pub fn heard(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

// === impl Heard ===

impl<T> Heard<T> {
    /// Listens to this stream.
    #[must_use]
    pub fn new(stream: T, ear: Ear) -> Self {
        Self { stream, ear }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Heard<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before && !self.ear.heard() {
            self.ear.0.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Heard<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
