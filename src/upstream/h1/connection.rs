//! One connection to a backend, and the exchange on it.
//!
//! Polled by the task of the request, which writes what the client sends and reads what the backend answers
//! in the same wake-up; dropped, it cancels. Between two exchanges nobody polls it: [`Connection::is_open`]
//! looks. Never decides about a retry: it says what was written.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, ReadBuf};

use super::Fault;
use super::aside::Aside;
use super::download::Download;
use super::io::Io;
use super::upload::Upload;
use crate::body::RequestBody;
use crate::headers::names::Known;
use crate::headers::noted::Noted;
use crate::headers::onward::Onward;
use crate::upstream::faults::HeadLimits;

/// A connection, idle or in an exchange.
#[derive(Debug)]
pub struct Connection {
    io: Io,
    upload: Upload,
    download: Download,
    /// The upload goes on beside its response, and is not here meanwhile.
    aside: Option<Aside>,
}

/// An exchange that brought no response.
#[derive(Debug)]
pub struct Unanswered {
    /// Why.
    pub fault: Fault,
    /// The request: as it was, or with what is left of its body.
    pub request: Option<Box<Request<RequestBody>>>,
    /// Whether any byte of it was written.
    pub written: bool,
}

// === impl Connection ===

impl Connection {
    /// An idle connection on which nothing has been said.
    #[must_use]
    pub fn new(io: Io, limits: HeadLimits) -> Self {
        Self { io, upload: Upload::default(), download: Download::new(limits), aside: None }
    }

    /// Whether an idle connection stands and nothing has come on it.
    pub fn is_open(&mut self) -> bool {
        if let Io::Plain(tcp) = &self.io {
            return tcp.is_silent();
        }
        // Nobody is woken: whoever takes the connection looks again. Unconstrained, or a task that looks at many
        // would find all of them open that are behind its budget.
        let mut cx = Context::from_waker(Waker::noop());
        let look = pin!(tokio::task::unconstrained(poll_fn(|cx| self.poll_byte(cx))));
        look.poll(&mut cx).is_pending()
    }

    /// Ready with a byte that nobody has asked for, or with the end.
    fn poll_byte(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut byte = [0];
        Pin::new(&mut self.io).poll_read(cx, &mut ReadBuf::new(&mut byte)).map(|_| ())
    }

    /// Whether a byte of a response has come since the request.
    #[must_use]
    pub const fn heard(&self) -> bool {
        self.download.heard()
    }

    /// Responses with 1xx before the one that counts (RFC 9110 section 15.2).
    #[must_use]
    pub const fn interim(&self) -> u32 {
        self.download.interim()
    }

    /// Whether the exchange is over and another one may begin.
    #[must_use]
    pub fn is_reusable(&self) -> bool {
        self.is_sent() && self.download.is_reusable()
    }

    /// Whether the request has been written to its end.
    #[must_use]
    pub const fn is_sent(&self) -> bool {
        self.aside.is_none() && self.upload.is_done()
    }

    /// Sends a request as it is to go out, and returns the head of its response; the body of either may still be
    /// on its way. A request that is kept can be taken back then.
    ///
    /// # Errors
    /// [`Unanswered`]; the connection is of no use afterwards.
    pub async fn send(
        &mut self,
        request: Box<Request<RequestBody>>,
        onward: &Onward<'_>,
    ) -> Result<Response<Noted>, Unanswered> {
        self.download.begin(request.method() == Method::HEAD);
        self.upload.begin(request, onward);
        match poll_fn(|cx| self.poll_response(cx)).await {
            Ok(response) => Ok(response),
            Err(fault) => Err(Unanswered {
                fault,
                request: self.upload.take_request(),
                written: self.upload.is_written(),
            }),
        }
    }

    /// What is left of a request that nobody waits for any more; the connection is of no use afterwards.
    pub fn take_request(&mut self) -> Option<Box<Request<RequestBody>>> {
        self.upload.take_request()
    }

    /// A request that was kept will not be needed any more.
    pub fn forget_request(&mut self) {
        self.upload.forget();
    }

    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<Noted>, Fault>> {
        self.upload.poll(&mut self.io, cx)?;
        let read = ready!(self.download.poll_head(&mut self.io, cx));
        Poll::Ready(match read {
            Ok(response) => {
                self.upload.answered(response.body().names.has(Known::McpSessionId));
                self.part_upload();
                Ok(response)
            }
            // The first thing that went wrong.
            Err(Fault::Closed | Fault::Io(_)) if let Some(error) = self.upload.take_error() => {
                Err(Fault::Io(error))
            }
            Err(fault) => Err(fault),
        })
    }

    /// An upload that nobody may ask for any more goes on beside its response; where it does already, none is here.
    fn part_upload(&mut self) {
        if self.upload.may_outlast() {
            self.aside = Some(Aside::begin(std::mem::take(&mut self.upload), &mut self.io));
        }
    }

    /// The next frame of the response's body; writes on at the request's.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        // A request that was kept may have been forgotten by now.
        self.part_upload();
        self.poll_upload(cx);
        self.download.poll_frame(&mut self.io, cx)
    }

    /// Writes on at the request, behind the head of its response.
    fn poll_upload(&mut self, cx: &mut Context<'_>) {
        match &mut self.aside {
            None => {
                // The response stands, whatever becomes of the request.
                let _stands = self.upload.poll(&mut self.io, cx);
            }
            Some(aside) => {
                if let Poll::Ready(upload) = aside.poll_end(&mut self.io, cx) {
                    self.upload = upload;
                    self.aside = None;
                }
            }
        }
    }

    /// Whether nothing more has to come of the response's body.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.download.is_here()
    }

    /// Whether the response's body has been read to its end.
    #[must_use]
    pub fn is_end_stream(&self) -> bool {
        self.download.is_end_stream()
    }

    /// What is known of the rest of the response's body.
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        self.download.size_hint()
    }

    /// Writes the rest of a request whose response has made something else of the connection; whether all of it was
    /// written. Nothing else may be sent before (RFC 9110 section 7.8).
    pub async fn end_request(&mut self) -> bool {
        poll_fn(|cx| {
            self.poll_upload(cx);
            if self.aside.is_none() && self.upload.is_over() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        self.is_sent()
    }

    /// The bytes of a connection that has become something else, behind the request's end, and those that have been
    /// read of it.
    #[must_use]
    pub fn into_io(self) -> (Bytes, Io) {
        (self.download.into_rest(), self.io)
    }

    /// Writes the rest of the request, behind a response that has ended; whether the connection is of use
    /// afterwards. What the backend does not take is read away.
    pub async fn finish_upload(&mut self) -> bool {
        let alone = poll_fn(|cx| {
            self.poll_upload(cx);
            if self.aside.is_none() && self.upload.is_over() {
                return Poll::Ready(true);
            }
            // Whatever comes now, or the end, is a reason not to go on.
            self.poll_byte(cx).map(|()| false)
        })
        .await;
        if let Some(request) = self.upload.take_request() {
            request.into_body().discard();
        }
        alone && self.is_reusable()
    }
}
