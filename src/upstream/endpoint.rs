//! One backend address: its connections, its load, its health.
//!
//! A [`Lease`] counts as load until it is dropped, which is when the *stream* ends. Knows nothing of
//! routes or clients.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use metrics::Counter;
use tokio::time::Instant;

use super::EndpointId;
use super::connect::{self, ConnectError, Dial, MAX_STREAMS, Sender, Tls};
use super::faults::{BadResponse, HeadLimits};
use super::framing;
use super::health::Health;
use super::joint::{Joint, Turn};
use super::pool::Pool;
use super::reuse::Reuse;
use crate::body::RequestBody;
use crate::config::{Scheme, Target};

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
    heads: HeadLimits,
    /// Those who need an HTTP/2 connection at the same moment.
    joint: Joint<Dialled>,
    /// By TLS it chose HTTP/1.1, where each request needs a connection of its own.
    chose_http1: AtomicBool,
    in_flight: AtomicUsize,
    far: AtomicBool,
    leaving: AtomicBool,
}

/// How an endpoint is spoken to.
#[derive(Debug)]
pub struct Manner {
    /// For `https`.
    pub tls: Option<Arc<Tls>>,
    /// What responses may measure.
    pub heads: HeadLimits,
    /// For how long idle connections are used.
    pub reuse: Reuse,
    /// Counts what is closed unused.
    pub discarded: Counter,
}

/// What those are told who wait for another's dial.
#[derive(Clone, Debug)]
enum Dialled {
    /// This connection is to be shared.
    Shared(Weak<AtomicUsize>),
    /// HTTP/1.1: each needs its own.
    Alone,
    /// It would fail them alike.
    Failed(ConnectError),
}

/// The right to one connection, or to one stream of a shared one, until dropped.
#[derive(Debug)]
pub struct Lease {
    endpoint: Arc<Endpoint>,
    sender: Option<Sender>,
    /// Of the pool, when the connection was taken from it or dialled.
    epoch: u64,
    /// Whether the connection was opened for another request.
    pub reused: bool,
    /// No other request may follow on the connection.
    last: bool,
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
        manner: Manner,
    ) -> Self {
        let Manner { tls, heads, reuse, discarded } = manner;
        Self {
            authority: HeaderValue::try_from(target.authority()).ok(),
            target,
            address,
            uid,
            health: Health::new(Instant::now()),
            pool: Pool::new(reuse, discarded),
            tls,
            heads,
            joint: Joint::default(),
            chose_http1: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            far: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
        }
    }

    /// What tells it from every other one, also from the one that may get its address.
    #[must_use]
    pub fn id(&self) -> EndpointId {
        EndpointId { address: self.address, uid: self.uid.clone() }
    }

    /// Whether this id is its own.
    #[must_use]
    pub fn is(&self, id: &EndpointId) -> bool {
        self.address == id.address && self.uid == id.uid
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

    /// A new connection within `deadline`, or one that another request is opening at this moment and
    /// shares. The dial counts as load: an endpoint that does not answer would look idle otherwise, and be
    /// preferred for it.
    ///
    /// # Errors
    /// [`ConnectError`]; nothing of a request has been consumed.
    pub async fn dial(
        self: Arc<Self>,
        http1: bool,
        deadline: Duration,
    ) -> Result<Lease, ConnectError> {
        let mut lease = self.lease(None, self.pool.epoch(), false);
        if http1 || !self.may_share() {
            self.open(&mut lease, http1, deadline).await?;
            return Ok(lease);
        }
        let joined = Box::pin(self.open_jointly(&mut lease, Instant::now() + deadline));
        let joined = tokio::time::timeout(deadline, joined).await;
        joined.unwrap_or(Err(ConnectError::Timeout(self.address, deadline)))?;
        Ok(lease)
    }

    /// Whether one connection may carry many requests, as far as is known.
    fn may_share(&self) -> bool {
        match self.target.scheme {
            Scheme::H2c => true,
            Scheme::Https => !self.chose_http1.load(Ordering::Relaxed),
            Scheme::Http => false,
        }
    }

    async fn open(
        &self,
        lease: &mut Lease,
        http1: bool,
        deadline: Duration,
    ) -> Result<(), ConnectError> {
        let (tls, heads) = (self.tls.as_deref(), self.heads);
        let dial = Dial { address: self.address, target: &self.target, tls, heads, http1 };
        let sender = connect::open(dial, deadline).await?;
        if let Sender::Http2(shared) = &sender {
            self.pool.share(shared, lease.epoch);
        }
        if !http1 {
            let chose_http1 = matches!(sender, Sender::Http1(_));
            self.chose_http1.store(chose_http1, Ordering::Relaxed);
        }
        lease.sender = Some(sender);
        Ok(())
    }

    /// Dials, or waits for who dials already; again where that was of no use.
    async fn open_jointly(&self, lease: &mut Lease, until: Instant) -> Result<(), ConnectError> {
        loop {
            let told = match self.joint.join(MAX_STREAMS - 1) {
                Turn::Wait(told) => told.wait().await,
                Turn::Dial(teller) => {
                    let left = until.saturating_duration_since(Instant::now());
                    let opened = self.open(lease, false, left).await;
                    match (&opened, &lease.sender) {
                        // Others may have more time.
                        (Err(ConnectError::Timeout(..)), _) | (Ok(()), None) => drop(teller),
                        (Err(error), _) => teller.tell(Dialled::Failed(error.clone())),
                        (Ok(()), Some(Sender::Http1(_))) => teller.tell(Dialled::Alone),
                        (Ok(()), Some(Sender::Http2(http2))) => {
                            teller.tell(Dialled::Shared(http2.id()));
                        }
                    }
                    return opened;
                }
            };
            match told {
                Some(Dialled::Shared(id)) => {
                    // It may be full by now, or out of use.
                    if let Some((sender, epoch)) = self.pool.take_shared(&id) {
                        (lease.sender, lease.epoch, lease.reused) = (Some(sender), epoch, true);
                        return Ok(());
                    }
                }
                Some(Dialled::Alone) => {
                    let left = until.saturating_duration_since(Instant::now());
                    return self.open(lease, false, left).await;
                }
                Some(Dialled::Failed(error)) => return Err(error),
                None => {}
            }
        }
    }

    fn lease(self: &Arc<Self>, sender: Option<Sender>, epoch: u64, reused: bool) -> Lease {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Lease { endpoint: Arc::clone(self), sender, epoch, reused, last: false }
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

    /// Leaves one framing in the head of a response, which answers a HEAD request or (`head` is false) any
    /// other.
    ///
    /// # Errors
    /// [`BadResponse`]; the lease must not be given back.
    pub fn settle(
        &mut self,
        head: bool,
        response: &mut Response<Incoming>,
    ) -> Result<(), BadResponse> {
        let limits = self.endpoint.heads;
        // Of HTTP/1, hyper has measured them.
        if self.is_http2() && !limits.admit(response.headers()) {
            return Err(BadResponse::TooLarge(limits));
        }
        let (version, status) = (response.version(), response.status());
        let reusable = framing::settle(head, version, status, response.headers_mut());
        self.last = !reusable.map_err(BadResponse::Ambiguous)?;
        Ok(())
    }

    /// The fault that hyper itself found in a response, where it has a name here.
    #[must_use]
    pub fn fault(&self, error: &hyper::Error) -> Option<BadResponse> {
        error.is_parse_too_large().then(|| BadResponse::TooLarge(self.endpoint.heads))
    }

    /// The answer has been read to its end: the connection may carry another request. A lease that is
    /// dropped without this closes its connection, which is how a client's cancel reaches the backend.
    pub fn give_back(mut self) {
        if let Some(Sender::Http1(http1)) = self.sender.take()
            && !self.last
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
