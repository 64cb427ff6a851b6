//! Calls whose event stream has ended without their answer: their clients ask for the rest by the id of the last
//! event, and nobody could give it once the server is gone.
//!
//! Bounded: the one that was kept longest ago goes first. Knows no stream and no server.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hashlink::LruCache;

use super::token::TokenId;

/// Calls that are remembered; one takes about a kilobyte.
const MAX_CALLS: usize = 4096;
/// A longer answer is not kept: the client has written a long id into it.
const MAX_ANSWER: usize = 2048;

/// A call that was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What it is answered with if its server is gone.
    pub answer: String,
    /// Where its session lived then, as the time when that moved there.
    pub since: u64,
    /// By this id of an event the client asks for the rest.
    pub event: Box<[u8]>,
}

/// By session and event.
type Calls = LruCache<(TokenId, Box<[u8]>), Call>;

/// Calls that were not answered.
#[derive(Debug)]
pub struct Unanswered(Mutex<Calls>);

// === impl Unanswered ===

impl Default for Unanswered {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_CALLS)))
    }
}

impl Unanswered {
    /// Its client may ask for the rest.
    pub fn keep(&self, session: TokenId, call: Call) {
        if call.answer.len() <= MAX_ANSWER {
            self.lock().insert((session, call.event.clone()), call);
        }
    }

    /// The call whose rest is asked for; whoever asks has it from now on.
    #[must_use]
    pub fn take(&self, session: TokenId, event: &[u8]) -> Option<Call> {
        self.lock().remove(&(session, event.into()))
    }

    /// A poisoned lock only means that another thread panicked between two plain stores.
    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_found_once_by_its_session_and_its_last_event() {
        let calls = Unanswered::default();
        let [a, b] = [1, 2].map(|n| TokenId([n; 16]));
        let call = |event: &str, length| Call {
            answer: "x".repeat(length),
            since: 0,
            event: event.as_bytes().into(),
        };
        calls.keep(a, call("1", MAX_ANSWER));
        calls.keep(a, call("2", 1));
        calls.keep(a, call("3", MAX_ANSWER + 1));
        assert_eq!((calls.take(b, b"1"), calls.take(a, b"3")), (None, None));
        assert_eq!(calls.take(a, b"1"), Some(call("1", MAX_ANSWER)));
        assert_eq!(calls.take(a, b"1"), None, "it is whoever's that asked");
        for n in 0..MAX_CALLS {
            calls.keep(b, call(&n.to_string(), 1));
        }
        assert_eq!(calls.take(a, b"2"), None, "the oldest went");
        assert!(calls.take(b, b"0").is_some());
    }
}
