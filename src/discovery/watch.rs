//! The watches: one for each kind and namespace, each a task that tells the index what it saw.
//!
//! kube lists in pages, follows bookmarks and lists anew after 410. Read-only. Knows no route; what it sees goes
//! into a channel.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, WatchParams};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::SendError;
use tokio::time::Instant;

use super::object::{KagentApi, Object, ObjectKind};
use super::pod::PodObject;
use super::secrets::{SecretKey, SecretRead};
use crate::backoff::Pauses;
use crate::config::DiscoveryConfig;
use crate::route::ObjectId;

mod client;
pub use client::{client, connect, read_secret};

/// The server ends a watch after this many seconds and we go on from where it was: a connection that
/// died silently is noticed little later.
const WATCH_SECONDS: u32 = 60;
/// For how long RBAC may forbid an optional kind before it counts as absent (D6): a server that starts
/// may refuse for a moment what it will allow.
const FORBIDDEN: Duration = Duration::from_secs(60);
/// Pauses after failures; also how soon a resource definition is noticed that was not there.
const PAUSES: Pauses = Pauses::new(Duration::from_millis(500), Duration::from_secs(5));

/// What a watch tells.
#[derive(Debug)]
pub enum WatchEvent {
    /// An object as it is now; `None` if it is gone.
    Object(ObjectKind, ObjectId, Option<Object>),
    /// Everything there is has been told.
    Listed(usize),
    /// There is no such resource, so there are no objects.
    Absent(usize),
    /// We may not see it, and what was known of it, if anything, is forgotten.
    Forbidden(usize, String, bool),
    /// It does not work at the moment.
    Failed(usize, String),
    /// The list is out of date and is read again; nothing is wrong.
    Expired(usize),
    /// A Secret was read; the error is that the server does not answer.
    Secret(SecretKey, Result<SecretRead, String>),
}

/// One kind, in one namespace or in all.
#[derive(Clone, Debug)]
pub struct ObjectWatch {
    /// Its place among all watches.
    pub number: usize,
    /// What it watches.
    pub kind: ObjectKind,
    /// Where; `None` is everywhere.
    pub namespace: Option<String>,
}

/// What one watch has seen.
#[derive(Debug, Default)]
struct WatchSeen {
    known: HashSet<ObjectId>,
    /// So far in the list that is being read.
    listed: HashSet<ObjectId>,
    /// Names of namespaces, so that each is kept once.
    namespaces: HashSet<Arc<str>>,
    /// A whole list has been read.
    complete: bool,
    /// What was read once is still known.
    keeps: bool,
    /// The watch broke since.
    broken: bool,
    /// Since when RBAC forbids it.
    forbidden: Option<Instant>,
}

/// Pauses with jitter: kube's own grow to half a minute, which is long for a resource definition that was
/// just installed.
struct Jittered(Pauses);

// === impl Jittered ===

impl Jittered {
    fn pause(&mut self) -> Duration {
        self.0.take().mul_f64(0.75 + fastrand::f64() / 2.0)
    }
}

impl Iterator for Jittered {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.pause())
    }
}

impl Backoff for Jittered {
    fn reset(&mut self) {
        self.0 = PAUSES;
    }
}

/// What a watch can read.
trait Watched: Resource + Clone + DeserializeOwned + fmt::Debug + Send + 'static {
    /// Only objects with these fields.
    const FIELDS: Option<&'static str>;

    /// What is kept of it.
    fn object(self, kind: ObjectKind, namespace: &str) -> Object;
}

impl Watched for DynamicObject {
    const FIELDS: Option<&'static str> = None;

    fn object(self, kind: ObjectKind, namespace: &str) -> Object {
        // Labels, annotations and owners are part of what is read.
        let mut json = self.data;
        if let (Some(map), Ok(metadata)) =
            (json.as_object_mut(), serde_json::to_value(self.metadata))
        {
            map.insert("metadata".to_owned(), metadata);
        }
        Object::read(kind, namespace, &json)
    }
}

impl Watched for PodObject {
    /// Others have no address; the jobs that ended may be most of a cluster's Pods.
    const FIELDS: Option<&'static str> = Some("status.phase=Running");

    fn object(self, _: ObjectKind, _: &str) -> Object {
        Object::Pod(self.pod)
    }
}

// === impl WatchSeen ===

impl WatchSeen {
    fn read<K: Watched>(&mut self, kind: ObjectKind, object: K) -> (ObjectId, Object) {
        let meta = object.meta();
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let name = meta.name.as_deref().unwrap_or_default().into();
        let namespace: Arc<str> = match self.namespaces.get(namespace) {
            Some(known) => Arc::clone(known),
            None => namespace.into(),
        };
        self.namespaces.insert(Arc::clone(&namespace));
        let object = object.object(kind, &namespace);
        (ObjectId { namespace, name }, object)
    }
}

// === impl ObjectWatch ===

impl ObjectWatch {
    /// All watches of a configuration. Namespaces can only be seen as a whole.
    #[must_use]
    pub fn all(config: &DiscoveryConfig) -> Vec<Self> {
        let everywhere = config.namespaces.is_empty();
        let mut watches = Vec::new();
        for kind in ObjectKind::ALL {
            if everywhere {
                watches.push((kind, None));
            } else if kind != ObjectKind::Namespace {
                watches.extend(config.namespaces.iter().map(|name| (kind, Some(name.clone()))));
            }
        }
        let numbered = watches.into_iter().enumerate();
        numbered.map(|(number, (kind, namespace))| Self { number, kind, namespace }).collect()
    }

    /// As logs name it.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.namespace {
            Some(name) => format!("{} in namespace {name}", self.kind.word()),
            None => format!("{} in the cluster", self.kind.word()),
        }
    }

    /// Tells until nobody listens.
    pub async fn run(self, client: Client, to: Sender<WatchEvent>) {
        if self.kind == ObjectKind::Pod {
            let api: Api<PodObject> = match &self.namespace {
                Some(name) => Api::namespaced(client, name),
                None => Api::all(client),
            };
            return self.tell(api, to).await;
        }
        let resource = resource(self.kind);
        let api: Api<DynamicObject> = match &self.namespace {
            Some(name) => Api::namespaced_with(client, name, &resource),
            None => Api::all_with(client, &resource),
        };
        self.tell(api, to).await;
    }

    async fn tell<K: Watched>(&self, api: Api<K>, to: Sender<WatchEvent>) {
        let mut seen = WatchSeen::default();
        let mut pauses = Jittered(PAUSES);
        while let Ok(listed) = Box::pin(self.follow(&api, &mut seen, &to)).await {
            // kube would resume from the old version, and what was forgotten would not come back.
            if listed {
                pauses = Jittered(PAUSES);
            }
            tokio::time::sleep(pauses.pause()).await;
        }
    }

    /// Follows one stream until it has to be made anew; whether it ever had a whole list. The error is
    /// that nobody listens.
    async fn follow<K: Watched>(
        &self,
        api: &Api<K>,
        seen: &mut WatchSeen,
        to: &Sender<WatchEvent>,
    ) -> Result<bool, SendError<WatchEvent>> {
        if let Err(why) = may_watch(api).await {
            // A list alone would make a table that never changes again.
            self.forbidden(why, seen, to).await?;
            return Ok(false);
        }
        let mut config = watcher::Config::default().timeout(WATCH_SECONDS);
        if let Some(fields) = K::FIELDS {
            config = config.fields(fields);
        }
        let mut events = std::pin::pin!(watch(api.clone(), config).backoff(Jittered(PAUSES)));
        let mut listed = false;
        seen.complete = false;
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = answers(api), if seen.complete && seen.broken => {
                    // kube resumes a watch without a word.
                    seen.broken = false;
                    to.send(WatchEvent::Listed(self.number)).await?;
                    continue;
                }
            };
            let Some(event) = event else { return Ok(listed) };
            let ended = self.take(event, seen, to).await?;
            listed |= seen.complete;
            if ended {
                return Ok(listed);
            }
        }
    }

    /// Tells one event; whether everything has to be listed anew. The error is that nobody listens.
    async fn take<K: Watched>(
        &self,
        event: Result<Event<K>, watcher::Error>,
        seen: &mut WatchSeen,
        to: &Sender<WatchEvent>,
    ) -> Result<bool, SendError<WatchEvent>> {
        let told = match event {
            Ok(Event::Init) => {
                seen.listed.clear();
                return Ok(false);
            }
            Ok(Event::InitApply(object)) => {
                let (id, object) = seen.read(self.kind, object);
                seen.listed.insert(id.clone());
                seen.known.insert(id.clone());
                WatchEvent::Object(self.kind, id, Some(object))
            }
            Ok(Event::InitDone) => {
                let gone: Vec<_> = seen.known.difference(&seen.listed).cloned().collect();
                seen.known = std::mem::take(&mut seen.listed);
                (seen.complete, seen.broken, seen.forbidden) = (true, false, None);
                seen.keeps = true;
                self.forget(gone, to).await?;
                WatchEvent::Listed(self.number)
            }
            Ok(Event::Apply(object)) => {
                let (id, object) = seen.read(self.kind, object);
                seen.known.insert(id.clone());
                WatchEvent::Object(self.kind, id, Some(object))
            }
            Ok(Event::Delete(object)) => {
                let (id, _) = seen.read(self.kind, object);
                seen.known.remove(&id);
                WatchEvent::Object(self.kind, id, None)
            }
            Err(error) => {
                seen.broken = true;
                match self.failed(&error) {
                    WatchEvent::Forbidden(_, why, _) => {
                        self.forbidden(why, seen, to).await?;
                        return Ok(true);
                    }
                    WatchEvent::Absent(number) => {
                        self.forget(seen.known.drain().collect(), to).await?;
                        WatchEvent::Absent(number)
                    }
                    told => told,
                }
            }
        };
        let ended = matches!(told, WatchEvent::Absent(_) | WatchEvent::Expired(_));
        to.send(told).await?;
        Ok(ended)
    }

    /// RBAC forbids it: what is known of an optional kind stays for a while, then it is as if there was no
    /// such resource. Services and endpoints stay.
    async fn forbidden(
        &self,
        why: String,
        seen: &mut WatchSeen,
        to: &Sender<WatchEvent>,
    ) -> Result<(), SendError<WatchEvent>> {
        let since = *seen.forbidden.get_or_insert_with(Instant::now);
        let long = Instant::now().saturating_duration_since(since) >= FORBIDDEN;
        let forgets = long && seen.keeps && !self.kind.is_required();
        seen.keeps &= !forgets;
        if forgets {
            let watch = self.place();
            tracing::error!(watch, why, "RBAC forbids a watch; its objects are forgotten");
        }
        // First, so that nobody takes what is being forgotten for what is gone.
        to.send(WatchEvent::Forbidden(self.number, why, !seen.keeps)).await?;
        if forgets {
            self.forget(seen.known.drain().collect(), to).await?;
        }
        Ok(())
    }

    async fn forget(
        &self,
        gone: Vec<ObjectId>,
        to: &Sender<WatchEvent>,
    ) -> Result<(), SendError<WatchEvent>> {
        for id in gone {
            to.send(WatchEvent::Object(self.kind, id, None)).await?;
        }
        Ok(())
    }

    fn failed(&self, error: &watcher::Error) -> WatchEvent {
        let (code, why) = match error {
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            | watcher::Error::WatchFailed(kube::Error::Api(status))
            | watcher::Error::WatchError(status) => (status.code, status.message.clone()),
            _ => (0, error.to_string()),
        };
        match code {
            404 if self.kind.may_be_absent() => WatchEvent::Absent(self.number),
            410 => WatchEvent::Expired(self.number),
            403 => WatchEvent::Forbidden(self.number, why, false),
            _ => WatchEvent::Failed(self.number, why),
        }
    }
}

/// Starts a watch and lets go of it. Only a plain refusal is an error; what else goes wrong is the
/// list's to say.
async fn may_watch<K: Watched>(api: &Api<K>) -> Result<(), String> {
    match api.watch(&WatchParams::default().timeout(1), "0").await.map(drop) {
        Err(kube::Error::Api(status)) if status.code == 403 => Err(status.message),
        _ => Ok(()),
    }
}

/// Returns once the server answers for a kind again.
async fn answers<K: Watched>(api: &Api<K>) {
    let mut pauses = Jittered(PAUSES);
    loop {
        tokio::time::sleep(pauses.pause()).await;
        if api.list(&ListParams::default().limit(1)).await.is_ok() {
            return;
        }
    }
}

/// How the API server names a kind.
#[must_use]
pub fn resource(kind: ObjectKind) -> ApiResource {
    let (group, version, name) = match kind {
        ObjectKind::Service => ("", "v1", "Service"),
        ObjectKind::EndpointSlice => ("discovery.k8s.io", "v1", "EndpointSlice"),
        ObjectKind::Pod => ("", "v1", "Pod"),
        ObjectKind::Namespace => ("", "v1", "Namespace"),
        ObjectKind::Agent(KagentApi::V0) => ("kagent.dev", "v1alpha2", "Agent"),
        ObjectKind::Agent(KagentApi::V1) => ("api.kagent.dev", "v1alpha3", "Agent"),
        ObjectKind::AgentTemplate => ("api.kagent.dev", "v1alpha3", "AgentTemplate"),
        ObjectKind::SandboxAgent => ("kagent.dev", "v1alpha2", "SandboxAgent"),
        ObjectKind::RemoteMcpServer(KagentApi::V0) => ("kagent.dev", "v1alpha2", "RemoteMCPServer"),
        ObjectKind::RemoteMcpServer(KagentApi::V1) => {
            ("api.kagent.dev", "v1alpha3", "RemoteMCPServer")
        }
        ObjectKind::McpServer => ("kagent.dev", "v1alpha1", "MCPServer"),
    };
    let kind_and_version = GroupVersionKind::gvk(group, version, name);
    ApiResource::from_gvk_with_plural(&kind_and_version, kind.plural())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::{Receiver, channel};

    async fn after(kind: ObjectKind, pause: Duration) -> Receiver<WatchEvent> {
        let (to, from) = channel(8);
        let watch = ObjectWatch { number: 0, kind, namespace: None };
        let known = [ObjectId::new("a", "x")].into();
        let mut seen = WatchSeen { known, keeps: true, ..WatchSeen::default() };
        watch.forbidden("no".to_owned(), &mut seen, &to).await.unwrap();
        tokio::time::advance(pause).await;
        watch.forbidden("no".to_owned(), &mut seen, &to).await.unwrap();
        from
    }

    fn forgotten(mut from: Receiver<WatchEvent>) -> bool {
        let told = std::iter::from_fn(|| from.try_recv().ok());
        told.into_iter().any(|told| matches!(told, WatchEvent::Object(.., None)))
    }

    #[tokio::test(start_paused = true)]
    async fn what_rbac_forbids_for_long_is_as_if_it_was_not_there_but_services_stay() {
        assert!(
            !forgotten(after(ObjectKind::RemoteMcpServer(KagentApi::V0), FORBIDDEN / 2).await),
            "a server that starts"
        );
        assert!(forgotten(after(ObjectKind::RemoteMcpServer(KagentApi::V0), FORBIDDEN).await));
        assert!(!forgotten(after(ObjectKind::Service, FORBIDDEN * 10).await));
    }

    #[tokio::test(start_paused = true)]
    async fn that_pods_are_unseen_is_told_before_they_are_forgotten() {
        let mut from = after(ObjectKind::Pod, FORBIDDEN).await;
        let told: Vec<WatchEvent> = std::iter::from_fn(|| from.try_recv().ok()).collect();
        let [
            WatchEvent::Forbidden(.., false),
            WatchEvent::Forbidden(.., true),
            WatchEvent::Object(.., None),
        ] = told.as_slice()
        else {
            panic!("{told:?}")
        };
    }
}
