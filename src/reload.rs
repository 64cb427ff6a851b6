//! Static routes, TLS files and secrets follow their files, without a restart and without touching a
//! stream.
//!
//! Files are compared by content, so that the symlinks of a mounted ConfigMap or Secret work. A changed
//! configuration that is wrong is refused as a whole, loudly, and the old one stays; its TLS files are followed
//! all the same, each by itself, so that a typing error cannot let a certificate expire. Knows the parts that can
//! change: table, acceptors, view.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use serde_json::Value;

use crate::config::{self, Config, ConfigFaults, ListenerConfig, Loaded, Secret};
use crate::listener::tls::Acceptor;
use crate::proxy::Proxy;
use crate::session::{KeyFault, Sessions};
use crate::static_routes::{self, Built, RouteFault};
use crate::supervise::keep_running;
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
    /// Whose keys are followed.
    pub sessions: Arc<Sessions>,
    /// By the name of the listener.
    pub acceptors: Vec<(Arc<str>, Arc<Acceptor>)>,
    /// What `/config` shows.
    pub view: Arc<ArcSwap<Value>>,
    /// The files as they were when following began.
    pub seen: FilePrints,
}

/// What stood in the files at the last look.
#[derive(Debug, Default)]
pub struct FilePrints {
    watched: Vec<PathBuf>,
    prints: (u64, u64),
}

// === impl FilePrints ===

impl FilePrints {
    /// Looks now, so that a change before the first tick is not missed.
    #[must_use]
    pub fn look(file: Option<&PathBuf>, config: &Config) -> Self {
        let watched = secret_files(config);
        let prints = (fingerprint(file), fingerprint(&watched));
        Self { watched, prints }
    }
}

#[derive(Debug, thiserror::Error)]
enum ReloadFault {
    #[error("{0}")]
    Config(#[from] ConfigFaults),
    #[error("{0}")]
    Route(#[from] RouteFault),
    #[error("listener {0}: tls.{1}")]
    Listener(String, #[source] TlsError),
    #[error("{0}")]
    Keys(#[from] KeyFault),
}

// === impl Reload ===

impl Reload {
    /// Looks again and again, until dropped; never if `reloadEvery` is zero.
    pub async fn run(&mut self) {
        if self.config.reload_every.is_zero() {
            return;
        }
        let applied = self.metrics.reloads("applied");
        let refused = self.metrics.reloads("refused");
        let rotated = self.metrics.reloads("rotated");
        let mut tick = tokio::time::interval(self.config.reload_every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            // Every file is looked at before it is read: one that changes in between is read again at
            // the next look, and never missed.
            let now = (fingerprint(&self.file), fingerprint(&self.seen.watched));
            if now == self.seen.prints {
                continue;
            }
            let secrets_changed = now.1 != self.seen.prints.1;
            self.seen.prints = now;
            match self.look_again().await {
                Ok(()) => {
                    applied.increment(1);
                    tracing::info!(routes = self.config.routes.len(), "configuration is reloaded");
                }
                Err(fault) => {
                    refused.increment(1);
                    tracing::error!(%fault, "the changed configuration is refused, the old one stays");
                    // Always: a file may have changed while this look was under way.
                    if self.rotate() && secrets_changed {
                        rotated.increment(1);
                        tracing::info!("TLS files are read again; the configuration stays refused");
                    }
                }
            }
        }
    }

    async fn look_again(&mut self) -> Result<(), ReloadFault> {
        let loaded = (self.load)()?;
        // Also of a configuration that is refused: what it lacks may come later.
        self.seen.watched = secret_files(&self.config);
        self.seen.watched.extend(secret_files(&loaded.config));
        self.seen.prints.1 = fingerprint(&self.seen.watched);
        Box::pin(self.reload(loaded)).await
    }

    /// The TLS files of the configuration in force as they are now, each by itself; whether all could be read.
    fn rotate(&self) -> bool {
        let mut whole = true;
        for (name, acceptor) in &self.acceptors {
            let listener = self.config.listeners.iter().find(|listener| *listener.name == **name);
            let Some(tls) = listener.and_then(|listener| listener.tls.as_ref()) else { continue };
            match tls::server_config(tls) {
                Ok(config) => acceptor.replace(config),
                Err(error) => {
                    whole = false;
                    let fault = ReloadFault::Listener(name.to_string(), error);
                    tracing::error!(%fault, "the old certificate stays");
                }
            }
        }
        if let Err(fault) = self.sessions.renew(&self.config.sessions) {
            whole = false;
            tracing::error!(%fault, "the old keys of sessions stay");
        }
        for route in self.proxy.routes().statics() {
            match static_routes::client_configs(&route.config) {
                Ok(None) => {}
                Ok(Some(configs)) => route.cluster.replace_tls(configs),
                Err(fault) => {
                    whole = false;
                    tracing::error!(%fault, "the route keeps its old TLS files");
                }
            }
        }
        whole
    }

    async fn reload(&mut self, loaded: Loaded) -> Result<(), ReloadFault> {
        let (built, certificates) = self.prepare(&loaded)?;
        self.publish(loaded, built, certificates).await;
        Ok(())
    }

    /// Everything that can fail, before anything changes.
    fn prepare(
        &self,
        loaded: &Loaded,
    ) -> Result<(Built, Vec<Arc<rustls::ServerConfig>>), ReloadFault> {
        let table = self.proxy.routes();
        let built = static_routes::build(&loaded.config, &self.metrics, Some(&table))?;
        Sessions::check(&loaded.config.sessions)?;
        let mut certificates = Vec::new();
        for (name, _) in &self.acceptors {
            // Listeners themselves are those of the start; their files may be others now.
            let named = |config: &Config| {
                let found = config.listeners.iter().find(|listener| *listener.name == **name);
                found.and_then(|listener| listener.tls.clone())
            };
            if let Some(tls) = named(&loaded.config).or_else(|| named(&self.config)) {
                let config = tls::server_config(&tls)
                    .map_err(|error| ReloadFault::Listener(name.to_string(), error))?;
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
            let cluster = Arc::downgrade(cluster);
            let names = move || Cluster::keep_current(Weak::clone(&cluster));
            tokio::spawn(keep_running("names", self.metrics.clone(), names));
        }
        for (cluster, configs) in built.tls {
            cluster.replace_tls(configs);
        }
        // They were read a moment ago; what changed since is seen at the next look.
        if let Err(fault) = self.sessions.renew(&loaded.config.sessions) {
            tracing::error!(%fault, "the old keys of sessions stay");
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
        config.sessions.key_files = loaded.config.sessions.key_files.clone();
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
    files.chain(config.sessions.key_files.iter().cloned()).collect()
}
