//! Services that somebody names and that cannot be reached, and tool servers whose URL goes elsewhere.
//!
//! Pure. Discovery's own decision says what is routable and why not; here it only becomes a finding.

use std::collections::BTreeSet;

use super::Finding;
use super::gather::ClusterSeen;
use crate::discovery::decide::{OpenPlan, PlanState, RulePlan, ServicePlan, decide, standing};
use crate::discovery::object::{Object, RemoteServer};
use crate::route::ObjectId;
use crate::route::rule::Authority;

/// What is wrong with what agents are told to call.
pub(super) fn judge(seen: &ClusterSeen) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut named = BTreeSet::new();
    for (_, id, object) in &seen.objects {
        match object {
            Object::Agent(agent) => {
                named.insert(id.clone());
                named.extend(agent.services.iter().cloned());
            }
            Object::McpServer(_) => {
                named.insert(id.clone());
            }
            Object::RemoteServer(remote) => {
                named.extend(tool_server(seen, id, remote.as_ref(), &mut findings));
            }
            _ => {}
        }
    }
    if !seen.has_services() {
        return findings;
    }
    for id in named {
        if let Some(plan) = decide(&seen.index, &seen.discovery, &id) {
            findings.extend(host(seen, &id, &plan));
        }
    }
    findings
}

/// The Services that a tool server's object names; what is wrong with its URL becomes a finding.
fn tool_server(
    seen: &ClusterSeen,
    id: &ObjectId,
    remote: Option<&RemoteServer>,
    findings: &mut Vec<Finding>,
) -> Vec<ObjectId> {
    let subject = format!("RemoteMCPServer {id}");
    let Some(remote) = remote else {
        let remedy = "write http://NAME.NAMESPACE:PORT/mcp".to_owned();
        findings.push(Finding::error(&subject, "spec.url is not an http URL".to_owned(), remedy));
        return Vec::new();
    };
    let literal = remote.literal_host.as_deref().and_then(|host| seen.index.host(host));
    let literal = literal.map(|host| host.service);
    let Some(host) = seen.index.host(&remote.host) else {
        let what =
            format!("{} is a host outside the cluster; agents call it directly", remote.host);
        findings.push(Finding::note(&subject, what));
        return literal.into_iter().collect();
    };
    if host.service == seen.ours && literal.is_some() {
        // Through the proxy on purpose.
        return literal.into_iter().collect();
    }
    let name = &host.service;
    let absent = seen.index.lacks_namespace(&name.namespace);
    if absent && host.pod.is_none() && remote.host.split('.').count() == 2 {
        let what = format!(
            "{} is a host outside the cluster, for there is no namespace {}; agents call it directly",
            remote.host, name.namespace
        );
        findings.push(Finding::note(&subject, what));
        return literal.into_iter().collect();
    }
    if remote.host.ends_with(".svc") {
        let what = format!(
            "kagent does not rewrite hosts that end in .svc, such as {}; agents call it around the proxy",
            remote.host
        );
        let remedy = format!("write {}.{} in spec.url", name.name, name.namespace);
        findings.push(Finding::warning(&subject, what, remedy));
    }
    if standing(&seen.discovery, id, name) == Authority::Callers {
        let what = format!(
            "namespace {} is not trusted, so its URL for Service {name} counts for agents that have it among \
             their tools, and for no others",
            id.namespace
        );
        let remedy = format!(
            "move it to namespace {}, or add {} to discovery.trustedNamespaces",
            name.namespace, id.namespace
        );
        let used = !seen.index.users_of_remote(id).is_empty();
        findings.push(if used {
            Finding::note(&subject, what)
        } else {
            Finding::warning(&subject, what, remedy)
        });
    }
    literal.into_iter().chain([name.clone()]).collect()
}

/// What is wrong with one Service.
fn host(seen: &ClusterSeen, id: &ObjectId, plan: &ServicePlan) -> Vec<Finding> {
    let subject = format!("Service {id}");
    match &plan.state {
        PlanState::Open(open) => ports(seen, id, plan, open),
        PlanState::Refused(why) | PlanState::Missing(why) => {
            let remedy = match seen.index.remotes_at(id).next() {
                Some((object, _)) => format!("correct spec.url of RemoteMCPServer {object}"),
                None => "correct what names it, or give the Service another name".to_owned(),
            };
            vec![Finding::error(&subject, why.clone(), remedy)]
        }
        PlanState::Unmarked(why) => {
            // The reason carries its remedy after the semicolon.
            let (what, remedy) = why.split_once("; ").unwrap_or((why, ""));
            vec![Finding::error(&subject, what.to_owned(), remedy.to_owned())]
        }
        PlanState::Pending(why) => {
            let remedy = format!(
                "see the status of that object, and the log of the controller: kubectl -n {} logs deployment/{}",
                seen.discovery.controller.namespace, seen.discovery.controller.name
            );
            vec![Finding::warning(&subject, why.clone(), remedy)]
        }
    }
}

/// What is wrong with the ports of a Service that is routable.
fn ports(seen: &ClusterSeen, id: &ObjectId, plan: &ServicePlan, open: &OpenPlan) -> Vec<Finding> {
    let subject = format!("Service {id}");
    let mut findings = Vec::new();
    if let Err(why) = &open.fallback
        && (open.rules.is_empty() || seen.index.users_of_service(id).next().is_some())
    {
        let remedy = format!(
            "kubectl annotate service -n {} {} kagent.dev/mcp-service-port=PORT",
            id.namespace, id.name
        );
        findings.push(Finding::error(&subject, why.clone(), remedy));
    }
    // Whatever names a port that is not there was dropped, with a note.
    for note in plan.notes.iter().filter(|note| note.verdict.contains("no such port")) {
        let numbers: Vec<String> = open.ports.iter().map(|lead| lead.port.to_string()).collect();
        let what = format!("{}: {}", note.candidate, note.verdict);
        let remedy = format!("name one of its ports: {}", numbers.join(", "));
        findings.push(Finding::error(&subject, what, remedy));
    }
    for (at, rule) in open.rules.iter().enumerate() {
        for other in open.rules.iter().skip(at + 1).filter(|other| disagree(rule, other)) {
            let what = format!(
                "RemoteMCPServers {} and {} name the same path {} with different ports, schemes or TLS, and \
                 nothing tells which an agent means",
                rule.object, other.object, rule.path
            );
            let remedy =
                "give both the same spec.url, or have each agent list one of them".to_owned();
            findings.push(Finding::error(&subject, what, remedy));
        }
    }
    findings
}

/// Whether two rules claim the same requests for different backends, and the caller does not decide.
fn disagree(one: &RulePlan, other: &RulePlan) -> bool {
    let same = one.path == other.path && one.pod == other.pod && one.standing == other.standing;
    let told_apart = !one.callers.is_empty()
        && !other.callers.is_empty()
        && one.callers.is_disjoint(&other.callers);
    same && one.lead != other.lead && !told_apart
}
