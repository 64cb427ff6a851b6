//! The request of one exchange on its way to a socket.
//!
//! Writes what the client's body brings in the poll that brings it: the head and what came with it in one
//! call. Knows no response, and never decides about a retry: it says what was written.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Request;
use http_body::Body;
use tokio::io::AsyncWrite;

use super::Fault;
use super::encode::{self, Encoder, Outgoing};
use super::io::Io;
use super::scratch;
use crate::body::RequestBody;
use crate::headers::onward::{Keep, Onward};

/// A request, and how far it has been written; of a connection that has none, the one before it.
#[derive(Debug, Default)]
pub struct Upload {
    state: State,
    /// Until both it has been written and its response has begun, or longer if it is kept.
    request: Option<Box<Request<RequestBody>>>,
    /// Whether its head may be needed once more.
    kept: Keep,
    outgoing: Outgoing,
    /// Bytes are in the TLS layer.
    unflushed: bool,
    /// A byte of it has been taken by the socket.
    written: bool,
    /// Its response has begun.
    answered: bool,
}

#[derive(Debug, Default)]
enum State {
    /// Nothing has been written: the head waits for the first bytes of the body.
    Head(Encoder),
    Body(Encoder),
    #[default]
    Done,
    /// The socket takes no more; what the backend has said may still be there.
    Failed(io::Error),
}

// === impl Upload ===

impl Upload {
    /// Of this request, from its start, as it is to go out.
    pub fn begin(&mut self, request: Box<Request<RequestBody>>, onward: &Onward<'_>) {
        let mut outgoing = Outgoing::default();
        outgoing.front = scratch::output();
        let state = State::Head(encode::head(&mut outgoing.front, &request, onward));
        let kept = onward.keep;
        *self = Self { state, request: Some(request), kept, outgoing, ..Self::default() };
    }

    /// Its head will not be needed any more.
    pub fn forget(&mut self) {
        self.kept = Keep::No;
        self.let_go();
    }

    /// Whether the request has been written to its end.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Whether nothing more of it will be written.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.state, State::Done | State::Failed(_))
    }

    /// Whether it goes on behind the head of its response, and nobody may ask for it any more.
    #[must_use]
    pub const fn may_outlast(&self) -> bool {
        self.answered && !self.is_over() && matches!(self.kept, Keep::No)
    }

    /// Whether any byte of it has been written.
    #[must_use]
    pub const fn is_written(&self) -> bool {
        self.written
    }

    /// Why the socket took no more, once.
    pub fn take_error(&mut self) -> Option<io::Error> {
        match &mut self.state {
            State::Failed(error) => {
                Some(std::mem::replace(error, io::ErrorKind::BrokenPipe.into()))
            }
            State::Head(_) | State::Body(_) | State::Done => None,
        }
    }

    /// The response has begun, so the request is not needed any more than for its body; but for one that begins a
    /// session, which its server says by `names_session`.
    pub fn answered(&mut self, names_session: bool) {
        self.answered = true;
        if let Keep::If(needed) = self.kept {
            // Who answers before the first byte of a body has not looked at it, and nothing is remembered.
            let tap = self.request.as_ref().map(|request| &request.body().upload().tap);
            let needed = names_session && tap.is_some_and(|tap| tap.peek(needed));
            self.kept = if needed { Keep::Yes } else { Keep::No };
        }
        self.let_go();
    }

    /// Lets go of a request that nobody needs any more. It counts as open at its client's connection, and holds
    /// what is remembered of its body.
    fn let_go(&mut self) {
        if self.answered
            && self.is_done()
            && matches!(self.kept, Keep::No)
            && let Some(mut request) = self.request.take()
        {
            scratch::let_go(std::mem::take(request.headers_mut()));
        }
    }

    /// The request with what is left of its body; as it was, if nothing was written.
    pub fn take_request(&mut self) -> Option<Box<Request<RequestBody>>> {
        let mut request = self.request.take();
        if let (false, Some(request)) = (self.written, &mut request) {
            // It was taken out of the body to go with the head.
            request.body_mut().put_back(std::mem::take(&mut self.outgoing.data));
        }
        request
    }

    /// Writes what can be written. A socket that takes no more is noted, not told.
    ///
    /// # Errors
    /// The body breaks off, or is not what was announced: nothing more is written.
    pub fn poll(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Result<(), Fault> {
        if self.is_over() {
            return Ok(());
        }
        let written = self.poll_request(io, cx);
        if written.is_err() {
            self.state = State::Failed(io::ErrorKind::InvalidData.into());
        }
        written
    }

    fn poll_request(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Result<(), Fault> {
        if let State::Head(encoder) = self.state {
            self.state = State::Body(encoder);
            self.fill(cx)?;
        }
        loop {
            match self.poll_write(io, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.state = State::Failed(error);
                    return Ok(());
                }
                Poll::Pending => return Ok(()),
            }
            if !self.fill(cx)? {
                return Ok(());
            }
        }
    }

    /// Takes more to write; false if there is nothing at the moment, or nothing more.
    fn fill(&mut self, cx: &mut Context<'_>) -> Result<bool, Fault> {
        let Some(request) = &mut self.request else { return Ok(false) };
        let State::Body(encoder) = &mut self.state else { return Ok(false) };
        if *encoder == Encoder::Ended {
            if self.outgoing.is_empty() {
                scratch::written(std::mem::take(&mut self.outgoing.front));
                self.state = State::Done;
                request.body().upload().progress.ended();
                self.let_go();
                return Ok(false);
            }
            return Ok(true);
        }
        match Pin::new(request.body_mut()).poll_frame(cx) {
            // The head goes alone.
            Poll::Pending => return Ok(!self.outgoing.is_empty()),
            Poll::Ready(None) => encoder.end(&mut self.outgoing)?,
            Poll::Ready(Some(Ok(frame))) => {
                // Only data can be put back.
                self.written |= !frame.is_data();
                let last = request.body().is_end_stream();
                encoder.frame(&mut self.outgoing, frame, last)?;
            }
            Poll::Ready(Some(Err(error))) => return Err(Fault::Client(error)),
        }
        Ok(true)
    }

    /// Writes everything that is on its way.
    fn poll_write(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let bufs = self.outgoing.slices().map(IoSlice::new);
            let count = ready!(Pin::new(&mut *io).poll_write_vectored(cx, &bufs))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written = true;
            self.unflushed = true;
            self.outgoing.advance(count);
        }
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}
