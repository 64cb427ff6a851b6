//! One backend address: its connections, its load, its health.
//!
//! Knows nothing of routes, clients or requests.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::HeaderValue;
use metrics::Counter;
use tokio::time::Instant;

use super::EndpointId;
use super::connect::{self, ConnectError, Dial, MAX_STREAMS, Sender, Tls};
use super::faults::HeadLimits;
use super::health::Health;
use super::joint::{Joint, Turn};
use super::lease::Lease;
use super::pool::Pool;
use super::reuse::Reuse;
use crate::config::{Scheme, Target};
use crate::workers::moment;
use crate::workers::near::Near;
use crate::workers::per_worker::{PerWorker, Tally};
use crate::workers::place;
use crate::workers::value::OwnValue;

/// One address of one target.
#[derive(Debug)]
pub struct Endpoint {
    /// As configured.
    pub target: Target,
    /// The target's authority, made once; always there for a target that was read.
    pub authority: Option<OwnValue>,
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
    joint: PerWorker<Joint<Dialled>>,
    /// By TLS it chose HTTP/1.1, where each request needs a connection of its own.
    chose_http1: AtomicBool,
    in_flight: Tally,
    other_zone: AtomicBool,
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

// === impl Near ===

impl Near<Endpoint> {
    /// A connection that is open already; never HTTP/2 if `http1`.
    #[must_use]
    pub fn idle_connection(&self, http1: bool) -> Option<Lease> {
        let now = moment::now();
        let (sender, generation) = self.pool.take(http1, now)?;
        Some(Lease::new(self.clone(), Some(sender), generation, true, now))
    }

    /// A new connection within `deadline`, or one that another request is opening at this moment and
    /// shares. The dial counts as load: an endpoint that does not answer would look idle otherwise, and be
    /// preferred for it.
    ///
    /// # Errors
    /// [`ConnectError`]; nothing of a request has been consumed.
    pub async fn dial(self, http1: bool, deadline: Duration) -> Result<Lease, ConnectError> {
        let (generation, start) = (self.pool.generation(), Instant::now());
        let mut lease = Lease::new(self.clone(), None, generation, false, start);
        if http1 || !self.may_share() {
            self.open(&mut lease, http1, deadline).await?;
        } else {
            let joined = Box::pin(self.open_jointly(&mut lease, start + deadline));
            let joined = tokio::time::timeout(deadline, joined).await;
            joined.unwrap_or(Err(ConnectError::Timeout(self.address, deadline)))?;
        }
        lease.since = Instant::now();
        Ok(lease)
    }
}

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
            authority: HeaderValue::try_from(target.authority()).ok().map(OwnValue::new),
            target,
            address,
            uid,
            health: Health::new(Instant::now()),
            pool: Pool::new(reuse, discarded),
            tls,
            heads,
            joint: PerWorker::default(),
            chose_http1: AtomicBool::new(false),
            in_flight: Tally::default(),
            other_zone: AtomicBool::new(false),
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

    /// Streams in flight, of all workers.
    #[must_use]
    pub fn load(&self) -> usize {
        usize::try_from(self.in_flight.total()).unwrap_or(usize::MAX)
    }

    /// Whether it is known to be in another zone than ours.
    #[must_use]
    pub fn is_in_other_zone(&self) -> bool {
        self.other_zone.load(Ordering::Relaxed)
    }

    pub(super) fn set_other_zone(&self, other_zone: bool) {
        self.other_zone.store(other_zone, Ordering::Relaxed);
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

    /// Those who can use what one of them has opened.
    fn joint(&self) -> &Joint<Dialled> {
        if place::steals() { self.joint.common() } else { self.joint.own() }
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
            self.pool.share(shared, lease.generation);
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
            let told = match self.joint().join(MAX_STREAMS - 1) {
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
                    if let Some((sender, generation)) = self.pool.take_shared(&id) {
                        (lease.sender, lease.generation, lease.reused) =
                            (Some(sender), generation, true);
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

    pub(super) fn begin(&self) {
        self.in_flight.add(1);
    }

    pub(super) fn end(&self) {
        self.in_flight.add(-1);
    }

    /// What a response's headers may measure.
    pub(super) const fn heads(&self) -> HeadLimits {
        self.heads
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::workers::near::Common;

    const S: Duration = Duration::from_secs(1);
    /// An empty SETTINGS frame.
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

    #[tokio::test]
    async fn who_waits_for_another_s_dial_waits_within_its_own_time_and_dials_no_second_one() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let host = address.ip().to_string();
        let target = Target { scheme: Scheme::H2c, host, port: address.port() };
        let heads = HeadLimits::new(1 << 16, 100);
        let (reuse, discarded) = (Reuse::new(4 * S, 55 * S), Counter::noop());
        let manner = Manner { tls: None, heads, reuse, discarded };
        let endpoint = Common::new(Endpoint::new(target, address, None, manner));
        let first = tokio::spawn(endpoint.near().dial(false, 10 * S));
        let (mut stream, _) = server.accept().await.unwrap();
        let short = S / 20;
        let waited = endpoint.near().dial(false, short).await.unwrap_err();
        let late =
            matches!(waited, ConnectError::Timeout(at, after) if (at, after) == (address, short));
        assert!(late, "{waited}");
        assert!(!first.is_finished(), "the other one has more time");
        stream.write_all(&SETTINGS).await.unwrap();
        assert!(first.await.unwrap().unwrap().is_http2());
        // Whoever connects on loopback is in the queue by the time that it knows.
        let more = server.into_std().unwrap().accept();
        assert_eq!(more.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }
}
