//! From decisions to routes: what has not changed stays the same route, with its connections and series.
//!
//! Costs what changed, not the whole table. Opens nothing. The table it changes is the proxy's; Puts nothing in
//! force.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::decide::{self, Backend, OpenPlan, PlanState, RulePlan, ServicePlan, Trust};
use super::endpoints::{Judged, View};
use super::index::{ClusterHost, Ids, Index};
use super::object::KagentApi;
use super::secrets::Secrets;
use super::uses;
use super::whose::{self, LeftOut};
use crate::config::{ClientTls, DiscoveryConfig, RouteConfig, RouteTarget, Target, UpstreamConfig};
use crate::route::discovered::{Fallback, HostState, OpenHost};
use crate::route::rule::{self, Authority, Rule};
use crate::route::{
    Caller, Considered, Discovered, HostKey, NoRoute, ObjectId, Proof, Route, RouteSource,
};
use crate::telemetry::metrics::Metrics;
use crate::tls;
use crate::upstream::{Cluster, Tls};
use crate::workers::near::Common;
pub use changes::Changes;
use tally::Tally;

mod changes;
mod tally;

/// Makes routes, and remembers those in force.
pub struct Publisher {
    config: DiscoveryConfig,
    upstream: UpstreamConfig,
    metrics: Metrics,
    view: View,
    /// Trust in tool servers' authorities.
    pub secrets: Secrets,
    live: HashMap<ObjectId, Live>,
    /// The Agents behind an address, each with the Service that says so.
    callers: HashMap<IpAddr, BTreeMap<ObjectId, Common<Caller>>>,
    left_out: Tally,
    /// What comes from now on was not there before.
    follows: bool,
}

/// What is in force for one Service.
#[derive(Default)]
struct Live {
    plan: Option<ServicePlan>,
    pods: BTreeSet<Box<str>>,
    routes: Vec<LiveRoute>,
    addresses: BTreeSet<IpAddr>,
    agent: Option<Common<Caller>>,
    left_out: Vec<(IpAddr, LeftOut)>,
    /// There is such a Service.
    exists: bool,
    /// When it came, if we saw that.
    since: Option<Instant>,
}

struct LiveRoute {
    host: ClusterHost,
    lead: Backend,
    tls: Option<ClientTls>,
    route: Common<Route>,
}

// === impl Publisher ===

impl Publisher {
    /// Nothing is in force.
    #[must_use]
    pub fn new(config: DiscoveryConfig, upstream: UpstreamConfig, metrics: Metrics) -> Self {
        let view =
            View::new(config.endpoints, config.zone.clone(), config.pod_ips.first().copied());
        let secrets = Secrets::new(config.ca_bundle.clone());
        let (live, callers, left_out) = (HashMap::new(), HashMap::new(), Tally::new(&metrics));
        Self { config, upstream, metrics, view, secrets, live, callers, left_out, follows: false }
    }

    /// Takes over what has changed: plans of the dirty ones, endpoints of those that moved.
    pub fn apply(
        &mut self,
        index: &Index,
        (plan_dirty, mut endpoints_dirty): (Ids, Ids),
    ) -> Changes {
        let mut changes = Changes { anew: !self.follows, ..Changes::default() };
        let mut ours = endpoints_dirty.iter().filter(|id| index.is_ourselves(id));
        changes.replicas = ours.next_back().map(|id| index.replicas(id));
        if self.look_for_zone(index, &endpoints_dirty) {
            endpoints_dirty.extend(self.live.keys().cloned());
        }
        for id in &plan_dirty {
            self.decide(index, id, &mut changes);
        }
        endpoints_dirty.extend(plan_dirty);
        for id in &endpoints_dirty {
            self.place(index, id);
            self.find_callers(index, id, &mut changes);
        }
        self.secrets.forget_unused();
        self.follows = true;
        changes
    }

    /// Takes over what these Agents say that they use. The tools that they list may be labels.
    pub fn declare(&self, index: &Index, agents: Ids, changes: &mut Changes) {
        for agent in agents {
            let said = index.declared_by(&agent);
            let uses = uses::said(index, &agent, &said).map(Arc::new);
            let tools = uses.iter().flat_map(|uses| &uses.hosts);
            let tools = tools.map(|(host, tools)| (&**host, tools.iter().map(|name| &**name)));
            self.metrics.declare_tools(&agent.to_string(), tools);
            let found =
                said.iter().flat_map(|(api, said)| said.remotes.iter().map(|id| (*api, id)));
            for (api, id, remote) in
                found.filter_map(|(api, id)| Some((api, id, index.remote(api, id)?)))
            {
                for host in
                    uses::host_of(index, api, id).iter().filter(|_| !remote.tools.is_empty())
                {
                    self.metrics.list_tools(host, remote.tools.iter().map(|name| &**name));
                }
            }
            let exists = [KagentApi::V0, KagentApi::V1].map(|api| index.has_agent(api, &agent));
            changes.agents.push((agent.clone(), exists.contains(&true)));
            changes.uses.push((agent, uses));
        }
    }

    /// Puts the endpoints of a Service in force.
    fn place(&mut self, index: &Index, id: &ObjectId) {
        let Some(live) = self.live.get_mut(id) else { return };
        let left_out = if live.routes.is_empty() {
            Vec::new()
        } else {
            let judged = Judged::of(index, &self.config, id);
            for route in &live.routes {
                route.route.cluster.set_endpoints(&self.view.places(
                    &judged,
                    &route.host,
                    &route.lead,
                ));
            }
            judged.left_out()
        };
        if left_out != live.left_out || !left_out.is_empty() {
            let notes =
                left_out.iter().map(|(ip, why)| Considered::new(ip.to_string(), why.to_string()));
            let notes = Some(notes.collect::<Vec<_>>()).filter(|notes| !notes.is_empty());
            let notes = notes.map(Arc::new);
            live.routes.iter().for_each(|live| live.route.left_out.store(notes.clone()));
            self.left_out.change(id, &live.left_out, &left_out);
            live.left_out = left_out;
        }
    }

    /// Closes idle connections of every route.
    pub fn sweep(&self, now: Instant) {
        let routes = self.live.values().flat_map(|live| &live.routes);
        routes.for_each(|route| route.route.cluster.sweep(now));
    }

    /// Whether our zone has become known, or another one.
    fn look_for_zone(&mut self, index: &Index, endpoints_dirty: &Ids) -> bool {
        if self.config.zone.is_some() {
            return false;
        }
        let found = endpoints_dirty.iter().find_map(|id| index.own_zone(id)).map(ToOwned::to_owned);
        let other = found.is_some() && found != self.view.zone;
        if other {
            tracing::info!(zone = found, "our own zone, from our own endpoint");
            self.view.zone = found;
        }
        other
    }

    fn decide(&mut self, index: &Index, id: &ObjectId, changes: &mut Changes) {
        let plan = decide::decide(index, &self.config, id);
        let pods: BTreeSet<Box<str>> = match &plan {
            Some(ServicePlan { state: PlanState::Open(_), .. }) => {
                let slices = index.slices(id).flat_map(|slice| &slice.endpoints);
                slices.filter_map(|endpoint| endpoint.hostname.clone()).collect()
            }
            _ => BTreeSet::new(),
        };
        let mut live = self.live.remove(id).unwrap_or_default();
        let exists = index.service(id).is_some();
        if exists != std::mem::replace(&mut live.exists, exists) {
            live.since = (exists && self.follows).then(Instant::now);
        }
        let since = live.since;
        let secret = self.secrets.release(id);
        let unchanged = live.plan == plan && live.pods == pods && !secret;
        if !unchanged {
            let mut kept = Vec::new();
            for pod in live.pods.difference(&pods) {
                let host = ClusterHost { service: id.clone(), pod: Some(pod.clone()) };
                changes.hosts.push((key(&host), None));
            }
            let pod_hosts = pods.iter().cloned().map(Some);
            for pod in std::iter::once(None).chain(pod_hosts) {
                let host = ClusterHost { service: id.clone(), pod };
                let discovered = plan.as_ref().map(|plan| {
                    let mut build =
                        HostBuild { publisher: self, old: &live.routes, kept: &mut kept };
                    Arc::new(build.discovered(&host, plan, since))
                });
                changes.hosts.push((key(&host), discovered));
            }
            let stays = |old: &LiveRoute| kept.iter().any(|k| k.route.is_same(&old.route));
            let gone = live.routes.iter().filter(|old| !stays(old));
            changes.retired.extend(gone.map(|old| Arc::clone(&old.route.cluster)));
            live.routes = kept;
        }
        (live.plan, live.pods) = (plan, pods);
        if live.plan.is_none() {
            self.left_out.change(id, &std::mem::take(&mut live.left_out), &[]);
        }
        if live.plan.is_some() || !live.addresses.is_empty() {
            self.live.insert(id.clone(), live);
        }
    }

    /// Whose pods stand behind the addresses of a Service (D6). An address of two Agents is nobody's.
    fn find_callers(&mut self, index: &Index, id: &ObjectId, changes: &mut Changes) {
        let proof = if index.sees_pods(&id.namespace) { Proof::Pod } else { Proof::Slice };
        let agent = decide::agent_of(index, id).map(|agent| Common::new(Caller::new(agent, proof)));
        let addresses: BTreeSet<IpAddr> = match (&agent, index.service(id)) {
            (Some(agent), Some(service)) => {
                let of = (id, service, &agent.id);
                let endpoints = index.slices(id).flat_map(|slice| &slice.endpoints);
                let theirs = endpoints.filter(|e| whose::is_caller(index, &self.config, of, e));
                theirs.map(|endpoint| endpoint.address).collect()
            }
            _ => BTreeSet::new(),
        };
        let live = self.live.entry(id.clone()).or_default();
        let before = std::mem::replace(&mut live.addresses, addresses.clone());
        let was = std::mem::replace(&mut live.agent, agent.clone());
        if live.plan.is_none() && addresses.is_empty() {
            self.live.remove(id);
        }
        if before == addresses && was == agent {
            return;
        }
        for address in before.union(&addresses) {
            let known = self.callers.entry(*address).or_default();
            known.remove(id);
            if let Some(agent) = agent.as_ref().filter(|_| addresses.contains(address)) {
                known.insert(id.clone(), agent.clone());
            }
            let mut agents = known.values();
            let first = agents.next();
            let only = first.filter(|first| agents.all(|agent| agent.id == first.id)).cloned();
            if known.is_empty() {
                self.callers.remove(address);
            }
            changes.callers.push((*address, only));
        }
    }
}

/// The making of one host's routes.
struct HostBuild<'a> {
    publisher: &'a Publisher,
    old: &'a [LiveRoute],
    kept: &'a mut Vec<LiveRoute>,
}

// === impl HostBuild ===

impl HostBuild<'_> {
    fn discovered(
        &mut self,
        host: &ClusterHost,
        plan: &ServicePlan,
        since: Option<Instant>,
    ) -> Discovered {
        let state = match &plan.state {
            PlanState::Open(open) => HostState::Open(self.open(host, open)),
            PlanState::Refused(why) => HostState::Refused(why.as_str().into()),
            PlanState::Unmarked(why) => HostState::Unmarked(why.as_str().into()),
            PlanState::Pending(why) => HostState::Pending(why.as_str().into()),
            PlanState::Missing(why) => HostState::Missing(why.as_str().into()),
        };
        Discovered { host: host.to_string().into(), state, notes: plan.notes.clone(), since }
    }

    fn open(&mut self, host: &ClusterHost, plan: &OpenPlan) -> OpenHost {
        let mut rules = Vec::new();
        let mut foreign: HashMap<ObjectId, Vec<Arc<Rule>>> = HashMap::new();
        for plan in plan.rules.iter().filter(|rule| rule.pod == host.pod) {
            let rule = self.rule(host, plan);
            if rule.standing != Authority::Callers {
                rules.push(rule);
                continue;
            }
            let rule = Arc::new(rule);
            for caller in &rule.callers {
                foreign.entry(caller.clone()).or_default().push(Arc::clone(&rule));
            }
        }
        let ports = plan.ports.iter().map(|lead| (lead.port, self.route(host, lead))).collect();
        let fallback = match &plan.fallback {
            Ok((lead, why)) => match self.route(host, lead) {
                Ok(route) => Fallback::Port(route, why.as_str().into()),
                Err(why) => Fallback::Unusable(why),
            },
            Err(why) => Fallback::Undecided(why.as_str().into()),
        };
        let (agent, paths, callers) =
            (plan.agent.clone().map(Box::new), plan.paths, plan.callers.clone());
        OpenHost { rules, foreign, ports, fallback, agent, paths, callers }
    }

    fn rule(&mut self, host: &ClusterHost, plan: &RulePlan) -> Rule {
        Rule {
            object: plan.object.clone(),
            standing: plan.standing,
            path: plan.path.as_str().into(),
            decoded: rule::decoded(&plan.path).into(),
            sse: plan.sse,
            query: plan.query.as_deref().map(Arc::from),
            route: self.route(host, &plan.lead),
            port: plan.lead.port,
            callers: plan.callers.clone(),
        }
    }

    /// The route of a lead: one that is being made, the one that was, or a new one.
    fn route(&mut self, host: &ClusterHost, lead: &Backend) -> Result<Common<Route>, NoRoute> {
        let tls = lead.trust.as_ref().map(|trust| self.trust(host, trust)).transpose()?;
        let same = |live: &&LiveRoute| live.host == *host && live.lead == *lead && live.tls == tls;
        if let Some(live) = self.kept.iter().find(same) {
            return Ok(live.route.clone());
        }
        let route = match self.old.iter().find(same) {
            Some(live) => live.route.clone(),
            None => Common::new(self.new_route(host, lead, tls.as_ref())?),
        };
        let kept = route.clone();
        self.kept.push(LiveRoute { host: host.clone(), lead: lead.clone(), tls, route: kept });
        Ok(route)
    }

    fn new_route(
        &self,
        host: &ClusterHost,
        lead: &Backend,
        tls: Option<&ClientTls>,
    ) -> Result<Route, NoRoute> {
        let name = host.to_string();
        let label = format!("{name}:{}", lead.port);
        let configs = tls.map(tls::client_config).transpose();
        let configs =
            configs.map_err(|error| NoRoute::Unusable(format!("TLS toward {name}: {error}")))?;
        let server_name = tls.and_then(|tls| tls.server_name.clone());
        let secure = configs.map(|configs| Arc::new(Tls::new(configs, server_name)));
        let target = Target { scheme: lead.scheme, host: name.clone(), port: lead.port };
        let Publisher { config, upstream, metrics, .. } = self.publisher;
        let discarded = metrics.discarded_later(&label);
        let cluster = Cluster::new(vec![target.clone()], upstream.clone(), secure, discarded);
        let to = RouteTarget {
            targets: vec![target],
            tls: tls.cloned().unwrap_or_default(),
            sessions: lead.sessions.unwrap_or(config.inherited.sessions),
            ..config.inherited.clone()
        };
        let config = RouteConfig { host: name, prefix: "/".to_owned(), to };
        Ok(Route::new(config, Arc::new(cluster), metrics, &label, RouteSource::Cluster))
    }

    /// The client's side of TLS as the tool server's object wants it.
    fn trust(&self, host: &ClusterHost, trust: &Trust) -> Result<ClientTls, NoRoute> {
        let tls = &trust.tls;
        let mut client = ClientTls {
            server_name: Some(trust.server_name.clone()),
            insecure_skip_verify: tls.disable_verify,
            system_too: !tls.disable_system_cas,
            ..ClientTls::default()
        };
        if let (Some((name, key)), Some(namespace), false) =
            (&tls.ca_secret, &trust.namespace, tls.disable_verify)
        {
            let pem = self.publisher.secrets.pem(&host.service, (namespace, name, key))?;
            client.ca = Some(pem);
        } else if !tls.disable_verify {
            client.ca = self.publisher.secrets.bundle_for(&host.service)?;
        }
        Ok(client)
    }
}

fn key(host: &ClusterHost) -> HostKey {
    HostKey::from(host.to_string().as_str())
}
