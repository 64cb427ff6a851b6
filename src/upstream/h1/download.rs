//! The response of one exchange as it comes from a socket.
//!
//! Reads into a buffer of the worker, so that a response that is silent holds none. Knows no request but for
//! whether it was HEAD.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, ReadBuf};

use super::Fault;
use super::body::{Decoded, Decoder};
use super::head::{self, Head};
use super::io::Io;
use super::scratch::{self, Input};
use crate::headers::noted::Noted;
use crate::upstream::faults::HeadLimits;

/// A large body is read in pieces of this size, which are passed on without a copy.
const LARGE_READ: usize = 64 * 1024;

/// A response, and how far it has been read; of a connection that has none, the one before it.
#[derive(Debug)]
pub struct Download {
    limits: HeadLimits,
    state: State,
    /// Data that came with the head.
    ready: Bytes,
    /// The last read was as large as it could be.
    full: bool,
    /// A byte has come.
    heard: bool,
    /// Another exchange may follow.
    reusable: bool,
    /// Responses with 1xx that came before the one that counts.
    interim: u32,
}

/// How far it has been read.
#[derive(Debug)]
enum State {
    /// What has come of its head; whether the request was HEAD.
    Head(Vec<u8>, bool),
    Body(Decoder),
}

type Polled = Poll<Option<Result<Frame<Bytes>, Fault>>>;

// === impl Download ===

impl Download {
    /// Nothing is expected yet.
    #[must_use]
    pub fn new(limits: HeadLimits) -> Self {
        Self {
            limits,
            state: State::Body(Decoder::Ended),
            ready: Bytes::new(),
            full: false,
            heard: false,
            reusable: true,
            interim: 0,
        }
    }

    /// A response is expected; `to_head` if it is one to a HEAD request.
    pub fn begin(&mut self, to_head: bool) {
        self.state = State::Head(Vec::new(), to_head);
        (self.heard, self.interim) = (false, 0);
    }

    /// Whether a byte of it has come.
    #[must_use]
    pub const fn heard(&self) -> bool {
        self.heard
    }

    /// Responses with 1xx before the one that counts (RFC 9110 section 15.2).
    #[must_use]
    pub const fn interim(&self) -> u32 {
        self.interim
    }

    /// Whether it has been read to its end, and another may follow.
    #[must_use]
    pub fn is_reusable(&self) -> bool {
        self.reusable && self.is_end_stream()
    }

    /// Its head.
    ///
    /// # Errors
    /// It is no head, or none that can be passed on; or the connection has ended before it.
    pub fn poll_head(
        &mut self,
        io: &mut Io,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<Noted>, Fault>> {
        loop {
            let mut input = Input::take();
            let mut read = ReadBuf::new(&mut input);
            let polled = Pin::new(&mut *io).poll_read(cx, &mut read);
            let length = read.filled().len();
            match ready!(polled) {
                Ok(()) if length > 0 => {}
                ended => return Poll::Ready(Err(self.ended_early(ended.err()))),
            }
            self.heard = true;
            self.full = length == input.len();
            let bytes = input.get_mut(..length).unwrap_or_default();
            if let Some(response) = self.take_head(bytes)? {
                return Poll::Ready(Ok(response));
            }
        }
    }

    /// The connection ended before the response had begun.
    fn ended_early(&self, error: Option<io::Error>) -> Fault {
        match error {
            Some(error) if error.kind() != io::ErrorKind::UnexpectedEof => Fault::Io(error),
            _ if self.heard => Fault::Truncated,
            _ => Fault::Closed,
        }
    }

    /// The head, if it is whole with these bytes.
    fn take_head(&mut self, bytes: &mut [u8]) -> Result<Option<Response<Noted>>, Fault> {
        let State::Head(before, to_head) = &mut self.state else { return Ok(None) };
        let to_head = *to_head;
        if before.is_empty() {
            let (found, used) = self.read_heads(bytes, to_head)?;
            let rest = bytes.get_mut(used..).unwrap_or_default();
            if let Some(head) = found {
                return self.begin_body(head, rest).map(Some);
            }
            self.state = State::Head(rest.to_vec(), to_head);
            return Ok(None);
        }
        before.extend_from_slice(bytes);
        // A head ends with a line: what brings no end of a line is not worth a look.
        if memchr::memchr(b'\n', bytes).is_none() && before.len() <= self.limits.bytes() {
            return Ok(None);
        }
        let mut all = std::mem::take(before);
        let (found, used) = self.read_heads(&all, to_head)?;
        if let Some(head) = found {
            return self.begin_body(head, all.get_mut(used..).unwrap_or_default()).map(Some);
        }
        all.drain(..used);
        self.state = State::Head(all, to_head);
        Ok(None)
    }

    /// The first head that is no interim one, and the bytes that all heads took.
    fn read_heads(&mut self, bytes: &[u8], to_head: bool) -> Result<(Option<Head>, usize), Fault> {
        let (mut used, mut fields) = (0, scratch::fields());
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            let Some(head) = head::read(rest, self.limits, to_head, &mut fields)? else {
                scratch::let_go(fields);
                return Ok((None, used));
            };
            used += head.length;
            if !head::is_interim(head.response.status()) {
                return Ok((Some(head), used));
            }
            self.interim = self.interim.saturating_add(1);
        }
    }

    fn begin_body(&mut self, head: Head, rest: &mut [u8]) -> Result<Response<Noted>, Fault> {
        let Head { response, body, reusable, behind, .. } = head;
        self.reusable = reusable;
        let in_place = !matches!(body, Decoder::Chunked(_));
        self.state = State::Body(body);
        let data = if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // What follows is no HTTP.
            self.reusable = false;
            rest.len()
        } else {
            self.decode(rest)?
        };
        self.ready = match behind {
            Some(mut behind) if in_place => {
                behind.truncate(data);
                behind
            }
            _ => Bytes::copy_from_slice(rest.get(..data).unwrap_or_default()),
        };
        Ok(response)
    }

    /// Decodes what has come of the body; how much of it is data.
    fn decode(&mut self, bytes: &mut [u8]) -> Result<usize, Fault> {
        let State::Body(decoder) = &mut self.state else { return Ok(0) };
        let Decoded { data, used } = decoder.decode(bytes)?;
        if used < bytes.len() {
            // Nobody has asked for it.
            self.reusable = false;
        }
        Ok(data)
    }

    /// The next frame of its body. Behind an error nothing follows.
    pub fn poll_frame(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Polled {
        if !self.ready.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.ready)))));
        }
        let polled = ready!(self.poll_body(io, cx));
        if matches!(polled, Some(Err(_))) {
            self.reusable = false;
            self.state = State::Body(Decoder::Ended);
        }
        Poll::Ready(polled)
    }

    fn poll_body(&mut self, io: &mut Io, cx: &mut Context<'_>) -> Polled {
        loop {
            let State::Body(decoder) = &mut self.state else { return Poll::Ready(None) };
            if decoder.has_ended() {
                let trailers = decoder.take_trailers().transpose();
                return Poll::Ready(trailers.map(|found| found.map(Frame::trailers)));
            }
            let polled = if self.full { self.read_large(io, cx) } else { self.read_small(io, cx) };
            match ready!(polled) {
                Ok(Some(data)) if data.is_empty() => {}
                Ok(Some(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(None) => return Poll::Ready(self.closed()),
                Err(fault) => return Poll::Ready(Some(Err(fault))),
            }
        }
    }

    /// The connection has ended in the body.
    fn closed(&mut self) -> Option<Result<Frame<Bytes>, Fault>> {
        self.reusable = false;
        let State::Body(decoder) = &mut self.state else { return None };
        let may_end = decoder.may_end();
        *decoder = Decoder::Ended;
        (!may_end).then_some(Err(Fault::Truncated))
    }

    /// Data of one read; `None` is the end of the connection.
    fn read_small(
        &mut self,
        io: &mut Io,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, Fault>> {
        let mut input = Input::take();
        let mut read = ReadBuf::new(&mut input);
        ready!(Pin::new(io).poll_read(cx, &mut read))?;
        let length = read.filled().len();
        self.full = length == input.len();
        if length == 0 {
            return Poll::Ready(Ok(None));
        }
        let bytes = input.get_mut(..length).unwrap_or_default();
        let data = self.decode(bytes)?;
        Poll::Ready(Ok(Some(Bytes::copy_from_slice(bytes.get(..data).unwrap_or_default()))))
    }

    /// The same for a body that comes faster than it is read: without a copy.
    fn read_large(
        &mut self,
        io: &mut Io,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, Fault>> {
        let mut input = BytesMut::with_capacity(LARGE_READ);
        let length = tokio_util::io::poll_read_buf(Pin::new(io), cx, &mut input);
        self.full = matches!(length, Poll::Ready(Ok(length)) if length >= scratch::READ);
        if ready!(length)? == 0 {
            return Poll::Ready(Ok(None));
        }
        let data = self.decode(&mut input)?;
        input.truncate(data);
        Poll::Ready(Ok(Some(input.freeze())))
    }

    /// Whether nothing more has to come of its body, of which some may still have to be read from here.
    #[must_use]
    pub fn is_here(&self) -> bool {
        matches!(&self.state, State::Body(decoder) if decoder.has_ended())
    }

    /// Whether its body has been read to its end.
    #[must_use]
    pub fn is_end_stream(&self) -> bool {
        let State::Body(decoder) = &self.state else { return false };
        self.ready.is_empty() && decoder.has_ended() && !decoder.has_trailers()
    }

    /// What is known of the rest of its body.
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        let State::Body(decoder) = &self.state else { return SizeHint::default() };
        match decoder.left() {
            Some(left) => SizeHint::with_exact(left.saturating_add(self.ready.len() as u64)),
            None => SizeHint::default(),
        }
    }

    /// What has been read behind the head and is no HTTP.
    #[must_use]
    pub fn into_rest(self) -> Bytes {
        self.ready
    }
}
