//! The route table in force, and how it is replaced.
//!
//! Requests take one snapshot; writers make the next table from the last one, one after another. Knows
//! no request.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::route::RouteTable;
use crate::workers::near::{Common, Near};

/// The table of this moment.
#[derive(Debug)]
pub struct Routes {
    current: ArcSwap<Common<RouteTable>>,
    changed: Notify,
    /// Held by whoever makes the next table from the last one.
    writing: Mutex<()>,
}

// === impl Routes ===

impl Routes {
    /// Begins with this table.
    #[must_use]
    pub fn new(table: RouteTable) -> Self {
        Self {
            current: ArcSwap::from_pointee(Common::new(table)),
            changed: Notify::new(),
            writing: Mutex::new(()),
        }
    }

    /// The table of this moment, for a request.
    #[must_use]
    pub fn current(&self) -> Near<RouteTable> {
        self.current.load().near()
    }

    /// The table of this moment, for everyone else.
    #[must_use]
    pub fn snapshot(&self) -> Arc<RouteTable> {
        Arc::clone(self.current.load().far())
    }

    /// Looks something up in the table of this moment.
    pub fn with<R>(&self, look: impl FnOnce(&RouteTable) -> R) -> R {
        look(&self.current.load())
    }

    /// Whether a table is the one of this moment.
    #[must_use]
    pub fn is_current(&self, table: &Near<RouteTable>) -> bool {
        self.current.load().is_same(table)
    }

    /// Wakes everybody who waits on it when another table is put in force. Enable it before the table is
    /// read, and no change is missed.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// Puts another table in force, from the next request on, made from the one before it: what
    /// two writers change is never lost.
    pub fn update(&self, change: impl FnOnce(&RouteTable) -> RouteTable) {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let next = Common::new(change(&self.current.load()));
        self.current.store(Arc::new(next));
        self.changed.notify_waiters();
    }
}
