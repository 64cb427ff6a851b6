//! The body of a response, as clients read it.
//!
//! Ours and whole, the backend's on its way, or nothing but an abort. Knows frames; decides nothing.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::plan::RelayPlan;
use super::relay::{Relay, StreamError};
use crate::proxy::record::Recorder;
use crate::upstream::Leased;

/// What clients read.
#[derive(Debug)]
pub enum ReplyBody {
    /// Ours, whole.
    Local(Option<Bytes>, Box<Recorder>),
    /// The backend's.
    Relay(Box<Relay>),
    /// Nothing but the error that ended it.
    Broken(Option<StreamError>, Box<Recorder>),
    /// None: the connection becomes a tunnel, which carries the record.
    Tunnel,
}

// === impl ReplyBody ===

impl ReplyBody {
    /// A response of our own, or one that was read whole.
    #[must_use]
    pub fn local(bytes: Bytes, record: Recorder) -> Self {
        Self::Local(Some(bytes), Box::new(record))
    }

    /// A response that broke before any of it was passed on.
    #[must_use]
    pub fn broken(error: StreamError, record: Recorder) -> Self {
        Self::Broken(Some(error), Box::new(record))
    }

    /// The backend's response.
    #[must_use]
    pub fn relay(leased: Leased, plan: RelayPlan, record: Recorder) -> Self {
        Self::continued(Bytes::new(), leased, plan, record)
    }

    /// The backend's response, of which `start` has been read.
    #[must_use]
    pub fn continued(start: Bytes, leased: Leased, plan: RelayPlan, record: Recorder) -> Self {
        Self::Relay(Box::new(Relay::new(start, leased, plan, record)))
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
            Self::Local(bytes, record) => Poll::Ready(bytes.take().map(|bytes| {
                record.on_data(bytes.len());
                Ok(Frame::data(bytes))
            })),
            Self::Relay(relay) => relay.poll_frame(cx),
            Self::Broken(error, _) => Poll::Ready(error.take().map(Err)),
            Self::Tunnel => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local(bytes, _) => bytes.is_none(),
            Self::Relay(relay) => relay.is_end_stream(),
            Self::Broken(error, _) => error.is_none(),
            Self::Tunnel => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local(bytes, _) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Relay(relay) => relay.size_hint(),
            Self::Broken(..) => SizeHint::default(),
            Self::Tunnel => SizeHint::with_exact(0),
        }
    }
}
