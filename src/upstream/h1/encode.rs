//! A request as HTTP/1.1 writes it (RFC 9112 sections 3, 6 and 7): its head, its chunks, its end.
//!
//! Sans-I/O. The framing is made from the body, never from fields that came with the request. Opens nothing
//! and waits for nothing.

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame};

use super::Fault;
use crate::headers::onward::Onward;

/// How much of a body is still to be written, and in which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoder {
    /// As it is, this many bytes.
    Length(u64),
    /// As chunks.
    Chunked,
    /// Its end has been written.
    Ended,
}

/// Bytes on their way to a socket: what stands before the data, the data, and what stands behind it.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// Written from the first byte on that has not been written.
    pub front: Vec<u8>,
    written: usize,
    /// Shared with whoever sent it.
    pub data: Bytes,
    back: &'static [u8],
}

const LINE_END: &[u8] = b"\r\n";
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// Writes the head of `request` on its way to a backend behind what is in `out`, and says how its body follows.
#[must_use]
pub fn head<B: Body>(out: &mut Vec<u8>, request: &Request<B>, onward: &Onward<'_>) -> Encoder {
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    target(out, onward.path.as_str());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let told_length = onward.http1(request.headers(), |name, value| {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(LINE_END);
    });
    let encoder = framing(out, request.body(), told_length);
    out.extend_from_slice(LINE_END);
    encoder
}

fn target(out: &mut Vec<u8>, target: &str) {
    if !target.starts_with('/') && target != "*" {
        out.push(b'/');
    }
    out.extend_from_slice(target.as_bytes());
}

fn framing<B: Body>(out: &mut Vec<u8>, body: &B, told_length: bool) -> Encoder {
    if body.is_end_stream() {
        // A length of 0 that the client has told is told again; none is not made up.
        if told_length {
            out.extend_from_slice(b"content-length: 0\r\n");
        }
        return Encoder::Ended;
    }
    match body.size_hint().exact() {
        Some(length) => {
            out.extend_from_slice(b"content-length: ");
            decimal(out, length);
            out.extend_from_slice(LINE_END);
            if length == 0 { Encoder::Ended } else { Encoder::Length(length) }
        }
        None => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Encoder::Chunked
        }
    }
}

// === impl Encoder ===

impl Encoder {
    /// Puts one frame behind what is in `out`, whose data must have been written; `last` is that nothing
    /// follows.
    ///
    /// # Errors
    /// The body is longer or shorter than was announced: nothing that may be sent follows.
    pub fn frame(
        &mut self,
        out: &mut Outgoing,
        frame: Frame<Bytes>,
        last: bool,
    ) -> Result<(), Fault> {
        let frame = match frame.into_data() {
            Ok(data) => return self.data(out, data, last),
            Err(frame) => frame,
        };
        // A length leaves no room for trailers; they may be dropped (RFC 9110 section 6.5.1).
        if let (Self::Chunked, Ok(trailers)) = (&*self, frame.into_trailers()) {
            *self = Self::Ended;
            out.front.extend_from_slice(b"0\r\n");
            for (name, value) in &trailers {
                out.front.extend_from_slice(name.as_str().as_bytes());
                out.front.extend_from_slice(b": ");
                out.front.extend_from_slice(value.as_bytes());
                out.front.extend_from_slice(LINE_END);
            }
            out.front.extend_from_slice(LINE_END);
        }
        Ok(())
    }

    fn data(&mut self, out: &mut Outgoing, data: Bytes, last: bool) -> Result<(), Fault> {
        match self {
            Self::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Fault::Upload)?;
                if *left == 0 {
                    *self = Self::Ended;
                } else if last {
                    return Err(Fault::Upload);
                }
            }
            // An empty chunk would be the last one.
            Self::Chunked if data.is_empty() => {
                if last {
                    self.end(out)?;
                }
            }
            Self::Chunked => {
                hexadecimal(&mut out.front, data.len() as u64);
                out.front.extend_from_slice(LINE_END);
                out.back = if last { LAST_CHUNK } else { LINE_END };
                if last {
                    *self = Self::Ended;
                }
            }
            Self::Ended if data.is_empty() => {}
            Self::Ended => return Err(Fault::Upload),
        }
        out.data = data;
        Ok(())
    }

    /// The body has no more frames.
    ///
    /// # Errors
    /// It is shorter than was announced.
    pub fn end(&mut self, out: &mut Outgoing) -> Result<(), Fault> {
        match self {
            Self::Ended => {}
            Self::Length(_) => return Err(Fault::Upload),
            Self::Chunked => out.front.extend_from_slice(b"0\r\n\r\n"),
        }
        *self = Self::Ended;
        Ok(())
    }
}

// === impl Outgoing ===

impl Outgoing {
    /// Whether everything has been written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.written == self.front.len() && self.data.is_empty() && self.back.is_empty()
    }

    /// What is to be written, in its order; some may be empty.
    #[must_use]
    pub fn slices(&self) -> [&[u8]; 3] {
        [self.front.get(self.written..).unwrap_or_default(), &self.data, self.back]
    }

    /// So many bytes of it have been written.
    pub fn advance(&mut self, mut count: usize) {
        let front = count.min(self.front.len() - self.written);
        self.written += front;
        count -= front;
        let data = count.min(self.data.len());
        drop(self.data.split_to(data));
        count -= data;
        self.back = self.back.get(count..).unwrap_or_default();
        if self.is_empty() {
            self.written = 0;
            self.front.clear();
        }
    }
}

fn decimal(out: &mut Vec<u8>, number: u64) {
    digits(out, number, 10);
}

fn hexadecimal(out: &mut Vec<u8>, number: u64) {
    digits(out, number, 16);
}

fn digits(out: &mut Vec<u8>, mut number: u64, base: u64) {
    let start = out.len();
    loop {
        let digit = u32::try_from(number % base).unwrap_or_default();
        let digit = char::from_digit(digit, u32::try_from(base).unwrap_or(10)).unwrap_or('0');
        out.push(digit as u8);
        number /= base;
        if number == 0 {
            break;
        }
    }
    if let Some(digits) = out.get_mut(start..) {
        digits.reverse();
    }
}
