//! The body of a response, as clients read it.
//!
//! Ours and whole, the backend's on its way, or nothing but an abort. Knows frames; decides nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::plan::RelayPlan;
use super::relay::{Relay, StreamError};
use crate::proxy::record::Recorder;
use crate::proxy::way::Reopening;
use crate::upstream::Leased;

type Polled = Poll<Option<Result<Frame<Bytes>, StreamError>>>;

/// What clients read.
#[derive(Debug)]
pub enum ReplyBody {
    /// Ours, whole.
    Local(Option<Bytes>, Box<Recorder>),
    /// The backend's.
    Relay(Box<Relay>),
    /// Nothing but the error that ended it.
    Broken(Option<StreamError>, Box<Recorder>),
    /// Ours, whole; its record has been written.
    Unrecorded(Option<Bytes>),
    /// None: the connection becomes a tunnel, which carries the record.
    Tunnel,
}

// === impl ReplyBody ===

impl ReplyBody {
    /// A response of our own, or one that was read whole.
    #[must_use]
    pub fn local(bytes: Bytes, record: Box<Recorder>) -> Self {
        Self::Local(Some(bytes), record)
    }

    /// A response that broke before any of it was passed on.
    #[must_use]
    pub fn broken(error: StreamError, record: Box<Recorder>) -> Self {
        Self::Broken(Some(error), record)
    }

    /// The backend's response.
    #[must_use]
    pub fn relay(leased: Leased, plan: RelayPlan, record: Box<Recorder>) -> Self {
        Self::continued(Bytes::new(), leased, plan, record)
    }

    /// An event stream whose backend's is still to come.
    #[must_use]
    pub fn held(reopening: Reopening, plan: RelayPlan, record: Box<Recorder>) -> Self {
        Self::Relay(Relay::held(reopening, plan, record))
    }

    /// The backend's response, of which `start` has been read.
    #[must_use]
    pub fn continued(start: Bytes, leased: Leased, plan: RelayPlan, record: Box<Recorder>) -> Self {
        Self::Relay(Relay::new(start, leased, plan, record))
    }

    /// One poll; a panic in it ends the body, and the client sees an abort.
    pub(super) fn caught(&mut self, poll: impl FnOnce(&mut Self) -> Polled) -> Polled {
        // What is left of the body is thrown away, so nobody sees it half changed.
        catch_unwind(AssertUnwindSafe(|| poll(self))).unwrap_or_else(|_| {
            match std::mem::replace(self, Self::Unrecorded(None)) {
                Self::Local(_, mut record) | Self::Broken(_, mut record) => record.failed(),
                Self::Relay(mut relay) => relay.failed(),
                Self::Unrecorded(_) | Self::Tunnel => {}
            }
            Poll::Ready(Some(Err(StreamError::Internal)))
        })
    }

    fn next_frame(&mut self, cx: &mut Context<'_>) -> Polled {
        match self {
            Self::Local(bytes, record) => Poll::Ready(bytes.take().map(|bytes| {
                record.on_data(bytes.len());
                Ok(Frame::data(bytes))
            })),
            Self::Relay(relay) => relay.poll_frame(cx),
            Self::Broken(error, _) => Poll::Ready(error.take().map(Err)),
            Self::Unrecorded(bytes) => {
                Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Tunnel => Poll::Ready(None),
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        self.caught(|body| body.next_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local(bytes, _) => bytes.is_none(),
            Self::Relay(relay) => relay.is_end_stream(),
            Self::Broken(error, _) => error.is_none(),
            Self::Unrecorded(bytes) => bytes.is_none(),
            Self::Tunnel => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local(bytes, _) | Self::Unrecorded(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Relay(relay) => relay.size_hint(),
            Self::Broken(..) => SizeHint::default(),
            Self::Tunnel => SizeHint::with_exact(0),
        }
    }
}
