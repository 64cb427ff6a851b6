//! Tool servers whose objects lead elsewhere than through the proxy, or nowhere.
//!
//! Pure. kagent 0.x rewrites the URL of a `RemoteMCPServer` to the proxy by its host; kagent 1.0 calls it as it is.

use super::Finding;
use super::entry::port_of;
use super::gather::ClusterSeen;
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
    let Some(host) = seen.index.host(&remote.host) else {
        let what =
            format!("{} is a host outside the cluster; agents call it directly", remote.host);
        findings.push(Finding::note(&subject, what));
        return target.into_iter().collect();
    };
    if host.service == seen.ours {
        findings.extend(through(seen, &subject, (v1, remote), target.as_ref()));
        return target.into_iter().collect();
    }
    findings.extend(elsewhere(seen, &subject, (v1, remote), &host));
    let absent = seen.index.lacks_namespace(&host.service.namespace);
    if absent && host.pod.is_none() && remote.host.split('.').count() == 2 {
        return target.into_iter().collect();
    }
    findings.extend(trust(seen, &subject, id, &host.service));
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
    let header = "add to headersFrom: {name: x-kagent-host, value: NAME.NAMESPACE}, the Service of the tool server";
    if target.is_none() {
        let (what, remedy) = match &remote.literal_host {
            Some(host) => (
                format!("its x-kagent-host {host:?} is no Service of the cluster"),
                "write NAME.NAMESPACE, or NAME.NAMESPACE:PORT".to_owned(),
            ),
            None if remote.hides_host => {
                let what = "its x-kagent-host comes from a Secret or a ConfigMap, which the proxy does not read";
                let remedy = "write it as a literal value, or mark the Service: kubectl annotate service NAME \
                              kagent-proxy.dev/route=true";
                return Some(Finding::warning(&subject, what.to_owned(), remedy.to_owned()));
            }
            None => (
                "its url leads to the proxy, and nothing says to which tool server".to_owned(),
                header.to_owned(),
            ),
        };
        return Some(Finding::error(&subject, what, remedy));
    }
    if target == Some(ours) {
        let what = "its x-kagent-host is the proxy itself".to_owned();
        return Some(Finding::error(&subject, what, header.to_owned()));
    }
    if !v1 && !remote.host.ends_with(".svc") {
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

/// What is said of an object whose URL leads to another host of the cluster.
fn elsewhere(
    seen: &ClusterSeen,
    subject: &str,
    (v1, remote): (bool, &RemoteServer),
    host: &ClusterHost,
) -> Option<Finding> {
    let name = &host.service;
    let absent = seen.index.lacks_namespace(&name.namespace);
    if absent && host.pod.is_none() && remote.host.split('.').count() == 2 {
        let what = format!(
            "{} is a host outside the cluster, for there is no namespace {}; agents call it directly",
            remote.host, name.namespace
        );
        return Some(Finding::note(&subject, what));
    }
    if v1 {
        let ours = &seen.ours;
        let what = "kagent 1.0 calls its url as it is, around the proxy".to_owned();
        let remedy = format!(
            "set spec.url to http://{}.{}.svc:{}{}, and headersFrom to [{{name: x-kagent-host, value: \"{}.{}:{}\"}}]",
            ours.name,
            ours.namespace,
            port_of(seen),
            remote.path,
            name.name,
            name.namespace,
            remote.port
        );
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
fn trust(seen: &ClusterSeen, subject: &str, id: &ObjectId, service: &ObjectId) -> Option<Finding> {
    if standing(&seen.discovery, id, service) != Authority::Callers {
        return None;
    }
    let what = format!(
        "namespace {} is not trusted, so its URL for Service {service} counts for agents that have it among \
         their tools, and for no others",
        id.namespace
    );
    if !seen.index.users_of_remote(id).is_empty() {
        return Some(Finding::note(&subject, what));
    }
    let remedy = format!(
        "move it to namespace {}, or add {} to discovery.trustedNamespaces",
        service.namespace, id.namespace
    );
    Some(Finding::warning(&subject, what, remedy))
}
