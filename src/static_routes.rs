//! From the static routes of a configuration to a route table that keeps what has not changed.
//!
//! Identity survives: an unchanged route is the same route, and a changed one to the same targets keeps
//! its cluster, so that pools, load and health live on. Reads TLS files, dials nothing, publishes nothing.

use std::sync::{Arc, LazyLock};

use crate::config::target::bare_host;
use crate::config::{CallerConfig, Config, RouteConfig, RouteTarget, Scheme, Use};
use crate::route::caller::WrittenCallers;
use crate::route::{Caller, DefaultRoute, ObjectId, Proof, Route, RouteSource, RouteTable, Uses};
use crate::telemetry::metrics::Metrics;
use crate::tls::{self, ClientConfigs, TlsError};
use crate::upstream::{Cluster, Tls};
use crate::workers::near::Common;

/// Who declares what the configuration does: no Agent, whose name would have a `/`.
const CONFIG: &str = "callers";

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
#[error("route {route}: tls.{error}")]
pub struct RouteFault {
    route: String,
    #[source]
    error: TlsError,
}

/// A table, and what must happen before it is published.
#[derive(Debug)]
pub struct Built {
    /// The table.
    pub table: RouteTable,
    /// Clusters that have not looked for their endpoints yet.
    pub fresh: Vec<Arc<Cluster>>,
    /// TLS files as they are now, for clusters that live on.
    pub tls: Vec<(Arc<Cluster>, ClientConfigs)>,
}

/// Builds the table; `before` is the one to keep what is unchanged from.
///
/// # Errors
/// Names the route and the TLS file that cannot be used; nothing has changed then.
pub fn build(
    config: &Config,
    metrics: &Metrics,
    before: Option<&RouteTable>,
) -> Result<Built, RouteFault> {
    let mut build = TableBuild {
        config,
        metrics,
        before: before.map(RouteTable::statics).unwrap_or_default(),
        fresh: Vec::new(),
        tls: Vec::new(),
    };
    let mut routes = Vec::new();
    for route in &config.routes {
        routes.push(build.route(route.clone())?);
    }
    let mut defaults = Vec::new();
    for default in &config.default_routes {
        let (host, listener) = (default.host.clone(), default.listener.clone());
        let route = RouteConfig {
            host: default_label(host.as_deref(), listener.as_deref()),
            prefix: "/".to_owned(),
            to: default.to.clone(),
        };
        defaults.push(DefaultRoute { host, listener, route: build.route(route)? });
    }
    let mut table = RouteTable::new(routes, defaults, &config.cluster_domain);
    table.callers = table.callers.with(&Arc::new(callers(config, metrics)));
    Ok(Built { table, fresh: build.fresh, tls: build.tls })
}

/// Who calls from where, and what those say that they use.
fn callers(config: &Config, metrics: &Metrics) -> WrittenCallers {
    let mut callers = WrittenCallers::default();
    for CallerConfig { agent: (namespace, name), addresses, uses } in &config.callers {
        let id = ObjectId::new(namespace, name);
        let caller = Common::new(Caller::new(id.clone(), Proof::Config));
        callers.at.extend(addresses.iter().map(|net| (*net, caller.clone())));
        let named = uses.iter().map(|Use { host, tools }| {
            let host = bare_host(host, &config.cluster_domain);
            (host.into(), tools.iter().map(|tool| Box::from(tool.as_str())).collect())
        });
        if !uses.is_empty() {
            let uses = Uses { hosts: named.collect(), anonymous: false };
            callers.uses.push((id, Arc::new(uses)));
        }
    }
    let uses = config.callers.iter().flat_map(|caller| &caller.uses);
    let said = uses.map(|Use { host, tools }| (host.as_str(), tools.iter().map(String::as_str)));
    metrics.declare_tools(CONFIG, said);
    callers
}

/// The TLS files of a route as they are now; `None` for one without an `https` target.
///
/// # Errors
/// Names the route and the file that cannot be used.
pub fn client_configs(config: &RouteConfig) -> Result<Option<ClientConfigs>, RouteFault> {
    if config.to.targets.iter().all(|target| target.scheme != Scheme::Https) {
        return Ok(None);
    }
    let fault = |error| RouteFault { route: label(config), error };
    tls::client_config(&config.to.tls).map(Some).map_err(fault)
}

struct TableBuild<'a> {
    config: &'a Config,
    metrics: &'a Metrics,
    before: Vec<Common<Route>>,
    fresh: Vec<Arc<Cluster>>,
    tls: Vec<(Arc<Cluster>, ClientConfigs)>,
}

// === impl TableBuild ===

impl TableBuild<'_> {
    fn route(&mut self, config: RouteConfig) -> Result<Common<Route>, RouteFault> {
        let label = label(&config);
        let configs = client_configs(&config)?;
        let same = |old: &&Common<Route>| {
            old.config.host == config.host && old.config.prefix == config.prefix
        };
        let old = self.before.iter().find(same).cloned();
        let kept = old.as_ref().filter(|old| same_cluster(&old.config.to, &config.to));
        let Some(kept) = kept else {
            let name = config.to.tls.server_name.clone();
            let tls = configs.map(|configs| Arc::new(Tls::new(configs, name)));
            let upstream = self.config.upstream.clone();
            let cluster = Arc::new(Cluster::new(
                config.to.targets.clone(),
                upstream,
                tls,
                self.metrics.discarded(&label),
            ));
            self.fresh.push(Arc::clone(&cluster));
            return Ok(self.finished(config, cluster, &label));
        };
        if let Some(configs) = configs {
            self.tls.push((Arc::clone(&kept.cluster), configs));
        }
        if kept.config == config {
            return Ok(kept.clone());
        }
        let cluster = Arc::clone(&kept.cluster);
        Ok(self.finished(config, cluster, &label))
    }

    /// What somebody wrote down has its series from the start.
    fn finished(&self, config: RouteConfig, cluster: Arc<Cluster>, label: &str) -> Common<Route> {
        let route = Route::new(config, cluster, self.metrics, label, RouteSource::Static);
        LazyLock::force(&route.metrics);
        Common::new(route)
    }
}

/// Whether two routes may share connections.
fn same_cluster(old: &RouteTarget, new: &RouteTarget) -> bool {
    old.targets == new.targets && old.tls == new.tls
}

/// A route in labels and logs: its host, and its prefix if it has one.
fn label(route: &RouteConfig) -> String {
    if route.prefix == "/" { route.host.clone() } else { format!("{}{}", route.host, route.prefix) }
}

/// A default route in labels and logs: a star, which no host name has, and its conditions.
#[must_use]
pub fn default_label(host: Option<&str>, listener: Option<&str>) -> String {
    let conditions = [host, listener].into_iter().flatten();
    conditions.fold("*".to_owned(), |label, condition| format!("{label}@{condition}"))
}
