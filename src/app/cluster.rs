//! Lets the cluster's objects say which routes there are.
//!
//! Knows discovery and the proxy whose table it changes; opens no listener.

use std::sync::Arc;

use crate::config::Config;
use crate::proxy::Proxy;
use crate::readiness::Readiness;
use crate::session::Sessions;
use crate::telemetry::metrics::Metrics;
#[cfg(feature = "kube")]
use {
    crate::discovery::{Discovery, Publish},
    crate::supervise::keep_running,
    std::net::SocketAddr,
};

/// Follows the cluster; what it says goes into the proxy's table. After a panic it begins anew, as if the API server
/// had been away: traffic goes on by the last table until everything has been listed again.
#[cfg(feature = "kube")]
pub(super) fn discover(
    config: &Config,
    (proxy, sessions): (&Arc<Proxy>, &Arc<Sessions>),
    metrics: &Metrics,
    readiness: Readiness,
) -> impl Future<Output = ()> + Send + 'static {
    // Hosts may become known from the first moment.
    proxy.update(|table| {
        let mut table = table.clone();
        table.set_discovering(&config.discovery.namespaces);
        table
    });
    readiness.wait_for("the first lists of the cluster's objects");
    let (config, proxy, sessions) =
        (Arc::new(config.clone()), Arc::clone(proxy), Arc::clone(sessions));
    let (of_discovery, synced) = (metrics.clone(), metrics.synced());
    let start = move || {
        let (config, metrics, readiness) =
            (Arc::clone(&config), of_discovery.clone(), readiness.clone());
        let publish = publish(&config, Arc::clone(&proxy), Arc::clone(&sessions));
        synced.set(0.0);
        async move {
            let Config { discovery, cluster_domain, upstream, .. } = &*config;
            let discovery =
                Discovery::new(discovery, cluster_domain, upstream, &metrics, readiness, publish);
            Box::pin(discovery.run()).await;
        }
    };
    keep_running("discovery", metrics.clone(), start)
}

/// What takes discovery's changes over.
#[cfg(feature = "kube")]
fn publish(config: &Config, proxy: Arc<Proxy>, sessions: Arc<Sessions>) -> Publish {
    let port = config.admin.address.port();
    Box::new(move |mut changes| {
        if let Some(replicas) = changes.replicas.take() {
            let admin = replicas.into_iter().map(|address| SocketAddr::new(address, port));
            sessions.set_peers(admin.collect());
        }
        let before = if changes.anew { proxy.routes().all_discovered() } else { Vec::new() };
        proxy.update(|table| changes.applied(table));
        // Who waits for one of those finds what is in force now.
        before
            .iter()
            .flat_map(|(of_host, _)| of_host.routes())
            .for_each(|old| old.cluster.retire());
    })
}

/// Without the feature there is nothing to follow with; the configuration has been refused before.
#[cfg(not(feature = "kube"))]
pub(super) fn discover(
    _config: &Config,
    _of: (&Arc<Proxy>, &Arc<Sessions>),
    _metrics: &Metrics,
    _readiness: Readiness,
) -> impl Future<Output = ()> + Send + 'static {
    std::future::pending()
}
