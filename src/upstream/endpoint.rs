//! One backend address with its connections.
//!
//! Idle HTTP/1 senders are a stack (the warmest first), HTTP/2 is one shared sender. A [`Lease`]
//! counts as load until it is dropped, which is when the *stream* ends. Knows nothing of routes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use tokio::time::Instant;

use super::connect::{self, ConnectError, Dial, Sender, Tls};
use crate::body::RequestBody;
use crate::config::Target;

/// One address of one target.
#[derive(Debug)]
pub struct Endpoint {
    /// As configured.
    pub target: Target,
    /// As resolved.
    pub address: SocketAddr,
    tls: Option<Arc<Tls>>,
    idle_limit: Duration,
    in_flight: AtomicUsize,
    idle: Mutex<Vec<Idle>>,
    shared: Mutex<Option<http2::SendRequest<RequestBody>>>,
}

/// The right to one connection, or to one stream of a shared one, until dropped.
#[derive(Debug)]
pub struct Lease {
    endpoint: Arc<Endpoint>,
    sender: Option<Sender>,
    /// Whether the connection has carried a request before.
    pub reused: bool,
}

#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<RequestBody>,
    since: Instant,
}

/// A request that did not make it, and the request itself where not a byte of it was written.
pub type Unsent = TrySendError<Request<RequestBody>>;

// === impl Endpoint ===

impl Endpoint {
    pub(super) fn new(
        target: Target,
        address: SocketAddr,
        tls: Option<Arc<Tls>>,
        idle_limit: Duration,
    ) -> Self {
        Self {
            target,
            address,
            tls,
            idle_limit,
            in_flight: AtomicUsize::new(0),
            idle: Mutex::default(),
            shared: Mutex::default(),
        }
    }

    /// Streams in flight.
    #[must_use]
    pub fn load(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// A connection: a warm one, else a new one within `deadline`; never HTTP/2 if `http1`.
    ///
    /// # Errors
    /// [`ConnectError`] from the dial.
    pub async fn lease(
        self: &Arc<Self>,
        http1: bool,
        deadline: Duration,
    ) -> Result<Lease, ConnectError> {
        let warm = self.warm(http1);
        let reused = warm.is_some();
        let sender = match warm {
            Some(sender) => sender,
            // Boxed: a dial is large and rare, and its size would weigh on every connection.
            None => {
                let tls = self.tls.as_deref();
                let dial = Dial { address: self.address, target: &self.target, tls, http1 };
                Box::pin(connect::open(dial, deadline)).await?
            }
        };
        if let Sender::Http2(shared) = &sender {
            *lock(&self.shared) = Some(shared.clone());
        }
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Ok(Lease { endpoint: Arc::clone(self), sender: Some(sender), reused })
    }

    /// Closes connections that have been idle too long.
    pub fn sweep(&self) {
        lock(&self.idle).retain(|idle| {
            !idle.sender.is_closed()
                && Instant::now().saturating_duration_since(idle.since) < self.idle_limit
        });
    }

    fn warm(&self, http1: bool) -> Option<Sender> {
        if !http1
            && let Some(shared) = lock(&self.shared).as_ref().filter(|sender| !sender.is_closed())
        {
            return Some(Sender::Http2(shared.clone()));
        }
        let now = Instant::now();
        let mut idle = lock(&self.idle);
        while let Some(warmest) = idle.pop() {
            let fresh = now.saturating_duration_since(warmest.since) < self.idle_limit;
            if fresh && warmest.sender.is_ready() {
                return Some(Sender::Http1(warmest.sender));
            }
            if !fresh {
                // Everything below it is older still.
                idle.clear();
            }
        }
        None
    }
}

/// A poisoned lock only means that another thread panicked between two plain stores.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Lease ===

impl Lease {
    /// Whether it speaks HTTP/2.
    #[must_use]
    pub fn is_http2(&self) -> bool {
        matches!(self.sender, Some(Sender::Http2(_)))
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
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, Unsent> {
        match self.sender.as_mut() {
            Some(Sender::Http1(sender)) => sender.try_send_request(request).await,
            Some(Sender::Http2(sender)) => sender.try_send_request(request).await,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
        // A sender that is not ready still has an answer under way: dropping it closes the connection,
        // which is how a client's cancel reaches the backend.
        if let Some(Sender::Http1(sender)) = self.sender.take()
            && !sender.is_closed()
        {
            let endpoint = Arc::clone(&self.endpoint);
            if sender.is_ready() {
                lock(&endpoint.idle).push(Idle { sender, since: Instant::now() });
            } else {
                endpoint.park(sender);
            }
        }
    }
}

impl Endpoint {
    /// The end of an answer reaches us before the connection's own task has noticed it; so wait for
    /// the sender to become ready. An answer that was cut never becomes ready, it closes.
    fn park(self: Arc<Self>, mut sender: http1::SendRequest<RequestBody>) {
        let wait = async move {
            if sender.ready().await.is_ok() {
                lock(&self.idle).push(Idle { sender, since: Instant::now() });
            }
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(wait);
        }
    }
}
