//! Tokens that were opened lately, so that the requests of a session pay for that once on each worker.
//!
//! Each worker remembers its own: one lock for all would be taken by every request of a session. Bounded: the one
//! that was used longest ago goes first. Knows nothing of keys.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashlink::LruCache;
use http::HeaderValue;

use super::homes::Home;
use super::token::{NoToken, Session, TokenId};
use crate::workers::per_worker::PerWorker;

/// Tokens that each worker remembers, for a session's requests may come to any; one takes about a kilobyte.
const MAX_OPENED: usize = 2048;

/// What they hold.
#[derive(Debug, Default)]
pub(super) struct Opened {
    each: PerWorker<Mutex<OfWorker>>,
    /// How often all was forgotten.
    cleared: AtomicU64,
}

/// What one worker remembers.
#[derive(Debug)]
struct OfWorker(LruCache<HeaderValue, One>);

/// What one holds, the route that it was opened for, and when it was used as far as that was noted (in seconds since
/// 1970).
type One = (Box<str>, Token, u64);

/// What a token holds, its name, and where its session began, unless it holds no id.
pub(super) type Token = (Arc<Session>, TokenId, Option<Home>);

impl Default for OfWorker {
    fn default() -> Self {
        Self(LruCache::new(MAX_OPENED))
    }
}

// === impl Opened ===

impl Opened {
    /// What the token holds for this route, by `open` if nobody has asked this worker lately. What cannot be opened is
    /// not remembered. Behind it, when it was used last; 0 if that was not noted here.
    pub(super) fn get(
        &self,
        token: &HeaderValue,
        route: &str,
        open: impl FnOnce() -> Result<(Session, TokenId), NoToken>,
    ) -> Result<(Token, u64), NoToken> {
        let own = self.each.own();
        let cleared = self.cleared.load(Ordering::Acquire);
        if let Some((of, known, used)) = lock(own).0.get(token)
            && **of == *route
        {
            return Ok((known.clone(), *used));
        }
        let (session, id) = open()?;
        let birthplace = session.birthplace();
        let opened = (Arc::new(session), id, birthplace);
        // A copy in one piece: a request's own bytes would keep the buffer that they came in.
        if let Ok(token) = HeaderValue::from_bytes(token.as_bytes()) {
            let mut own = lock(own);
            // Its key may be gone since.
            if self.cleared.load(Ordering::Acquire) == cleared {
                own.0.insert(token, (route.into(), opened.clone(), 0));
            }
        }
        Ok((opened, 0))
    }

    /// It is used now.
    pub(super) fn used(&self, token: &HeaderValue, now: u64) {
        if let Some((.., used)) = lock(self.each.own()).0.get_mut(token) {
            *used = now;
        }
    }

    /// Forgets all, and what is being opened at this moment.
    pub(super) fn clear(&self) {
        self.cleared.fetch_add(1, Ordering::AcqRel);
        self.each.iter().for_each(|own| lock(own).0.clear());
    }
}

/// A poisoned lock only means that another thread panicked between two plain stores.
fn lock(own: &Mutex<OfWorker>) -> MutexGuard<'_, OfWorker> {
    own.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workers::place;

    fn session(issued: u64) -> Session {
        let address = ([10, 0, 0, 1], 80).into();
        let (uid, caller, params, version) = (None, None, None, None);
        Session { issued, address, uid, id: Vec::new(), caller, params, version }
    }

    #[test]
    fn a_token_is_opened_once_for_its_host_and_again_when_all_is_forgotten() {
        let opened = Opened::default();
        let token = HeaderValue::from_static("kp1.x");
        let id = TokenId([1; 16]);
        let mut times = 0;
        let mut get = |host: &str| {
            opened.get(&token, host, || {
                times += 1;
                if host == "a" { Ok((session(times), id)) } else { Err(NoToken::Bad("not here")) }
            })
        };
        for _ in 0..3 {
            assert_eq!(get("a").unwrap().0.0.issued, 1);
        }
        assert!(get("b").is_err() && get("b").is_err(), "bound to its host");
        opened.clear();
        assert_eq!(get("a").unwrap().0.0.issued, 4);
    }

    #[test]
    fn what_was_being_opened_when_all_was_forgotten_is_not_remembered() {
        let opened = Opened::default();
        let token = HeaderValue::from_static("kp1.x");
        let get = |issued, meanwhile: &dyn Fn()| {
            let open = || {
                meanwhile();
                Ok((session(issued), TokenId([1; 16])))
            };
            opened.get(&token, "a", open).unwrap().0.0.issued
        };
        assert_eq!(get(1, &|| opened.clear()), 1);
        assert_eq!(get(2, &|| {}), 2, "opened again, by the keys of now");
        assert_eq!(get(3, &|| {}), 2);
    }

    #[test]
    fn each_worker_opens_a_token_for_itself_and_all_forget_it() {
        place::expect(2);
        let opened = Opened::default();
        let token = HeaderValue::from_static("kp1.x");
        let mut times = 0;
        let mut get = |worker| {
            place::take(worker, false);
            let open = || {
                times += 1;
                Ok((session(times), TokenId([1; 16])))
            };
            let ((session, ..), used) = opened.get(&token, "a", open).unwrap();
            if worker == 1 {
                opened.used(&token, 7);
            }
            place::take(usize::MAX, false);
            (session.issued, used)
        };
        assert_eq!([0, 1, 0, 1].map(&mut get), [(1, 0), (2, 0), (1, 0), (2, 7)]);
        opened.clear();
        assert_eq!([0, 1].map(&mut get), [(3, 0), (4, 0)]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let opened = Opened::default();
        for n in 0..u64::try_from(MAX_OPENED).unwrap() + 9 {
            let token = HeaderValue::from(n);
            let _opened = opened.get(&token, "a", || Ok((session(n), TokenId([1; 16]))));
        }
        assert!(lock(opened.each.own()).0.len() <= MAX_OPENED);
    }
}
