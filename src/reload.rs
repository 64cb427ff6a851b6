//! Static routes, TLS files and secrets follow their files, without a restart and without touching a
//! stream.
//!
//! Files are compared by content, so that the symlinks of a mounted ConfigMap or Secret work. What is
//! wrong is refused as a whole, loudly, and the old state stays. Knows the parts that can change:
//! table, acceptors, view.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use serde_json::Value;

use crate::build::{self, Built, RouteFault};
use crate::config::{self, Config, ConfigFaults, ListenerConfig, Loaded, Secret};
use crate::listener::tls::Acceptor;
use crate::proxy::Proxy;
use crate::telemetry::metrics::Metrics;
use crate::tls::{self, TlsError};
use crate::upstream::Cluster;

/// Reads flags, environment and file again.
pub type Load = Box<dyn Fn() -> Result<Loaded, ConfigFaults> + Send + Sync>;

/// What can change while the program runs.
pub struct Reload {
    /// Where the configuration comes from.
    pub load: Load,
    /// The file it is read from.
    pub file: Option<PathBuf>,
    /// What is in force.
    pub config: Config,
    /// Publishes the table.
    pub proxy: Arc<Proxy>,
    /// For the handles of new routes.
    pub metrics: Metrics,
    /// By the name of the listener.
    pub acceptors: Vec<(Arc<str>, Arc<Acceptor>)>,
    /// What `/config` shows.
    pub view: Arc<ArcSwap<Value>>,
    /// The files as they were when following began.
    pub seen: Seen,
}

/// What stood in the files at the last look.
#[derive(Debug, Default)]
pub struct Seen {
    watched: Vec<PathBuf>,
    prints: (u64, u64),
}

// === impl Seen ===

impl Seen {
    /// Looks now, so that a change before the first tick is not missed.
    #[must_use]
    pub fn look(file: Option<&PathBuf>, config: &Config) -> Self {
        let watched = secret_files(config);
        let prints = (fingerprint(file), fingerprint(&watched));
        Self { watched, prints }
    }
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Config(#[from] ConfigFaults),
    #[error("{0}")]
    Route(#[from] RouteFault),
    #[error("listener {0}: tls.{1}")]
    Listener(String, #[source] TlsError),
}

// === impl Reload ===

impl Reload {
    /// Looks again and again, until dropped; never if `reloadEvery` is zero.
    pub async fn run(mut self) {
        if self.config.reload_every.is_zero() {
            return;
        }
        let applied = self.metrics.reloads("applied");
        let refused = self.metrics.reloads("refused");
        let Seen { mut watched, mut prints } = std::mem::take(&mut self.seen);
        let mut tick = tokio::time::interval(self.config.reload_every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            // Every file is looked at before it is read: one that changes in between is read again at
            // the next look, and never missed.
            let now = (fingerprint(&self.file), fingerprint(&watched));
            if now == prints {
                continue;
            }
            prints = now;
            let reloaded = match (self.load)() {
                Ok(loaded) => {
                    // Also of a configuration that is refused: what it lacks may come later.
                    watched = secret_files(&self.config);
                    watched.extend(secret_files(&loaded.config));
                    prints.1 = fingerprint(&watched);
                    Box::pin(self.reload(loaded)).await
                }
                Err(faults) => Err(faults.into()),
            };
            match reloaded {
                Ok(()) => {
                    applied.increment(1);
                    tracing::info!(routes = self.config.routes.len(), "configuration is reloaded");
                }
                Err(fault) => {
                    refused.increment(1);
                    tracing::error!(%fault, "the changed configuration is refused, the old one stays");
                }
            }
        }
    }

    async fn reload(&mut self, loaded: Loaded) -> Result<(), Refused> {
        let (built, certificates) = self.prepare(&loaded)?;
        self.publish(loaded, built, certificates).await;
        Ok(())
    }

    /// Everything that can fail, before anything changes.
    fn prepare(&self, loaded: &Loaded) -> Result<(Built, Vec<Arc<rustls::ServerConfig>>), Refused> {
        let table = self.proxy.routes();
        let built = build::build(&loaded.config, &self.metrics, Some(&table))?;
        let mut certificates = Vec::new();
        for (name, _) in &self.acceptors {
            // Listeners themselves are those of the start; their files may be others now.
            let named = |config: &Config| {
                let found = config.listeners.iter().find(|listener| *listener.name == **name);
                found.and_then(|listener| listener.tls.clone())
            };
            if let Some(tls) = named(&loaded.config).or_else(|| named(&self.config)) {
                let config = tls::server_config(&tls)
                    .map_err(|error| Refused::Listener(name.to_string(), error))?;
                certificates.push(config);
            }
        }
        Ok((built, certificates))
    }

    async fn publish(
        &mut self,
        loaded: Loaded,
        built: Built,
        certificates: Vec<Arc<rustls::ServerConfig>>,
    ) {
        // At once: a name that does not resolve may take seconds, and must not add up.
        join_all(built.fresh.iter().map(|cluster| cluster.refresh())).await;
        for cluster in &built.fresh {
            tokio::spawn(Cluster::keep_current(Arc::downgrade(cluster)));
        }
        for (cluster, configs) in built.tls {
            cluster.replace_tls(configs);
        }
        for ((_, acceptor), config) in self.acceptors.iter().zip(certificates) {
            acceptor.replace(config);
        }
        self.proxy.update(|now| built.table.with_discovered_of(now));
        let moved = self.config.cluster_domain != loaded.config.cluster_domain;
        if moved && self.config.discovery.enabled {
            tracing::warn!(
                "clusterDomain changed: the URLs of tool servers are read by it after a restart only"
            );
        }
        let mut config = self.config.clone();
        config.routes = loaded.config.routes.clone();
        config.default_routes = loaded.config.default_routes.clone();
        config.cluster_domain = loaded.config.cluster_domain.clone();
        for listener in &mut config.listeners {
            let same = |new: &&ListenerConfig| new.name == listener.name;
            let tls = loaded.config.listeners.iter().find(same).and_then(|new| new.tls.clone());
            if listener.tls.is_some() && tls.is_some() {
                listener.tls = tls;
            }
        }
        if config != loaded.config {
            tracing::warn!(
                "other settings than routes and TLS files changed too; they take effect at a restart"
            );
        }
        self.view.store(Arc::new(config::view(&config, &loaded.sources)));
        self.config = config;
    }
}

/// The contents of these files; one that cannot be read counts as empty, and is complained of when it
/// is needed.
fn fingerprint<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in files {
        path.hash(&mut hasher);
        std::fs::read(path).ok().hash(&mut hasher);
    }
    hasher.finish()
}

/// Every file that a secret of the configuration stands in.
fn secret_files(config: &Config) -> Vec<PathBuf> {
    let servers = config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let servers = servers.flat_map(|tls| [Some(&tls.cert), Some(&tls.key), tls.client_ca.as_ref()]);
    let routes = config.routes.iter().map(|route| &route.to);
    let defaults = config.default_routes.iter().map(|route| &route.to);
    let clients = routes
        .chain(defaults)
        .flat_map(|to| [to.tls.ca.as_ref(), to.tls.cert.as_ref(), to.tls.key.as_ref()]);
    let files = servers.chain(clients).flatten().filter_map(|secret| match secret {
        Secret::File(path) => Some(path.clone()),
        Secret::Inline(_) => None,
    });
    files.collect()
}
