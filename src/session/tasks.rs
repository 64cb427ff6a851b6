//! Which endpoint has begun which task, so that what comes later for the task reaches it there.
//!
//! A help and never a condition: what is not known goes to any endpoint. Bounded: the task that was named longest
//! ago is forgotten first. Holds hashes of ids and no ids. Knows no message.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hashlink::LruCache;
use serde::{Deserialize, Serialize};

use super::Sessions;
use super::homes::Home;
use super::letter::{PeerRequest, PeerResponse};
use super::peers::ANSWER;
use super::short_hash::short_hash;
use crate::upstream::EndpointId;

/// Tasks that are remembered at once; one takes about 150 bytes.
pub const MAX_TASKS: usize = 20_000;

/// A task of a route: a hash of both names, the same at every replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskKey([u8; 16]);

/// The tasks that this replica has seen begin, or was told of.
#[derive(Debug)]
pub struct Tasks {
    all: Mutex<LruCache<TaskKey, EndpointId>>,
    /// There is one, and so from then on: many requests ask no more than that, and take no lock for it.
    any: AtomicBool,
}

// === impl TaskKey ===

impl TaskKey {
    /// The task that the servers of the route of `host` call `id`.
    #[must_use]
    pub fn new(host: &str, id: &str) -> Self {
        // No host has a NUL.
        Self(short_hash(&[host.as_bytes(), b"\0", id.as_bytes()]))
    }
}

// === impl Tasks ===

impl Default for Tasks {
    fn default() -> Self {
        Self::up_to(MAX_TASKS)
    }
}

impl Tasks {
    fn up_to(most: usize) -> Self {
        Self { all: Mutex::new(LruCache::new(most)), any: AtomicBool::new(false) }
    }

    /// The endpoint that has it.
    #[must_use]
    pub fn of(&self, task: TaskKey) -> Option<EndpointId> {
        self.lock().get(&task).cloned()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Relaxed)
    }

    /// This endpoint has it from now on.
    pub fn note(&self, task: TaskKey, endpoint: EndpointId) {
        self.lock().insert(task, endpoint);
        self.any.store(true, Ordering::Relaxed);
    }

    /// A poisoned lock only means that another thread panicked between two plain stores.
    fn lock(&self) -> MutexGuard<'_, LruCache<TaskKey, EndpointId>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Sessions ===

impl Sessions {
    /// Whether any task may be found, here or at another replica.
    #[must_use]
    pub fn may_know_a_task(&self) -> bool {
        !self.tasks.is_empty() || self.peers.has_others(self.own)
    }

    /// The endpoint that has this task, of those that are there: as it is known here, or to another replica. Waits
    /// for [`ANSWER`] at most.
    pub async fn endpoint_of(
        &self,
        task: TaskKey,
        is_there: impl Fn(&EndpointId) -> bool,
    ) -> Option<EndpointId> {
        if let Some(known) = self.tasks.of(task).filter(&is_there) {
            return Some(known);
        }
        let peers = self.peers.alive(self.own);
        let mut asked: FuturesUnordered<_> =
            peers.iter().map(|(_, address)| self.ask_for_task(*address, task)).collect();
        let found = async {
            while let Some(said) = asked.next().await {
                if let Some(found) = said.filter(&is_there) {
                    return Some(found);
                }
            }
            None
        };
        // All of it: also the wait in the line of a replica that hangs.
        let found = tokio::time::timeout(ANSWER, found).await.ok()??;
        self.tasks.note(task, found.clone());
        Some(found)
    }

    /// What a replica is told that asks for a task.
    pub(super) fn say_task(&self, task: TaskKey) -> PeerResponse {
        match self.tasks.of(task) {
            Some(endpoint) => PeerResponse::Home((&Home { endpoint, id: None, since: 0 }).into()),
            None => PeerResponse::Nothing,
        }
    }

    /// Whoever does not answer this is not taken for dead: one of an older release does not know the question.
    async fn ask_for_task(&self, address: SocketAddr, task: TaskKey) -> Option<EndpointId> {
        match self.exchange(address, PeerRequest::Task(task)).await.ok()?.text {
            PeerResponse::Home(home) => Some(home.home()?.endpoint),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::config::SessionsConfig;
    use crate::telemetry::peers::PeerMetrics;

    fn endpoint(port: u16) -> EndpointId {
        EndpointId { address: ([10, 0, 0, 1], port).into(), uid: Some("u".into()) }
    }

    #[test]
    fn a_task_belongs_to_its_route() {
        let key = TaskKey::new("helper.team-a", "t");
        assert_eq!(key, TaskKey::new("helper.team-a", "t"));
        for (host, id) in [("helper.team-b", "t"), ("helper.team-a", "u"), ("helper.team-", "at")] {
            assert_ne!(key, TaskKey::new(host, id));
        }
    }

    #[test]
    fn no_task_is_looked_for_that_nobody_can_know() {
        let sessions = Sessions::new(&SessionsConfig::default(), PeerMetrics::noop()).unwrap();
        assert!(!sessions.may_know_a_task());
        let address = ([127, 0, 0, 1], 1).into();
        sessions.peers.set([address]);
        assert!(!sessions.may_know_a_task(), "it does not answer");
        sessions.peers.heard(address, Instant::now(), Some(sessions.own ^ 1));
        assert!(sessions.may_know_a_task());
        sessions.peers.set([]);
        assert!(!sessions.may_know_a_task());
        sessions.tasks.note(TaskKey::new("h", "t"), endpoint(1));
        assert!(sessions.may_know_a_task());
    }

    #[test]
    fn the_last_endpoint_counts_and_the_oldest_task_goes_first() {
        let tasks = Tasks::up_to(2);
        let [a, b, c] = ["a", "b", "c"].map(|id| TaskKey::new("h", id));
        tasks.note(a, endpoint(1));
        tasks.note(b, endpoint(2));
        tasks.note(a, endpoint(3));
        assert_eq!(tasks.of(a), Some(endpoint(3)));
        tasks.note(c, endpoint(4));
        assert_eq!((tasks.of(b), tasks.of(c)), (None, Some(endpoint(4))));
        assert_eq!(tasks.of(a), Some(endpoint(3)), "named since");
    }
}
