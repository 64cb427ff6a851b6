//! Where a route leads: endpoints, and the choice among them.
//!
//! Knows addresses and connections; never routes, clients or Kubernetes.

pub mod balance;
pub mod budget;
pub mod connect;
pub mod endpoint;
pub mod faults;
pub mod framing;
pub mod greeting;
pub mod h1;
pub mod health;
pub mod joint;
pub mod lease;
pub mod lent;
pub mod parting;
pub mod pool;
pub mod reuse;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics::Counter;
use tokio::sync::Notify;
use tokio::time::Instant;

pub use connect::{ConnectError, Tls};
pub use endpoint::Endpoint;
pub use faults::{BadResponse, SendError};
pub use lease::{Brought, Lease, Leased, Unsent};

use crate::config::{Scheme, Target, UpstreamConfig};
use crate::tls::ClientConfigs;
use crate::workers::near::{Common, Near};
use balance::Candidate;
use budget::TokenBucket;
use endpoint::Manner;
use faults::HeadLimits;
use reuse::Reuse;

/// Names are looked up no more often than this, however many requests wait.
const RESOLVE_AGAIN: Duration = Duration::from_millis(500);

/// An endpoint as its finder knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Where it is.
    pub address: SocketAddr,
    /// What lives there; an address with another tenant is another endpoint.
    pub uid: Option<Arc<str>>,
    /// Known to be in another zone.
    pub other_zone: bool,
    /// Whether it takes new requests.
    pub state: EndpointState,
}

/// Whether an endpoint takes new requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndpointState {
    /// Yes.
    Ready,
    /// It is terminating and still serves: only where no endpoint is ready.
    Serving,
    /// It is there and not ready: only those of sessions that live there.
    NotReady,
}

/// One endpoint for as long as it lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointId {
    /// Where it is.
    pub address: SocketAddr,
    /// The pod that lives there, where that is known.
    pub uid: Option<Arc<str>>,
}

/// Which endpoint a request needs.
#[derive(Clone, Copy, Debug)]
pub enum Want<'a> {
    /// Whichever suits best.
    Any,
    /// This one and no other, however it is doing.
    Pinned(&'a EndpointId),
}

/// The endpoints of one route, kept current by [`Cluster::refresh`] or by whoever calls
/// [`Cluster::set_endpoints`].
#[derive(Debug)]
pub struct Cluster {
    /// How many requests may be sent again.
    pub budget: TokenBucket,
    targets: Vec<Target>,
    config: UpstreamConfig,
    /// For the `https` ones among them.
    tls: Option<Arc<Tls>>,
    places: ArcSwap<Places>,
    /// There is more than one endpoint, also of those that take no new requests.
    several: AtomicBool,
    discarded: Counter,
    /// A request waits for an endpoint.
    wanted: Arc<Notify>,
    /// The endpoints are others than before.
    changed: Notify,
    /// Out of force: no table leads here any more.
    retired: AtomicBool,
}

/// The endpoints of one moment.
#[derive(Debug, Default)]
struct Places {
    /// Those that take new requests.
    open: Arc<Vec<Common<Endpoint>>>,
    /// Those that are not ready, for the sessions that live there.
    closed: Vec<Common<Endpoint>>,
}

// === impl Places ===

impl Places {
    fn all(&self) -> impl Iterator<Item = &Common<Endpoint>> {
        self.open.iter().chain(&self.closed)
    }
}

// === impl Cluster ===

impl Cluster {
    /// A cluster without endpoints; [`Cluster::refresh`] finds them. `discarded` counts connections
    /// that are closed unused.
    #[must_use]
    pub fn new(
        targets: Vec<Target>,
        config: UpstreamConfig,
        tls: Option<Arc<Tls>>,
        discarded: Counter,
    ) -> Self {
        let (percent, per_second) = (config.retry_percent, config.retry_per_second);
        Self {
            budget: TokenBucket::new(percent, per_second, Instant::now()),
            targets,
            config,
            tls,
            places: ArcSwap::default(),
            several: AtomicBool::new(false),
            discarded,
            wanted: Arc::default(),
            changed: Notify::new(),
            retired: AtomicBool::new(false),
        }
    }

    /// Resolves the targets' names again. Endpoints whose address stays keep their connections; a
    /// name that does not resolve keeps the addresses it had.
    pub async fn refresh(&self) {
        let before: HashMap<(Target, SocketAddr), Common<Endpoint>> = self
            .endpoints()
            .iter()
            .map(|endpoint| ((endpoint.target.clone(), endpoint.address), endpoint.clone()))
            .collect();
        let mut next: Vec<Common<Endpoint>> = Vec::new();
        for target in &self.targets {
            match tokio::net::lookup_host((target.host.as_str(), target.port)).await {
                Ok(found) => {
                    for address in found {
                        if next.iter().any(|e| e.address == address && e.target == *target) {
                            continue;
                        }
                        let known = before.get(&(target.clone(), address)).cloned();
                        next.push(known.unwrap_or_else(|| self.endpoint(target, address, None)));
                    }
                }
                Err(error) => {
                    tracing::warn!(target_name = %target, %error, "name does not resolve, keeping what is known");
                    next.extend(before.values().filter(|e| e.target == *target).cloned());
                }
            }
        }
        let new = next.iter().any(|e| !before.contains_key(&(e.target.clone(), e.address)));
        self.swap(next, Vec::new(), new);
    }

    /// Puts other endpoints in force: those of the one target of a discovered route. What stays keeps
    /// its connections, its load and its health; what goes lives until its last stream ends.
    pub fn set_endpoints(&self, places: &[EndpointSpec]) {
        let before = self.places.load_full();
        let Some(target) = self.targets.first() else { return };
        let mut new = false;
        let (mut open, mut closed) = (Vec::with_capacity(places.len()), Vec::new());
        for place in places {
            let is = |e: &&Common<Endpoint>| e.address == place.address && e.uid == place.uid;
            let known = before.all().find(is).cloned();
            let endpoint = known.unwrap_or_else(|| {
                new = true;
                self.endpoint(target, place.address, place.uid.clone())
            });
            endpoint.set_other_zone(place.other_zone);
            let leaving = place.state == EndpointState::Serving;
            new |= endpoint.set_leaving(leaving) && !leaving;
            if place.state == EndpointState::NotReady {
                closed.push(endpoint);
            } else {
                // It may have been there, and was no choice.
                new |= before.closed.iter().any(|e| e.is_same(&endpoint));
                open.push(endpoint);
            }
        }
        self.swap(open, closed, new);
    }

    fn swap(&self, open: Vec<Common<Endpoint>>, closed: Vec<Common<Endpoint>>, new: bool) {
        self.several.store(open.len() + closed.len() > 1, Ordering::Relaxed);
        self.places.store(Arc::new(Places { open: Arc::new(open), closed }));
        if new {
            self.changed.notify_waiters();
        }
    }

    /// Puts it out of force, after the last table that leads here was replaced: whoever waits here is
    /// woken and goes back to the table, and must not dial what others may have by now.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.places.store(Arc::default());
        self.changed.notify_waiters();
    }

    /// Whether it is out of force.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Closes what has been idle for too long; [`Cluster::keep_current`] does it for itself.
    pub fn sweep(&self, now: Instant) {
        self.budget.refill(now);
        self.places.load().all().for_each(|endpoint| endpoint.pool.sweep(now));
    }

    fn endpoint(
        &self,
        target: &Target,
        address: SocketAddr,
        uid: Option<Arc<str>>,
    ) -> Common<Endpoint> {
        let config = &self.config;
        let tls = self.tls.clone().filter(|_| target.scheme == Scheme::Https);
        let heads = HeadLimits::new(config.max_head_bytes, config.max_head_fields);
        let reuse = Reuse::new(config.idle, config.idle_max);
        let manner = Manner { tls, heads, reuse, discarded: self.discarded.clone() };
        Common::new(Endpoint::new(target.clone(), address, uid, manner))
    }

    /// New files for the dials to come. If they changed, connections of before take no new request: an
    /// authority or an identity that was withdrawn must not live on in them.
    pub fn replace_tls(&self, configs: ClientConfigs) {
        if let Some(tls) = &self.tls
            && tls.replace(configs)
        {
            self.places.load_full().all().for_each(|endpoint| endpoint.pool.renew());
        }
    }

    /// Resolves again and again, and looks after idle connections, until the last route that leads
    /// here is gone.
    pub async fn keep_current(cluster: Weak<Self>) {
        let Some(first) = cluster.upgrade() else { return };
        let (every, wanted) = (first.config.resolve_every, Arc::clone(&first.wanted));
        drop(first);
        let mut resolve = tokio::time::interval(every);
        let mut resolved = Instant::now();
        let mut sweep = tokio::time::interval(pool::SWEEP_EVERY);
        resolve.tick().await;
        loop {
            let again = tokio::select! {
                _ = resolve.tick() => true,
                _ = sweep.tick() => false,
                () = async {
                    // In this order a wake-up is not lost when another branch is faster.
                    tokio::time::sleep_until(resolved + RESOLVE_AGAIN).await;
                    wanted.notified().await;
                } => true,
            };
            let Some(cluster) = cluster.upgrade() else { return };
            if again {
                cluster.refresh().await;
                resolve.reset();
                resolved = Instant::now();
            } else {
                cluster.sweep(Instant::now());
            }
        }
    }

    /// One endpoint that has not been tried yet. Of any, a healthy and little loaded one, if there is a
    /// choice. A pinned one also while it is terminating (D43), not ready or ejected; `None` if it is gone.
    #[must_use]
    pub fn pick(&self, want: Want<'_>, tried: &[SocketAddr]) -> Option<Near<Endpoint>> {
        let places = self.places.load();
        let endpoints = &places.open;
        if let Want::Pinned(id) = want {
            let pinned = places.all().find(|endpoint| endpoint.is(id))?;
            return (!tried.contains(&id.address)).then(|| pinned.near());
        }
        // Most clusters have one endpoint.
        if let ([only], []) = (endpoints.as_slice(), tried) {
            return Some(only.near());
        }
        let now = Instant::now();
        loop {
            let candidates = endpoints.iter().map(|endpoint| Candidate {
                other_zone: endpoint.is_in_other_zone(),
                leaving: endpoint.is_leaving(),
                ejected: endpoint.health.is_ejected(now),
                tried: tried.contains(&endpoint.address),
            });
            let load = |at: usize| endpoints.get(at).map_or(0, |endpoint| endpoint.load());
            let chosen = endpoints.get(balance::choose(candidates, load, fastrand::u64(..))?)?;
            // One that is still ejected is the only choice left. One whose ejection is over is tried by one
            // request; who comes second chooses again, and finds it ejected.
            if chosen.health.is_ejected(now) || chosen.health.admit(now) {
                return Some(chosen.near());
            }
        }
    }

    /// Whether there is an endpoint that has not been tried yet, as [`Cluster::pick`] sees it.
    #[must_use]
    pub fn has_other(&self, want: Want<'_>, tried: &[SocketAddr]) -> bool {
        let places = self.places.load();
        let endpoints = &places.open;
        let all_leave = endpoints.iter().all(|endpoint| endpoint.is_leaving());
        let mut open = endpoints.iter().filter(|endpoint| match want {
            Want::Any => all_leave || !endpoint.is_leaving(),
            Want::Pinned(id) => endpoint.is(id),
        });
        open.any(|endpoint| !tried.contains(&endpoint.address))
    }

    /// The endpoint that there is, if there is no other one.
    #[must_use]
    pub fn only(&self) -> Option<EndpointId> {
        let places = self.places.load();
        let mut open = places.open.iter().filter(|endpoint| !endpoint.is_leaving());
        let only = open.next()?.id();
        open.next().is_none().then_some(only)
    }

    /// Waits for other endpoints, at most `until`, and has the names looked up again: what refuses may
    /// be an address that its pod has left.
    pub async fn wait(&self, until: Instant) {
        let mut changed = std::pin::pin!(self.changed.notified());
        changed.as_mut().enable();
        if self.is_retired() {
            return;
        }
        self.wanted.notify_one();
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }

    /// Whether there is more than one endpoint, so that it matters to which a request goes.
    #[must_use]
    pub fn has_several(&self) -> bool {
        self.several.load(Ordering::Relaxed)
    }

    /// All endpoints of this moment that take new requests.
    #[must_use]
    pub fn endpoints(&self) -> Arc<Vec<Common<Endpoint>>> {
        Arc::clone(&self.places.load().open)
    }

    /// Targets as configured.
    #[must_use]
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(port: u16) -> Target {
        Target { scheme: Scheme::Http, host: "127.0.0.1".to_owned(), port }
    }

    #[tokio::test]
    async fn every_endpoint_gets_its_turn_and_none_twice_in_one_request() {
        let cluster = Cluster::new(
            vec![target(1), target(2), target(3)],
            UpstreamConfig::default(),
            None,
            Counter::noop(),
        );
        cluster.refresh().await;
        let mut tried = Vec::new();
        while let Some(endpoint) = cluster.pick(Want::Any, &tried) {
            tried.push(endpoint.address);
        }
        tried.sort();
        let ports: Vec<u16> = tried.iter().map(SocketAddr::port).collect();
        assert_eq!(ports, [1, 2, 3]);
    }

    #[tokio::test]
    async fn who_picks_an_endpoint_writes_no_count_that_workers_share() {
        let targets = vec![target(1), target(2)];
        let cluster = Cluster::new(targets, UpstreamConfig::default(), None, Counter::noop());
        cluster.refresh().await;
        let pick = || cluster.pick(Want::Any, &[]).unwrap();
        // Until this worker has taken each once.
        let picked: Vec<_> = std::iter::repeat_with(pick).take(100).collect();
        let counts = || cluster.endpoints().iter().map(|e| Arc::strong_count(e.far())).sum();
        let before: usize = counts();
        let more: Vec<_> = std::iter::repeat_with(pick).take(100).collect();
        assert_eq!((picked.len() + more.len(), counts()), (200, before));
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_was_ejected_gets_one_request_before_it_gets_its_share() {
        let targets = vec![target(1), target(2)];
        let cluster = Cluster::new(targets, UpstreamConfig::default(), None, Counter::noop());
        cluster.refresh().await;
        let failed = cluster.endpoints()[0].clone();
        let picked = |times: usize| {
            let picks =
                std::iter::repeat_with(|| cluster.pick(Want::Any, &[]).unwrap()).take(times);
            picks.filter(|endpoint| endpoint.is_same(&failed)).count()
        };
        assert!(failed.health.dial_failed(Instant::now(), u64::MAX));
        assert_eq!(picked(100), 0, "ejected");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(picked(100), 1, "one tries it");
        assert!(
            cluster.pick(Want::Any, &[cluster.endpoints()[1].address]).is_some(),
            "the last is never ejected"
        );
        assert!(failed.health.dial_failed(Instant::now(), u64::MAX), "it fails again");
        assert_eq!(picked(100), 0);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(picked(100), 1);
        failed.health.answered();
        assert!(picked(100) > 10, "it has its share");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_has_the_names_looked_up_and_is_woken_by_what_is_found() {
        let config = UpstreamConfig {
            resolve_every: Duration::from_secs(3600),
            ..UpstreamConfig::default()
        };
        let cluster = Arc::new(Cluster::new(vec![target(1)], config, None, Counter::noop()));
        let current = tokio::spawn(Cluster::keep_current(Arc::downgrade(&cluster)));
        let before = Instant::now();
        cluster.wait(before + Duration::from_secs(600)).await;
        assert!(Instant::now() < before + Duration::from_secs(600), "woken, not timed out");
        assert!(cluster.pick(Want::Any, &[]).is_some());
        current.abort();
    }

    #[tokio::test]
    async fn an_address_with_another_tenant_is_another_endpoint() {
        let cluster =
            Cluster::new(vec![target(1)], UpstreamConfig::default(), None, Counter::noop());
        let place = |uid: &str| EndpointSpec {
            address: ([10, 0, 0, 1], 8080).into(),
            uid: Some(uid.into()),
            other_zone: false,
            state: EndpointState::Ready,
        };
        cluster.set_endpoints(&[place("a")]);
        let first = cluster.pick(Want::Any, &[]).unwrap();
        cluster.set_endpoints(&[place("a")]);
        assert!(first.is_same(&cluster.pick(Want::Any, &[]).unwrap()));
        cluster.set_endpoints(&[place("b")]);
        assert!(!first.is_same(&cluster.pick(Want::Any, &[]).unwrap()));
        cluster.set_endpoints(&[]);
        assert!(cluster.pick(Want::Any, &[]).is_none());
    }

    #[tokio::test]
    async fn an_endpoint_that_terminates_is_the_same_one_and_waits_behind_the_ready_ones() {
        let cluster =
            Cluster::new(vec![target(1)], UpstreamConfig::default(), None, Counter::noop());
        let place = |last: u8, state| EndpointSpec {
            address: ([10, 0, 0, last], 8080).into(),
            uid: None,
            other_zone: false,
            state,
        };
        cluster.set_endpoints(&[place(1, EndpointState::Ready)]);
        let first = cluster.pick(Want::Any, &[]).unwrap();
        cluster.set_endpoints(&[place(1, EndpointState::Serving)]);
        assert!(first.is_same(&cluster.pick(Want::Any, &[]).unwrap()), "there is no other");
        cluster.set_endpoints(&[place(1, EndpointState::Serving), place(2, EndpointState::Ready)]);
        assert_eq!(cluster.pick(Want::Any, &[]).unwrap().address, ([10, 0, 0, 2], 8080).into());
        assert!(first.is_same(&cluster.endpoints()[0]), "what stays on it may go on");
    }

    #[tokio::test]
    async fn a_pinned_endpoint_is_found_however_it_is_doing_and_no_other_in_its_place() {
        let targets = vec![target(1)];
        let cluster = Cluster::new(targets, UpstreamConfig::default(), None, Counter::noop());
        let place = |last: u8, uid: &str, state| EndpointSpec {
            address: ([10, 0, 0, last], 8080).into(),
            uid: Some(uid.into()),
            other_zone: false,
            state,
        };
        let other = place(2, "b", EndpointState::Ready);
        cluster.set_endpoints(&[place(1, "a", EndpointState::Ready), other.clone()]);
        let first = cluster.endpoints()[0].clone();
        let id = first.id();
        let want = Want::Pinned(&id);
        let picks_first = |when: &str| {
            for _ in 0..20 {
                let picked = cluster.pick(want, &[]).expect(when);
                assert!(picked.is_same(&first), "{when}");
            }
            assert!(cluster.has_other(want, &[]), "{when}");
        };
        picks_first("ready");
        assert!(first.health.dial_failed(Instant::now(), u64::MAX));
        picks_first("ejected");
        cluster.set_endpoints(&[place(1, "a", EndpointState::Serving), other.clone()]);
        picks_first("terminating, while another one is ready");
        assert!(cluster.pick(want, &[id.address]).is_none(), "tried");
        assert!(!cluster.has_other(want, &[id.address]), "tried");
        assert!(cluster.has_other(Want::Any, &[id.address]), "any has another one");
        for gone in [vec![place(1, "c", EndpointState::Ready), other.clone()], vec![other], vec![]]
        {
            cluster.set_endpoints(&gone);
            assert!(cluster.pick(want, &[]).is_none(), "{gone:?}");
            assert!(!cluster.has_other(want, &[]), "{gone:?}");
        }
    }

    #[tokio::test]
    async fn an_endpoint_whose_address_stays_is_the_same_one() {
        let cluster =
            Cluster::new(vec![target(1)], UpstreamConfig::default(), None, Counter::noop());
        cluster.refresh().await;
        let before = cluster.pick(Want::Any, &[]).unwrap();
        cluster.refresh().await;
        assert!(before.is_same(&cluster.pick(Want::Any, &[]).unwrap()));
    }
}
