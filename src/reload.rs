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
use metrics::Counter;
use serde_json::Value;

use crate::build::{self, Built, RouteFault};
use crate::config::{self, Config, ConfigFaults, Loaded, Secret};
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
        let mut seen = self.fingerprint();
        let mut tick = tokio::time::interval(self.config.reload_every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if self.fingerprint() != seen {
                self.reload(&applied, &refused).await;
                // Of the files that the new configuration names.
                seen = self.fingerprint();
            }
        }
    }

    async fn reload(&mut self, applied: &Counter, refused: &Counter) {
        match self.prepare() {
            Ok((loaded, built, certificates)) => {
                self.publish(loaded, built, certificates).await;
                applied.increment(1);
                tracing::info!(routes = self.config.routes.len(), "configuration is reloaded");
            }
            Err(fault) => {
                refused.increment(1);
                tracing::error!(%fault, "the changed configuration is refused, the old one stays");
            }
        }
    }

    /// Everything that can fail, before anything changes.
    fn prepare(&self) -> Result<(Loaded, Built, Vec<Arc<rustls::ServerConfig>>), Refused> {
        let loaded = (self.load)()?;
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
        Ok((loaded, built, certificates))
    }

    async fn publish(
        &mut self,
        loaded: Loaded,
        built: Built,
        certificates: Vec<Arc<rustls::ServerConfig>>,
    ) {
        for cluster in &built.fresh {
            cluster.refresh().await;
            tokio::spawn(Cluster::keep_current(Arc::downgrade(cluster)));
        }
        for (cluster, configs) in built.tls {
            cluster.replace_tls(configs);
        }
        for ((_, acceptor), config) in self.acceptors.iter().zip(certificates) {
            acceptor.replace(config);
        }
        self.proxy.publish(built.table);
        let mut config = self.config.clone();
        config.routes = loaded.config.routes.clone();
        config.default_routes = loaded.config.default_routes.clone();
        config.cluster_domain = loaded.config.cluster_domain.clone();
        if config != loaded.config {
            tracing::warn!(
                "other settings than routes and TLS files changed too; they take effect at a restart"
            );
        }
        self.view.store(Arc::new(config::view(&config, &loaded.sources)));
        self.config = config;
    }

    /// The contents of every file that matters; one that cannot be read counts as empty, and is
    /// complained of when it is needed.
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for path in self.file.iter().chain(secret_files(&self.config)) {
            path.hash(&mut hasher);
            std::fs::read(path).ok().hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// Every file that a secret of the configuration stands in.
fn secret_files(config: &Config) -> impl Iterator<Item = &PathBuf> {
    let servers = config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let servers = servers.flat_map(|tls| [Some(&tls.cert), Some(&tls.key), tls.client_ca.as_ref()]);
    let routes = config.routes.iter().map(|route| &route.to);
    let defaults = config.default_routes.iter().map(|route| &route.to);
    let clients = routes
        .chain(defaults)
        .flat_map(|to| [to.tls.ca.as_ref(), to.tls.cert.as_ref(), to.tls.key.as_ref()]);
    servers.chain(clients).flatten().filter_map(|secret| match secret {
        Secret::File(path) => Some(path),
        Secret::Inline(_) => None,
    })
}
