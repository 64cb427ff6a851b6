//! The body of a request on its way up: every frame passes as it comes, watched and counted.
//!
//! The client's bytes, bytes of our own, or none. What passes of a JSON body is remembered up to a bound, so
//! that an error of our own can carry the request's id, and the body can be sent again where that is
//! allowed. Knows frames; never a socket, a route or a policy.

pub mod echo;
pub mod progress;
pub mod replay;
pub mod seen;
pub mod tap;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::headers;
use progress::Progress;
use tap::{Tap, Watch};

/// Bytes behind a refused head that are read all the same, and for how long.
const MAX_DISCARD: u64 = 16 * 1024 * 1024;
const DISCARD_WAIT: Duration = Duration::from_secs(10);
/// How long an error waits for the bytes that may have the request's id (D10).
const PEEK_WAIT: Duration = Duration::from_millis(100);

/// A request's body.
#[derive(Debug)]
pub struct RequestBody {
    source: BodySource,
    upload: Arc<Upload>,
    /// The client waits for `100 Continue`, which reading would send.
    expects: bool,
    /// What the connection reads belongs to this body, not to a next head.
    _open: Option<OpenBody>,
}

/// Where the bytes come from.
#[derive(Debug)]
enum BodySource {
    /// The client, whose bytes are watched and counted.
    Client(Incoming),
    /// We have them here, all in one.
    Own(Bytes),
    /// It was read and not sent, and goes out before the rest; boxed, for it is rare.
    Returned(Box<(Polled, BodySource)>),
    /// Nowhere, or there are none left.
    Empty,
}

/// What one read brings.
type Polled = Result<Frame<Bytes>, hyper::Error>;

// === impl BodySource ===

impl BodySource {
    /// What we have here.
    fn next(&mut self) -> Option<Polled> {
        match std::mem::replace(self, Self::Empty) {
            Self::Own(bytes) => Some(Ok(Frame::data(bytes))),
            Self::Returned(returned) => {
                let (polled, rest) = *returned;
                *self = rest;
                Some(polled)
            }
            other => {
                *self = other;
                None
            }
        }
    }

    /// What comes behind everything that we have here.
    fn rest(self) -> Self {
        match self {
            Self::Returned(returned) => returned.1.rest(),
            Self::Own(_) | Self::Empty => Self::Empty,
            client @ Self::Client(_) => client,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Client(incoming) => incoming.size_hint(),
            Self::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Returned(returned) => {
                let (polled, rest) = &**returned;
                let data = polled.as_ref().ok().and_then(Frame::data_ref);
                let length = data.map_or(0, |data| data.len() as u64);
                match rest.size_hint().exact() {
                    Some(rest) => SizeHint::with_exact(rest.saturating_add(length)),
                    None => SizeHint::default(),
                }
            }
            Self::Empty => SizeHint::with_exact(0),
        }
    }
}

/// Counts while it lives.
#[derive(Debug)]
struct OpenBody(Arc<AtomicUsize>);

impl Drop for OpenBody {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What became of a client's body; outlives it.
#[derive(Debug, Default)]
pub struct Upload {
    /// How far it has come.
    pub progress: Progress,
    /// What watches its bytes.
    pub tap: Tap,
}

// === impl RequestBody ===

impl RequestBody {
    /// A client's body, watched like this; `expects` if the client waits for `100 Continue` (RFC 9110 section 10.1.1).
    #[must_use]
    pub fn new(incoming: Incoming, watch: Watch, expects: bool, open: &Arc<AtomicUsize>) -> Self {
        let open = (!incoming.is_end_stream()).then(|| {
            open.fetch_add(1, Ordering::Relaxed);
            OpenBody(Arc::clone(open))
        });
        let length = incoming.size_hint().exact();
        let tap = Tap::new(watch, length);
        let upload = Arc::new(Upload { progress: Progress::new(open.is_none()), tap });
        Self { source: BodySource::Client(incoming), upload, expects, _open: open }
    }

    /// Bytes of our own. They are the client's nowhere, so `upload` does not count them.
    #[must_use]
    pub fn own(bytes: Bytes, upload: Arc<Upload>) -> Self {
        let source = if bytes.is_empty() { BodySource::Empty } else { BodySource::Own(bytes) };
        Self { source, upload, expects: false, _open: None }
    }

    /// No body.
    #[must_use]
    pub fn empty(upload: Arc<Upload>) -> Self {
        Self::own(Bytes::new(), upload)
    }

    /// The same body once more, for a request of which the backend surely did nothing; none if it was not
    /// remembered whole. It is not counted a second time.
    #[must_use]
    pub fn again(upload: &Arc<Upload>) -> Option<Self> {
        Some(Self::own(upload.replay()?, Arc::clone(upload)))
    }

    /// The same for what has not been read to its end: everything that has passed, and then what is left.
    ///
    /// # Errors
    /// What has passed is not remembered: what is left.
    pub fn resumed(mut self) -> Result<Self, Self> {
        let Upload { progress, tap } = &*self.upload;
        // What is empty need not be remembered for this.
        let passed = if progress.bytes() == 0 { Some(Bytes::new()) } else { tap.whole() };
        let Some(passed) = passed else { return Err(self) };
        progress.goes_on();
        self.source = std::mem::replace(&mut self.source, BodySource::Empty).rest();
        self.put_back(passed);
        Ok(self)
    }

    /// Nobody sends it at the moment.
    pub fn paused(&self) {
        self.upload.progress.ended();
    }

    /// Takes back data that was read and not sent; it is not counted a second time.
    pub fn put_back(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.give_back(Ok(Frame::data(data)));
        }
    }

    fn give_back(&mut self, polled: Polled) {
        let rest = std::mem::replace(&mut self.source, BodySource::Empty);
        self.source = BodySource::Returned(Box::new((polled, rest)));
    }

    /// Shows the first bytes as they come, until `is_enough`, [`replay::MAX_PEEK`] bytes have come or 100 ms are over;
    /// none behind an unanswered `Expect`. Nothing is lost by it: what was read is read once more by whoever sends
    /// the body. What is here already costs no timer.
    pub async fn peek(&mut self, mut is_enough: impl FnMut(&[u8]) -> bool) {
        if self.unasked() || self.is_end_stream() {
            return;
        }
        let mut seen = Vec::new();
        let read = async {
            let mut length = 0;
            while length < replay::MAX_PEEK
                && let Some(polled) = self.frame().await
            {
                let data = polled.as_ref().ok().and_then(Frame::data_ref);
                length += data.map_or(0, Bytes::len);
                let goes_on = data.is_some_and(|data| !is_enough(data));
                seen.push(polled);
                if !goes_on {
                    return;
                }
            }
        };
        let mut read = std::pin::pin!(read);
        if !soon(read.as_mut()).await {
            let _in_time = tokio::time::timeout(PEEK_WAIT, read).await;
        }
        seen.into_iter().rev().for_each(|polled| self.give_back(polled));
    }

    /// What has become of it.
    #[must_use]
    pub fn upload(&self) -> &Arc<Upload> {
        &self.upload
    }

    /// Reads on until [`replay::MAX_PEEK`] bytes are remembered, for at most 100 ms; never behind an
    /// unanswered `Expect`. The body is of no use afterwards but for [`RequestBody::discard`].
    pub async fn read_start(&mut self) {
        if self.unasked() {
            return;
        }
        let upload = Arc::clone(&self.upload);
        let read = async {
            while upload.tap.wants_start() {
                match self.frame().await {
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return,
                }
            }
        };
        // Late bytes only mean a response without an id.
        let _in_time = tokio::time::timeout(PEEK_WAIT, read).await;
    }

    /// The whole body in one piece, read to its end.
    ///
    /// # Errors
    /// It is larger than what is remembered, has trailers, breaks off or does not end within `limit`: what is left
    /// of it.
    pub async fn gather(mut self, limit: Duration) -> Result<Self, Self> {
        if let BodySource::Own(_) = self.source {
            return Ok(self);
        }
        let upload = Arc::clone(&self.upload);
        let read = async {
            while upload.tap.is_listening()
                && let Some(Ok(_)) = self.frame().await
            {}
        };
        let _in_time = tokio::time::timeout(limit, read).await;
        Self::again(&upload).ok_or(self)
    }

    /// Reads the rest and throws it away while the response goes out: a connection that is closed with
    /// unread bytes is reset, and the response with it, before a client that is still sending has read
    /// it. Bounded; behind an unanswered `Expect` nothing is on its way.
    pub fn discard(mut self) {
        if self.unasked() || self.is_end_stream() {
            return;
        }
        let limit = self.upload.progress.bytes() + MAX_DISCARD;
        let rest = async move {
            while self.upload.progress.bytes() < limit {
                match self.frame().await {
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return,
                }
            }
        };
        tokio::spawn(tokio::time::timeout(DISCARD_WAIT, rest));
    }

    fn unasked(&self) -> bool {
        self.expects && self.upload.progress.bytes() == 0
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Polled>> {
        let Self { source, upload, .. } = &mut *self;
        let BodySource::Client(incoming) = source else {
            return Poll::Ready(source.next());
        };
        let (mut polled, _) = echo::take(
            || (Pin::new(&mut *incoming).poll_frame(cx), incoming.is_end_stream()),
            // Of a body of known length: behind its last byte hyper's sender is gone.
            |(polled, ended)| {
                *ended && matches!(polled, Poll::Ready(Some(Ok(frame))) if frame.is_data())
            },
        );
        let Upload { progress, tap } = &**upload;
        match &mut polled {
            Poll::Pending => progress.waits(true),
            Poll::Ready(Some(Ok(frame))) => {
                progress.waits(false);
                if let Some(data) = frame.data_ref() {
                    progress.add(data.len() as u64);
                    tap.data(data);
                    // Over HTTP/2 the end may come behind the last byte of a known length, and the answer before it.
                    if incoming.is_end_stream() || incoming.size_hint().exact() == Some(0) {
                        progress.completed();
                    }
                } else if let Some(trailers) = frame.trailers_mut() {
                    headers::strip_trailers(trailers);
                    progress.trailed();
                }
            }
            Poll::Ready(Some(Err(_))) => progress.broke(),
            Poll::Ready(None) => progress.completed(),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            BodySource::Client(incoming) => incoming.is_end_stream(),
            BodySource::Own(_) | BodySource::Returned(_) => false,
            BodySource::Empty => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
    }
}

/// Whether the future is ready now, or in the next turn of its task: a connection gives a body what it has read by then.
async fn soon(mut future: Pin<&mut impl Future>) -> bool {
    let mut is_next = false;
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(_) => Poll::Ready(true),
        Poll::Pending if is_next => Poll::Ready(false),
        Poll::Pending => {
            is_next = true;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

/// Whoever sends a body drops it at its end, or when it cannot go on.
impl Drop for RequestBody {
    fn drop(&mut self) {
        self.upload.progress.ended();
    }
}

// === impl Upload ===

impl Upload {
    /// All bytes of the body, if it has ended and was remembered whole; they stay remembered.
    #[must_use]
    pub fn replay(&self) -> Option<Bytes> {
        if !self.progress.is_plain_and_whole() {
            return None;
        }
        // What is empty need not be remembered for this.
        if self.progress.bytes() == 0 {
            return Some(Bytes::new());
        }
        self.tap.whole()
    }

    /// The same for whoever keeps the bytes, at the moment when they are forgotten here.
    #[must_use]
    pub fn take_replay(&self) -> Option<Bytes> {
        let replay = self.replay();
        self.tap.forget();
        replay
    }
}

#[cfg(test)]
mod tests {
    use http::header::TRAILER;
    use http::{HeaderMap, HeaderValue};

    use super::*;

    const CALL: Bytes = Bytes::from_static(b"{\"id\":7}");

    /// What is left of a client's body of these chunks.
    fn passed(chunks: &[Bytes]) -> Arc<Upload> {
        let upload = Upload { progress: Progress::default(), tap: Tap::new(Watch::Bytes, None) };
        for chunk in chunks {
            upload.progress.add(chunk.len() as u64);
            upload.tap.data(chunk);
        }
        Arc::new(upload)
    }

    #[tokio::test]
    async fn bytes_of_our_own_are_sent_once_with_their_length_and_counted_nowhere() {
        let upload = Arc::<Upload>::default();
        let mut body = RequestBody::own(CALL, Arc::clone(&upload));
        assert!(!body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(CALL.len() as u64));
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), CALL);
        assert!(body.is_end_stream() && body.frame().await.is_none());
        assert_eq!(body.size_hint().exact(), Some(0));
        assert_eq!(upload.progress.bytes(), 0);
        assert!(RequestBody::own(Bytes::new(), Arc::default()).is_end_stream());
        assert!(RequestBody::empty(Arc::default()).is_end_stream());
    }

    #[tokio::test]
    async fn a_body_is_sent_again_only_if_it_ended_and_was_nothing_but_bytes() {
        let upload = passed(&[CALL.slice(..3), CALL.slice(3..)]);
        assert!(RequestBody::again(&upload).is_none(), "more may come");
        upload.progress.completed();
        for _ in 0..2 {
            let again = RequestBody::again(&upload).unwrap();
            assert_eq!(again.collect().await.unwrap().to_bytes(), CALL);
        }
        assert_eq!(upload.progress.bytes(), CALL.len() as u64, "counted once");
        for end in [Progress::trailed, Progress::broke] {
            let upload = passed(&[CALL]);
            end(&upload.progress);
            upload.progress.completed();
            assert!(RequestBody::again(&upload).is_none());
        }
        let nothing = passed(&[]);
        nothing.tap.forget();
        nothing.progress.completed();
        assert!(RequestBody::again(&nothing).unwrap().is_end_stream());
    }

    /// This runtime has no timers.
    #[test]
    fn what_is_here_already_is_looked_at_without_a_timer() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut body = RequestBody::own(CALL, Arc::default());
        let mut seen = Bytes::new();
        runtime.block_on(body.peek(|bytes| {
            seen = Bytes::copy_from_slice(bytes);
            true
        }));
        assert_eq!(seen, CALL);
        let mut turns = 0;
        let next = std::future::poll_fn(|_| {
            turns += 1;
            if turns == 2 { Poll::Ready(()) } else { Poll::Pending }
        });
        assert!(runtime.block_on(soon(std::pin::pin!(next))), "in the next turn");
        let never = std::pin::pin!(std::future::pending::<()>());
        assert!(!runtime.block_on(soon(never)));
    }

    #[tokio::test]
    async fn a_body_that_was_looked_into_is_sent_whole() {
        for most in 1..5 {
            let mut body = RequestBody::own(CALL.slice(3..), Arc::default());
            body.put_back(CALL.slice(1..3));
            body.put_back(CALL.slice(..1));
            let mut seen = 0;
            body.peek(|_| {
                seen += 1;
                seen == most
            })
            .await;
            assert_eq!((seen, body.size_hint().exact()), (most.min(3), Some(CALL.len() as u64)));
            assert_eq!(body.collect().await.unwrap().to_bytes(), CALL);
        }
        let mut body = RequestBody::empty(Arc::default());
        let trailers = HeaderMap::from_iter([(TRAILER, HeaderValue::from_static("x"))]);
        body.give_back(Ok(Frame::trailers(trailers.clone())));
        body.put_back(CALL);
        body.peek(|_| false).await;
        let sent = body.collect().await.unwrap();
        assert_eq!(sent.trailers(), Some(&trailers));
        assert_eq!(sent.to_bytes(), CALL);
    }

    #[test]
    fn what_is_taken_for_later_is_whole_and_forgotten_here() {
        let upload = passed(&[CALL]);
        upload.progress.completed();
        assert_eq!(upload.take_replay(), Some(CALL));
        assert_eq!(upload.take_replay(), None);
        assert!(RequestBody::again(&upload).is_none());
        let partly = passed(&[CALL]);
        assert_eq!(partly.take_replay(), None, "it has not ended");
        partly.progress.completed();
        assert_eq!(partly.replay(), None);
    }
}
