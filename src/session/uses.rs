//! When sessions were used last: their tokens never change, and say only when they began.
//!
//! Bounded: the one that was used longest ago is forgotten first, and counts from its beginning again. Knows neither
//! clock nor network.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hashlink::LruCache;

use super::token::TokenId;

/// Sessions that are remembered at once; one takes about 60 bytes.
const MAX_USES: usize = 20_000;

/// The last uses, in seconds since 1970.
#[derive(Debug)]
pub struct Uses(Mutex<Noted>);

#[derive(Debug)]
struct Noted {
    last: LruCache<TokenId, Use>,
    /// Those that the other replicas are to hear of.
    untold: Vec<TokenId>,
}

#[derive(Clone, Copy, Debug)]
struct Use {
    at: u64,
    /// What everybody knows.
    told: u64,
}

// === impl Uses ===

impl Default for Uses {
    fn default() -> Self {
        Self(Mutex::new(Noted { last: LruCache::new(MAX_USES), untold: Vec::new() }))
    }
}

impl Uses {
    /// When it was used last as far as that is known; 0 if it is not.
    #[must_use]
    pub fn last(&self, token: TokenId) -> u64 {
        self.lock().last.get(&token).map_or(0, |known| known.at)
    }

    /// It is used now, and began at `begun`. The other replicas are to hear of it if they know nothing of the last
    /// `every` seconds.
    pub fn note(&self, token: TokenId, begun: u64, now: u64, every: u64) {
        let mut noted = self.lock();
        let mut known = noted.last.get(&token).copied().unwrap_or(Use { at: begun, told: begun });
        known.at = known.at.max(now);
        if now >= known.told.saturating_add(every) {
            known.told = now;
            noted.untold.push(token);
        }
        noted.last.insert(token, known);
    }

    /// Another replica says so.
    pub fn learn(&self, token: TokenId, at: u64) {
        let mut noted = self.lock();
        let known = noted.last.get(&token).copied().unwrap_or(Use { at, told: at });
        noted.last.insert(token, Use { at: known.at.max(at), told: known.told.max(at) });
    }

    /// What the others are to hear of.
    #[must_use]
    pub fn take_untold(&self) -> Vec<(TokenId, u64)> {
        let mut noted = self.lock();
        let untold = std::mem::take(&mut noted.untold);
        let at = |token| Some((token, noted.last.peek(&token)?.at));
        untold.into_iter().filter_map(at).collect()
    }

    /// Those since then, at most so many, the last ones first.
    #[must_use]
    pub fn latest(&self, most: usize, since: u64) -> Vec<(TokenId, u64)> {
        let noted = self.lock();
        let all = noted.last.iter().rev().map(|(token, known)| (*token, known.at));
        all.filter(|(_, at)| *at >= since).take(most).collect()
    }

    /// A poisoned lock only means that another thread panicked between two plain stores.
    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_is_told_once_in_a_while_and_the_latest_counts() {
        let uses = Uses::default();
        let [a, b] = [1, 2].map(|n| TokenId([n; 16]));
        assert_eq!(uses.last(a), 0);
        uses.note(a, 100, 150, 60);
        assert_eq!((uses.last(a), uses.take_untold()), (150, vec![]), "it has just begun");
        uses.note(a, 100, 170, 60);
        uses.note(a, 100, 180, 60);
        assert_eq!(uses.take_untold(), [(a, 180)]);
        assert_eq!(uses.take_untold(), []);
        uses.learn(a, 175);
        uses.learn(b, 240);
        assert_eq!((uses.last(a), uses.last(b)), (180, 240));
        uses.note(b, 0, 250, 60);
        assert_eq!(uses.take_untold(), [], "another replica has told everybody");
        assert_eq!(uses.latest(9, 0), [(b, 250), (a, 180)]);
        assert_eq!(uses.latest(9, 200), [(b, 250)]);
        assert_eq!(uses.latest(1, 0).len(), 1);
    }

    #[test]
    fn no_more_are_remembered_than_have_room() {
        let uses = Uses::default();
        for n in 0..u32::try_from(MAX_USES + 100).unwrap() {
            let mut token = [0; 16];
            token[..4].copy_from_slice(&n.to_be_bytes());
            uses.note(TokenId(token), 0, 100, 60);
        }
        assert_eq!(uses.latest(usize::MAX, 0).len(), MAX_USES);
        assert_eq!(uses.take_untold().len(), MAX_USES);
    }
}
