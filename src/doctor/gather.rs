//! Reads what the judgement needs, and nothing else. Only gets, lists and reviews.
//!
//! What RBAC keeps from us is noted, so that the report can say what was not checked. Judges nothing.

use std::net::IpAddr;

use futures_util::stream::{StreamExt, TryStreamExt};
use k8s_openapi::ByteString;
use kube::Client;
use serde_json::Value;

use super::agents::AgentSeen;
use super::ask::{self, Answer};
use super::cards;
use super::entry::{self, Origin};
use super::rights::{self, Account, Right};
use crate::config::{Config, DiscoveryConfig};
use crate::discovery::index::Index;
use crate::discovery::object::{Object, ObjectKind};
use crate::discovery::watch::{self, ObjectWatch};
use crate::route::ObjectId;

/// Questions at once.
const AT_ONCE: usize = 8;
/// On whatever the controller makes for an Agent.
const OF_AGENTS: &str = "app=kagent";
/// The hash of an agent's configuration, on its pods.
const HASH: &str = "/metadata/annotations/kagent.dev~1config-hash";

/// `proxy.url`, as the controller has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ProxyUrl {
    /// It is this; empty if it is not set.
    Is(String),
    /// It could not be found, and why.
    Unread(String),
    /// RBAC keeps it from us, and the server's own words.
    Forbidden(String),
}

/// Whether the proxy's configuration is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Configured {
    /// It was found and is valid.
    Known,
    /// It was not found, and why; the defaults stand in.
    Unknown(String),
    /// The one of this Deployment is invalid, and its faults; the defaults stand in.
    Faulty(String, String),
}

/// This proxy, as it is installed.
#[derive(Clone, Debug)]
pub(super) struct Proxy {
    pub(super) service: ObjectId,
    /// Whose rights are looked at.
    pub(super) account: Account,
    pub(super) configured: Configured,
}

/// What was read.
#[derive(Debug)]
pub(super) struct ClusterSeen {
    pub(super) discovery: DiscoveryConfig,
    /// The Service of this proxy.
    pub(super) ours: ObjectId,
    pub(super) configured: Configured,
    pub(super) objects: Vec<(ObjectKind, ObjectId, Object)>,
    /// The same, as discovery decides by it.
    pub(super) index: Index,
    pub(super) proxy_url: ProxyUrl,
    pub(super) account: Account,
    pub(super) rights: Vec<Right>,
    pub(super) agents: Vec<AgentSeen>,
    /// What RBAC keeps from us, and why.
    pub(super) unread: Vec<(String, String)>,
    /// Kinds that could not be read.
    pub(super) hidden: Vec<ObjectKind>,
    /// Where agent cards are passed unchanged.
    pub(super) passing: Vec<String>,
    /// Whether the configuration names keys of sessions.
    pub(super) session_keys: bool,
    /// The ports that it listens on by its configuration, and whether with TLS.
    pub(super) listeners: Vec<(u16, bool)>,
    /// `publicUrl` of the configuration.
    pub(super) public_url: Option<String>,
    /// Agents whose cards were not asked for, because there are so many.
    pub(super) cards_left: usize,
}

// === impl Proxy ===

impl Proxy {
    /// With an account of the Service's name.
    pub(super) fn new(service: ObjectId) -> Self {
        let account = Account::Of(service.namespace.to_string(), service.name.to_string());
        Self { service, account, configured: Configured::Unknown(String::new()) }
    }
}

// === impl ClusterSeen ===

impl ClusterSeen {
    /// From objects, with nothing said about the rest.
    pub(super) fn new(
        config: &Config,
        proxy: Proxy,
        objects: Vec<(ObjectKind, ObjectId, Object)>,
    ) -> Self {
        let Proxy { service: ours, account, configured } = proxy;
        let index = index(&config.cluster_domain, &ours, &objects);
        let listeners = config.listeners.iter();
        Self {
            listeners: listeners.map(|one| (one.address.port(), one.tls.is_some())).collect(),
            session_keys: !config.sessions.key_files.is_empty(),
            discovery: (*config.discovery).clone(),
            ours,
            configured,
            objects,
            index,
            proxy_url: ProxyUrl::Is(String::new()),
            account,
            rights: Vec::new(),
            agents: Vec::new(),
            unread: Vec::new(),
            hidden: Vec::new(),
            passing: super::passing(config),
            public_url: config.public_url.clone(),
            cards_left: 0,
        }
    }

    /// Whether all Services are known.
    pub(super) fn has_services(&self) -> bool {
        !self.hidden.contains(&ObjectKind::Service)
    }

    /// Whether all endpoints are known.
    pub(super) fn has_slices(&self) -> bool {
        !self.hidden.contains(&ObjectKind::EndpointSlice)
    }
}

/// The index of discovery. The addresses behind our own Service are ours.
fn index(domain: &str, ours: &ObjectId, objects: &[(ObjectKind, ObjectId, Object)]) -> Index {
    let slices = objects.iter().filter_map(|(_, _, object)| match object {
        Object::Slice(slice) if slice.service.as_ref() == Some(ours) => Some(slice),
        _ => None,
    });
    let own: Vec<IpAddr> = slices.flat_map(|slice| &slice.endpoints).map(|e| e.address).collect();
    let mut index = Index::new(domain, &own);
    for (kind, id, object) in objects {
        index.apply(*kind, id.clone(), Some(object.clone()));
    }
    index
}

/// Reads the cluster.
///
/// # Errors
/// The API server does not answer, or this user may see nothing.
pub(super) async fn gather(
    client: &Client,
    config: &Config,
    proxy: Proxy,
) -> Result<ClusterSeen, String> {
    let watches = ObjectWatch::all(&config.discovery);
    let (mut objects, mut unread, mut hidden) = (Vec::new(), Vec::new(), Vec::new());
    for watch in &watches {
        match ask::list(client, &place(watch), "").await? {
            Answer::Found(items) => {
                objects.extend(items.iter().map(|item| read(watch.kind, item)));
            }
            Answer::Absent => {}
            Answer::Forbidden(why) => {
                hidden.push(watch.kind);
                unread.push((watch.place(), why));
            }
        }
    }
    let mut seen = ClusterSeen::new(config, proxy, objects);
    (seen.unread, seen.hidden) = (unread, hidden);
    seen.proxy_url = Box::pin(proxy_url(client, &seen)).await?;
    seen.rights = Box::pin(asked(client, &seen.account, rights::needed(&watches))).await?;
    Box::pin(agents(client, &mut seen)).await?;
    Box::pin(agent_cards(client, &mut seen)).await;
    let unknown = seen.rights.iter().all(|right| right.allowed.is_none());
    if unknown && !seen.has_services() {
        let why = seen.unread.first().map(|(_, why)| why.as_str()).unwrap_or_default();
        return Err(format!("this user may see nothing of the cluster: {why}"));
    }
    Ok(seen)
}

/// The path of what a watch lists.
fn place(watch: &ObjectWatch) -> String {
    let kind = watch::resource(watch.kind);
    let api = if kind.group.is_empty() { "api" } else { "apis" };
    match &watch.namespace {
        Some(name) => format!("/{api}/{}/namespaces/{name}/{}", kind.api_version, kind.plural),
        None => format!("/{api}/{}/{}", kind.api_version, kind.plural),
    }
}

fn text(json: &Value, at: &str) -> String {
    json.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn id(json: &Value) -> ObjectId {
    ObjectId::new(&text(json, "/metadata/namespace"), &text(json, "/metadata/name"))
}

fn read(kind: ObjectKind, json: &Value) -> (ObjectKind, ObjectId, Object) {
    let id = id(json);
    let object = Object::read(kind, &id.namespace, json);
    (kind, id, object)
}

async fn proxy_url(client: &Client, seen: &ClusterSeen) -> Result<ProxyUrl, String> {
    let controller = &seen.discovery.controller;
    let (space, name) = (&controller.namespace, &controller.name);
    let path = format!("/apis/apps/v1/namespaces/{space}/deployments/{name}");
    let deployment = match ask::get(client, &path).await? {
        Answer::Found(deployment) => deployment,
        Answer::Absent => {
            return Ok(ProxyUrl::Unread("there is no such Deployment".to_owned()));
        }
        Answer::Forbidden(why) => return Ok(ProxyUrl::Forbidden(why)),
    };
    let (maps, key) = match entry::origin(&deployment) {
        Origin::Here(url) => return Ok(ProxyUrl::Is(url)),
        Origin::Nowhere => return Ok(ProxyUrl::Is(String::new())),
        Origin::ConfigMaps(maps, key) => (maps, key),
    };
    for map in maps {
        match ask::get(client, &format!("/api/v1/namespaces/{space}/configmaps/{map}")).await? {
            Answer::Found(map) => {
                let data = map.get("data").and_then(|data| data.get(&key));
                if let Some(url) = data.and_then(Value::as_str) {
                    return Ok(ProxyUrl::Is(url.trim().to_owned()));
                }
            }
            Answer::Absent => {}
            Answer::Forbidden(why) => return Ok(ProxyUrl::Forbidden(why)),
        }
    }
    Ok(ProxyUrl::Is(String::new()))
}

/// The same rights, with the server's answers.
async fn asked(
    client: &Client,
    account: &Account,
    rights: Vec<Right>,
) -> Result<Vec<Right>, String> {
    let questions = rights.into_iter().map(|mut right| async {
        let (path, body) = account.question(&right);
        if let Answer::Found(review) = ask::review(client, path, &body).await? {
            right.allowed = review.pointer("/status/allowed").and_then(Value::as_bool);
        }
        Ok(right)
    });
    futures_util::stream::iter(questions).buffered(AT_ONCE).try_collect().await
}

/// What the controller wrote for each Agent, and what runs.
async fn agents(client: &Client, seen: &mut ClusterSeen) -> Result<(), String> {
    let is_agent = |object: &Object| matches!(object, Object::Agent(_));
    let ids: Vec<ObjectId> = seen
        .objects
        .iter()
        .filter(|(_, _, object)| is_agent(object))
        .map(|(_, id, _)| id.clone())
        .collect();
    if ids.is_empty() {
        return Ok(());
    }
    let deployments = listed(client, seen, "/apis/apps/v1", "deployments").await?;
    let pods = listed(client, seen, "/api/v1", "pods").await?;
    let configs = ids.iter().map(|id| config(client, id));
    let configs = futures_util::stream::iter(configs).buffered(AT_ONCE);
    let configs: Vec<_> = Box::pin(configs.try_collect()).await?;
    for (id, config) in ids.into_iter().zip(configs) {
        let config = match config {
            Answer::Found(config) => Some(config),
            Answer::Absent => None,
            Answer::Forbidden(why) => {
                seen.unread.push((format!("Secret {id}"), why));
                None
            }
        };
        let made = deployments.iter().find(|deployment| self::id(deployment) == id);
        let template = made.and_then(|made| made.pointer("/spec/template"));
        let hash = |json: &Value| Some(text(json, HASH)).filter(|hash| !hash.is_empty());
        let running = pods.iter().filter(|pod| {
            text(pod, "/metadata/namespace") == *id.namespace
                && text(pod, "/metadata/labels/kagent") == *id.name
                && pod.pointer("/metadata/deletionTimestamp").is_none()
                && !matches!(text(pod, "/status/phase").as_str(), "Succeeded" | "Failed")
        });
        seen.agents.push(AgentSeen {
            config,
            hash: template.and_then(hash),
            pods: running.map(|pod| (text(pod, "/metadata/name"), hash(pod))).collect(),
            card: None,
            id: Some(id),
        });
    }
    Ok(())
}

/// What the controller has made of a kind, in the namespaces that are watched.
async fn listed(
    client: &Client,
    seen: &mut ClusterSeen,
    api: &str,
    resource: &str,
) -> Result<Vec<Value>, String> {
    let spaces = seen.discovery.namespaces.clone();
    let mut paths: Vec<String> =
        spaces.iter().map(|space| format!("{api}/namespaces/{space}/{resource}")).collect();
    if paths.is_empty() {
        paths.push(format!("{api}/{resource}"));
    }
    let mut all = Vec::new();
    for path in paths {
        match ask::list(client, &path, OF_AGENTS).await? {
            Answer::Found(items) => all.extend(items),
            Answer::Absent => {}
            Answer::Forbidden(why) => seen.unread.push((resource.to_owned(), why)),
        }
    }
    Ok(all)
}

/// The configuration that the controller wrote for an Agent.
async fn config(client: &Client, id: &ObjectId) -> Result<Answer<Value>, String> {
    let path = format!("/api/v1/namespaces/{}/secrets/{}", id.namespace, id.name);
    let mut secret = match ask::get(client, &path).await? {
        Answer::Found(secret) => secret,
        other => return Ok(other),
    };
    let data = secret.pointer_mut("/data/config.json").map(Value::take).unwrap_or_default();
    let bytes: Option<ByteString> = serde_json::from_value(data).ok();
    let config = bytes.and_then(|bytes| serde_json::from_slice(&bytes.0).ok());
    Ok(config.map_or(Answer::Absent, Answer::Found))
}

/// The cards of agents that have a route, as they come through the proxy.
async fn agent_cards(client: &Client, seen: &mut ClusterSeen) {
    let wanted = cards::wanted(seen);
    seen.cards_left = wanted.len().saturating_sub(cards::MOST);
    let fetched: Vec<_> = {
        let seen = &*seen;
        let ids = wanted.iter().take(cards::MOST).map(|(_, id)| cards::request(seen, id));
        let questions = ids.map(|(path, headers)| async move {
            ask::relayed(client, &path, &headers, cards::DEADLINE).await
        });
        futures_util::stream::iter(questions).buffered(AT_ONCE).collect().await
    };
    for ((at, _), answer) in wanted.into_iter().zip(fetched) {
        let card = match answer {
            Ok(Answer::Found(card)) => Some(Ok(card)),
            // Not every agent has one.
            Ok(Answer::Absent) => None,
            Ok(Answer::Forbidden(why)) if why.contains("services/proxy") => {
                // The same for all of them.
                seen.unread.push(("agent cards (services/proxy)".to_owned(), why));
                return;
            }
            Ok(Answer::Forbidden(why)) | Err(why) => Some(Err(why)),
        };
        if let Some(agent) = seen.agents.get_mut(at) {
            agent.card = card;
        }
    }
}
