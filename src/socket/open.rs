//! Which sockets are open, and what the kernel knows of each.
//!
//! The only unsafe code of the program: a descriptor is looked at that its owner has lent out, and
//! `TCP_INFO` is read, for which no library has a safe call. Judges nothing; `socket.rs` does.

#![allow(unsafe_code, reason = "getsockopt(TCP_INFO) has no safe wrapper")]

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Info;

/// Descriptors whose [`Tcp`](super::Tcp) lives.
static OPEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

fn lock() -> MutexGuard<'static, BTreeSet<RawFd>> {
    // Poisoned only by a panic between two whole changes.
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An open stream that can be found by [`each`] until dropped. The stream itself is never handed out: whoever
/// exchanged it for another one would leave the number of a closed descriptor in the set.
#[derive(Debug)]
pub(super) struct OpenSocket(TcpStream);

// === impl OpenSocket ===

impl OpenSocket {
    pub(super) fn new(stream: TcpStream) -> Self {
        lock().insert(stream.as_raw_fd());
        Self(stream)
    }

    /// As [`TcpStream::try_read`].
    pub(super) fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buf)
    }
}

impl AsyncRead for OpenSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for OpenSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        lock().remove(&self.0.as_raw_fd());
    }
}

/// Shows every open socket, one after another; one that is opened or closed meanwhile may be missed.
pub(super) fn each(look: impl Fn(BorrowedFd<'_>)) {
    let all: Vec<RawFd> = lock().iter().copied().collect();
    for fd in all {
        // Locked for one look only, so that nobody who opens or closes waits for all of them.
        let open = lock();
        if open.contains(&fd) {
            // SAFETY: a number is in the set while its `Open` owns the descriptor, and is taken out
            // under this lock before that is closed.
            look(unsafe { BorrowedFd::borrow_raw(fd) });
        }
        drop(open);
    }
}

/// What the kernel knows of a connection.
pub(super) fn info(socket: BorrowedFd<'_>) -> io::Result<Info> {
    // SAFETY: a plain C structure of integers, of which all zeros is a value.
    let mut raw: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut size = libc::socklen_t::try_from(size_of_val(&raw)).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `size` bytes into `raw`, which both outlive the call; older
    // kernels write less, and the rest stays zero.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut raw).cast(),
            &raw mut size,
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Info {
        in_flight: raw.tcpi_unacked,
        unsent: raw.tcpi_notsent_bytes,
        timeout: Duration::from_micros(raw.tcpi_rto.into()),
        backoff: raw.tcpi_backoff.into(),
        silent: Duration::from_millis(raw.tcpi_last_ack_recv.into()),
    })
}
