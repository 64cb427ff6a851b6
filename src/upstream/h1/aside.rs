//! An upload that goes on beside its response, in a task of its own.
//!
//! The task of a request polls its connection only as fast as its client takes the response, and a client may read
//! when it has sent everything. Without this, each would wait for the other. Knows neither response nor client.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::WriteHalf;
use tokio_util::task::AbortOnDropHandle;

use super::io::Io;
use super::upload::Upload;

/// The task; dropped, it is ended.
#[derive(Debug)]
pub(super) struct Aside(AbortOnDropHandle<(Upload, Option<WriteHalf<Box<Io>>>)>);

// === impl Aside ===

impl Aside {
    /// Writes on with one direction of `io`, which keeps the other one.
    #[must_use]
    pub(super) fn begin(mut upload: Upload, io: &mut Io) -> Self {
        let whole = std::mem::replace(io, Io::Closed);
        let (reading, writing) = tokio::io::split(Box::new(whole));
        *io = Io::Reading(reading);
        let mut writing = Io::Writing(writing);
        let task = tokio::spawn(async move {
            poll_fn(|cx| {
                // The response stands, whatever becomes of the request.
                let _stands = upload.poll(&mut writing, cx);
                if upload.is_over() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            let half = if let Io::Writing(half) = writing { Some(half) } else { None };
            (upload, half)
        });
        Self(AbortOnDropHandle::new(task))
    }

    /// The upload when nothing more of it will be written; `io` has both directions again, or none if the task has
    /// panicked.
    pub(super) fn poll_end(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Poll<Upload> {
        let Poll::Ready(ended) = Pin::new(&mut self.0).poll(cx) else { return Poll::Pending };
        let reading = std::mem::replace(io, Io::Closed);
        let (upload, writing) = ended.unwrap_or_default();
        if let (Io::Reading(reading), Some(writing)) = (reading, writing) {
            *io = *reading.unsplit(writing);
        }
        Poll::Ready(upload)
    }
}
