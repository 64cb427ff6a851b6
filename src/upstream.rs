//! Where a route leads: endpoints, and the choice among them.
//!
//! Knows addresses and connections; never routes, clients or Kubernetes. `proxy/forward.rs` asks for
//! an endpoint and sends through it.

pub mod connect;
pub mod endpoint;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;

pub use connect::{ConnectError, Tls};
pub use endpoint::{Endpoint, Lease};

use crate::config::{Scheme, Target, UpstreamConfig};
use crate::tls::ClientConfigs;

/// The endpoints of one route, kept current by [`Cluster::refresh`].
#[derive(Debug)]
pub struct Cluster {
    targets: Vec<Target>,
    config: UpstreamConfig,
    /// For the `https` ones among them.
    tls: Option<Arc<Tls>>,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    turn: AtomicUsize,
}

// === impl Cluster ===

impl Cluster {
    /// A cluster without endpoints; [`Cluster::refresh`] finds them.
    #[must_use]
    pub fn new(targets: Vec<Target>, config: UpstreamConfig, tls: Option<Arc<Tls>>) -> Self {
        Self { targets, config, tls, endpoints: ArcSwap::default(), turn: AtomicUsize::new(0) }
    }

    /// Resolves the targets' names again. Endpoints whose address stays keep their connections; a
    /// name that does not resolve keeps the addresses it had.
    pub async fn refresh(&self) {
        let before: HashMap<(Target, SocketAddr), Arc<Endpoint>> = self
            .endpoints
            .load_full()
            .iter()
            .map(|endpoint| ((endpoint.target.clone(), endpoint.address), Arc::clone(endpoint)))
            .collect();
        let mut next = Vec::new();
        for target in &self.targets {
            match tokio::net::lookup_host((target.host.as_str(), target.port)).await {
                Ok(found) => {
                    for address in found {
                        let known = before.get(&(target.clone(), address)).cloned();
                        let idle = self.config.idle;
                        next.push(known.unwrap_or_else(|| {
                            let secure = target.scheme == Scheme::Https;
                            let tls = self.tls.clone().filter(|_| secure);
                            Arc::new(Endpoint::new(target.clone(), address, tls, idle))
                        }));
                    }
                }
                Err(error) => {
                    tracing::warn!(target_name = %target, %error, "name does not resolve, keeping what is known");
                    next.extend(before.values().filter(|e| e.target == *target).cloned());
                }
            }
        }
        next.dedup_by_key(|endpoint| (endpoint.target.clone(), endpoint.address));
        self.endpoints.store(Arc::new(next));
    }

    /// New files for the dials to come.
    pub fn replace_tls(&self, configs: ClientConfigs) {
        if let Some(tls) = &self.tls {
            tls.replace(configs);
        }
    }

    /// Resolves again and again, and closes connections that idled too long, until the last route
    /// that leads here is gone.
    pub async fn keep_current(cluster: Weak<Self>) {
        let Some(every) = cluster.upgrade().map(|cluster| cluster.config.resolve_every) else {
            return;
        };
        let mut resolve = tokio::time::interval(every);
        let mut sweep = tokio::time::interval(Duration::from_secs(1));
        resolve.tick().await;
        loop {
            let again = tokio::select! {
                _ = resolve.tick() => true,
                _ = sweep.tick() => false,
            };
            let Some(cluster) = cluster.upgrade() else { return };
            if again {
                cluster.refresh().await;
            } else {
                cluster.endpoints.load_full().iter().for_each(|endpoint| endpoint.sweep());
            }
        }
    }

    /// The less loaded of two endpoints that have not been tried yet.
    #[must_use]
    pub fn pick(&self, tried: &[SocketAddr]) -> Option<Arc<Endpoint>> {
        let endpoints = self.endpoints.load();
        let open: Vec<&Arc<Endpoint>> =
            endpoints.iter().filter(|e| !tried.contains(&e.address)).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let first = open.get(turn % open.len().max(1))?;
        let second = open.get((turn + 1 + turn / open.len()) % open.len())?;
        Some(Arc::clone(if second.load() < first.load() { second } else { first }))
    }

    /// All endpoints of this moment.
    #[must_use]
    pub fn endpoints(&self) -> Arc<Vec<Arc<Endpoint>>> {
        self.endpoints.load_full()
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
        let cluster =
            Cluster::new(vec![target(1), target(2), target(3)], UpstreamConfig::default(), None);
        cluster.refresh().await;
        let mut tried = Vec::new();
        while let Some(endpoint) = cluster.pick(&tried) {
            tried.push(endpoint.address);
        }
        tried.sort();
        let ports: Vec<u16> = tried.iter().map(SocketAddr::port).collect();
        assert_eq!(ports, [1, 2, 3]);
    }

    #[tokio::test]
    async fn an_endpoint_whose_address_stays_is_the_same_one() {
        let cluster = Cluster::new(vec![target(1)], UpstreamConfig::default(), None);
        cluster.refresh().await;
        let before = cluster.pick(&[]).unwrap();
        cluster.refresh().await;
        assert!(Arc::ptr_eq(&before, &cluster.pick(&[]).unwrap()));
    }
}
