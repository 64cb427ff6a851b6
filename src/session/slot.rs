//! One session that was revived, or is about to be: where it lives, and whose turn it is to begin it anew.
//!
//! Knows neither the other sessions nor the network.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::homes::Home;

/// How long a claim holds that is not renewed: its replica may have died.
pub const CLAIM: Duration = Duration::from_secs(3);

/// One session that was revived, or is about to be.
#[derive(Debug, Default)]
pub struct Slot {
    /// Held by who revives it.
    pub turn: tokio::sync::Mutex<()>,
    home: Mutex<Option<Home>>,
    /// The replica that is about to begin it anew, and until when that holds.
    claimed: Mutex<Option<(u64, Instant)>>,
    ended: AtomicBool,
    changed: Notify,
}

// === impl Slot ===

impl Slot {
    /// Where it lives, if it ever moved.
    #[must_use]
    pub fn home(&self) -> Option<Home> {
        self.home.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether this replica may begin it anew: nobody else is about to that is `alive`.
    pub fn claim(&self, replica: u64, now: Instant, alive: impl FnOnce(u64) -> bool) -> bool {
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        if claimed.is_some_and(|(who, until)| who != replica && now < until && alive(who)) {
            return false;
        }
        *claimed = Some((replica, now + CLAIM));
        true
    }

    /// This replica is not about to any more.
    pub fn release(&self, replica: u64) {
        let mut claimed = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        claimed.take_if(|(who, _)| *who == replica);
    }

    /// It has moved; false if it is known to have moved elsewhere since, or its id is longer than one may be.
    pub fn moved(&self, home: Home) -> bool {
        let Some(home) = home.copied() else { return false };
        let mut known = self.home.lock().unwrap_or_else(PoisonError::into_inner);
        // Two that moved at once must come to the same one.
        let rank = |home: &Home| {
            let id = home.id.as_ref().map(|id| id.as_bytes().to_vec());
            (home.since, home.endpoint.address, id)
        };
        if known.as_ref().is_some_and(|known| rank(known) > rank(&home)) {
            return false;
        }
        *known = Some(home);
        drop(known);
        self.changed.notify_waiters();
        true
    }

    /// Its client has ended it.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Waits until it lives in a home after that of this time (milliseconds since 1970), or has ended.
    pub async fn leaves(&self, since: u64) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            let moved = self.home().is_some_and(|home| home.since > since);
            if moved || self.ended.load(Ordering::Acquire) {
                return;
            }
            changed.await;
        }
    }
}
