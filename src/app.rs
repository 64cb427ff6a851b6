//! Puts the program together, and takes it apart in order.
//!
//! The only place that constructs. [`App::build`] binds and resolves, so that a fault is an error and
//! tests learn their ports; [`Bound::run`] serves until the drain is over.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::admin::Admin;
use crate::config::{self, Config, RouteConfig, Scheme, Sources};
use crate::drain::{self, Phase, Trigger, Watch};
use crate::listener;
use crate::proxy::Proxy;
use crate::route::{DefaultRoute, Route, RouteTable};
use crate::telemetry;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Cluster;

/// Why the program cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// An address cannot be bound: usually another process has it.
    #[error("cannot listen on {0}: {1}")]
    Bind(SocketAddr, #[source] io::Error),
    /// The configuration asks for something this version does not have.
    #[error("{0}")]
    Unsupported(String),
    /// The recorder or the instance's name is unusable.
    #[error("cannot set up: {0}")]
    Setup(String),
}

/// A program whose ports are open.
pub struct Bound {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where operators connect.
    pub admin_address: SocketAddr,
    config: Config,
    view: Arc<serde_json::Value>,
    proxy: Arc<Proxy>,
    clusters: Vec<Arc<Cluster>>,
    listener: TcpListener,
    admin_listener: TcpListener,
    metrics: Metrics,
    trigger: Trigger,
    watch: Watch,
}

/// Builds the program.
pub struct App;

// === impl App ===

impl App {
    /// Binds and resolves; nothing is served yet.
    ///
    /// # Errors
    /// [`BuildError`] with what to change.
    pub async fn build(config: Config, sources: &Sources) -> Result<Bound, BuildError> {
        supported(&config)?;
        let view = Arc::new(config::view(&config, sources));
        let recorder = telemetry::recorder().map_err(|e| BuildError::Setup(e.to_string()))?;
        let metrics = Metrics::new(recorder);
        let first = config.listeners.first();
        let address = first.map_or(config.admin.address, |listener| listener.address);
        let listener = listener::bind(address).map_err(|e| BuildError::Bind(address, e))?;
        let admin = config.admin.address;
        let admin_listener = listener::bind(admin).map_err(|e| BuildError::Bind(admin, e))?;
        let mut clusters = Vec::new();
        let mut routes = Vec::new();
        for route in &config.routes {
            routes.push(build_route(route.clone(), &label(route), &config, &metrics).await);
        }
        let mut defaults = Vec::new();
        for default in &config.default_routes {
            let (host, listener) = (default.host.clone(), default.listener.clone());
            let name = default_label(host.as_deref(), listener.as_deref());
            let as_route =
                RouteConfig { host: name.clone(), prefix: "/".to_owned(), to: default.to.clone() };
            let route = build_route(as_route, &name, &config, &metrics).await;
            defaults.push(DefaultRoute { host, listener, route });
        }
        let all = routes.iter().chain(defaults.iter().map(|default| &default.route));
        clusters.extend(all.map(|route| Arc::clone(&route.cluster)));
        let (trigger, watch) = drain::channel();
        let proxy = Proxy::new(
            RouteTable::new(routes, defaults, &config.cluster_domain),
            metrics.clone(),
            access_log(&config)?,
            &config,
            watch.clone(),
            pseudonym(),
        )
        .map_err(|e| BuildError::Setup(e.to_string()))?;
        let local = |l: &TcpListener, asked| l.local_addr().map_err(|e| BuildError::Bind(asked, e));
        Ok(Bound {
            address: local(&listener, address)?,
            admin_address: local(&admin_listener, admin)?,
            config,
            view,
            proxy: Arc::new(proxy),
            clusters,
            listener,
            admin_listener,
            metrics,
            trigger,
            watch,
        })
    }
}

// === impl Bound ===

impl Bound {
    /// Starts the drain; a clone may be kept.
    #[must_use]
    pub fn trigger(&self) -> Trigger {
        self.trigger.clone()
    }

    /// Serves until [`Phase::Draining`] was asked for and the drain is over.
    ///
    /// Returns whether everything under way finished before the deadline.
    pub async fn run(self) -> bool {
        let Self { config, view, proxy, watch, trigger, .. } = self;
        let handle = self.metrics.handle();
        let mut background = JoinSet::new();
        for cluster in self.clusters {
            background.spawn(cluster.keep_current());
        }
        background.spawn(telemetry::upkeep(handle.clone()));
        let expose = config.admin.expose;
        let admin = Admin {
            proxy: Arc::clone(&proxy),
            metrics: handle,
            watch: watch.clone(),
            trigger: trigger.clone(),
            config: view,
            expose,
        };
        background.spawn(admin.run(self.admin_listener));
        background.spawn(report_drain(Arc::clone(&proxy), watch.clone()));
        let mut draining = watch.clone();
        let name = config.listeners.first().map_or("http", |listener| listener.name.as_str());
        let served =
            listener::run(self.listener, name, Arc::clone(&proxy), config.listener.clone(), watch);
        let serving = async {
            served.await;
            proxy.tunnels_ended().await;
        };
        let mut serving = Box::pin(serving);
        tokio::select! {
            () = serving.as_mut() => return true,
            () = draining.reached(Phase::Draining) => {}
        }
        tokio::select! {
            () = serving.as_mut() => return true,
            () = tokio::time::sleep(config.drain.lag) => trigger.advance(Phase::Closing),
        }
        tokio::time::timeout(config.drain.deadline, serving).await.is_ok()
    }
}

fn access_log(config: &Config) -> Result<AccessLog, BuildError> {
    if !config.log.access {
        return Ok(AccessLog::off());
    }
    AccessLog::start(config.log.format, io::stderr())
        .map_err(|error| BuildError::Setup(format!("a thread for the access log: {error}")))
}

/// Says each second of a drain what it still waits for.
async fn report_drain(proxy: Arc<Proxy>, mut watch: Watch) {
    watch.reached(Phase::Draining).await;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        let phase = if watch.phase() == Phase::Draining { "draining" } else { "closing" };
        tracing::info!(phase, open = proxy.open(), "calls and streams are under way");
    }
}

async fn build_route(
    route: RouteConfig,
    label: &str,
    config: &Config,
    metrics: &Metrics,
) -> Arc<Route> {
    let cluster = Arc::new(Cluster::new(route.to.targets.clone(), config.upstream.clone()));
    cluster.refresh().await;
    Arc::new(Route { config: route, cluster, metrics: metrics.route(label) })
}

/// A default route in labels and logs: a star, which no host name has, and its conditions.
fn default_label(host: Option<&str>, listener: Option<&str>) -> String {
    let conditions = [host, listener].into_iter().flatten();
    conditions.fold("*".to_owned(), |label, condition| format!("{label}@{condition}"))
}

/// A route in labels and logs: its host, and its prefix if it has one.
fn label(route: &RouteConfig) -> String {
    if route.prefix == "/" { route.host.clone() } else { format!("{}{}", route.host, route.prefix) }
}

/// Names this instance in `Via`: unique enough to tell replicas and restarts apart.
fn pseudonym() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("kagent-proxy-{:016x}", RandomState::new().hash_one(std::process::id()))
}

/// Refuses what is configured and not built yet, rather than ignoring it.
fn supported(config: &Config) -> Result<(), BuildError> {
    let refuse = |what: &str| Err(BuildError::Unsupported(format!("{what} is not built yet")));
    if config.listeners.len() != 1 || config.listeners.iter().any(|l| l.tls.is_some()) {
        return refuse("more than one listener, or a TLS listener,");
    }
    let https = |r: &RouteConfig| r.to.targets.iter().any(|t| t.scheme == Scheme::Https);
    if let Some(route) = config.routes.iter().find(|r| https(r)) {
        return refuse(&format!("route {}: an https target", route.host));
    }
    Ok(())
}
