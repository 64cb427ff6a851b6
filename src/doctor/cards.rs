//! Agent cards that lead around the proxy: kagent's Go runtime and other clients dial the URLs of a card.
//!
//! Pure. Says which cards are asked for and how, and judges what came through the proxy, which rewrites the
//! URLs of the agent's own backend.

use std::time::Duration;

use http::Uri;
use serde_json::Value;

use super::Finding;
use super::entry::{leads_here, parse, port_of};
use super::gather::{ClusterSeen, ProxyUrl};
use crate::discovery::decide::{PlanState, decide};
use crate::route::ObjectId;

/// For one card.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);
/// Cards that are asked for.
pub(super) const MOST: usize = 50;

/// Agents that a card can be asked for: their place in `seen.agents`, and their name. None if `proxy.url`
/// does not lead here, which has its own finding.
pub(super) fn wanted(seen: &ClusterSeen) -> Vec<(usize, ObjectId)> {
    let ProxyUrl::Is(url) = &seen.proxy_url else { return Vec::new() };
    let leads = parse(url).is_some_and(|url| !url.https && leads_here(seen, &url.host));
    if !leads || !seen.has_services() {
        return Vec::new();
    }
    let ids =
        seen.agents.iter().enumerate().filter_map(|(at, agent)| Some((at, agent.id.clone()?)));
    let open = |id: &ObjectId| {
        decide(&seen.index, &seen.discovery, id)
            .is_some_and(|plan| matches!(plan.state, PlanState::Open(_)))
    };
    ids.filter(|(_, id)| open(id)).collect()
}

/// Path at the API server, whose proxy reaches ours from everywhere, and headers.
pub(super) fn request(seen: &ClusterSeen, id: &ObjectId) -> (String, [(&'static str, String); 2]) {
    let (ours, port) = (&seen.ours, port_of(seen));
    let path = format!(
        "/api/v1/namespaces/{}/services/{}:{port}/proxy/.well-known/agent-card.json",
        ours.namespace, ours.name
    );
    // Our own name as the host, so that the URLs that the proxy writes are known again.
    let host = format!("{}.{}.svc:{port}", ours.name, ours.namespace);
    (path, [("host", host), ("x-kagent-host", format!("{}.{}", id.name, id.namespace))])
}

/// What is wrong with the cards that came.
pub(super) fn judge(seen: &ClusterSeen) -> Vec<Finding> {
    let mut findings = Vec::new();
    for agent in &seen.agents {
        let (Some(id), Some(card)) = (&agent.id, &agent.card) else { continue };
        let subject = format!("Agent {id}");
        let card = match card {
            Ok(card) => card,
            Err(why) => {
                let what = format!(
                    "its card does not come through the proxy, so it was not checked: {why}"
                );
                findings.push(Finding::note(&subject, what));
                continue;
            }
        };
        let around: Vec<&str> = urls(card).filter(|url| !is_ours(seen, url)).collect();
        if !around.is_empty() {
            let what = format!(
                "its card leads around the proxy: {}; clients that follow the card, such as kagent's Go runtime, \
                 call that",
                around.join(", ")
            );
            let remedy = format!(
                "have the agent write its own Service into its card, http://{}.{}:PORT, which the proxy rewrites; \
                 cards: pass must not be set",
                id.name, id.namespace
            );
            findings.push(Finding::error(&subject, what, remedy));
        }
    }
    if seen.cards_left > 0 {
        let what = format!("{} more were not looked at; doctor looks at {MOST}", seen.cards_left);
        findings.push(Finding::note(&"agent cards", what));
    }
    findings
}

/// Every URL of a card that clients dial.
fn urls(card: &Value) -> impl Iterator<Item = &str> {
    let lists = ["additionalInterfaces", "supportedInterfaces"];
    let interfaces = lists.into_iter().filter_map(|name| card.get(name)?.as_array()).flatten();
    let all = std::iter::once(card).chain(interfaces);
    all.filter_map(|part| part.get("url")?.as_str()).filter(|url| !url.is_empty())
}

/// Whether a URL of a card leads to this proxy. gRPC's have no scheme.
fn is_ours(seen: &ClusterSeen, url: &str) -> bool {
    let Some(host) = parse(url).or_else(|| parse(&format!("http://{url}"))).map(|url| url.host)
    else {
        return false;
    };
    let public = seen.public_url.as_deref().and_then(|url| url.parse::<Uri>().ok());
    let pods = seen.index.slices(&seen.ours).flat_map(|slice| &slice.endpoints);
    leads_here(seen, &host)
        || public.is_some_and(|url| url.host().is_some_and(|public| public.eq_ignore_ascii_case(&host)))
        // The API server may name the pod that it dialled.
        || pods.into_iter().any(|pod| host.parse().is_ok_and(|address: std::net::IpAddr| pod.address == address))
}
