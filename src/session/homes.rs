//! Where revived sessions live now: their clients keep the old token.
//!
//! Bounded: the one that was used longest ago is forgotten first, and would be revived once more. Whoever
//! revives a session has its turn; the others wait for it. Knows no network.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashlink::LruCache;
use http::HeaderValue;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::token::TokenId;
use crate::upstream::EndpointId;

/// How long a claim holds that is not renewed: its replica may have died.
pub const CLAIM: Duration = Duration::from_millis(1500);
/// Sessions that are remembered at once; one takes about 400 bytes.
pub const MAX_HOMES: usize = 20_000;

/// Where a session lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// What the server calls the session; `None` if it has none any more.
    pub id: Option<HeaderValue>,
    /// When it moved there, in milliseconds since 1970; 0 if it was born there.
    pub since: u64,
}

/// All revived sessions.
#[derive(Debug)]
pub struct Homes(Mutex<LruCache<TokenId, Arc<Slot>>>);

/// One session that was revived, or is about to be.
#[derive(Debug, Default)]
pub struct Slot {
    /// Held by who revives it.
    pub turn: tokio::sync::Mutex<()>,
    home: Mutex<Option<Home>>,
    /// The replica that is about to begin it anew, and until when that holds.
    claimed: Mutex<Option<(u64, Instant)>>,
    changed: Notify,
}

// === impl Homes ===

impl Default for Homes {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_HOMES)))
    }
}

impl Homes {
    /// Where it lives, if it ever moved.
    #[must_use]
    pub fn of(&self, token: TokenId) -> Option<Home> {
        let slot = self.lock().get(&token).map(Arc::clone)?;
        slot.home()
    }

    /// Its slot, made if there is none.
    #[must_use]
    pub fn slot(&self, token: TokenId) -> Arc<Slot> {
        let mut slots = self.lock();
        if let Some(slot) = slots.get(&token) {
            return Arc::clone(slot);
        }
        let slot = Arc::<Slot>::default();
        slots.insert(token, Arc::clone(&slot));
        slot
    }

    /// Those that moved and were used last, at most so many.
    #[must_use]
    pub fn latest(&self, most: usize) -> Vec<(TokenId, Home)> {
        let slots = self.lock();
        let moved = slots.iter().rev().filter_map(|(token, slot)| Some((*token, slot.home()?)));
        moved.take(most).collect()
    }

    /// It has ended.
    pub fn forget(&self, token: TokenId) {
        self.lock().remove(&token);
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A poisoned lock only means that another thread panicked between two plain stores.
    fn lock(&self) -> MutexGuard<'_, LruCache<TokenId, Arc<Slot>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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

    /// It has moved; false if it is known to have moved elsewhere since.
    pub fn moved(&self, home: Home) -> bool {
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

    /// Waits until it lives in a home after that of this time (milliseconds since 1970).
    pub async fn leaves(&self, since: u64) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            if self.home().is_some_and(|home| home.since > since) {
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(port: u16, since: u64) -> Home {
        let endpoint = EndpointId { address: ([10, 0, 0, 1], port).into(), uid: None };
        Home { endpoint, id: Some(HeaderValue::from_static("x")), since }
    }

    #[test]
    fn the_newest_home_counts_and_the_oldest_session_goes_first() {
        let homes = Homes(Mutex::new(LruCache::new(2)));
        let [a, b, c] = [1, 2, 3].map(|n| TokenId([n; 16]));
        assert!(homes.slot(a).moved(home(1, 5)));
        assert!(!homes.slot(a).moved(home(2, 4)), "that was before");
        assert_eq!(homes.of(a), Some(home(1, 5)));
        assert!(homes.slot(a).moved(home(2, 6)));
        assert!(!homes.slot(a).moved(home(1, 6)), "of two at once the same one everywhere");
        assert_eq!(homes.of(a), Some(home(2, 6)));
        assert_eq!(homes.slot(b).home(), None, "it has not moved");
        assert!(homes.of(a).is_some(), "used");
        assert!(homes.slot(c).moved(home(3, 1)));
        assert_eq!((homes.of(b), homes.len()), (None, 2), "the one that was not");
        let now = Instant::now();
        let slot = homes.slot(c);
        let claim = |replica, now| slot.claim(replica, now, |_| true);
        assert!(claim(1, now) && claim(1, now) && !claim(2, now));
        assert!(claim(2, now + CLAIM), "nobody renewed it");
        slot.release(1);
        assert!(!claim(1, now + CLAIM), "it is another's");
        assert!(slot.claim(1, now + CLAIM, |_| false), "who does not answer has no claim");
        slot.release(1);
        assert!(claim(2, now));
        let known = homes.latest(9);
        assert_eq!(known, [(c, home(3, 1)), (a, home(2, 6))], "the last one first");
        assert_eq!(homes.latest(1).len(), 1);
        homes.forget(a);
        assert_eq!((homes.of(a), homes.of(c)), (None, Some(home(3, 1))));
    }
}
