//! WebSocket: two connections become one tunnel (D19), with half-close honoured (D13).
//!
//! Begins where both sides have agreed on 101; knows nothing of what passes. The record and the lease
//! end with it.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio_util::task::TaskTracker;

use super::body::ReplyBody;
use super::timeouts::{BodyTimeouts, BodyTimer, Expired};
use crate::proxy::record::Recorder;
use crate::telemetry::record::Outcome;
use crate::upstream::h1::io::Io;
use crate::upstream::{Lease, Leased};

/// Passes 101 on and carries bytes from then on, in a task of its own that `tracker` knows.
pub fn open(
    response: Response<Leased>,
    client: OnUpgrade,
    limits: BodyTimeouts,
    record: Recorder,
    tracker: &TaskTracker,
) -> Response<ReplyBody> {
    let (head, leased) = response.into_parts();
    if let Some((start, io, lease)) = leased.into_tunnel() {
        tracker.spawn(carry(client, (start, io), lease, limits, record));
    }
    Response::from_parts(head, ReplyBody::Tunnel)
}

async fn carry(
    client: OnUpgrade,
    (start, io): (Bytes, Io),
    lease: Lease,
    limits: BodyTimeouts,
    mut record: Recorder,
) {
    // A client that has left is recorded by the record's drop.
    let Ok(client) = client.await else { return };
    let seen = Arc::new(Seen::default());
    let mut client = TokioIo::new(client);
    let mut backend = Backend { start, io, seen: Arc::clone(&seen) };
    let outcome = {
        let mut copy = pin!(copy_bidirectional(&mut client, &mut backend));
        let mut timer = BodyTimer::start(limits);
        let mut before = 0;
        poll_fn(|cx| {
            if let Poll::Ready(ended) = copy.as_mut().poll(cx) {
                return Poll::Ready(match ended {
                    Ok(_) => Outcome::Complete,
                    Err(_) if seen.broken.load(Ordering::Relaxed) => Outcome::UpstreamBroke,
                    Err(_) => Outcome::ClientGone,
                });
            }
            let Some(timer) = &mut timer else { return Poll::Pending };
            let now = seen.down.load(Ordering::Relaxed);
            if now != std::mem::replace(&mut before, now) {
                timer.passed();
            }
            timer.poll_expired(cx, false).map(|due| match due {
                Expired::Total => Outcome::TotalTimeout,
                Expired::Idle | Expired::Comment => Outcome::IdleTimeout,
            })
        })
        .await
    };
    record.on_tunnel(seen.up.load(Ordering::Relaxed), seen.down.load(Ordering::Relaxed));
    record.ended(outcome);
    drop(lease);
}

/// What has passed the backend's side.
#[derive(Debug, Default)]
struct Seen {
    up: AtomicU64,
    down: AtomicU64,
    broken: AtomicBool,
}

/// The backend's side, counted.
struct Backend {
    /// Read already, together with the head.
    start: Bytes,
    io: Io,
    seen: Arc<Seen>,
}

// === impl Seen ===

impl Seen {
    fn note<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(_)) = &polled {
            self.broken.store(true, Ordering::Relaxed);
        }
        polled
    }
}

// === impl Backend ===

impl AsyncRead for Backend {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = if self.start.is_empty() {
            Pin::new(&mut self.io).poll_read(cx, buf)
        } else {
            let some = self.start.len().min(buf.remaining());
            buf.put_slice(&self.start.split_to(some));
            Poll::Ready(Ok(()))
        };
        let read = buf.filled().len() - before;
        self.seen.down.fetch_add(read as u64, Ordering::Relaxed);
        self.seen.note(polled)
    }
}

impl AsyncWrite for Backend {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = &polled {
            self.seen.up.fetch_add(*written as u64, Ordering::Relaxed);
        }
        self.seen.note(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.seen.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_shutdown(cx);
        self.seen.note(polled)
    }
}
