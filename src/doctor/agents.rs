//! Agents whose configuration, or whose pods, are older than `proxy.url`.
//!
//! Pure. kagent's controller writes each agent's targets into a Secret of the agent's name, key
//! `config.json`, and puts a hash of it on the pods (`kagent.dev/config-hash`), so that they roll.

use serde_json::Value;

use super::Finding;
use super::entry::{leads_here, parse};
use super::gather::{ClusterSeen, ProxyUrl};
use crate::route::ObjectId;

/// The header that kagent writes beside a URL that it turned to the proxy.
const HOST_HEADER: &str = "x-kagent-host";

/// An agent: what the controller wrote, and what runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct AgentSeen {
    /// The Agent.
    pub(super) id: Option<ObjectId>,
    /// `config.json`, where it could be read.
    pub(super) config: Option<Value>,
    /// The hash that new pods get.
    pub(super) hash: Option<String>,
    /// Running pods and their hashes.
    pub(super) pods: Vec<(String, Option<String>)>,
    /// Its card as it comes through the proxy, or why it does not; `None` if there is none or nobody asked.
    pub(super) card: Option<Result<Value, String>>,
}

/// What is wrong with agents, once `proxy.url` leads here.
pub(super) fn judge(seen: &ClusterSeen) -> Vec<Finding> {
    let ProxyUrl::Is(url) = &seen.proxy_url else { return Vec::new() };
    let leads = parse(url).is_some_and(|url| leads_here(seen, &url.host));
    if !leads {
        // Agents follow what proxy.url says, and that has its own finding.
        return Vec::new();
    }
    let mut findings = Vec::new();
    for agent in &seen.agents {
        let Some(id) = &agent.id else { continue };
        let subject = format!("Agent {id}");
        let (space, name) = (&id.namespace, &id.name);
        let around = agent.config.as_ref().map(|config| around(seen, config)).unwrap_or_default();
        if !around.is_empty() {
            let what = format!(
                "its configuration (Secret {id}, config.json) leads around the proxy: {}",
                around.join(", ")
            );
            let controller = &seen.discovery.controller;
            let remedy = format!(
                "kubectl -n {} rollout restart deployment/{}, so that the controller writes it anew",
                controller.namespace, controller.name
            );
            findings.push(Finding::error(&subject, what, remedy));
        }
        let old: Vec<&str> = agent
            .pods
            .iter()
            .filter(|(_, hash)| agent.hash.is_some() && *hash != agent.hash)
            .map(|(pod, _)| pod.as_str())
            .collect();
        if !old.is_empty() {
            let what =
                format!("has not rolled: {} run with an older configuration", old.join(", "));
            let remedy = format!("kubectl -n {space} rollout status deployment/{name}");
            findings.push(Finding::error(&subject, what, remedy));
        }
    }
    findings
}

/// The URLs of a configuration that should lead to this proxy and do not.
fn around(seen: &ClusterSeen, config: &Value) -> Vec<String> {
    let items = |key: &str| config.get(key).and_then(Value::as_array).into_iter().flatten();
    let tools = items("http_tools").chain(items("sse_tools")).filter_map(|tool| tool.get("params"));
    let tools = tools.map(|params| (params, false));
    let targets = tools.chain(items("remote_agents").map(|agent| (agent, true)));
    let mut found = Vec::new();
    for (target, agent) in targets {
        let Some(url) = target.get("url").and_then(Value::as_str) else { continue };
        let Some(parsed) = parse(url) else { continue };
        let headers = target.get("headers").and_then(Value::as_object);
        let turned = headers
            .is_some_and(|map| map.keys().any(|name| name.eq_ignore_ascii_case(HOST_HEADER)));
        let here = leads_here(seen, &parsed.host);
        if !here && (turned || agent || is_rewritten(seen, &parsed.host)) {
            found.push(url.to_owned());
        }
    }
    found
}

/// Whether kagent turns a tool server's URL with this host to the proxy (`isInternalK8sURL`).
fn is_rewritten(seen: &ClusterSeen, host: &str) -> bool {
    let service = seen.index.host(host).map(|host| host.service);
    let known = service.is_some_and(|service| seen.index.service(&service).is_some());
    known && (host.ends_with(".svc.cluster.local") || host.split('.').count() == 2)
}
