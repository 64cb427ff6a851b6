//! Routes from the cluster's own objects: watches feed an index, what changes there is decided anew and
//! published.
//!
//! One task owns it all, beside the traffic; it never touches a request. Watch, index, decision, routes:
//! `watch.rs`, `index.rs`, `decide.rs`, `publish.rs`. Readiness opens when every watch that exists has
//! told all there is. What comes out goes to the proxy's table.

pub mod decide;
pub mod endpoints;
pub mod index;
pub mod object;
pub mod pod;
pub mod publish;
pub mod secrets;
pub mod uses;
pub mod watch;
pub mod whose;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::backoff::Pauses;
use crate::config::{DiscoveryConfig, UpstreamConfig};
use crate::readiness::Readiness;
use crate::socket;
use crate::telemetry::metrics::{KindMetrics, Metrics};
use crate::upstream::pool::SWEEP_EVERY;
use index::Index;
use object::ObjectKind;
use publish::{Changes, Publisher};
use watch::{ObjectWatch, WatchEvent};

/// Changes that are taken over together; an update alone does not wait for others.
const BATCH: usize = 512;
/// How often Secrets are read again: they are not watched.
const SECRETS_EVERY: Duration = Duration::from_secs(60);

/// Between two tries to make a client.
const CLIENT_PAUSES: Pauses = Pauses::new(Duration::from_millis(500), Duration::from_secs(10));
/// How long the connections of a Pod that is gone are left alone: its last bytes may be on their way.
const LAST_BYTES: Duration = Duration::from_millis(300);

/// So many Secrets are read at once.
const SECRETS_AT_ONCE: usize = 8;

/// What it means that Pods may not be seen.
const WITHOUT_PODS: &str = "without the right to list pods the proxy believes EndpointSlices: who may write \
    them can lead it to addresses of others, and two namespaces that claim one address both lose it";

/// Takes changes of the table over.
pub type Publish = Box<dyn Fn(Changes) + Send>;

/// Discovery, about to run.
pub struct Discovery {
    config: DiscoveryConfig,
    index: Index,
    publisher: Publisher,
    publish: Publish,
    watches: Vec<ObjectWatch>,
    states: Vec<WatchState>,
    /// Watches of Pods that tell nothing.
    blind: BTreeSet<usize>,
    kinds: Vec<(ObjectKind, KindMetrics)>,
    synced: metrics::Gauge,
    is_synced: bool,
    readiness: Readiness,
}

/// How a watch is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum WatchState {
    /// It has not told everything yet.
    Listing,
    /// It has, and follows.
    Up,
    /// There is no such resource.
    Absent,
    /// We may not see it.
    Forbidden(String),
    /// It does not work at the moment; whether it has told everything before.
    Failed(String, bool),
}

// === impl Discovery ===

impl Discovery {
    /// Opens `readiness` when everything has been listed; `publish` takes what the table is to change.
    #[must_use]
    pub fn new(
        config: &DiscoveryConfig,
        cluster_domain: &str,
        upstream: &UpstreamConfig,
        metrics: &Metrics,
        readiness: Readiness,
        publish: Publish,
    ) -> Self {
        let watches = ObjectWatch::all(config);
        let watched = |kind: &ObjectKind| watches.iter().any(|watch| watch.kind == *kind);
        let kinds = ObjectKind::ALL.into_iter().filter(watched);
        let kinds = kinds.map(|kind| (kind, metrics.kind(kind.word()))).collect();
        if config.pod_ips.is_empty() {
            tracing::warn!(
                "without discovery.podIps (KAGENT_PROXY_POD_IPS, from status.podIPs by the downward API) the \
                 proxy cannot recognise its own Service (to refuse loops) or its zone"
            );
        }
        Self {
            config: config.clone(),
            index: Index::new(cluster_domain, &config.pod_ips),
            publisher: Publisher::new(config.clone(), upstream.clone(), metrics.clone()),
            publish,
            states: vec![WatchState::Listing; watches.len()],
            watches,
            blind: BTreeSet::new(),
            kinds,
            synced: metrics.synced(),
            is_synced: false,
            readiness,
        }
    }

    /// Follows the cluster until dropped. A client that cannot be made is tried again: the token of a
    /// pod may come late.
    pub async fn run(mut self) {
        self.synced.set(0.0);
        let mut pauses = CLIENT_PAUSES;
        let client = loop {
            match watch::client(&self.config).await {
                Ok(client) => break client,
                Err(error) => {
                    tracing::error!(error, "discovery cannot start, trying again");
                    self.readiness.still(error);
                    tokio::time::sleep(pauses.take()).await;
                }
            }
        };
        let (to, from) = channel(BATCH * 2);
        let mut tasks = JoinSet::new();
        for watch in &self.watches {
            tasks.spawn(watch.clone().run(client.clone(), to.clone()));
        }
        self.follow(client, to, from, &mut tasks).await;
    }

    async fn follow(
        &mut self,
        client: Client,
        to: Sender<WatchEvent>,
        mut from: Receiver<WatchEvent>,
        tasks: &mut JoinSet<()>,
    ) {
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut secrets = tokio::time::interval(SECRETS_EVERY);
        let reads = Arc::new(Semaphore::new(SECRETS_AT_ONCE));
        let mut batch = Vec::new();
        loop {
            let mut all = false;
            tokio::select! {
                count = from.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    for told in batch.drain(..) {
                        self.take(told);
                    }
                    self.take_over();
                    let ended = self.index.take_ended();
                    if !ended.is_empty() {
                        // A node that died says nothing, and who waits for its pods would wait for long.
                        tasks.spawn(async move {
                            tokio::time::sleep(LAST_BYTES).await;
                            socket::close_of(&ended);
                        });
                    }
                }
                _ = sweep.tick() => {
                    self.publisher.sweep(Instant::now());
                    while let Some(ended) = tasks.try_join_next() {
                        if let Err(error) = ended
                            && error.is_panic()
                        {
                            // Without it we would follow a part of the cluster only.
                            std::panic::resume_unwind(error.into_panic());
                        }
                    }
                    continue;
                }
                _ = secrets.tick() => {
                    all = true;
                    for service in self.publisher.secrets.refresh_bundle() {
                        self.index.touch(&service);
                    }
                    self.take_over();
                }
            }
            for (key, pause) in self.publisher.secrets.wanted(all) {
                let (client, to, reads) = (client.clone(), to.clone(), Arc::clone(&reads));
                tasks.spawn(async move {
                    tokio::time::sleep(pause).await;
                    let _place = reads.acquire().await;
                    let read = watch::read_secret(client, &key).await;
                    let _ended = to.send(WatchEvent::Secret(key, read)).await;
                });
            }
        }
    }

    fn take(&mut self, told: WatchEvent) {
        match told {
            WatchEvent::Object(kind, id, object) => {
                if let Some(metrics) = self.metrics(kind) {
                    metrics.events.increment(1);
                }
                self.index.apply(kind, id, object);
            }
            WatchEvent::Listed(number) => {
                self.sees(number, true);
                self.set(number, WatchState::Up);
            }
            WatchEvent::Absent(number) => {
                self.sees(number, false);
                self.set(number, WatchState::Absent);
            }
            WatchEvent::Forbidden(number, why, forgotten) => {
                if forgotten {
                    self.sees(number, false);
                }
                self.set(number, WatchState::Forbidden(why));
            }
            WatchEvent::Failed(number, why) => {
                let listed = self.states.get(number).is_some_and(WatchState::has_listed);
                self.set(number, WatchState::Failed(why, listed));
            }
            WatchEvent::Expired(number) => {
                if let Some(watch) = self.watches.get(number) {
                    tracing::debug!(
                        watch = watch.place(),
                        "the watch is out of date, listing anew"
                    );
                }
            }
            WatchEvent::Secret(key, Err(why)) => {
                tracing::warn!(secret = %key.secret, why, "a CA Secret cannot be read at the moment");
                self.publisher.secrets.unanswered(key);
            }
            WatchEvent::Secret(key, Ok(read)) => {
                for service in self.publisher.secrets.learn(key, read) {
                    self.index.touch(&service);
                }
            }
        }
    }

    /// All objects of a watch are known now, or none: of Pods, the index has to know.
    fn sees(&mut self, number: usize, sees: bool) {
        let Some(watch) = self.watches.get(number).filter(|watch| watch.kind == ObjectKind::Pod)
        else {
            return;
        };
        self.index.set_sees_pods(watch.namespace.as_deref(), sees);
        if sees {
            self.blind.remove(&number);
        } else if self.blind.insert(number) {
            tracing::error!(watch = watch.place(), "{}", WITHOUT_PODS);
        }
    }

    fn metrics(&self, kind: ObjectKind) -> Option<&KindMetrics> {
        self.kinds.iter().find(|(known, _)| *known == kind).map(|(_, metrics)| metrics)
    }

    /// A watch does otherwise than before: gauges and the log say so.
    fn set(&mut self, number: usize, state: WatchState) {
        let (Some(watch), Some(slot)) = (self.watches.get(number), self.states.get_mut(number))
        else {
            return;
        };
        let before = std::mem::replace(slot, state.clone());
        let place = watch.place();
        let kind = watch.kind;
        match &state {
            WatchState::Up if matches!(before, WatchState::Listing | WatchState::Up) => {}
            WatchState::Up => tracing::info!(watch = place, "the watch works"),
            WatchState::Absent if before != state => {
                tracing::info!(watch = place, "there is no such resource; it is looked for again");
            }
            WatchState::Forbidden(why) if !matches!(before, WatchState::Forbidden(_)) => {
                let rule = format!("allow get, list and watch on {}", kind.word());
                tracing::error!(watch = place, why, rule, "RBAC forbids a watch");
            }
            WatchState::Failed(why, _) if !matches!(before, WatchState::Failed(..)) => {
                tracing::warn!(watch = place, why, "a watch fails; what is known stays in force");
            }
            _ => {}
        }
        if let (WatchState::Forbidden(_) | WatchState::Failed(..), Some(metrics)) =
            (&state, self.metrics(kind))
        {
            metrics.errors.increment(1);
        }
        let of_kind = self.watches.iter().zip(&self.states).filter(|(w, _)| w.kind == kind);
        let up = of_kind.map(|(_, state)| state).all(|state| *state == WatchState::Up);
        if let Some(metrics) = self.metrics(kind) {
            metrics.up.set(if up { 1.0 } else { 0.0 });
        }
    }

    /// Publishes what has changed, once everything is known.
    fn take_over(&mut self) {
        if !self.is_synced {
            let missing = self.missing();
            if !missing.is_empty() {
                self.readiness.still(format!("waiting for {}", missing.join("; ")));
                return;
            }
        }
        let touched = self.index.take_changes();
        let mut changes = self.publisher.apply(&self.index, touched);
        let agents = self.index.take_uses();
        self.publisher.declare(&self.index, agents, &mut changes);
        for (kind, metrics) in &self.kinds {
            #[expect(clippy::cast_precision_loss, reason = "counts of objects are far below 2^52")]
            metrics.objects.set(self.index.count(*kind) as f64);
        }
        let retired = std::mem::take(&mut changes.retired);
        if !changes.is_empty() {
            (self.publish)(changes);
        }
        // After that: who waited there finds what is in force now.
        retired.iter().for_each(|cluster| cluster.retire());
        if !self.is_synced {
            self.is_synced = true;
            self.synced.set(1.0);
            self.readiness.open();
            tracing::info!(
                services = self.index.count(ObjectKind::Service),
                "the cluster is known"
            );
        }
    }

    /// What keeps us from knowing the cluster.
    fn missing(&self) -> Vec<String> {
        let watches = self.watches.iter().zip(&self.states);
        let waits = watches.filter_map(|(watch, state)| match state {
            WatchState::Listing => Some(watch.place()),
            WatchState::Failed(why, false) => Some(format!("{} ({why})", watch.place())),
            WatchState::Forbidden(_) if watch.kind.is_required() => Some(format!(
                "{}: RBAC forbids it, allow get, list and watch on {}",
                watch.place(),
                watch.kind.word()
            )),
            _ => None,
        });
        waits.collect()
    }
}

// === impl WatchState ===

impl WatchState {
    fn has_listed(&self) -> bool {
        matches!(self, Self::Up | Self::Absent | Self::Failed(_, true))
    }
}

#[cfg(test)]
mod tests;
