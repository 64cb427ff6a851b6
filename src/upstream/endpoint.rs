//! One backend address: its connections, its load, its health.
//!
//! A [`Lease`] counts as load until it is dropped, which is when the *stream* ends. Knows nothing of
//! routes or clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use metrics::Counter;
use tokio::time::Instant;

use super::connect::{self, ConnectError, Dial, Sender, Tls};
use super::health::Health;
use super::pool::Pool;
use super::reuse::Reuse;
use crate::body::RequestBody;
use crate::config::Target;

/// One address of one target.
#[derive(Debug)]
pub struct Endpoint {
    /// As configured.
    pub target: Target,
    /// The target's authority, made once; always there for a target that was read.
    pub authority: Option<HeaderValue>,
    /// As resolved.
    pub address: SocketAddr,
    /// What lives there, where that is known: an address that a new pod has taken is another endpoint.
    pub uid: Option<Arc<str>>,
    /// How it has been doing.
    pub health: Health,
    /// What it has open and unused.
    pub pool: Pool,
    tls: Option<Arc<Tls>>,
    in_flight: AtomicUsize,
    far: AtomicBool,
    leaving: AtomicBool,
}

/// The right to one connection, or to one stream of a shared one, until dropped.
#[derive(Debug)]
pub struct Lease {
    endpoint: Arc<Endpoint>,
    sender: Option<Sender>,
    /// Of the pool, when the connection was taken from it or dialled.
    epoch: u64,
    /// Whether the connection has carried a request before.
    pub reused: bool,
}

/// The body of a response, and the lease it lives on.
#[derive(Debug)]
pub struct Leased {
    /// The backend's bytes.
    pub incoming: Incoming,
    /// Held until they end.
    pub lease: Lease,
}

/// A request that did not make it, and the request itself where not a byte of it was written.
pub type Unsent = TrySendError<Request<RequestBody>>;

// === impl Endpoint ===

impl Endpoint {
    pub(super) fn new(
        target: Target,
        address: SocketAddr,
        uid: Option<Arc<str>>,
        tls: Option<Arc<Tls>>,
        reuse: Reuse,
        discarded: Counter,
    ) -> Self {
        Self {
            authority: HeaderValue::try_from(target.authority()).ok(),
            target,
            address,
            uid,
            health: Health::new(Instant::now()),
            pool: Pool::new(reuse, discarded),
            tls,
            in_flight: AtomicUsize::new(0),
            far: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
        }
    }

    /// Streams in flight.
    #[must_use]
    pub fn load(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether it is known to be in another zone than ours.
    #[must_use]
    pub fn is_far(&self) -> bool {
        self.far.load(Ordering::Relaxed)
    }

    pub(super) fn set_far(&self, far: bool) {
        self.far.store(far, Ordering::Relaxed);
    }

    /// Whether it is terminating and still serves.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Whether it was leaving before.
    pub(super) fn set_leaving(&self, leaving: bool) -> bool {
        self.leaving.swap(leaving, Ordering::Relaxed)
    }

    /// A connection that is open already; never HTTP/2 if `http1`.
    #[must_use]
    pub fn warm(self: &Arc<Self>, http1: bool) -> Option<Lease> {
        let (sender, epoch) = self.pool.take(http1, Instant::now())?;
        Some(self.lease(Some(sender), epoch, true))
    }

    /// A new connection within `deadline`. The dial counts as load: an endpoint that does not answer
    /// would look idle otherwise, and be preferred for it.
    ///
    /// # Errors
    /// [`ConnectError`]; nothing of a request has been consumed.
    pub async fn dial(
        self: Arc<Self>,
        http1: bool,
        deadline: Duration,
    ) -> Result<Lease, ConnectError> {
        let tls = self.tls.as_deref();
        let dial = Dial { address: self.address, target: &self.target, tls, http1 };
        let mut lease = self.lease(None, self.pool.epoch(), false);
        let sender = connect::open(dial, deadline).await?;
        if let Sender::Http2(shared) = &sender {
            self.pool.share(shared, lease.epoch);
        }
        lease.sender = Some(sender);
        Ok(lease)
    }

    fn lease(self: &Arc<Self>, sender: Option<Sender>, epoch: u64, reused: bool) -> Lease {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Lease { endpoint: Arc::clone(self), sender, epoch, reused }
    }
}

// === impl Lease ===

impl Lease {
    /// Whether it speaks HTTP/2.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        matches!(self.sender, Some(Sender::Http2(_)))
    }

    /// Whether the connection closed without a word since the request was sent. A stream of HTTP/2
    /// that the backend resets is an answer of sorts: its connection stands.
    #[must_use]
    pub fn closed_silently(&self) -> bool {
        match &self.sender {
            Some(Sender::Http1(http1)) => !http1.ear.heard(),
            Some(Sender::Http2(http2)) => http2.sender.is_closed(),
            None => false,
        }
    }

    /// Where it leads.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Sends one request.
    ///
    /// # Errors
    /// The request comes back inside the error if not a byte of it was written.
    pub async fn send(
        &mut self,
        request: Box<Request<RequestBody>>,
    ) -> Result<Response<Incoming>, Unsent> {
        match self.sender.as_mut() {
            Some(Sender::Http1(http1)) => {
                http1.ear.forget();
                http1.sender.try_send_request(*request).await
            }
            Some(Sender::Http2(http2)) => http2.sender.try_send_request(*request).await,
            None => std::future::pending().await,
        }
    }

    /// The answer has been read to its end: the connection may carry another request. A lease that is
    /// dropped without this closes its connection, which is how a client's cancel reaches the backend.
    pub fn give_back(mut self) {
        if let Some(Sender::Http1(http1)) = self.sender.take()
            && !http1.sender.is_closed()
        {
            self.endpoint.pool.put(http1, self.epoch, Instant::now());
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
