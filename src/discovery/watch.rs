//! The watches: one for each kind and namespace, each a task that tells the index what it saw.
//!
//! kube lists in pages, follows bookmarks and lists anew after 410. Read-only. Knows no route; what it
//! sees goes to `discovery.rs` over a channel.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::SendError;
use tokio::time::Instant;

use super::object::{Kind, Object};
use super::secrets::{Read, SecretKey};
use crate::config::{DiscoveryConfig, Secret};
use crate::route::ObjectId;

/// The server ends a watch after this many seconds and we go on from where it was: a connection that
/// died silently is noticed little later.
const WATCH_SECONDS: u32 = 60;
/// Longest silence of the API server.
const READ: Duration = Duration::from_secs(75);
/// For a connection to the API server.
const CONNECT: Duration = Duration::from_secs(5);
/// For how long RBAC may forbid an optional kind before it counts as absent (D6): a server that starts
/// may refuse for a moment what it will allow.
const FORBIDDEN: Duration = Duration::from_secs(60);
/// Pauses after failures; also how soon a resource definition is noticed that was not there.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a watch tells.
#[derive(Debug)]
pub enum Told {
    /// An object as it is now; `None` if it is gone.
    Object(Kind, ObjectId, Option<Object>),
    /// Everything there is has been told.
    Listed(usize),
    /// There is no such resource, so there are no objects.
    Absent(usize),
    /// We may not see it.
    Forbidden(usize, String),
    /// It does not work at the moment.
    Failed(usize, String),
    /// The list is out of date and is read again; nothing is wrong.
    Expired(usize),
    /// A Secret was read; the error is that the server does not answer.
    Secret(SecretKey, Result<Read, String>),
}

/// One kind, in one namespace or in all.
#[derive(Clone, Debug)]
pub struct Watch {
    /// Its place among all watches.
    pub number: usize,
    /// What it watches.
    pub kind: Kind,
    /// Where; `None` is everywhere.
    pub namespace: Option<String>,
}

/// What one watch has seen.
#[derive(Debug, Default)]
struct Seen {
    known: HashSet<ObjectId>,
    /// So far in the list that is being read.
    listed: HashSet<ObjectId>,
    /// A whole list has been read.
    complete: bool,
    /// The watch broke since.
    broken: bool,
    /// Since when RBAC forbids it.
    forbidden: Option<Instant>,
}

/// Doubling pauses with jitter: kube's own grow to half a minute, which is long for a resource
/// definition that was just installed.
struct Pauses(Duration);

// === impl Pauses ===

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0.mul_f64(0.75 + fastrand::f64() / 2.0);
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
        Some(pause)
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0 = FIRST_PAUSE;
    }
}

/// The client of the API server: the kubeconfig that is named, else the pod's service account, else
/// what kubectl would take.
///
/// # Errors
/// Says what is missing.
pub async fn client(config: &DiscoveryConfig) -> Result<Client, String> {
    let in_cluster = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    let found = match &config.kubeconfig {
        Some(path) => {
            let named = |error| format!("kubeconfig {}: {error}", path.display());
            let file = Kubeconfig::read_from(path).map_err(|error| named(error.to_string()))?;
            let options = KubeConfigOptions::default();
            let read = kube::Config::from_custom_kubeconfig(file, &options).await;
            read.map_err(|error| named(error.to_string()))
        }
        None if in_cluster => kube::Config::incluster().map_err(|error| {
            format!(
                "the pod's service account cannot be used: {error}; set automountServiceAccountToken: true"
            )
        }),
        None => kube::Config::infer().await.map_err(|error| {
            format!("no way to the API server: {error}; run in a pod or name a file with --kubeconfig")
        }),
    };
    let mut found = found?;
    found.connect_timeout = Some(CONNECT);
    found.read_timeout = Some(READ);
    // kube's own would hide 429, 503 and 504 for minutes; the watches have pauses of theirs, and say so.
    found.default_retry = false;
    Client::try_from(found).map_err(|error| format!("cannot talk to the API server: {error}"))
}

/// Reads one Secret by its name.
///
/// # Errors
/// The server does not answer, which says nothing of the Secret.
pub async fn read_secret(client: Client, key: &SecretKey) -> Result<Read, String> {
    if !is_name(&key.secret.name) {
        return Ok(Err("that is not the name of a Secret".to_owned()));
    }
    let api: Api<KubeSecret> = Api::namespaced(client, &key.secret.namespace);
    let secret = match api.get(&key.secret.name).await {
        Ok(secret) => secret,
        Err(kube::Error::Api(status)) if status.code == 403 => {
            return Ok(Err("RBAC forbids it".to_owned()));
        }
        Err(kube::Error::Api(status)) if status.code == 404 => {
            return Ok(Err("it does not exist".to_owned()));
        }
        Err(error) => return Err(error.to_string()),
    };
    let data = secret.data.unwrap_or_default();
    let Some(value) = data.get(&*key.key) else {
        return Ok(Err(format!("it has no key {:?}", key.key)));
    };
    let text = String::from_utf8(value.0.clone());
    Ok(text.map(|text| Secret::Inline(text.into())).map_err(|_| "it is not PEM text".to_owned()))
}

/// A DNS subdomain, as objects are named (RFC 1123): what goes into the path of a request.
fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    (1..=253).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('.')
}

// === impl Watch ===

impl Watch {
    /// All watches of a configuration. Namespaces can only be seen as a whole.
    #[must_use]
    pub fn all(config: &DiscoveryConfig) -> Vec<Self> {
        let everywhere = config.namespaces.is_empty();
        let mut watches = Vec::new();
        for kind in Kind::ALL {
            if everywhere {
                watches.push((kind, None));
            } else if kind != Kind::Namespace {
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
            Some(name) => format!("{} in namespace {name}", self.kind.plural()),
            None => format!("{} in the cluster", self.kind.plural()),
        }
    }

    /// Tells until nobody listens.
    pub async fn run(self, client: Client, to: Sender<Told>) {
        let resource = resource(self.kind);
        let api: Api<DynamicObject> = match &self.namespace {
            Some(name) => Api::namespaced_with(client, name, &resource),
            None => Api::all_with(client, &resource),
        };
        let mut seen = Seen::default();
        let mut pauses = Pauses(FIRST_PAUSE);
        while let Ok(listed) = Box::pin(self.follow(&api, &mut seen, &to)).await {
            // kube would resume from the old version, and what was forgotten would not come back.
            if listed {
                pauses = Pauses(FIRST_PAUSE);
            }
            tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
        }
    }

    /// Follows one stream until it has to be made anew; whether it ever had a whole list. The error is
    /// that nobody listens.
    async fn follow(
        &self,
        api: &Api<DynamicObject>,
        seen: &mut Seen,
        to: &Sender<Told>,
    ) -> Result<bool, SendError<Told>> {
        if let Err(why) = may_watch(api).await {
            // A list alone would make a table that never changes again.
            self.forbidden(why, seen, to).await?;
            return Ok(false);
        }
        let config = watcher::Config::default().timeout(WATCH_SECONDS);
        let mut events = std::pin::pin!(watch(api.clone(), config).backoff(Pauses(FIRST_PAUSE)));
        let mut listed = false;
        seen.complete = false;
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = answers(api), if seen.complete && seen.broken => {
                    // kube resumes a watch without a word.
                    seen.broken = false;
                    to.send(Told::Listed(self.number)).await?;
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
    async fn take(
        &self,
        event: Result<Event<DynamicObject>, watcher::Error>,
        seen: &mut Seen,
        to: &Sender<Told>,
    ) -> Result<bool, SendError<Told>> {
        let told = match event {
            Ok(Event::Init) => {
                seen.listed.clear();
                return Ok(false);
            }
            Ok(Event::InitApply(object)) => {
                let (id, object) = self.read(object);
                seen.listed.insert(id.clone());
                seen.known.insert(id.clone());
                Told::Object(self.kind, id, Some(object))
            }
            Ok(Event::InitDone) => {
                let gone: Vec<_> = seen.known.difference(&seen.listed).cloned().collect();
                seen.known = std::mem::take(&mut seen.listed);
                (seen.complete, seen.broken, seen.forbidden) = (true, false, None);
                self.forget(gone, to).await?;
                Told::Listed(self.number)
            }
            Ok(Event::Apply(object)) => {
                let (id, object) = self.read(object);
                seen.known.insert(id.clone());
                Told::Object(self.kind, id, Some(object))
            }
            Ok(Event::Delete(object)) => {
                let (id, _) = self.read(object);
                seen.known.remove(&id);
                Told::Object(self.kind, id, None)
            }
            Err(error) => {
                seen.broken = true;
                match self.failed(&error) {
                    Told::Forbidden(_, why) => {
                        self.forbidden(why, seen, to).await?;
                        return Ok(true);
                    }
                    Told::Absent(number) => {
                        self.forget(seen.known.drain().collect(), to).await?;
                        Told::Absent(number)
                    }
                    told => told,
                }
            }
        };
        let ended = matches!(told, Told::Absent(_) | Told::Expired(_));
        to.send(told).await?;
        Ok(ended)
    }

    /// RBAC forbids it: what is known of an optional kind stays for a while, then it is as if there was no
    /// such resource. Services and endpoints stay.
    async fn forbidden(
        &self,
        why: String,
        seen: &mut Seen,
        to: &Sender<Told>,
    ) -> Result<(), SendError<Told>> {
        let since = *seen.forbidden.get_or_insert_with(Instant::now);
        if !self.kind.is_required()
            && Instant::now().saturating_duration_since(since) >= FORBIDDEN
            && !seen.known.is_empty()
        {
            tracing::error!(
                watch = self.place(),
                why,
                "RBAC forbids a watch; its objects are forgotten"
            );
            self.forget(seen.known.drain().collect(), to).await?;
        }
        to.send(Told::Forbidden(self.number, why)).await
    }

    async fn forget(&self, gone: Vec<ObjectId>, to: &Sender<Told>) -> Result<(), SendError<Told>> {
        for id in gone {
            to.send(Told::Object(self.kind, id, None)).await?;
        }
        Ok(())
    }

    fn read(&self, object: DynamicObject) -> (ObjectId, Object) {
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        let name = object.metadata.name.clone().unwrap_or_default();
        // Labels, annotations and owners are part of what is read.
        let mut json = object.data;
        if let (Some(map), Ok(metadata)) =
            (json.as_object_mut(), serde_json::to_value(object.metadata))
        {
            map.insert("metadata".to_owned(), metadata);
        }
        (ObjectId::new(&namespace, &name), Object::read(self.kind, &namespace, &json))
    }

    fn failed(&self, error: &watcher::Error) -> Told {
        let (code, why) = match error {
            watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            | watcher::Error::WatchFailed(kube::Error::Api(status))
            | watcher::Error::WatchError(status) => (status.code, status.message.clone()),
            _ => (0, error.to_string()),
        };
        match code {
            404 if !self.kind.is_required() => Told::Absent(self.number),
            410 => Told::Expired(self.number),
            403 => Told::Forbidden(self.number, why),
            _ => Told::Failed(self.number, why),
        }
    }
}

/// Starts a watch and lets go of it. Only a plain refusal is an error; what else goes wrong is the
/// list's to say.
async fn may_watch(api: &Api<DynamicObject>) -> Result<(), String> {
    match api.watch(&WatchParams::default().timeout(1), "0").await.map(drop) {
        Err(kube::Error::Api(status)) if status.code == 403 => Err(status.message),
        _ => Ok(()),
    }
}

/// Returns once the server answers for a kind again.
async fn answers(api: &Api<DynamicObject>) {
    let mut pauses = Pauses(FIRST_PAUSE);
    loop {
        tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
        if api.list(&ListParams::default().limit(1)).await.is_ok() {
            return;
        }
    }
}

fn resource(kind: Kind) -> ApiResource {
    let (group, version, name) = match kind {
        Kind::Service => ("", "v1", "Service"),
        Kind::EndpointSlice => ("discovery.k8s.io", "v1", "EndpointSlice"),
        Kind::Namespace => ("", "v1", "Namespace"),
        Kind::Agent => ("kagent.dev", "v1alpha2", "Agent"),
        Kind::SandboxAgent => ("kagent.dev", "v1alpha2", "SandboxAgent"),
        Kind::RemoteMcpServer => ("kagent.dev", "v1alpha2", "RemoteMCPServer"),
        Kind::McpServer => ("kagent.dev", "v1alpha1", "MCPServer"),
    };
    let kind_and_version = GroupVersionKind::gvk(group, version, name);
    ApiResource::from_gvk_with_plural(&kind_and_version, kind.plural())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::{Receiver, channel};

    async fn after(kind: Kind, pause: Duration) -> Receiver<Told> {
        let (to, from) = channel(8);
        let watch = Watch { number: 0, kind, namespace: None };
        let mut seen = Seen { known: [ObjectId::new("a", "x")].into(), ..Seen::default() };
        watch.forbidden("no".to_owned(), &mut seen, &to).await.unwrap();
        tokio::time::advance(pause).await;
        watch.forbidden("no".to_owned(), &mut seen, &to).await.unwrap();
        from
    }

    fn forgotten(mut from: Receiver<Told>) -> bool {
        let told = std::iter::from_fn(|| from.try_recv().ok());
        told.into_iter().any(|told| matches!(told, Told::Object(.., None)))
    }

    #[test]
    fn what_is_asked_for_by_name_cannot_leave_its_path() {
        for name in ["ca", "my-ca.team-a", "0"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "a b", "../x", ".", "a/b", "a?watch=1", "A", "%2e", &"a".repeat(254)] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_rbac_forbids_for_long_is_as_if_it_was_not_there_but_services_stay() {
        assert!(
            !forgotten(after(Kind::RemoteMcpServer, FORBIDDEN / 2).await),
            "a server that starts"
        );
        assert!(forgotten(after(Kind::RemoteMcpServer, FORBIDDEN).await));
        assert!(!forgotten(after(Kind::Service, FORBIDDEN * 10).await));
    }
}
