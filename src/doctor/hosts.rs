//! Services that somebody names and that cannot be reached.
//!
//! Pure. Discovery's own decision says what is routable and why not; here it only becomes a finding.

use std::collections::BTreeSet;

use super::gather::ClusterSeen;
use super::{Finding, servers};
use crate::discovery::decide::{OpenPlan, PlanState, RulePlan, ServicePlan, decide};
use crate::discovery::object::{KagentApi, Object, ObjectKind};
use crate::route::ObjectId;

/// What is wrong with what agents are told to call.
pub(super) fn judge(seen: &ClusterSeen) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut named = BTreeSet::new();
    for (kind, id, object) in &seen.objects {
        match object {
            // Those of kagent 1.0 have no Service.
            Object::Agent(agent) if *kind == ObjectKind::Agent(KagentApi::V0) => {
                named.insert(id.clone());
                named.extend(agent.services.iter().cloned());
            }
            Object::McpServer(_) => {
                named.insert(id.clone());
            }
            Object::RemoteServer(remote) => {
                named.extend(servers::judge(seen, (*kind, id), remote.as_ref(), &mut findings));
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

/// What is wrong with one Service.
fn host(seen: &ClusterSeen, id: &ObjectId, plan: &ServicePlan) -> Vec<Finding> {
    let subject = format!("Service {id}");
    match &plan.state {
        PlanState::Open(open) => ports(seen, id, plan, open),
        PlanState::Refused(why) | PlanState::Missing(why) => {
            let url = seen.index.remotes_at(id).next();
            let remedy = match (url, seen.index.literals_at(id).next()) {
                (Some((object, _)), _) => format!("correct spec.url of RemoteMCPServer {object}"),
                (None, Some((object, _))) => {
                    format!("correct x-kagent-host in headersFrom of RemoteMCPServer {object}")
                }
                (None, None) => {
                    "correct what names it, or give the Service another name".to_owned()
                }
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
        && !ports_are_named(seen, id)
        && (open.rules.is_empty() || !seen.index.users_of_service(id).is_empty())
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

/// Whether everybody who names a Service in a header names its port too.
fn ports_are_named(seen: &ClusterSeen, id: &ObjectId) -> bool {
    let mut named = seen.index.literals_at(id).map(|(_, remote)| servers::target_port(remote));
    named.next().is_some_and(|port| port.is_some()) && named.all(|port| port.is_some())
}

/// Whether two rules claim the same requests for different backends, and the caller does not decide.
fn disagree(one: &RulePlan, other: &RulePlan) -> bool {
    let same = one.path == other.path && one.pod == other.pod && one.standing == other.standing;
    let told_apart = !one.callers.is_empty()
        && !other.callers.is_empty()
        && one.callers.is_disjoint(&other.callers);
    same && one.lead != other.lead && !told_apart
}
