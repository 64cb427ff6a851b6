//! Whether the program may be called: open once nothing is waited for.
//!
//! Knows no reason of its own.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

/// What readiness waits for; ready while there is nothing. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<ArcSwapOption<String>>);

// === impl Readiness ===

impl Readiness {
    /// Not ready, for this reason.
    pub fn wait_for(&self, what: impl Into<String>) {
        self.0.store(Some(Arc::new(what.into())));
    }

    /// As long as it is not ready, this is the reason; once open, it stays so.
    pub fn still(&self, what: impl Into<String>) {
        if self.waiting().is_some() {
            self.wait_for(what);
        }
    }

    /// Ready.
    pub fn open(&self) {
        self.0.store(None);
    }

    /// What is waited for.
    #[must_use]
    pub fn waiting(&self) -> Option<Arc<String>> {
        self.0.load_full()
    }
}
