//! The body of a request while a connection of HTTP/2 sends it: what is not sent of it comes back.
//!
//! hyper sends a body in a task of its own, and drops it there when the backend wants no more of it. The rest may have to be
//! sent elsewhere, or to be read away, so that a client which still sends reads its response. Never decides which.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use crate::body::RequestBody;

/// A body that is being sent.
#[derive(Debug)]
pub struct Lent {
    /// Until it is taken out.
    body: Option<RequestBody>,
    back: Option<oneshot::Sender<RequestBody>>,
}

/// Where what is left of it arrives.
#[derive(Debug)]
pub struct Back(oneshot::Receiver<RequestBody>);

// === impl Lent ===

impl Lent {
    /// Lends the body; nothing comes back of one that is empty.
    #[must_use]
    pub fn new(body: RequestBody) -> (Self, Option<Back>) {
        if body.is_end_stream() {
            return (Self { body: Some(body), back: None }, None);
        }
        let (back, comes) = oneshot::channel();
        (Self { body: Some(body), back: Some(back) }, Some(Back(comes)))
    }

    /// The body of a request that was not sent at all.
    #[must_use]
    pub fn into_body(mut self) -> Option<RequestBody> {
        self.body.take()
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = ready!(Pin::new(body).poll_frame(cx));
        if !matches!(&polled, Some(Ok(frame)) if frame.is_data()) {
            // This was the end.
            self.back = None;
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let body = self.body.take().filter(|body| !body.is_end_stream());
        if let (Some(body), Some(back)) = (body, self.back.take()) {
            body.paused();
            // Whoever lent it may be gone.
            drop(back.send(body));
        }
    }
}

// === impl Back ===

impl Back {
    /// What is left, once it is not sent any more; `None` if nothing is.
    pub async fn rest(self) -> Option<RequestBody> {
        self.0.await.ok()
    }

    /// Reads away what is left, whenever it comes back.
    pub fn discard(mut self) {
        match self.0.try_recv() {
            Ok(rest) => rest.discard(),
            Err(oneshot::error::TryRecvError::Closed) => {}
            Err(oneshot::error::TryRecvError::Empty) => {
                tokio::spawn(async move {
                    if let Some(rest) = self.rest().await {
                        rest.discard();
                    }
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt;

    use super::*;

    fn body() -> RequestBody {
        RequestBody::own(Bytes::from_static(b"whole"), Arc::default())
    }

    #[tokio::test]
    async fn what_was_not_sent_comes_back_and_nothing_of_what_was() {
        let (lent, back) = Lent::new(body());
        drop(lent);
        let rest = back.unwrap().rest().await.unwrap();
        assert_eq!(rest.collect().await.unwrap().to_bytes(), "whole");
        let (mut lent, back) = Lent::new(body());
        assert_eq!(lent.frame().await.unwrap().unwrap().into_data().unwrap(), "whole");
        drop(lent);
        assert!(back.unwrap().rest().await.is_none());
        assert!(Lent::new(RequestBody::empty(Arc::default())).1.is_none());
    }

    #[tokio::test]
    async fn a_request_that_was_not_sent_has_its_body() {
        let (lent, back) = Lent::new(body());
        let body = lent.into_body().unwrap();
        assert_eq!(body.collect().await.unwrap().to_bytes(), "whole");
        assert!(back.unwrap().rest().await.is_none());
    }
}
