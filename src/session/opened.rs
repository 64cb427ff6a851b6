//! Tokens that were opened lately, so that the requests of a session pay for that once.
//!
//! Bounded: the one that was used longest ago goes first. Knows nothing of keys.

use std::sync::{Arc, Mutex, PoisonError};

use hashlink::LruCache;
use http::HeaderValue;

use super::homes::Home;
use super::token::{NoToken, Session, TokenId};

/// Tokens that are remembered; one takes about a kilobyte.
const MAX_OPENED: usize = 4096;

/// What they hold.
#[derive(Debug)]
pub(super) struct Opened(Mutex<LruCache<HeaderValue, One>>);

/// What one holds, the route that it was opened for, and when it was used as far as that was noted (in seconds since
/// 1970).
type One = (Box<str>, Token, u64);

/// What a token holds, its name, and where its session began, unless it holds no id.
pub(super) type Token = (Arc<Session>, TokenId, Option<Home>);

// === impl Opened ===

impl Default for Opened {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_OPENED)))
    }
}

impl Opened {
    /// What the token holds for this route, by `open` if nobody has asked lately. What cannot be opened is not
    /// remembered. Behind it, when it was used last; 0 if that was not noted.
    pub(super) fn get(
        &self,
        token: &HeaderValue,
        route: &str,
        open: impl FnOnce() -> Result<(Session, TokenId), NoToken>,
    ) -> Result<(Token, u64), NoToken> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, known, used)) = lock().get(token)
            && **of == *route
        {
            return Ok((known.clone(), *used));
        }
        let (session, id) = open()?;
        let birthplace = session.birthplace();
        let opened = (Arc::new(session), id, birthplace);
        // A copy in one piece: a request's own bytes would keep the buffer that they came in.
        if let Ok(token) = HeaderValue::from_bytes(token.as_bytes()) {
            lock().insert(token, (route.into(), opened.clone(), 0));
        }
        Ok((opened, 0))
    }

    /// It is used now.
    pub(super) fn used(&self, token: &HeaderValue, now: u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((.., used)) = all.get_mut(token) {
            *used = now;
        }
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
