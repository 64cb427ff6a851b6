//! Tells when a backend's first SETTINGS frame has been read (RFC 9113 section 3.4).
//!
//! Before it nobody knows whether HTTP/2 is spoken at all, nor how many streams the backend takes. hyper
//! says neither; but what it says of the streams changes with that frame, and it reads on only when the
//! frame is dealt with. So each read is a moment to look again.
//!
//! A write that fails is told by the reads, behind everything that has come: a backend that refuses an upload and closes
//! is heard, and hyper would not read on. Knows bytes come and go; not which.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What wakes whoever waits for the greeting.
#[derive(Clone, Debug, Default)]
pub struct Greeting(Arc<GreetingState>);

#[derive(Debug, Default)]
struct GreetingState {
    over: AtomicBool,
    waker: AtomicWaker,
}

/// The stream itself, whose reads are moments to look.
#[derive(Debug)]
pub struct Greeted<T> {
    stream: T,
    greeting: Greeting,
    /// Why nothing can be written any more.
    failed: Option<Failed>,
}

/// A direction that does not work any more.
#[derive(Debug)]
struct Failed(Option<io::Error>);

// === impl Greeting ===

impl Greeting {
    /// To be called before each look.
    pub fn register(&self, waker: &Waker) {
        if !self.0.over.load(Ordering::Relaxed) {
            self.0.waker.register(waker);
        }
    }

    /// Nobody waits any more.
    pub fn over(&self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

// === impl Greeted ===

impl<T> Greeted<T> {
    /// Watches this stream.
    #[must_use]
    pub fn new(stream: T, greeting: Greeting) -> Self {
        Self { stream, greeting, failed: None }
    }
}

impl<T: Unpin> Greeted<T> {
    /// Writes; what cannot be written any more is as good as `done`.
    fn write<W>(
        &mut self,
        done: W,
        write: impl FnOnce(Pin<&mut T>) -> Poll<io::Result<W>>,
    ) -> Poll<io::Result<W>> {
        if self.failed.is_none() {
            match ready!(write(Pin::new(&mut self.stream))) {
                Ok(written) => return Poll::Ready(Ok(written)),
                Err(error) => self.failed = Some(Failed(Some(error))),
            }
        }
        Poll::Ready(Ok(done))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Greeted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let shared = &self.greeting.0;
        if !shared.over.load(Ordering::Relaxed) {
            shared.waker.wake();
        }
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        let ended = read.is_err() || buf.filled().len() == before;
        // The first thing that went wrong.
        match self.failed.as_mut().filter(|_| ended).and_then(|failed| failed.0.take()) {
            Some(error) => Poll::Ready(Err(error)),
            None => Poll::Ready(read),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Greeted<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(buf.len(), |stream| stream.poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write((), |stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        self.write(length, |stream| stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
