//! How many requests are answered at once. What comes beyond is refused: a queue would only make everybody wait.
//!
//! An answer counts until its last byte is written, for it lies in memory until then, and a reader may be slow. An
//! event stream does not; there is a bound of its own for those. Knows no path.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::busy;
use super::serve::Lasting;

/// The places; clones share them.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    places: Arc<Semaphore>,
    all: usize,
}

/// A body whose bytes keep a place until the last of them is written, which is after the body's end.
struct Held {
    body: Body,
    place: Arc<OwnedSemaphorePermit>,
}

/// Some of these bytes.
struct Kept {
    bytes: Bytes,
    _place: Arc<OwnedSemaphorePermit>,
}

// === impl Limit ===

impl Limit {
    pub(super) fn new(all: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(all)), all }
    }
}

/// Answers while a place is free.
pub(super) async fn hold(State(limit): State<Limit>, request: Request, next: Next) -> Response {
    let Ok(place) = limit.places.try_acquire_owned() else {
        let all = limit.all;
        return busy(format!("{all} other requests are being answered; ask again\n"));
    };
    let answer = next.run(request).await;
    if answer.extensions().get::<Lasting>().is_some() {
        return answer;
    }
    answer.map(|body| Body::new(Held { body, place: Arc::new(place) }))
}

// === impl Held ===

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        polled.map_ok(|frame| {
            frame.map_data(|bytes| {
                Bytes::from_owner(Kept { bytes, _place: Arc::clone(&self.place) })
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

// === impl Kept ===

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::middleware::from_fn_with_state;
    use http::StatusCode;
    use http_body_util::BodyExt;
    use tower_service::Service;

    use super::*;

    async fn ask(router: &Router) -> Response {
        router.clone().call(Request::new(Body::empty())).await.unwrap()
    }

    /// hyper drops a body once it has all of it, and writes for as long as the reader takes.
    #[tokio::test]
    async fn a_place_is_taken_until_the_last_byte_is_gone() {
        let layer = from_fn_with_state(Limit::new(1), hold);
        let router = Router::new().fallback(async || "whole").layer(layer);
        let mut first = ask(&router).await;
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(first.body().size_hint().exact(), Some(5));
        let refused = ask(&router).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.headers()[http::header::RETRY_AFTER], "1");
        let why = refused.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(why, "1 other requests are being answered; ask again\n");
        let bytes = first.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(first.body().is_end_stream());
        drop(first);
        assert_eq!(ask(&router).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(bytes, "whole");
        drop(bytes);
        assert_eq!(ask(&router).await.status(), StatusCode::OK);
        assert_eq!(ask(&router).await.status(), StatusCode::OK, "a body that nobody reads");
    }
}
