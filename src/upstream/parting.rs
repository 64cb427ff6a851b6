//! Saves responses that came whole from the end of their connection of HTTP/2.
//!
//! A backend that refuses an upload sends its whole response and closes. h2 keeps the end of a stream only once the
//! request has ended too, and else takes the connection's end for a response that was cut off. What RST_STREAM with
//! NO_ERROR says, that no more of the request is wanted (RFC 9113 section 8.1), the close says as well; so h2 hears it
//! first, of each stream that the backend has ended. Where the request has ended too, it changes nothing.
//!
//! Knows frames; neither requests nor responses.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::protocol::h2_frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, FrameScanner, HEADERS, RST_STREAM, Seen,
};

/// What the backend has ended.
#[derive(Debug)]
struct Ended {
    frames: FrameScanner,
    /// A head has begun, and only more of it may come.
    in_head: bool,
    /// Its streams, the last one behind, and how many are kept.
    streams: VecDeque<u32>,
    kept: usize,
}

/// The connection's last words, and how it ended.
#[derive(Debug)]
struct Last {
    words: Vec<u8>,
    said: usize,
    end: io::Result<()>,
}

/// The stream itself, whose end is told behind what has to be known before.
#[derive(Debug)]
pub struct Parting<T> {
    stream: T,
    ended: Ended,
    last: Option<Box<Last>>,
}

// === impl Ended ===

impl Ended {
    fn feed(&mut self, bytes: &[u8]) {
        let Self { frames, in_head, streams, kept } = self;
        frames.feed(bytes, |seen| {
            let Seen::End(frame) = seen else { return };
            if [HEADERS, CONTINUATION].contains(&frame.kind) {
                *in_head = frame.flags & END_HEADERS == 0;
            }
            if [DATA, HEADERS].contains(&frame.kind) && frame.flags & END_STREAM != 0 {
                if streams.len() == *kept {
                    streams.pop_front();
                }
                streams.push_back(frame.stream);
            }
        });
    }

    /// That no more is wanted of any of them; nothing where another frame is under way.
    fn words(&self) -> Vec<u8> {
        if !self.frames.is_between() || self.in_head {
            return Vec::new();
        }
        let word = |stream: &u32| {
            let [a, b, c, d] = stream.to_be_bytes();
            // Four bytes: NO_ERROR.
            [0, 0, 4, RST_STREAM, 0, a, b, c, d, 0, 0, 0, 0]
        };
        self.streams.iter().flat_map(word).collect()
    }
}

// === impl Last ===

impl Last {
    fn say(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        let rest = self.words.get(self.said..).unwrap_or_default();
        let now = rest.get(..buf.remaining()).unwrap_or(rest);
        if rest.is_empty() {
            return std::mem::replace(&mut self.end, Ok(()));
        }
        buf.put_slice(now);
        self.said += now.len();
        Ok(())
    }
}

// === impl Parting ===

impl<T> Parting<T> {
    /// Watches what is read of this stream, from its first byte, and keeps so many streams in mind: no fewer than are
    /// open at once. An upload that goes on while so many later streams end is left out.
    #[must_use]
    pub fn new(stream: T, kept: usize) -> Self {
        let (frames, streams) = (FrameScanner::default(), VecDeque::new());
        Self { stream, ended: Ended { frames, in_head: false, streams, kept }, last: None }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Parting<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(last) = &mut this.last {
            return Poll::Ready(last.say(buf));
        }
        let before = buf.filled().len();
        let end = ready!(Pin::new(&mut this.stream).poll_read(cx, buf));
        let new = buf.filled().get(before..).unwrap_or_default();
        if !new.is_empty() {
            this.ended.feed(new);
            return Poll::Ready(end);
        }
        let last = Last { words: this.ended.words(), said: 0, end };
        Poll::Ready(this.last.insert(Box::new(last)).say(buf))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Parting<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    const KEPT: usize = 3;

    /// What is read of a connection that brings these bytes and ends.
    async fn read(bytes: &[u8], room: usize) -> Vec<u8> {
        let (mut all, mut some) = (Vec::new(), vec![0; room]);
        let mut stream = Parting::new(tokio::io::join(bytes, tokio::io::sink()), KEPT);
        loop {
            match stream.read(&mut some).await.unwrap() {
                0 => break,
                read => all.extend_from_slice(&some[..read]),
            }
        }
        assert_eq!(stream.read(&mut some).await.unwrap(), 0, "the end stays");
        all
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        let head = [&[0, 0, length, kind, flags][..], &stream.to_be_bytes()].concat();
        [&head, payload].concat()
    }

    fn resets(streams: impl IntoIterator<Item = u32>) -> Vec<u8> {
        streams.into_iter().flat_map(|stream| frame(RST_STREAM, 0, stream, &[0; 4])).collect()
    }

    #[tokio::test]
    async fn the_streams_that_have_ended_are_named_before_the_end_and_no_others() {
        let bytes = [
            frame(HEADERS, 4, 1, b"a"),
            frame(HEADERS, 4 | END_STREAM, 3, b"a"),
            frame(DATA, END_STREAM, 0x0102_0305, b""),
            frame(DATA, 0, 7, &frame(DATA, END_STREAM, 9, b"")),
            // Settings that are acknowledged: the same bit.
            frame(4, 1, 0, b""),
        ]
        .concat();
        for room in 1..40 {
            let expected = [bytes.clone(), resets([3, 0x0102_0305])].concat();
            assert_eq!(read(&bytes, room).await, expected, "{room} bytes at a time");
        }
        assert_eq!(read(b"", 9).await, b"");
    }

    #[tokio::test]
    async fn nothing_is_said_inside_a_frame_or_a_head() {
        let ended = frame(DATA, END_STREAM, 1, b"x");
        for cut in [frame(DATA, 0, 3, b"")[..8].to_vec(), frame(HEADERS, END_STREAM, 3, b"a")] {
            let bytes = [ended.clone(), cut].concat();
            assert_eq!(read(&bytes, 64).await, bytes);
        }
    }

    #[tokio::test]
    async fn only_so_many_are_kept_and_the_last_ones() {
        let streams = (0..KEPT + 3).map(|n| 2 * u32::try_from(n).unwrap() + 1);
        let bytes: Vec<u8> =
            streams.clone().flat_map(|stream| frame(DATA, END_STREAM, stream, b"")).collect();
        let expected = [bytes.clone(), resets(streams.skip(3))].concat();
        assert_eq!(read(&bytes, 64).await, expected);
    }

    #[tokio::test]
    async fn an_error_comes_behind_as_well() {
        let bytes = frame(DATA, END_STREAM, 1, b"x");
        let reset = (&bytes[..]).chain(Reset);
        let mut stream = Parting::new(tokio::io::join(reset, tokio::io::sink()), KEPT);
        let mut all = Vec::new();
        let error = stream.read_to_end(&mut all).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(all, [bytes.clone(), resets([1])].concat());
    }

    /// The end of a connection that was reset.
    struct Reset;

    impl AsyncRead for Reset {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }
}
