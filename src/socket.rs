//! TCP connections of both sides: their options, and peers that die without a word (D16).
//!
//! An idle connection is probed by the kernel's keepalive, which rests while bytes are unacknowledged;
//! then only retransmissions would find a dead peer, after a quarter of an hour. `TCP_USER_TIMEOUT`
//! shortens that, but Linux counts it also against a live peer that does not read: its answers to window
//! probes do not help, and a client that pauses for a minute would lose its stream. So [`watch`] asks
//! the kernel when a peer was last heard of, and closes only on those that owe an answer. Knows no
//! HTTP and no TLS; `listener` and `upstream` read and write through [`Tcp`].

mod open;
pub mod reserve;

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Shutdown};
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use open::OpenSocket;

/// After an error of a listener's accept, usually too many open files: long enough for some to close.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often every connection is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// A peer that owes an acknowledgement and has been silent for so long is dead.
const SILENT: Duration = Duration::from_secs(60);
/// The kernel asks again at least this often (`TCP_RTO_MAX`).
const LONGEST_TIMEOUT: Duration = Duration::from_secs(120);
/// What an answer may take, once it was asked for.
const ANSWER: Duration = Duration::from_secs(10);
/// Bytes up to which pieces are put together and sent as one: to copy so few costs less than the kernel's list of
/// pieces does.
const TOGETHER: usize = 4096;

thread_local! {
    /// Where pieces are put together, for the length of one call.
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A connection that is watched while it lives.
#[derive(Debug)]
pub struct Tcp(OpenSocket);

/// What the kernel knows of a connection.
#[derive(Clone, Copy, Debug)]
struct Info {
    /// Segments that were sent and are not acknowledged.
    in_flight: u32,
    /// Bytes that could not be sent yet.
    unsent: u32,
    /// The present retransmission timeout.
    timeout: Duration,
    /// How often the time between window probes has doubled.
    backoff: u32,
    /// Since the last acknowledgement.
    silent: Duration,
}

// === impl Tcp ===

impl Tcp {
    /// Sets the options and begins to watch: no Nagle delay, keepalive as D16 says.
    ///
    /// # Errors
    /// When the kernel refuses an option, which means the socket is gone.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(30))
            .with_interval(Duration::from_secs(10))
            .with_retries(3);
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        Ok(Self(OpenSocket::new(stream)))
    }

    /// Whether it stands and nothing has come on it, as far as its reactor knows. Nobody is woken when that changes.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        let read = self.0.try_read(&mut [0]);
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl AsyncRead for Tcp {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let socket = Pin::new(&mut self.get_mut().0);
        let mut filled = bufs.iter().filter(|buf| !buf.is_empty());
        if let (Some(only), None) = (filled.next(), filled.next()) {
            return socket.poll_write(cx, only);
        }
        if bufs.iter().map(|buf| buf.len()).sum::<usize>() > TOGETHER {
            return socket.poll_write_vectored(cx, bufs);
        }
        let mut room = ROOM.take();
        room.clear();
        bufs.iter().for_each(|buf| room.extend_from_slice(buf));
        let written = socket.poll_write(cx, &room);
        ROOM.set(room);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

/// Looks after every [`Tcp`] of the process, until dropped. A dead peer's connection is shut down,
/// which its reader and its writer see as an end.
pub async fn watch() {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        open::each(close_if_dead);
    }
}

/// Shuts down every [`Tcp`] of the process whose peer has one of these addresses: what lived there is gone, and says
/// so to nobody. What has come of it can still be read.
pub fn close_of(addresses: &[IpAddr]) {
    open::each(|socket| {
        let socket = SockRef::from(&socket);
        let peer = socket.peer_addr().ok().and_then(|peer| peer.as_socket());
        if peer.is_some_and(|peer| addresses.contains(&peer.ip().to_canonical())) {
            tracing::debug!(?peer, "its pod is gone");
            let _gone_meanwhile = socket.shutdown(Shutdown::Both);
        }
    });
}

fn close_if_dead(socket: BorrowedFd<'_>) {
    // What cannot be asked is closed already, or no kernel that tells.
    let Ok(info) = open::info(socket) else { return };
    if info.is_dead() {
        tracing::debug!(?info, "a peer has died without a word");
        let _gone_meanwhile = SockRef::from(&socket).shutdown(Shutdown::Both);
    }
}

// === impl Info ===

impl Info {
    /// Whether the peer should have been heard of long ago. One that does not read answers each probe of
    /// its window, and what is in flight is sent again and again: silence beyond the time between two of
    /// these is death.
    fn is_dead(self) -> bool {
        if self.in_flight == 0 && self.unsent == 0 {
            // Keepalive's concern.
            return false;
        }
        let doubled = 1u32.checked_shl(self.backoff).unwrap_or(u32::MAX);
        let asked_every = match self.in_flight {
            0 => self.timeout.saturating_mul(doubled).min(LONGEST_TIMEOUT),
            _ => self.timeout,
        };
        self.silent >= SILENT.max(asked_every + ANSWER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn only_who_owes_an_answer_and_is_silent_is_dead() {
        let info = |in_flight, unsent, timeout, backoff, silent| Info {
            in_flight,
            unsent,
            timeout: timeout * MS,
            backoff,
            silent: silent * MS,
        };
        for (info, dead, why) in [
            (info(0, 0, 208, 0, 900_000), false, "idle: keepalive asks"),
            (info(2, 0, 208, 0, 59_000), false, "may still answer"),
            (info(2, 0, 51_200, 8, 61_500), true, "retransmitted for a minute"),
            (info(2, 0, 76_800, 8, 77_000), false, "asked again a moment ago"),
            (info(0, 9, 208, 5, 4_360), false, "does not read, answers probes"),
            (info(0, 9, 208, 9, 100_724), false, "does not read, is asked every 106 s"),
            (info(0, 9, 208, 9, 118_000), true, "did not read, and answers no probe"),
            (info(0, 9, 208, 200, 125_000), false, "probes are at most 120 s apart"),
            (info(0, 9, 208, 200, 131_000), true, "probes are at most 120 s apart"),
        ] {
            assert_eq!(info.is_dead(), dead, "{why}: {info:?}");
        }
    }

    #[tokio::test]
    async fn pieces_arrive_in_their_order_and_what_is_said_to_be_written_is() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = server.local_addr().unwrap();
        let (stream, accepted) = tokio::join!(TcpStream::connect(to), server.accept());
        let (mut socket, mut peer) = (Tcp::new(stream.unwrap()).unwrap(), accepted.unwrap().0);
        let large = vec![b'l'; 1 << 20];
        assert_eq!(socket.write_vectored(&[]).await.unwrap(), 0);
        for pieces in [
            [&b"head"[..], b"", b"body"],
            [b"", b"alone", b""],
            [b"", b"", b""],
            [&large[..TOGETHER - 4], b"", b"last"],
            [&large[..TOGETHER], b"", b"more"],
            // More than the kernel takes at once.
            [b"1000\r\n", &large, b"\r\n"],
            [b"", &large, b""],
        ] {
            let pieces_sent = pieces.map(IoSlice::new);
            let written = socket.write_vectored(&pieces_sent).await.unwrap();
            let all = pieces.concat();
            assert!(written > 0 || all.is_empty());
            let mut came = vec![0; written];
            peer.read_exact(&mut came).await.unwrap();
            assert!(all.starts_with(&came), "{written} bytes of {}", all.len());
            assert!(written == all.len() || all.len() > 2 * TOGETHER);
        }
    }

    #[tokio::test]
    async fn what_is_open_to_an_address_is_closed_and_what_has_come_is_read() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        // Nothing else of these tests has such addresses.
        let addresses: [IpAddr; 2] = [[127, 7, 7, 1].into(), [127, 7, 7, 2].into()];
        let mut open = Vec::new();
        for address in addresses {
            let server = tokio::net::TcpListener::bind((address, 0)).await.unwrap();
            let to = server.local_addr().unwrap();
            let (stream, accepted) = tokio::join!(TcpStream::connect(to), server.accept());
            open.push((Tcp::new(stream.unwrap()).unwrap(), accepted.unwrap().0));
        }
        for (socket, peer) in &mut open {
            peer.write_all(b"last").await.unwrap();
            let mut first = [0];
            socket.read_exact(&mut first).await.unwrap();
        }
        close_of(&addresses[..1]);
        let (socket, _peer) = &mut open[0];
        let mut rest = String::new();
        socket.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "ast");
        let (socket, peer) = &mut open[1];
        peer.write_all(b"!").await.unwrap();
        let mut more = [0; 4];
        socket.read_exact(&mut more).await.unwrap();
        assert_eq!(&more, b"ast!", "it goes on");
    }

    #[tokio::test]
    async fn the_kernel_tells_of_every_open_socket_and_of_no_closed_one() {
        use std::os::fd::AsRawFd;
        use std::sync::atomic::{AtomicUsize, Ordering};

        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let (stream, accepted) = tokio::join!(TcpStream::connect(address), server.accept());
        let (stream, _accepted) = (stream.unwrap(), accepted.unwrap());
        let fd = stream.as_raw_fd();
        let socket = Tcp::new(stream).unwrap();
        let seen = || {
            let seen = AtomicUsize::new(0);
            open::each(|socket| {
                if socket.as_raw_fd() == fd {
                    assert!(!open::info(socket).unwrap().is_dead());
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            });
            seen.into_inner()
        };
        assert_eq!(seen(), 1);
        drop(socket);
        assert_eq!(seen(), 0);
    }
}
