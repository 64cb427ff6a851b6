//! HTTP/2 by hand, from either side (RFC 9113 section 4): no library says on demand what these scenarios need said.
//!
//! Nothing here knows what is being tested.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{BOUND, Backend, Client, TestProxy};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
/// Flags.
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
/// Error codes (section 7).
pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const INTERNAL_ERROR: u32 = 2;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// The bytes of one frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// GET / to `s.ns`, in HPACK without tables.
pub(crate) fn get() -> Vec<u8> {
    // :method GET, :scheme http, :path /.
    request(&[0x82, 0x86, 0x84])
}

/// A request to `s.ns` that begins so.
pub(crate) fn request(start: &[u8]) -> Vec<u8> {
    // :authority.
    let mut block = [start, &[0x01, 1, b'p']].concat();
    for text in ["x-kagent-host", "s.ns"] {
        if text.starts_with('x') {
            block.push(0);
        }
        block.push(u8::try_from(text.len()).unwrap());
        block.extend(text.as_bytes());
    }
    block
}

/// One connection of frames.
pub(crate) struct Frames(TcpStream);

impl Frames {
    /// A client's connection, which has said hello.
    pub(crate) async fn connect(proxy: &TestProxy) -> Self {
        let Client(stream) = proxy.connect().await;
        let mut frames = Self(stream);
        frames.send(PREFACE).await;
        frames.write(SETTINGS, 0, 0, &[]).await;
        frames
    }

    /// A backend's connection, which has said hello.
    pub(crate) async fn accept(backend: &Backend) -> Self {
        let mut frames = Self(backend.accept().await.0);
        let mut preface = [0; PREFACE.len()];
        let read = tokio::time::timeout(BOUND, frames.0.read_exact(&mut preface)).await;
        read.expect("no preface").expect("closed");
        assert_eq!(preface, PREFACE);
        frames.write(SETTINGS, 0, 0, &[]).await;
        frames
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).await.unwrap();
    }

    /// The other side may close before it has read everything.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await
    }

    pub(crate) async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.send(&frame(kind, flags, stream, payload)).await;
    }

    /// The headers of a request that ends with them.
    pub(crate) async fn ask(&mut self, stream: u32, block: &[u8]) {
        self.write(HEADERS, END_STREAM | END_HEADERS, stream, block).await;
    }

    pub(crate) async fn next(&mut self) -> io::Result<Frame> {
        let read = async {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            self.0.read_exact(&mut payload).await?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            Ok(Frame { kind: head[3], flags: head[4], stream, payload })
        };
        tokio::time::timeout(BOUND, read).await.expect("no frame")
    }

    /// The next frame of this kind; pings and settings are answered on the way.
    pub(crate) async fn until(&mut self, kind: u8) -> Frame {
        loop {
            let frame =
                self.next().await.unwrap_or_else(|error| panic!("no frame {kind}: {error}"));
            if frame.kind == kind {
                return frame;
            }
            assert_ne!(frame.kind, GOAWAY, "closed with {:?} before a frame {kind}", frame.payload);
            self.answer(&frame).await;
        }
    }

    /// Answers a ping, or settings.
    pub(crate) async fn answer(&mut self, frame: &Frame) {
        if [PING, SETTINGS].contains(&frame.kind) && frame.flags & ACK == 0 {
            let echo = if frame.kind == PING { &frame.payload[..] } else { &[] };
            self.write(frame.kind, ACK, 0, echo).await;
        }
    }

    /// Reads to the end of the connection.
    pub(crate) async fn rest(&mut self) {
        while let Ok(frame) = self.next().await {
            drop(frame);
        }
    }

    /// Reads one request to its end: its stream and its body.
    pub(crate) async fn request(&mut self) -> (u32, String) {
        self.request_until(usize::MAX).await
    }

    /// The same until so many bytes of its body have come.
    pub(crate) async fn request_until(&mut self, bytes: usize) -> (u32, String) {
        let mut body = Vec::new();
        loop {
            let frame = self.next().await.expect("closed");
            self.answer(&frame).await;
            if frame.kind == DATA {
                body.extend_from_slice(&frame.payload);
                self.allow(frame.stream, frame.payload.len()).await;
            }
            let ends = [DATA, HEADERS].contains(&frame.kind) && frame.flags & END_STREAM != 0;
            if ends || body.len() >= bytes {
                return (frame.stream, String::from_utf8(body).unwrap());
            }
        }
    }

    /// Takes 16 MiB on each stream, and on all of them.
    pub(crate) async fn open_windows(&mut self) {
        let bytes = (1_u32 << 24).to_be_bytes();
        self.write(SETTINGS, 0, 0, &[&[0, 4], &bytes[..]].concat()).await;
        self.write(WINDOW_UPDATE, 0, 0, &bytes).await;
    }

    /// So many bytes more may come.
    async fn allow(&mut self, stream: u32, bytes: usize) {
        if bytes > 0 {
            let bytes = u32::try_from(bytes).unwrap().to_be_bytes();
            self.write(WINDOW_UPDATE, 0, 0, &bytes).await;
            self.write(WINDOW_UPDATE, 0, stream, &bytes).await;
        }
    }

    /// 204 and the end of the stream.
    pub(crate) async fn no_content(&mut self, stream: u32) {
        self.write(HEADERS, END_STREAM | END_HEADERS, stream, &[0x89]).await;
    }

    pub(crate) async fn reset(&mut self, stream: u32, code: u32) {
        self.write(RST_STREAM, 0, stream, &code.to_be_bytes()).await;
    }

    pub(crate) async fn goaway(&mut self, last: u32, code: u32) {
        self.write(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat()).await;
    }
}
