//! WebSocket: two connections become one tunnel (D19), with half-close honoured (D13).
//!
//! Begins where both sides have agreed on 101, which a backend may do before it has the whole request; knows nothing of
//! what passes. The record and the lease end with it.

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
use crate::body::progress::Progress;
use crate::proxy::record::Recorder;
use crate::telemetry::record::Outcome;
use crate::upstream::h1::Connection;
use crate::upstream::h1::io::Io;
use crate::upstream::{Lease, Leased};

/// Passes 101 on and carries bytes from then on, in a task of its own that `tracker` knows.
pub async fn open(
    response: Response<Leased>,
    client: OnUpgrade,
    limits: BodyTimeouts,
    record: Box<Recorder>,
    tracker: &TaskTracker,
) -> Response<ReplyBody> {
    let (head, leased) = response.into_parts();
    if let Some((connection, lease)) = leased.into_tunnel() {
        if !connection.is_sent() {
            // A client that waits for 100 has to get it before (RFC 9110 section 7.8), and has it when this task of its
            // connection has had a turn: the body has been asked for.
            tokio::task::yield_now().await;
        }
        tracker.spawn(carry(client, connection, lease, limits, record));
    }
    Response::from_parts(head, ReplyBody::Tunnel)
}

async fn carry(
    client: OnUpgrade,
    connection: Box<Connection>,
    lease: Lease,
    limits: BodyTimeouts,
    mut record: Box<Recorder>,
) {
    let seen = Arc::new(Seen::default());
    let outcome = {
        let request = &record.upload().progress;
        let mut passes = pin!(pass(client, connection, request, Arc::clone(&seen)));
        let mut timer = BodyTimer::start(limits);
        let mut before = 0;
        poll_fn(|cx| {
            if let Poll::Ready(ended) = passes.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            let Some(timer) = &mut timer else { return Poll::Pending };
            // Nothing is read of a backend whose request goes on, so it is not called silent while that gets somewhere.
            let now = seen.down.load(Ordering::Relaxed) + request.bytes();
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

/// Everything that passes: what is left of the request, and then the bytes of both sides.
async fn pass(
    client: OnUpgrade,
    mut connection: Box<Connection>,
    request: &Progress,
    seen: Arc<Seen>,
) -> Outcome {
    // The client sends it to its end before anything else (RFC 9110 section 7.8), and is not heard otherwise before.
    if !connection.end_request().await {
        return if request.is_broken() { Outcome::ClientGone } else { Outcome::UpstreamBroke };
    }
    let Ok(client) = client.await else { return Outcome::ClientGone };
    let (start, io) = connection.into_io();
    let mut client = TokioIo::new(client);
    let mut backend = Backend { start, io, seen: Arc::clone(&seen) };
    match copy_bidirectional(&mut client, &mut backend).await {
        Ok(_) => Outcome::Complete,
        Err(_) if seen.broken.load(Ordering::Relaxed) => Outcome::UpstreamBroke,
        Err(_) => Outcome::ClientGone,
    }
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
