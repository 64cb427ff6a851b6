//! The right to one connection, or to one stream of a shared one: a request goes out by it, and the body of
//! the response is read through it.
//!
//! Counts as load until it is dropped, which is when the *stream* ends. Knows nothing of routes, clients or
//! retries.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::uri::Uri;
use http::{HeaderValue, Method, Request, Response, Version, request};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::time::Instant;

use super::connect::Sender;
use super::endpoint::Endpoint;
use super::faults::{BadResponse, SendError};
use super::framing;
use super::h1::Connection;
use super::lent::{Back, Lent};
use crate::body::{RequestBody, Upload};
use crate::config::Scheme;
use crate::headers::noted::Noted;
use crate::headers::onward::Onward;
use crate::workers::moment;
use crate::workers::near::Near;

/// A connection, or a stream of a shared one, until dropped.
#[derive(Debug)]
pub struct Lease {
    endpoint: Near<Endpoint>,
    pub(super) sender: Option<Sender>,
    /// Of the pool, when the connection was taken from it or dialled.
    pub(super) generation: u64,
    /// Whether the connection was opened for another request.
    pub reused: bool,
    /// When the connection was found or opened.
    pub since: Instant,
    /// The head of the request that was sent over HTTP/2, as it came.
    head: Option<Box<request::Parts>>,
    /// What comes back of its body.
    back: Option<Back>,
}

/// The body of a response, and the lease it lives on.
#[derive(Debug)]
pub struct Leased {
    /// Over HTTP/2; over HTTP/1.1 the lease's connection brings it.
    incoming: Option<Incoming>,
    /// Held until it ends.
    lease: Lease,
    /// What was read of it and is to be read again.
    returned: Bytes,
    noted: Noted,
}

/// What a response brings beside its head: its body, where the lease's connection does not bring that, and what was
/// seen of its fields.
pub type Brought = (Option<Incoming>, Noted);

/// A request that brought no response.
#[derive(Debug)]
pub struct Unsent {
    /// Why.
    pub error: SendError,
    /// The request, as far as it was not consumed.
    pub request: Option<Box<Request<RequestBody>>>,
    /// Whether any byte of it may have reached the backend.
    pub written: bool,
}

// === impl Lease ===

impl Lease {
    pub(super) fn new(
        endpoint: Near<Endpoint>,
        sender: Option<Sender>,
        generation: u64,
        reused: bool,
        since: Instant,
    ) -> Self {
        endpoint.begin();
        Self { endpoint, sender, generation, reused, since, head: None, back: None }
    }

    /// Whether it speaks HTTP/2.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        matches!(self.sender, Some(Sender::Http2(_)))
    }

    /// Whether the connection closed without a word since the request was sent. A stream of HTTP/2
    /// that the backend resets is an answer of sorts: its connection stands.
    #[must_use]
    pub fn closed_silently(&self) -> bool {
        match &self.sender {
            Some(Sender::Http1(connection)) => !connection.heard(),
            Some(Sender::Http2(http2)) => http2.sender.is_closed(),
            None => false,
        }
    }

    /// Responses with 1xx that came before the one that counts; none are told of HTTP/2.
    #[must_use]
    pub fn interim(&self) -> u32 {
        match &self.sender {
            Some(Sender::Http1(connection)) => connection.interim(),
            Some(Sender::Http2(_)) | None => 0,
        }
    }

    /// Where it leads.
    #[must_use]
    pub fn endpoint(&self) -> &Near<Endpoint> {
        &self.endpoint
    }

    /// Sends one request as it is to go out. The head of its response has one framing, or none that two readers
    /// could read in two ways. A request that is kept can be taken back when the response has begun.
    ///
    /// # Errors
    /// [`Unsent`]; the lease must not be recycled.
    pub async fn send(
        &mut self,
        request: Box<Request<RequestBody>>,
        onward: &Onward<'_>,
    ) -> Result<Response<Brought>, Unsent> {
        let Self { endpoint, sender, head, back, .. } = self;
        match sender {
            Some(Sender::Http1(connection)) => match connection.send(request, onward).await {
                Ok(response) => Ok(response.map(|noted| (None, noted))),
                Err(failed) => Err(Unsent {
                    error: SendError::Http1(failed.fault),
                    request: failed.request,
                    written: failed.written,
                }),
            },
            Some(Sender::Http2(http2)) => {
                let (parts, body) = request.into_parts();
                let to_head = parts.method == Method::HEAD;
                let (body, comes) = Lent::new(body);
                let request = over_http2(&parts, body, onward, endpoint);
                (*head, *back) = (Some(Box::new(parts)), comes);
                // Boxed, not to weigh on HTTP/1.1.
                let sent = Box::pin(http2.sender.try_send_request(request)).await;
                settle(endpoint, to_head, sent.map_err(|failed| Unsent::of_http2(failed, head))?)
            }
            None => std::future::pending().await,
        }
    }

    /// The head of the request that was sent over HTTP/2 and is not there any more, once.
    pub fn take_head(&mut self) -> Option<Box<request::Parts>> {
        self.head.take()
    }

    /// What was not sent of a body over HTTP/2, once it is not sent any more; nothing if it has been sent to its
    /// end.
    #[must_use]
    pub fn take_back(&mut self) -> Option<Back> {
        self.back.take()
    }

    /// What is left of a request whose response comes too late: to be read away, so that a client that is
    /// still sending reads the error. `None` over HTTP/2, where that is done here.
    #[must_use]
    pub fn take_request(mut self) -> Option<Box<Request<RequestBody>>> {
        match &mut self.sender {
            Some(Sender::Http1(connection)) => connection.take_request(),
            Some(Sender::Http2(_)) => {
                if let Some(back) = self.back.take() {
                    back.discard();
                }
                None
            }
            None => None,
        }
    }

    /// The response has been read to its end: the connection may carry another request, once this one has
    /// been sent whole. A lease that is dropped without this closes its connection, which is how a client's
    /// cancel reaches the backend.
    pub fn recycle(mut self) {
        match self.sender.take() {
            Some(Sender::Http1(mut connection)) if connection.is_reusable() => {
                // Where nobody has asked for it, an idle connection would keep it.
                connection.forget_request();
                self.endpoint.pool.put(connection, self.generation, moment::now());
            }
            Some(Sender::Http1(mut connection)) if !connection.is_sent() => {
                // The backend has answered early; the client still sends.
                tokio::spawn(async move {
                    if connection.finish_upload().await {
                        self.endpoint.pool.put(connection, self.generation, Instant::now());
                    }
                });
            }
            // The backend has answered early; the client still sends.
            Some(Sender::Http2(_)) => {
                if let Some(back) = self.back.take() {
                    back.discard();
                }
            }
            Some(Sender::Http1(_)) | None => {}
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.endpoint.end();
    }
}

/// The request as HTTP/2 takes it: with a head of its own, for this one is taken away.
fn over_http2(
    parts: &request::Parts,
    body: Lent,
    onward: &Onward<'_>,
    endpoint: &Endpoint,
) -> Request<Lent> {
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = onward.http2(&parts.headers);
    let scheme = match endpoint.target.scheme {
        Scheme::Https => "https",
        Scheme::Http | Scheme::H2c => "http",
    };
    let authority = onward.authority.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
    let path = || onward.path.clone();
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path()).build();
    *request.uri_mut() = uri.unwrap_or_else(|_| Uri::from(path()));
    request
}

/// What the connection itself does for HTTP/1.1.
fn settle(
    endpoint: &Endpoint,
    to_head: bool,
    mut response: Response<Incoming>,
) -> Result<Response<Brought>, Unsent> {
    let limits = endpoint.heads();
    let (version, status) = (response.version(), response.status());
    let noted = Noted::of(response.headers());
    let bad = if limits.admit(response.headers()) {
        framing::settle(to_head, version, status, noted.names, response.headers_mut())
            .err()
            .map(BadResponse::Ambiguous)
    } else {
        Some(BadResponse::TooLarge(limits))
    };
    match bad {
        Some(bad) => Err(Unsent { error: SendError::Bad(bad), request: None, written: true }),
        None => Ok(response.map(|incoming| (Some(incoming), noted))),
    }
}

// === impl Unsent ===

impl Unsent {
    /// What was handed back becomes the request of before again.
    fn of_http2(
        mut failed: TrySendError<Request<Lent>>,
        head: &mut Option<Box<request::Parts>>,
    ) -> Self {
        let request = failed.take_message().and_then(|back| {
            let body = back.into_body().into_body()?;
            Some(Box::new(Request::from_parts(*head.take()?, body)))
        });
        let written = request.is_none();
        Self { error: SendError::Http2(failed.into_error()), request, written }
    }
}

// === impl Leased ===

impl Leased {
    /// The body of a response that came by `lease`.
    #[must_use]
    pub fn new((incoming, noted): Brought, lease: Lease) -> Self {
        Self { incoming, lease, returned: Bytes::new(), noted }
    }

    /// What was seen of its head's fields, as they came.
    #[must_use]
    pub const fn noted(&self) -> Noted {
        self.noted
    }

    /// Where it comes from.
    #[must_use]
    pub fn endpoint(&self) -> &Near<Endpoint> {
        self.lease.endpoint()
    }

    /// When its connection was found or opened.
    #[must_use]
    pub const fn since(&self) -> Instant {
        self.lease.since
    }

    /// Takes back what was read of it: it is read once more.
    pub fn put_back(&mut self, bytes: Bytes) {
        self.returned = bytes;
    }

    /// What was read of it and put back.
    #[must_use]
    pub fn read(&self) -> &[u8] {
        &self.returned
    }

    /// Whether nothing more has to come of it.
    #[must_use]
    pub fn is_here(&self) -> bool {
        match &self.lease.sender {
            Some(Sender::Http1(connection)) => connection.is_here(),
            Some(Sender::Http2(_)) | None => self.is_end_stream(),
        }
    }

    /// The request that was kept will not be needed any more.
    pub fn forget_request(&mut self) {
        drop(self.lease.take_head());
        if let Some(Sender::Http1(connection)) = &mut self.lease.sender {
            connection.forget_request();
        }
    }

    /// The request that was kept, with what is left of its body; over HTTP/2 with none. If it never had one, the
    /// response can be read on.
    #[must_use]
    pub fn take_request(&mut self, upload: &Arc<Upload>) -> Option<Box<Request<RequestBody>>> {
        if let Some(Sender::Http1(connection)) = &mut self.lease.sender {
            return connection.take_request();
        }
        let body = RequestBody::empty(Arc::clone(upload));
        Some(Box::new(Request::from_parts(*self.lease.take_head()?, body)))
    }

    /// The request that was kept, with what is left of its body; over HTTP/2 with none. The response is given up.
    #[must_use]
    pub fn into_request(self, upload: &Arc<Upload>) -> Option<Box<Request<RequestBody>>> {
        let (request, back) = self.taken_apart(upload)?;
        if let Some(back) = back {
            // A client that is still sending would not read its response otherwise.
            back.discard();
        }
        Some(request)
    }

    /// The same with what is left of its body over HTTP/2 too, once nobody sends that any more.
    pub async fn into_unfinished(self, upload: &Arc<Upload>) -> Option<Box<Request<RequestBody>>> {
        let (request, back) = self.taken_apart(upload)?;
        let Some(back) = back else { return Some(request) };
        match back.rest().await {
            Some(rest) => Some(Box::new(request.map(|_| rest))),
            None => Some(request),
        }
    }

    fn taken_apart(
        mut self,
        upload: &Arc<Upload>,
    ) -> Option<(Box<Request<RequestBody>>, Option<Back>)> {
        Some((self.take_request(upload)?, self.lease.take_back()))
    }

    /// It has been read to its end.
    pub fn recycle(self) {
        self.lease.recycle();
    }

    /// The connection that becomes something else, and what counts as its load. `None` over HTTP/2.
    #[must_use]
    pub fn into_tunnel(mut self) -> Option<(Box<Connection>, Lease)> {
        match self.lease.sender.take() {
            Some(Sender::Http1(connection)) => Some((connection, self.lease)),
            Some(Sender::Http2(_)) | None => None,
        }
    }
}

impl Body for Leased {
    type Data = Bytes;
    type Error = SendError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SendError>>> {
        let Self { incoming, lease, returned, .. } = &mut *self;
        if !returned.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(returned)))));
        }
        match (incoming, &mut lease.sender) {
            (Some(incoming), _) => Pin::new(incoming)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(SendError::Http2))),
            (None, Some(Sender::Http1(connection))) => connection
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(SendError::Http1))),
            (None, _) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match (&self.incoming, &self.lease.sender) {
            _ if !self.returned.is_empty() => false,
            (Some(incoming), _) => incoming.is_end_stream(),
            (None, Some(Sender::Http1(connection))) => connection.is_end_stream(),
            (None, _) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let rest = match (&self.incoming, &self.lease.sender) {
            (Some(incoming), _) => incoming.size_hint(),
            (None, Some(Sender::Http1(connection))) => connection.size_hint(),
            (None, _) => SizeHint::with_exact(0),
        };
        match rest.exact() {
            _ if self.returned.is_empty() => rest,
            Some(rest) => SizeHint::with_exact(rest + self.returned.len() as u64),
            None => SizeHint::default(),
        }
    }
}
