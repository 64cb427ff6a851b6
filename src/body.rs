//! The body of a request on its way up: every frame passes as it comes, counted.
//!
//! Of a JSON body the first bytes are remembered (shared, not copied) until the answer begins, so that
//! an error of our own can carry the request's id, and a body that was remembered whole can be sent again
//! where that is allowed. Knows frames; never a socket, a route or a policy.
//! `upstream/endpoint.rs` sends it.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::Notify;

use crate::headers;

/// Bytes of a body that are looked at for the request's id (D10).
pub const MAX_PEEK: usize = 64 * 1024;
/// Bytes behind a refused head that are read all the same, and for how long.
const MAX_DISCARD: u64 = 16 * 1024 * 1024;
const DISCARD_WAIT: Duration = Duration::from_secs(10);
/// How long an error waits for those bytes (D10).
const PEEK_WAIT: Duration = Duration::from_millis(100);

/// A client's body.
#[derive(Debug)]
pub struct RequestBody {
    /// None for the body of a request that is sent again.
    incoming: Option<Incoming>,
    /// Data that has been read, and goes out first; boxed, for it is rare.
    prefix: Option<Box<Bytes>>,
    upload: Arc<Upload>,
    /// The client waits for `100 Continue`, which reading would send.
    expects: bool,
    /// What the connection reads belongs to this body, not to a next head.
    _open: Option<Open>,
}

/// Counts while it lives.
#[derive(Debug)]
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What has passed of a body; the exchange reads it at the end.
#[derive(Debug, Default)]
pub struct Upload {
    bytes: AtomicU64,
    broken: AtomicBool,
    /// It has passed to its end.
    whole: AtomicBool,
    /// Trailers have passed, which are not remembered.
    trailed: AtomicBool,
    /// What is remembered is to be read once more.
    again: AtomicBool,
    /// Nothing more will pass, whole or not.
    over: AtomicBool,
    ended: Notify,
    /// The client has not sent what is asked for.
    waits: AtomicBool,
    start: Mutex<Option<Start>>,
}

/// What is remembered, as it came. Most bodies come in one piece.
#[derive(Debug, Default)]
struct Start {
    first: Bytes,
    more: Vec<Bytes>,
}

// === impl Start ===

impl Start {
    fn push(&mut self, chunk: Bytes) {
        if self.first.is_empty() {
            self.first = chunk;
        } else {
            self.more.push(chunk);
        }
    }

    fn bytes(&self) -> Bytes {
        if self.more.is_empty() {
            return self.first.clone();
        }
        let more = self.more.iter().flatten();
        self.first.iter().chain(more).copied().collect()
    }
}

// === impl RequestBody ===

impl RequestBody {
    /// A body whose first bytes are remembered if `remember`; `expects` if the client waits for
    /// `100 Continue` (RFC 9110 section 10.1.1).
    #[must_use]
    pub fn new(incoming: Incoming, remember: bool, expects: bool, open: &Arc<AtomicUsize>) -> Self {
        let open = (!incoming.is_end_stream()).then(|| {
            open.fetch_add(1, Ordering::Relaxed);
            Open(Arc::clone(open))
        });
        let start = Mutex::new(remember.then(Start::default));
        let whole = AtomicBool::new(open.is_none());
        Self {
            incoming: Some(incoming),
            prefix: None,
            upload: Arc::new(Upload { start, whole, ..Upload::default() }),
            expects,
            _open: open,
        }
    }

    /// No body, for a request that is sent again; it counts where the first one did.
    #[must_use]
    pub fn empty(upload: Arc<Upload>) -> Self {
        Self { incoming: None, prefix: None, upload, expects: false, _open: None }
    }

    /// The same body once more, for a request of which the backend surely did nothing; none if it was not
    /// remembered whole. It is not counted a second time.
    #[must_use]
    pub fn again(upload: &Arc<Upload>) -> Option<Self> {
        let again = !upload.remembered()?.is_empty();
        upload.again.store(again, Ordering::Relaxed);
        Some(Self::empty(Arc::clone(upload)))
    }

    /// Takes back data that was read and not sent; it is not counted a second time.
    pub fn put_back(&mut self, data: Bytes) {
        self.prefix = (!data.is_empty()).then(|| Box::new(data));
    }

    /// What has passed.
    #[must_use]
    pub fn upload(&self) -> &Arc<Upload> {
        &self.upload
    }

    /// Reads on until [`MAX_PEEK`] bytes are remembered, for at most 100 ms; never behind an
    /// unanswered `Expect`. The body is of no use afterwards but for [`RequestBody::discard`].
    pub async fn read_start(&mut self) {
        if self.unasked() {
            return;
        }
        let upload = Arc::clone(&self.upload);
        let read = async {
            while upload.wants_more() {
                match self.frame().await {
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return,
                }
            }
        };
        // Late bytes only mean an answer without an id.
        let _in_time = tokio::time::timeout(PEEK_WAIT, read).await;
    }

    /// Reads the rest and throws it away while the answer goes out: a connection that is closed with
    /// unread bytes is reset, and the answer with it, before a client that is still sending has read
    /// it. Bounded; behind an unanswered `Expect` nothing is on its way.
    pub fn discard(mut self) {
        if self.unasked() || self.is_end_stream() {
            return;
        }
        let limit = self.upload.bytes() + MAX_DISCARD;
        let rest = async move {
            while self.upload.bytes() < limit {
                match self.frame().await {
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return,
                }
            }
        };
        tokio::spawn(tokio::time::timeout(DISCARD_WAIT, rest));
    }

    fn unasked(&self) -> bool {
        self.expects && self.upload.bytes() == 0
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self { incoming, prefix, upload, .. } = &mut *self;
        if let Some(data) = prefix.take() {
            return Poll::Ready(Some(Ok(Frame::data(*data))));
        }
        let Some(incoming) = incoming else {
            // hyper asks for it while it sends the head, so before anything is forgotten.
            let again = upload.again.swap(false, Ordering::Relaxed);
            let bytes = again.then(|| upload.remembered()).flatten();
            return Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))));
        };
        let mut polled = Pin::new(&mut *incoming).poll_frame(cx);
        match &mut polled {
            Poll::Pending => upload.waits.store(true, Ordering::Relaxed),
            Poll::Ready(Some(Ok(frame))) => {
                upload.waits.store(false, Ordering::Relaxed);
                if let Some(data) = frame.data_ref() {
                    upload.pass(data);
                    if incoming.is_end_stream() {
                        upload.whole.store(true, Ordering::Relaxed);
                    }
                } else if let Some(trailers) = frame.trailers_mut() {
                    headers::strip_trailers(trailers);
                    upload.trailed.store(true, Ordering::Relaxed);
                }
            }
            Poll::Ready(Some(Err(_))) => upload.broken.store(true, Ordering::Relaxed),
            Poll::Ready(None) => upload.whole.store(true, Ordering::Relaxed),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let again = || self.upload.again.load(Ordering::Relaxed);
        self.prefix.is_none()
            && self.incoming.as_ref().map_or_else(|| !again(), Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let again = || self.upload.again.load(Ordering::Relaxed);
        let left = || if again() { self.upload.bytes() } else { 0 };
        let rest = self.incoming.as_ref();
        let rest = rest.map_or_else(|| SizeHint::with_exact(left()), Body::size_hint);
        match rest.exact() {
            Some(rest) => {
                let prefix = self.prefix.as_ref().map_or(0, |data| data.len() as u64);
                SizeHint::with_exact(rest + prefix)
            }
            None => rest,
        }
    }
}

/// Whoever sends a body drops it at its end, or when it cannot go on.
impl Drop for RequestBody {
    fn drop(&mut self) {
        self.upload.over.store(true, Ordering::Release);
        self.upload.ended.notify_waiters();
    }
}

// === impl Upload ===

impl Upload {
    /// Bytes that have passed.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether the client ended it by anything but its end, or wrote what cannot be read.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// The remembered bytes, which are forgotten by this.
    pub fn take_start(&self) -> Option<Bytes> {
        self.lock().take().map(|start| start.bytes())
    }

    /// Forgets them: the backend answers, so no error of ours will need them.
    pub fn forget_start(&self) {
        *self.lock() = None;
    }

    /// All bytes, if the body has ended and nothing of it was forgotten.
    fn remembered(&self) -> Option<Bytes> {
        let length = usize::try_from(self.bytes()).ok()?;
        let whole = self.whole.load(Ordering::Relaxed) && !self.is_broken();
        if !whole || self.trailed.load(Ordering::Relaxed) {
            return None;
        }
        if length == 0 {
            return Some(Bytes::new());
        }
        let bytes = self.lock().as_ref()?.bytes();
        (bytes.len() == length).then_some(bytes)
    }

    /// Waits until nothing more of the body will pass, and for `limit` more. A client may take its time; a
    /// backend that takes nothing of what the client has sent has this long too, or up to twice that.
    pub async fn overdue(&self, limit: Duration) {
        loop {
            let before = self.bytes();
            tokio::select! {
                () = self.over() => break,
                () = tokio::time::sleep(limit) => {}
            }
            if self.bytes() == before && !self.waits.load(Ordering::Relaxed) {
                return;
            }
        }
        tokio::time::sleep(limit).await;
    }

    async fn over(&self) {
        let mut ended = std::pin::pin!(self.ended.notified());
        ended.as_mut().enable();
        if !self.over.load(Ordering::Acquire) {
            ended.await;
        }
    }

    /// Counts bytes that went another way than through the body.
    pub fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn pass(&self, data: &Bytes) {
        let before = self.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        let Some(room) = usize::try_from(before).ok().and_then(|n| MAX_PEEK.checked_sub(n)) else {
            return;
        };
        if room > 0
            && let Some(start) = self.lock().as_mut()
        {
            let mut chunk = data.clone();
            chunk.truncate(room.min(data.remaining()));
            start.push(chunk);
        }
    }

    fn wants_more(&self) -> bool {
        self.bytes() < MAX_PEEK as u64 && self.lock().is_some()
    }

    /// A poisoned lock only means that another thread panicked between two plain stores.
    fn lock(&self) -> MutexGuard<'_, Option<Start>> {
        self.start.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
