//! Tool servers whose objects lead elsewhere than through the proxy, or nowhere.
//!
//! Pure. kagent 0.x rewrites the URL of a `RemoteMCPServer` to the proxy by its host; kagent 1.0 calls it as it is.

use super::Finding;
use super::entry::{leads_here, port_of};
use super::gather::{ClusterSeen, Configured};
use crate::authority;
use crate::discovery::decide::standing;
use crate::discovery::index::ClusterHost;
use crate::discovery::object::{KagentApi, ObjectKind, RemoteServer};
use crate::route::ObjectId;
use crate::route::rule::Authority;

/// The Services that a tool server's object names; what is wrong with the object becomes a finding.
pub(super) fn judge(
    seen: &ClusterSeen,
    (kind, id): (ObjectKind, &ObjectId),
    remote: Option<&RemoteServer>,
    findings: &mut Vec<Finding>,
) -> Vec<ObjectId> {
    let v1 = kind == ObjectKind::RemoteMcpServer(KagentApi::V1);
    let subject = if v1 {
        format!("RemoteMCPServer {id} of api.kagent.dev")
    } else {
        format!("RemoteMCPServer {id}")
    };
    let Some(remote) = remote else {
        let remedy = "write http://NAME.NAMESPACE:PORT/mcp".to_owned();
        findings.push(Finding::error(&subject, "spec.url is not an http URL".to_owned(), remedy));
        return Vec::new();
    };
    let target = remote.literal_host.as_deref().and_then(|host| seen.index.host(host));
    let target: Option<ObjectId> = target.map(|host| host.service);
    if leads_here(seen, &remote.host) {
        findings.extend(through(seen, &subject, (v1, remote), target.as_ref()));
        findings.extend(target.as_ref().and_then(|target| trust(seen, (&subject, v1), id, target)));
        return target.into_iter().collect();
    }
    let Some(host) = seen.index.host(&remote.host) else {
        let what =
            format!("{} is a host outside the cluster; agents call it directly", remote.host);
        findings.push(Finding::note(&subject, what));
        return target.into_iter().collect();
    };
    findings.extend(elsewhere(seen, &subject, (v1, remote), &host));
    if is_outside(seen, remote, &host) {
        return target.into_iter().collect();
    }
    findings.extend(trust(seen, (&subject, v1), id, &host.service));
    target.into_iter().chain([host.service]).collect()
}

/// What is wrong with an object whose URL leads to the proxy.
fn through(
    seen: &ClusterSeen,
    subject: &str,
    (v1, remote): (bool, &RemoteServer),
    target: Option<&ObjectId>,
) -> Option<Finding> {
    let ours = &seen.ours;
    let Some(target) = target else { return Some(without_target(subject, remote)) };
    if target == ours {
        let what = "its x-kagent-host is the proxy itself".to_owned();
        return Some(Finding::error(&subject, what, HEADER.to_owned()));
    }
    let lacks = |service: &ObjectId, port: u16| {
        seen.index.service(service).is_some_and(|service| !service.may_have_port(port))
    };
    if lacks(ours, remote.port) {
        let what =
            format!("its url names port {}, which Service {ours} does not have", remote.port);
        return Some(Finding::error(&subject, what, url_of(seen, remote)));
    }
    if let Some(listens) = tls_of(seen, remote.port).filter(|tls| *tls != remote.https) {
        let (says, is) = if listens { ("http", "TLS") } else { ("https", "plain text") };
        let what = format!("its url says {says}, and the proxy's port {} is {is}", remote.port);
        return Some(Finding::error(&subject, what, url_of(seen, remote)));
    }
    if let Some(port) = target_port(remote).filter(|port| lacks(target, *port)) {
        let what =
            format!("its x-kagent-host names port {port}, which Service {target} does not have");
        let remedy =
            format!("write {}.{}, or one of the Service's ports", target.name, target.namespace);
        return Some(Finding::error(&subject, what, remedy));
    }
    if !v1 && seen.index.host(&remote.host).is_some() && !remote.host.ends_with(".svc") {
        let what = format!(
            "where proxy.url is set, kagent rewrites hosts such as {} and writes its own x-kagent-host over \
             the one of headersFrom, so that the proxy would call itself",
            remote.host
        );
        let remedy = format!("write {}.{}.svc in spec.url", ours.name, ours.namespace);
        return Some(Finding::warning(&subject, what, remedy));
    }
    None
}

/// What has to be added.
const HEADER: &str = "add to headersFrom: {name: x-kagent-host, value: NAME.NAMESPACE}, the Service of the tool server";

fn without_target(subject: &str, remote: &RemoteServer) -> Finding {
    if let Some(host) = &remote.literal_host {
        let what = format!("its x-kagent-host {host:?} is no Service of the cluster");
        return Finding::error(
            &subject,
            what,
            "write NAME.NAMESPACE, or NAME.NAMESPACE:PORT".to_owned(),
        );
    }
    if remote.hides_host {
        let what =
            "its x-kagent-host comes from a Secret or a ConfigMap, which the proxy does not read";
        let remedy = "write it as a literal value, or mark the Service: kubectl annotate service NAME \
                      kagent-proxy.dev/route=true";
        return Finding::warning(&subject, what.to_owned(), remedy.to_owned());
    }
    let what = "its url leads to the proxy, and nothing says to which tool server".to_owned();
    Finding::error(&subject, what, HEADER.to_owned())
}

/// The port in a literal `x-kagent-host`.
pub(super) fn target_port(remote: &RemoteServer) -> Option<u16> {
    let (_, port) = authority::split(remote.literal_host.as_deref()?);
    authority::port(port?)
}

/// Whether a port of our Service leads to a listener with TLS; `None` if that is not known.
fn tls_of(seen: &ClusterSeen, port: u16) -> Option<bool> {
    if seen.configured != Configured::Known {
        return None;
    }
    let service = seen.index.service(&seen.ours)?;
    let name = service.ports.iter().find(|own| own.number == port).map(|own| &own.name)?;
    let mut of_pods = seen.index.slices(&seen.ours).flat_map(|slice| &slice.ports);
    // Without slices: by its number, which the chart gives both.
    let listens = of_pods.find(|(of, _)| of == name).map_or(port, |(_, number)| *number);
    let at = |number: u16| seen.listeners.iter().find(|(own, _)| *own == number);
    let only = match seen.listeners.as_slice() {
        [only] => Some(only),
        _ => None,
    };
    at(listens).or(only).map(|(_, tls)| *tls)
}

/// How an object goes through the proxy.
fn url_of(seen: &ClusterSeen, remote: &RemoteServer) -> String {
    let query = remote.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    let (name, namespace) = (&seen.ours.name, &seen.ours.namespace);
    let has_it = seen.index.service(&seen.ours).is_some_and(|ours| ours.may_have_port(remote.port));
    let is_ours = leads_here(seen, &remote.host) && has_it;
    let port = if is_ours { remote.port } else { port_of(seen) };
    let scheme = if tls_of(seen, port) == Some(true) { "https" } else { "http" };
    format!("set spec.url to {scheme}://{name}.{namespace}.svc:{port}{}{query}", remote.path)
}

/// Whether a host that may be one of the cluster by its form is none, for there is no such namespace.
fn is_outside(seen: &ClusterSeen, remote: &RemoteServer, host: &ClusterHost) -> bool {
    seen.index.lacks_namespace(&host.service.namespace)
        && host.pod.is_none()
        && remote.host.split('.').count() == 2
}

/// What is said of an object whose URL leads to another host of the cluster.
fn elsewhere(
    seen: &ClusterSeen,
    subject: &str,
    (v1, remote): (bool, &RemoteServer),
    host: &ClusterHost,
) -> Option<Finding> {
    let name = &host.service;
    if is_outside(seen, remote, host) {
        let what = format!(
            "{} is a host outside the cluster, for there is no namespace {}; agents call it directly",
            remote.host, name.namespace
        );
        return Some(Finding::note(&subject, what));
    }
    if v1 {
        let what = "kagent 1.0 calls its url as it is, around the proxy".to_owned();
        let mut remedy = format!(
            "{}, and headersFrom to [{{name: x-kagent-host, value: \"{}.{}:{}\"}}]",
            url_of(seen, remote),
            name.name,
            name.namespace,
            remote.port
        );
        if remote.https {
            remedy.push_str(
                "; for TLS give the port of its Service appProtocol: https, and the proxy the authority \
                 (discovery.caBundleFile)",
            );
        }
        return Some(Finding::warning(&subject, what, remedy));
    }
    if remote.host.ends_with(".svc") {
        let what = format!(
            "kagent does not rewrite hosts that end in .svc, such as {}; agents call it around the proxy",
            remote.host
        );
        let remedy = format!("write {}.{} in spec.url", name.name, name.namespace);
        return Some(Finding::warning(&subject, what, remedy));
    }
    None
}

/// Whom its URL binds.
fn trust(
    seen: &ClusterSeen,
    (subject, v1): (&str, bool),
    id: &ObjectId,
    service: &ObjectId,
) -> Option<Finding> {
    if standing(&seen.discovery, id, service) != Authority::Callers {
        return None;
    }
    let what = format!(
        "namespace {} is not trusted, so what it says of Service {service} counts for agents of kagent 0.x that \
         have it among their tools, and for no others",
        id.namespace
    );
    if !v1 && !seen.index.callers_of_remote(id).is_empty() {
        return Some(Finding::note(&subject, what));
    }
    let remedy = format!(
        "move it to namespace {}, or add {} to discovery.trustedNamespaces",
        service.namespace, id.namespace
    );
    Some(Finding::warning(&subject, what, remedy))
}
