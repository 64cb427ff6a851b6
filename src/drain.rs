//! How the program ends: one phase, one watch.
//!
//! The phase only ever moves on. Knows nothing of connections or signals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// Where the program is in its life; it only moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Taking work.
    Serving,
    /// Not ready any more, still accepting, so that the cluster can learn it.
    Draining,
    /// Not accepting; what runs may finish.
    Closing,
}

/// Moves the phase.
#[derive(Clone, Debug)]
pub struct Trigger(watch::Sender<Phase>, Arc<AtomicBool>);

/// Follows the phase.
#[derive(Clone, Debug)]
pub struct Watch(watch::Receiver<Phase>, Arc<AtomicBool>);

/// A phase that starts with serving.
#[must_use]
pub fn channel() -> (Trigger, Watch) {
    let (sender, receiver) = watch::channel(Phase::Serving);
    let leaving = Arc::<AtomicBool>::default();
    (Trigger(sender, Arc::clone(&leaving)), Watch(receiver, leaving))
}

// === impl Trigger ===

impl Trigger {
    /// Moves on; never back.
    pub fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let forward = phase > *now;
            if forward {
                *now = phase;
                self.1.store(phase > Phase::Serving, Ordering::Relaxed);
            }
            forward
        });
    }
}

// === impl Watch ===

impl Watch {
    /// Where we are.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Whether the program is about to end: asked for each response, so it is cheaper than the phase.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.1.load(Ordering::Relaxed)
    }

    /// Waits until `phase` or a later one; for ever if the trigger is gone before.
    pub async fn reached(&mut self, phase: Phase) {
        if self.0.wait_for(|now| *now >= phase).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_phase_never_goes_back() {
        let (trigger, mut watch) = channel();
        assert!(watch.phase() == Phase::Serving && !watch.is_leaving());
        trigger.advance(Phase::Closing);
        trigger.advance(Phase::Draining);
        watch.reached(Phase::Draining).await;
        assert!(watch.phase() == Phase::Closing && watch.is_leaving());
    }
}
