//! The bytes of one client connection under HTTP: what was read before, an eye on what comes, and responses
//! of our own where the parser would write a bare one.
//!
//! hyper answers a head that it cannot read by itself, with a status and nothing else. Here that write is seen:
//! with every response to a request gone, it belongs to none. Knows no routes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Io;
use super::activity::Activity;
use crate::protocol::h2_heads::HeadScanner;
use crate::proxy::Proxy;
use crate::proxy::request::conn::Connection;

/// How a connection refuses heads that cannot be read, in HTTP/1.
pub(super) struct Refusing {
    pub(super) proxy: Arc<Proxy>,
    pub(super) info: Arc<Connection>,
    /// What goes out instead of the parser's response, and how much of it has.
    pub(super) response: Option<(Vec<u8>, usize)>,
}

/// The stream, the bytes already taken from it, and an eye on both directions.
pub(super) struct Watched {
    pub(super) prefix: Vec<u8>,
    pub(super) stream: Io,
    pub(super) activity: Arc<Activity>,
    /// In HTTP/2.
    pub(super) heads: Option<HeadScanner>,
    /// In HTTP/1.
    pub(super) refusing: Option<Refusing>,
}

// === impl Refusing ===

impl Refusing {
    /// Whether no response is under way.
    fn has_answered(&self) -> bool {
        self.info.unanswered.load(Ordering::Relaxed) == 0
    }

    /// Writes our response in place of `bytes`.
    fn poll_write(
        &mut self,
        stream: &mut Io,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let taken = bytes.iter().map(|bytes| bytes.len()).sum();
        let (response, sent) = self.response.get_or_insert_with(|| {
            let theirs: Vec<u8> = bytes.iter().flat_map(|bytes| bytes.iter().copied()).collect();
            (self.proxy.unread(&self.info, &theirs), 0)
        });
        while let Some(rest) = response.get(*sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut *stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => *sent += written,
            }
        }
        Poll::Ready(Ok(taken))
    }
}

// === impl Watched ===

impl Watched {
    /// Who writes although no request is under way: the parser, its own response.
    fn unasked(&mut self) -> Option<(&mut Refusing, &mut Io)> {
        let refusing = self.refusing.as_mut().filter(|_| self.activity.is_settled())?;
        self.activity.on_refusal();
        Some((refusing, &mut self.stream))
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let taken = this.prefix.len().min(buf.remaining());
        if taken > 0 {
            buf.put_slice(this.prefix.get(..taken).unwrap_or_default());
            this.prefix.drain(..taken);
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            // Together with what follows if it is there: a head in two reads would double hyper's buffer.
            Poll::Pending if taken > 0 => return Poll::Ready(Ok(())),
            read => ready!(read)?,
        }
        let new = buf.filled().get(before..).unwrap_or_default();
        match &mut this.heads {
            _ if new.is_empty() => {}
            None => this.activity.on_read(),
            Some(heads) => {
                heads.feed(new);
                this.activity.on_head(heads.is_inside());
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.unasked() {
            Some((refusing, stream)) => refusing.poll_write(stream, cx, &[IoSlice::new(buf)]),
            None => Pin::new(&mut self.stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // By then everything has been written.
        if self.refusing.as_ref().is_some_and(Refusing::has_answered) {
            self.activity.settle();
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.unasked() {
            Some((refusing, stream)) => refusing.poll_write(stream, cx, bufs),
            None => Pin::new(&mut self.stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_head_comes_in_one_read_although_its_first_bytes_were_taken_before() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = tokio::net::TcpStream::connect(server.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, server.accept());
        let (mut client, stream) = (client.unwrap(), accepted.unwrap().0);
        client.write_all(b"mcp HTTP/1.1\r\n").await.unwrap();
        stream.readable().await.unwrap();
        let mut io = Watched {
            prefix: b"GET /".to_vec(),
            stream: Io::Left(crate::socket::Tcp::new(stream).unwrap()),
            activity: Arc::new(Activity::new(Arc::default())),
            heads: None,
            refusing: None,
        };
        let mut small = [0; 2];
        assert_eq!(io.read(&mut small).await.unwrap(), 2, "no more than fits");
        let mut buffer = [0; 64];
        let read = io.read(&mut buffer).await.unwrap();
        assert_eq!(buffer[..read], *b"T /mcp HTTP/1.1\r\n");
        io.prefix = b"GET".to_vec();
        assert_eq!(io.read(&mut buffer).await.unwrap(), 3, "nothing follows: it does not wait");
        drop(client);
        io.prefix = b"GET".to_vec();
        while io.read(&mut buffer).await.unwrap() > 0 {}
        assert!(io.prefix.is_empty() && buffer.starts_with(b"GET"));
    }
}
