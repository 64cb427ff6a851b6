//! Puts the program together, and takes it apart in order.
//!
//! The only place that constructs. [`App::build`] binds and resolves, so that a fault is an error and
//! tests learn their ports; [`Bound::run`] serves until the drain is over.

mod callers;
mod cluster;
mod sinks;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use metrics::Gauge;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;

use self::callers::forget_gone;
use self::cluster::discover;
use self::sinks::Spans;
use crate::admin::{Admin, Door, Seen, Streams};
use crate::config::{self, AdminConfig, Config, ListenerConfig, Sources};
use crate::drain::{self, Phase, Trigger, Watch};
use crate::listener::spread::Spread;
use crate::listener::tls::Acceptor;
use crate::listener::{self, Listener, Serving, bind};
use crate::proxy::Proxy;
use crate::readiness::Readiness;
use crate::reload::{FilePrints, Load, Reload};
use crate::session::{KeyFault, Sessions};
use crate::socket;
use crate::static_routes::{self, RouteFault};
use crate::supervise::keep_running;
use crate::telemetry::metrics::Metrics;
use crate::tls::{self, TlsError};
use crate::upstream::Cluster;

/// How long the start waits for names: liveness is asked within seconds.
const RESOLVE_AT_START: Duration = Duration::from_secs(3);

/// Why the program cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// An address cannot be bound: usually another process has it.
    #[error("cannot listen on {0}: {1}")]
    Bind(SocketAddr, #[source] io::Error),
    /// A route's TLS files are unusable.
    #[error("{0}")]
    Route(#[from] RouteFault),
    /// A listener's TLS files are unusable.
    #[error("listener {0}: tls.{1}")]
    Tls(String, #[source] TlsError),
    /// The keys of sessions are unusable.
    #[error("{0}")]
    Keys(#[from] KeyFault),
    /// What traces need is unusable.
    #[error("traces.{0}")]
    Traces(String),
    /// The recorder or the instance's name is unusable.
    #[error("cannot set up: {0}")]
    Setup(String),
}

/// A program whose ports are open.
pub struct Bound {
    /// Where clients connect, in the order of the configuration.
    pub addresses: Vec<SocketAddr>,
    /// Where kubelets and scrapers connect.
    pub admin_address: SocketAddr,
    /// Where operators connect; the same where that is on loopback.
    pub admin_local: SocketAddr,
    config: Config,
    view: Arc<ArcSwap<serde_json::Value>>,
    proxy: Arc<Proxy>,
    sessions: Arc<Sessions>,
    clusters: Vec<Arc<Cluster>>,
    listeners: Vec<Listener>,
    /// Each with what it is for.
    admin_listeners: Vec<(Door, TcpListener)>,
    metrics: Metrics,
    trigger: Trigger,
    watch: Watch,
    reload: Option<Arc<Mutex<Reload>>>,
    readiness: Readiness,
    spans: Spans,
    traffic: Vec<Handle>,
}

/// Builds the program.
pub struct App;

// === impl App ===

impl App {
    /// Binds and resolves; nothing is served yet. Everything will run on the runtime of the caller.
    ///
    /// # Errors
    /// [`BuildError`] with what to change.
    pub async fn build(config: Config, sources: &Sources) -> Result<Bound, BuildError> {
        Self::build_beside(config, sources, &[Handle::current()]).await
    }

    /// As [`App::build`], with traffic on `traffic` and everything else where [`Bound::run`] is called,
    /// so that a scrape or a reload never holds up a call. Several runtimes share the connections.
    ///
    /// # Errors
    /// [`BuildError`] with what to change.
    pub async fn build_beside(
        config: Config,
        sources: &Sources,
        traffic: &[Handle],
    ) -> Result<Bound, BuildError> {
        tls::install_provider();
        let view = Arc::new(ArcSwap::from_pointee(config::view(&config, sources)));
        let metrics = Metrics::new();
        let built = static_routes::build(&config, &metrics, None)?;
        let mut addresses = Vec::new();
        let mut listeners = Vec::new();
        for listener in &config.listeners {
            let opened = open(listener, traffic)?;
            if let Some(first) = opened.first() {
                addresses.push(local(&first.socket, listener.address)?);
            }
            listeners.extend(opened);
        }
        let (admin_listeners, admin_address, admin_local) = open_admin(&config.admin)?;
        // Names that take longer are looked up again by the first request that needs them.
        let resolved = join_all(built.fresh.iter().map(|cluster| cluster.refresh()));
        if tokio::time::timeout(RESOLVE_AT_START, resolved).await.is_err() {
            tracing::warn!("some targets' names do not resolve in time, serving without them");
        }
        let (trigger, watch) = drain::channel();
        let sessions = Arc::new(Sessions::new(&config.sessions, metrics.session_peers())?);
        let (name, follows) = (pseudonym(), watch.clone());
        let log = sinks::access_log(&config)?;
        let (traces, spans) = Spans::open(&config, &metrics, &name)?;
        let proxy = Proxy::new(
            built.table,
            metrics.clone(),
            (log, traces),
            &config,
            follows,
            name,
            Arc::clone(&sessions),
        )
        .map_err(|e| BuildError::Setup(e.to_string()))?;
        Ok(Bound {
            addresses,
            admin_address,
            admin_local,
            config,
            view,
            proxy: Arc::new(proxy),
            sessions,
            clusters: built.fresh,
            listeners,
            admin_listeners,
            metrics,
            trigger,
            watch,
            reload: None,
            readiness: Readiness::default(),
            spans,
            traffic: traffic.to_vec(),
        })
    }
}

/// Opens one port, with its certificate if it has one: a socket for each runtime, which it wakes.
fn open(config: &ListenerConfig, traffic: &[Handle]) -> Result<Vec<Listener>, BuildError> {
    let name: Arc<str> = config.name.as_str().into();
    let tls = match &config.tls {
        None => None,
        Some(tls) => {
            let config =
                tls::server_config(tls).map_err(|e| BuildError::Tls(name.to_string(), e))?;
            Some(Arc::new(Acceptor::new(config)))
        }
    };
    let failed = |error| BuildError::Bind(config.address, error);
    let sockets = bind::bind_each(config.address, traffic.len()).map_err(failed)?;
    let on = |(worker, (socket, runtime)): (usize, (std::net::TcpListener, &Handle))| {
        let _registers_there = runtime.enter();
        let socket = TcpListener::from_std(socket).map_err(failed)?;
        Ok::<_, BuildError>(Listener { socket, name: Arc::clone(&name), tls: tls.clone(), worker })
    };
    sockets.into_iter().zip(traffic).enumerate().map(on).collect()
}

/// The sockets with who may come in, the address for everyone, and the one on loopback.
type AdminSockets = (Vec<(Door, TcpListener)>, SocketAddr, SocketAddr);

/// Opens the admin sockets: one where it is on loopback, else one for everyone and one on loopback.
fn open_admin(config: &AdminConfig) -> Result<AdminSockets, BuildError> {
    let bind = |address| bind::bind(address).map_err(|error| BuildError::Bind(address, error));
    let inner = bind(config.local())?;
    let inner_address = local(&inner, config.local())?;
    if config.local() == config.address {
        return Ok((vec![(Door::Local, inner)], inner_address, inner_address));
    }
    let outer = bind(config.address)?;
    let outer_address = local(&outer, config.address)?;
    Ok((vec![(Door::Everyone, outer), (Door::Local, inner)], outer_address, inner_address))
}

fn local(listener: &TcpListener, asked: SocketAddr) -> Result<SocketAddr, BuildError> {
    listener.local_addr().map_err(|e| BuildError::Bind(asked, e))
}

// === impl Bound ===

impl Bound {
    /// Starts the drain; a clone may be kept.
    #[must_use]
    pub fn trigger(&self) -> Trigger {
        self.trigger.clone()
    }

    /// Follows the files of the configuration: `load` reads it again, `file` is the one it stands in.
    #[must_use]
    pub fn following(mut self, file: Option<std::path::PathBuf>, load: Load) -> Self {
        // All workers have the same.
        let first = self.listeners.iter().filter(|listener| listener.worker == 0);
        let acceptors = first.filter_map(|listener| {
            Some((Arc::clone(&listener.name), Arc::clone(listener.tls.as_ref()?)))
        });
        let seen = FilePrints::look(file.as_ref(), &self.config);
        let reload = Reload {
            seen,
            load,
            file,
            config: self.config.clone(),
            proxy: Arc::clone(&self.proxy),
            sessions: Arc::clone(&self.sessions),
            metrics: self.metrics.clone(),
            acceptors: acceptors.collect(),
            view: Arc::clone(&self.view),
        };
        self.reload = Some(Arc::new(Mutex::new(reload)));
        self
    }

    /// Serves until [`Phase::Draining`] was asked for and the drain is over.
    ///
    /// Returns whether everything under way finished before the deadline.
    pub async fn run(mut self) -> bool {
        let mut background = JoinSet::new();
        let streams = self.start_background(&mut background);
        let (spans, proxy) = (std::mem::take(&mut self.spans), Arc::clone(&self.proxy));
        let finished = Box::pin(self.carry()).await;
        spans.end(&proxy).await;
        streams.end().await;
        finished
    }

    /// The traffic, until the drain is over.
    async fn carry(self) -> bool {
        let Self { config, proxy, watch, trigger, .. } = self;
        let mut draining = watch.clone();
        let mut serving =
            Box::pin(serve(self.listeners, &config, proxy, watch, (self.traffic, self.metrics)));
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

    /// Everything beside the traffic; each task is started again when it panics. Returns what has to be told of the end.
    fn start_background(&mut self, tasks: &mut JoinSet<()>) -> Streams {
        let metrics = self.metrics.clone();
        for cluster in std::mem::take(&mut self.clusters) {
            let cluster = Arc::downgrade(&cluster);
            let names = move || Cluster::keep_current(Weak::clone(&cluster));
            tasks.spawn(keep_running("names", metrics.clone(), names));
        }
        tasks.spawn(keep_running("dead_peers", metrics.clone(), socket::watch));
        if let Some(reload) = self.reload.take() {
            let follow = move || {
                let reload = Arc::clone(&reload);
                async move { reload.lock().await.run().await }
            };
            tasks.spawn(keep_running("reload", metrics.clone(), follow));
        }
        let sessions = Arc::clone(&self.sessions);
        let peers = move || Arc::clone(&sessions).keep_peers();
        tasks.spawn(keep_running("session_peers", metrics.clone(), peers));
        if self.config.discovery.enabled {
            let readiness = self.readiness.clone();
            tasks.spawn(discover(
                &self.config,
                (&self.proxy, &self.sessions),
                &self.metrics,
                readiness,
            ));
        }
        let admin = self.admin();
        for (door, listener) in std::mem::take(&mut self.admin_listeners) {
            let (admin, listener) = (admin.clone(), Arc::new(listener));
            let run = move || admin.clone().run(Arc::clone(&listener), door);
            tasks.spawn(keep_running("admin", metrics.clone(), run));
        }
        self.spans.start(tasks, &metrics);
        let (proxy, watch) = (Arc::clone(&self.proxy), self.watch.clone());
        let report = move || report_drain(Arc::clone(&proxy), watch.clone());
        tasks.spawn(keep_running("drain_report", metrics, report));
        if self.config.sight.calls {
            let (seen, proxy) = (admin.seen, Arc::clone(&self.proxy));
            let metrics = self.metrics.clone();
            let look = move || seen.clone().keep_looking(metrics.clone(), Arc::clone(&proxy));
            tasks.spawn(keep_running("sight", self.metrics.clone(), look));
            let (proxy, metrics) = (Arc::clone(&self.proxy), self.metrics.clone());
            let forget = move || forget_gone(metrics.clone(), Arc::clone(&proxy));
            tasks.spawn(keep_running("callers", self.metrics.clone(), forget));
        }
        admin.streams
    }

    fn admin(&self) -> Admin {
        Admin {
            proxy: Arc::clone(&self.proxy),
            sessions: Arc::clone(&self.sessions),
            metrics: self.metrics.clone(),
            watch: self.watch.clone(),
            readiness: self.readiness.clone(),
            trigger: self.trigger.clone(),
            streams: Streams::default(),
            seen: Seen::default(),
            config: Arc::clone(&self.view),
            expose: self.config.admin.expose,
            hosts: self.config.admin.hosts.as_slice().into(),
            local: self.admin_local,
        }
    }
}

/// Every listener, and what came out of them, to the end.
async fn serve(
    listeners: Vec<Listener>,
    config: &Config,
    proxy: Arc<Proxy>,
    watch: Watch,
    (traffic, metrics): (Vec<Handle>, Metrics),
) {
    let shared = Serving {
        metrics: metrics.clone(),
        proxy: Arc::clone(&proxy),
        limits: Arc::new(config.listener.clone()),
        room: Arc::new(Semaphore::new(config.listener.max_connections)),
        spread: Arc::new(spread(&traffic, &metrics)),
        watch,
    };
    let mut serving = JoinSet::new();
    for listener in listeners {
        if let Some(worker) = traffic.get(listener.worker) {
            serving.spawn_on(listener::run(listener, shared.clone()), worker);
        }
    }
    while serving.join_next().await.is_some() {}
    proxy.tunnels_ended().await;
}

/// What each worker has is shown where there are several.
fn spread(traffic: &[Handle], metrics: &Metrics) -> Spread {
    Spread::new(traffic.iter().enumerate().map(|(worker, handle)| {
        let shown = traffic.len() > 1;
        let gauge = if shown { metrics.worker_connections(worker) } else { Gauge::noop() };
        (handle.clone(), gauge)
    }))
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

/// Names this instance in `Via`: unique enough to tell replicas and restarts apart.
fn pseudonym() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("kagent-proxy-{:016x}", RandomState::new().hash_one(std::process::id()))
}

#[cfg(test)]
mod tests;
