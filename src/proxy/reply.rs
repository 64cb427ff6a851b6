//! The body of an answer: every frame passes in the poll that brought it.
//!
//! Owns what must live as long as the stream: the lease and the exchange. Never holds bytes back.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::exchange::{Exchange, Outcome};
use crate::upstream::Lease;

/// What clients read.
#[derive(Debug)]
pub enum ReplyBody {
    /// Ours, whole.
    Local(Option<Bytes>, Box<Exchange>),
    /// The backend's.
    Stream(Box<Stream>),
    /// Nothing but the error that ended it.
    Broken(Option<hyper::Error>, Box<Exchange>),
}

/// A body on its way, with everything that ends with it.
#[derive(Debug)]
pub struct Stream {
    incoming: Incoming,
    /// Returned when the body has ended; a lease dropped earlier closes its connection.
    lease: Option<Lease>,
    exchange: Exchange,
    broken: Option<hyper::Error>,
}

// === impl ReplyBody ===

impl ReplyBody {
    /// An answer of our own.
    #[must_use]
    pub fn local(bytes: Bytes, exchange: Exchange) -> Self {
        Self::Local(Some(bytes), Box::new(exchange))
    }

    /// An answer that broke before any of it was passed on.
    #[must_use]
    pub fn broken(error: hyper::Error, exchange: Exchange) -> Self {
        Self::Broken(Some(error), Box::new(exchange))
    }

    /// The backend's answer.
    #[must_use]
    pub fn stream(incoming: Incoming, lease: Lease, mut exchange: Exchange) -> Self {
        if incoming.is_end_stream() {
            exchange.ended(Outcome::Complete);
        }
        Self::Stream(Box::new(Stream { incoming, lease: Some(lease), exchange, broken: None }))
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Local(bytes, exchange) => Poll::Ready(bytes.take().map(|bytes| {
                exchange.on_data(bytes.len());
                Ok(Frame::data(bytes))
            })),
            Self::Stream(stream) => stream.poll_frame(cx),
            Self::Broken(error, _) => Poll::Ready(error.take().map(Err)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local(bytes, _) => bytes.is_none(),
            Self::Stream(stream) => stream.incoming.is_end_stream() && stream.broken.is_none(),
            Self::Broken(error, _) => error.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local(bytes, _) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Stream(stream) => stream.incoming.size_hint(),
            Self::Broken(..) => SizeHint::default(),
        }
    }
}

// === impl Stream ===

impl Stream {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.exchange.on_data(data.len());
                }
                // hyper does not poll again after the last byte of a sized body.
                if self.incoming.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.exchange.ended(Outcome::UpstreamBroke);
                // An error makes hyper close at once; let it flush what came before.
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
        }
    }

    fn finish(&mut self) {
        self.exchange.ended(Outcome::Complete);
        self.lease = None;
    }
}
