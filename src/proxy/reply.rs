//! The body of an answer, as clients read it.
//!
//! Ours and whole, the backend's on its way, or nothing but an abort. `proxy/stream.rs` does the work
//! of the second.

pub mod card;
pub mod plan;
pub mod relay;
pub mod timeouts;
pub mod tunnel;
pub mod watchdog;

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use self::plan::Plan;
use self::relay::{Stream, StreamError};
use crate::proxy::record::Exchange;
use crate::proxy::send::attempt::Sent;

/// What clients read.
#[derive(Debug)]
pub enum ReplyBody {
    /// Ours, whole.
    Local(Option<Bytes>, Box<Exchange>),
    /// The backend's.
    Stream(Box<Stream>),
    /// Nothing but the error that ended it.
    Broken(Option<StreamError>, Box<Exchange>),
    /// None: the connection becomes a tunnel, which carries the record.
    Tunnel,
}

// === impl ReplyBody ===

impl ReplyBody {
    /// An answer of our own, or one that was read whole.
    #[must_use]
    pub fn local(bytes: Bytes, exchange: Exchange) -> Self {
        Self::Local(Some(bytes), Box::new(exchange))
    }

    /// An answer that broke before any of it was passed on.
    #[must_use]
    pub fn broken(error: StreamError, exchange: Exchange) -> Self {
        Self::Broken(Some(error), Box::new(exchange))
    }

    /// The backend's answer.
    #[must_use]
    pub fn stream(sent: Sent, plan: Plan, exchange: Exchange) -> Self {
        Self::continued(Bytes::new(), sent, plan, exchange)
    }

    /// The backend's answer, of which `start` has been read.
    #[must_use]
    pub fn continued(start: Bytes, sent: Sent, plan: Plan, exchange: Exchange) -> Self {
        Self::Stream(Box::new(Stream::new(start, sent, plan, exchange)))
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        match &mut *self {
            Self::Local(bytes, exchange) => Poll::Ready(bytes.take().map(|bytes| {
                exchange.on_data(bytes.len());
                Ok(Frame::data(bytes))
            })),
            Self::Stream(stream) => stream.poll_frame(cx),
            Self::Broken(error, _) => Poll::Ready(error.take().map(Err)),
            Self::Tunnel => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local(bytes, _) => bytes.is_none(),
            Self::Stream(stream) => stream.is_end_stream(),
            Self::Broken(error, _) => error.is_none(),
            Self::Tunnel => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local(bytes, _) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Stream(stream) => stream.size_hint(),
            Self::Broken(..) => SizeHint::default(),
            Self::Tunnel => SizeHint::with_exact(0),
        }
    }
}
