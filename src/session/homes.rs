//! Where revived sessions live now: their clients keep the old token.
//!
//! Bounded: the one that was used longest ago is forgotten first, and would be revived once more. Whoever
//! revives a session has its turn; the others wait for it. Knows no network.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hashlink::LruCache;
use http::HeaderValue;

pub use super::slot::{CLAIM, Slot};
use super::token::{MAX_ID, TokenId};
use crate::upstream::EndpointId;

/// Sessions that are remembered at once; one takes about 300 bytes with an id of 36, and 4.4 KiB with the longest.
pub const MAX_HOMES: usize = 20_000;
/// Sessions that their clients have ended and that are remembered for it; one takes about 50 bytes.
const MAX_ENDED: usize = 20_000;
/// How many slots only streams may hold before those are looked for that nobody holds any more.
const LOOK_THROUGH: usize = 64;

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

/// What is known of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing: it lives where it began.
    Nothing,
    /// It lives there.
    Home(Home),
    /// Its client has ended it.
    Ended,
}

/// All revived sessions.
#[derive(Debug)]
pub struct Homes(Mutex<Remembered>);

#[derive(Debug)]
struct Remembered {
    slots: LruCache<TokenId, Arc<Slot>>,
    /// Those that streams follow and that have no place among the others; gone with the last stream.
    followed: HashMap<TokenId, Weak<Slot>>,
    /// How many of them there may be before they are looked through.
    look_through: usize,
    ended: LruCache<TokenId, ()>,
}

// === impl Home ===

impl Home {
    /// The same in bytes of its own: the id in a response's head would keep the whole head. `None` if the id is
    /// longer than one may be.
    #[must_use]
    pub fn copied(self) -> Option<Self> {
        let id = match self.id {
            Some(id) if id.len() > MAX_ID => return None,
            Some(id) => Some(HeaderValue::from_bytes(id.as_bytes()).ok()?),
            None => None,
        };
        Some(Self { id, ..self })
    }
}

// === impl Homes ===

impl Default for Homes {
    fn default() -> Self {
        Self::up_to(MAX_HOMES)
    }
}

impl Homes {
    fn up_to(most: usize) -> Self {
        Self(Mutex::new(Remembered {
            slots: LruCache::new(most),
            followed: HashMap::new(),
            look_through: LOOK_THROUGH,
            ended: LruCache::new(MAX_ENDED),
        }))
    }

    /// What is known of it.
    #[must_use]
    pub fn known(&self, token: TokenId) -> Known {
        let mut remembered = self.lock();
        if remembered.ended.contains_key(&token) {
            return Known::Ended;
        }
        let slot = remembered.slots.get(&token).map(Arc::clone);
        // One that had to make room still lives where a stream follows it.
        let slot = slot.or_else(|| remembered.followed.get(&token).and_then(Weak::upgrade));
        drop(remembered);
        slot.and_then(|slot| slot.home()).map_or(Known::Nothing, Known::Home)
    }

    /// Where it lives, if it ever moved.
    #[must_use]
    pub fn of(&self, token: TokenId) -> Option<Home> {
        match self.known(token) {
            Known::Home(home) => Some(home),
            Known::Nothing | Known::Ended => None,
        }
    }

    /// Its slot, made if there is none, and remembered.
    #[must_use]
    pub fn slot(&self, token: TokenId) -> Arc<Slot> {
        let mut remembered = self.lock();
        if let Some(slot) = remembered.slots.get(&token) {
            return Arc::clone(slot);
        }
        let followed = remembered.followed.remove(&token);
        let slot = followed.and_then(|slot| slot.upgrade()).unwrap_or_default();
        remembered.make_room();
        remembered.slots.insert(token, Arc::clone(&slot));
        slot
    }

    /// Its slot, for a stream that follows it: without a home it takes no place among those that are remembered, and
    /// is gone with the last stream.
    #[must_use]
    pub fn follow(&self, token: TokenId) -> Arc<Slot> {
        let mut remembered = self.lock();
        if let Some(slot) = remembered.slots.get(&token) {
            return Arc::clone(slot);
        }
        if let Some(slot) = remembered.followed.get(&token).and_then(Weak::upgrade) {
            return slot;
        }
        let slot = Arc::<Slot>::default();
        remembered.followed.insert(token, Arc::downgrade(&slot));
        if remembered.followed.len() > remembered.look_through {
            remembered.followed.retain(|_, slot| slot.strong_count() > 0);
            remembered.look_through = LOOK_THROUGH.max(remembered.followed.len() * 2);
        }
        slot
    }

    /// Those that moved since then (milliseconds since 1970) and were used last, at most so many.
    #[must_use]
    pub fn latest(&self, most: usize, since: u64) -> Vec<(TokenId, Home)> {
        let remembered = self.lock();
        let slots = remembered.slots.iter().rev();
        let moved = slots.filter_map(|(token, slot)| Some((*token, slot.home()?)));
        moved.filter(|(_, home)| home.since >= since).take(most).collect()
    }

    /// Its client has ended it; who waits for it to move is told.
    pub fn end(&self, token: TokenId) {
        let mut remembered = self.lock();
        let followed = remembered.followed.remove(&token).and_then(|slot| slot.upgrade());
        let slot = remembered.slots.remove(&token).or(followed);
        remembered.ended.insert(token, ());
        drop(remembered);
        if let Some(slot) = slot {
            slot.end();
        }
    }

    /// Whether its client has ended it.
    #[must_use]
    pub fn is_ended(&self, token: TokenId) -> bool {
        self.lock().ended.contains_key(&token)
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().slots.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A poisoned lock only means that another thread panicked between two plain stores.
    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Remembered ===

impl Remembered {
    /// Forgets the session that was used longest ago if there is no room for another; streams still follow it.
    fn make_room(&mut self) {
        if self.slots.len() >= self.slots.capacity()
            && let Some((token, slot)) = self.slots.remove_lru()
            && Arc::strong_count(&slot) > 1
        {
            self.followed.insert(token, Arc::downgrade(&slot));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::time::Instant;

    use super::*;

    fn home(port: u16, since: u64) -> Home {
        let endpoint = EndpointId { address: ([10, 0, 0, 1], port).into(), uid: None };
        Home { endpoint, id: Some(HeaderValue::from_static("x")), since }
    }

    #[test]
    fn the_newest_home_counts_and_the_oldest_session_goes_first() {
        let homes = Homes::up_to(2);
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
        let known = homes.latest(9, 0);
        assert_eq!(known, [(c, home(3, 1)), (a, home(2, 6))], "the last one first");
        assert_eq!(homes.latest(9, 2), [(a, home(2, 6))], "the others were told before");
        assert_eq!(homes.latest(1, 0).len(), 1);
        homes.end(a);
        assert_eq!((homes.known(a), homes.of(c)), (Known::Ended, Some(home(3, 1))));
        assert!(homes.slot(a).moved(home(1, 9)) && homes.known(a) == Known::Ended, "for good");
    }

    /// A head that a server sends measures kilobytes.
    #[test]
    fn what_is_remembered_keeps_nothing_of_the_response_that_it_came_in() {
        let homes = Homes::default();
        for n in 0..u32::try_from(MAX_HOMES).unwrap() {
            let head = Bytes::from(vec![b'x'; 3000]);
            let id = HeaderValue::from_maybe_shared(head.slice(100..136)).unwrap();
            let mut token = [0; 16];
            token[..4].copy_from_slice(&n.to_be_bytes());
            assert!(homes.slot(TokenId(token)).moved(Home { id: Some(id), ..home(1, 1) }));
            assert!(head.is_unique(), "the head is kept");
        }
        assert_eq!(homes.len(), MAX_HOMES);
        let long = HeaderValue::from_bytes(&[b'x'; MAX_ID + 1]).unwrap();
        assert!(!homes.slot(TokenId([9; 16])).moved(Home { id: Some(long), ..home(1, 1) }));
    }

    #[tokio::test]
    async fn streams_take_no_room_and_hear_of_every_move() {
        let homes = Homes::up_to(1);
        let tokens: Vec<_> = (0..200).map(|n| TokenId([n; 16])).collect();
        for token in &tokens {
            drop(homes.follow(*token));
        }
        assert_eq!(homes.len(), 0);
        assert!(homes.lock().followed.len() <= 2 * LOOK_THROUGH, "what is over is forgotten");
        let followed = homes.follow(tokens[0]);
        assert!(homes.slot(tokens[0]).moved(home(1, 5)));
        followed.leaves(4).await;
        drop(homes.slot(tokens[1]));
        assert_eq!(
            homes.of(tokens[0]),
            Some(home(1, 5)),
            "there was no room, but its stream knows it"
        );
        assert!(homes.slot(tokens[0]).moved(home(1, 6)));
        followed.leaves(5).await;
        homes.end(tokens[0]);
        followed.leaves(6).await;
    }
}
