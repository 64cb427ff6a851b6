//! `proxy.url` of kagent: where the controller has it from, and whether it leads to this proxy.
//!
//! Pure. kagent keeps scheme, host and port of it and drops the rest (`applyProxyURL`, kagent 0.7.8 to
//! 0.10).

use std::net::IpAddr;

use serde_json::{Value, json};

use super::Finding;
use super::gather::{ClusterSeen, Configured, ProxyUrl};
use crate::discovery::object::{KagentApi, Object, ObjectKind, RemoteServer};
use crate::route::ObjectId;
use crate::upstream::EndpointState;

/// The variable that kagent's chart sets.
const VARIABLE: &str = "PROXY_URL";

/// Where a controller has its `proxy.url` from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It stands in the Deployment.
    Here(String),
    /// It stands in one of these `ConfigMap`s, under this key. The first that has it counts.
    ConfigMaps(Vec<String>, String),
    /// Nowhere.
    Nowhere,
}

/// Where this Deployment has its `proxy.url` from.
pub(super) fn origin(deployment: &Value) -> Origin {
    let containers = deployment.pointer("/spec/template/spec/containers");
    let containers = || containers.and_then(Value::as_array).into_iter().flatten();
    let list = |container: &Value, key: &str| {
        container.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    for container in containers() {
        let args = list(container, "args");
        let args: Vec<&str> = args.iter().filter_map(Value::as_str).collect();
        for (at, arg) in args.iter().enumerate() {
            let flag = arg.trim_start_matches('-');
            if let Some(value) = flag.strip_prefix("proxy-url=") {
                return Origin::Here(value.to_owned());
            }
            if flag == "proxy-url" && flag != *arg {
                return Origin::Here(args.get(at + 1).copied().unwrap_or_default().to_owned());
            }
        }
    }
    for variable in containers().flat_map(|container| list(container, "env")) {
        if variable.get("name").and_then(Value::as_str) != Some(VARIABLE) {
            continue;
        }
        let of = |at: &str| variable.pointer(at).and_then(Value::as_str).map(ToOwned::to_owned);
        if let (Some(name), Some(key)) =
            (of("/valueFrom/configMapKeyRef/name"), of("/valueFrom/configMapKeyRef/key"))
        {
            return Origin::ConfigMaps(vec![name], key);
        }
        return Origin::Here(of("/value").unwrap_or_default());
    }
    // The last of several wins.
    let sources = containers().flat_map(|container| list(container, "envFrom"));
    let names = sources
        .filter_map(|source| Some(source.pointer("/configMapRef/name")?.as_str()?.to_owned()));
    let mut names: Vec<String> = names.collect();
    names.reverse();
    if names.is_empty() { Origin::Nowhere } else { Origin::ConfigMaps(names, VARIABLE.to_owned()) }
}

/// A URL, taken apart as discovery does it.
pub(super) fn parse(url: &str) -> Option<RemoteServer> {
    let json = json!({ "spec": { "url": url } });
    match Object::read(ObjectKind::RemoteMcpServer(KagentApi::V0), "", &json) {
        Object::RemoteServer(remote) => remote.filter(|remote| !remote.host.is_empty()),
        _ => None,
    }
}

/// Whether a host is that of this proxy's Service.
pub(super) fn leads_here(seen: &ClusterSeen, host: &str) -> bool {
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        let service = seen.index.service(&seen.ours);
        return service.is_some_and(|service| service.cluster_ips.contains(&address));
    }
    seen.index.host(host).is_some_and(|host| host.service == seen.ours && host.pod.is_none())
}

/// What is wrong with `proxy.url`.
pub(super) fn judge(seen: &ClusterSeen) -> Vec<Finding> {
    let set = format!(
        "helm upgrade kagent … --reuse-values --set proxy.url=http://{}.{}.svc.cluster.local:{}",
        seen.ours.name,
        seen.ours.namespace,
        port_of(seen)
    );
    let controller = &seen.discovery.controller;
    let subject = ObjectId::new(&controller.namespace, &controller.name);
    let subject = format!("proxy.url of Deployment {subject}");
    let url = match &seen.proxy_url {
        ProxyUrl::Unread(why) => {
            let remedy = "name kagent's controller with --namespace and --controller, or run doctor as a user \
                          who may get it";
            return vec![Finding::error(&subject, why.clone(), remedy.to_owned())];
        }
        ProxyUrl::Forbidden(why) => {
            // As in the proxy's pod, whose account may not: it says nothing of the cluster.
            let what = format!("could not be read, so it was not checked: {why}");
            let remedy = "run doctor as a user who may get that Deployment and its ConfigMap";
            return vec![Finding::warning(&subject, what, remedy.to_owned())];
        }
        // kagent 1.0 does not read it, and its tool servers name the proxy themselves.
        ProxyUrl::Is(url) if url.is_empty() && only_1_0(seen) => return Vec::new(),
        ProxyUrl::Is(url) if url.is_empty() && is_named(seen) => {
            let what =
                "is not set, so that only tool servers go through this proxy whose url names it";
            return vec![Finding::note(&subject, what.to_owned())];
        }
        ProxyUrl::Is(url) if url.is_empty() => {
            let what = "is not set, so no agent sends anything through this proxy".to_owned();
            return vec![Finding::error(&subject, what, set)];
        }
        ProxyUrl::Is(url) => url,
    };
    let Some(parsed) = parse(url) else {
        return vec![Finding::error(&subject, format!("{url:?} is not an http URL"), set)];
    };
    let mut findings = Vec::new();
    if parsed.path != "/" || parsed.query.is_some() {
        let what = format!("{url:?} has a path or a query, which kagent drops");
        findings.push(Finding::warning(&subject, what, set.clone()));
    }
    if parsed.https {
        let what = format!(
            "{url:?} is https, and agents have no setting for whom they trust: the certificate must be \
             one that their images know"
        );
        findings.push(Finding::warning(&subject, what, set.clone()));
    }
    findings.extend(reached(seen, &subject, url, &parsed, set));
    findings
}

/// Whether a tool server's object goes through the proxy by itself.
fn is_named(seen: &ClusterSeen) -> bool {
    seen.objects.iter().any(|(_, _, object)| match object {
        Object::RemoteServer(Some(remote)) => leads_here(seen, &remote.host),
        _ => false,
    })
}

/// Whether agents and tool servers are those of kagent 1.0.
fn only_1_0(seen: &ClusterSeen) -> bool {
    let count = |api| {
        let kinds = [ObjectKind::Agent(api), ObjectKind::RemoteMcpServer(api)];
        kinds.map(|kind| seen.index.count(kind)).iter().sum::<usize>()
    };
    count(KagentApi::V0) == 0 && count(KagentApi::V1) > 0
}

/// Whether the host is ours, and something listens there.
fn reached(
    seen: &ClusterSeen,
    subject: &str,
    url: &str,
    parsed: &RemoteServer,
    set: String,
) -> Option<Finding> {
    let ours = &seen.ours;
    if !seen.has_services() {
        return None;
    }
    if !leads_here(seen, &parsed.host) {
        let what = format!("{url:?} leads elsewhere, not to Service {ours}");
        let remedy =
            format!("{set}; or, if that host is this proxy, name its Service with --proxy-service");
        return Some(Finding::error(&subject, what, remedy));
    }
    let Some(service) = seen.index.service(ours) else {
        let what = format!("{url:?} leads to Service {ours}, which does not exist");
        let remedy =
            "install the proxy (deploy/README.md), or name its Service with --proxy-service";
        return Some(Finding::error(&subject, what, remedy.to_owned()));
    };
    if !service.may_have_port(parsed.port) {
        let what =
            format!("{url:?} names port {}, which Service {ours} does not have", parsed.port);
        return Some(Finding::error(&subject, what, set));
    }
    let ready = seen
        .index
        .slices(ours)
        .flat_map(|slice| &slice.endpoints)
        .any(|endpoint| endpoint.state == Some(EndpointState::Ready));
    if !ready && seen.has_slices() {
        let what = format!("{url:?} leads to Service {ours}, which has no ready pod");
        let remedy = format!(
            "kubectl -n {} get pods; the pod's /readyz says what it waits for",
            ours.namespace
        );
        return Some(Finding::error(&subject, what, remedy));
    }
    None
}

/// Whether replicas without a common key cannot read each other's tokens of sessions.
pub(super) fn keys(seen: &ClusterSeen) -> Option<Finding> {
    let ours = &seen.ours;
    let replicas = seen.index.replicas_of(ours);
    if replicas < 2 || seen.session_keys || seen.configured != Configured::Known {
        return None;
    }
    let what = format!(
        "has {replicas} replicas and no key for MCP sessions in its configuration: ids of sessions pass as they are, \
         and sessions end with their pods"
    );
    let remedy =
        "mount one Secret into all replicas and name it by sessions.keyFiles; see docs/sessions.md";
    Some(Finding::warning(&format!("Service {ours}"), what, remedy.to_owned()))
}

/// Whether what was judged by is the proxy's own configuration.
pub(super) fn configuration(seen: &ClusterSeen) -> Option<Finding> {
    let subject = "configuration of the proxy";
    match &seen.configured {
        Configured::Known => None,
        Configured::Unknown(why) => {
            let what = format!("was not found, so the defaults were taken in its place: {why}");
            let remedy = "name its file with --config, or its Service with --proxy-service";
            Some(Finding::warning(&subject, what, remedy.to_owned()))
        }
        Configured::Faulty(deployment, faults) => {
            let what = format!(
                "(Deployment {deployment}) is not valid, so new pods do not start, and the defaults were taken in its \
                 place: {faults}"
            );
            let remedy = "correct it; kagent-proxy check finds the same";
            Some(Finding::error(&subject, what, remedy.to_owned()))
        }
    }
}

/// The port of our Service that carries traffic.
pub(super) fn port_of(seen: &ClusterSeen) -> u16 {
    let service = seen.index.service(&seen.ours);
    let ports = service.map(|service| service.ports.as_slice()).unwrap_or_default();
    let named = ports.iter().find(|port| &*port.name == "http").or_else(|| ports.first());
    named.map_or(8080, |port| port.number)
}
