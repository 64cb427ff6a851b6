//! Calls whose event stream has ended without their answer: their clients ask for the rest by the id of the last
//! event, and nobody could give it once the server is gone.
//!
//! Each is remembered by the replica that had it, and moves to the one that is asked for the rest. Bounded: the one that
//! was kept longest ago goes first. Knows no stream and no server.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hashlink::LruCache;

use super::Sessions;
use super::letter::{PeerRequest, PeerResponse};
use super::peers::ANSWER;
use super::token::TokenId;
use crate::protocol::answered::MAX_EVENT_ID;
use crate::protocol::mcp::StandIn;

/// Calls that are remembered; one takes about a kilobyte.
const MAX_CALLS: usize = 4096;
/// Longer answers are not kept: a client has written a long id into one, or has sent a large batch.
const MAX_ANSWER: usize = 2048;

/// A call that was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What it is answered with if its server is gone; several if it is what is left of a batch.
    pub answers: Vec<StandIn>,
    /// Where its session lived then, as the time when that moved there.
    pub since: u64,
    /// By this id of an event the client asks for the rest.
    pub event: Box<[u8]>,
}

/// A call whose rest is asked for: dropped before somebody has taken charge of it, it is remembered again.
#[derive(Debug)]
pub struct Asked {
    sessions: Arc<Sessions>,
    session: TokenId,
    call: Call,
    /// Somebody has.
    taken: bool,
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
        let length: usize = call.answers.iter().map(|one| one.id.len() + one.answer.len()).sum();
        if length <= MAX_ANSWER {
            self.lock().insert((session, call.event.clone()), call);
        }
    }

    /// The call whose rest is asked for; whoever asks has it from now on.
    #[must_use]
    fn take(&self, session: TokenId, event: &[u8]) -> Option<Call> {
        self.lock().remove(&(session, event.into()))
    }

    /// A poisoned lock only means that another thread panicked between two plain stores.
    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Sessions ===

impl Sessions {
    /// The session's call whose rest is asked for by the id of this event, remembered here or by another replica. Waits
    /// for [`ANSWER`] at most.
    pub async fn rest_of(self: &Arc<Self>, session: TokenId, event: &[u8]) -> Option<Asked> {
        if event.is_empty() || event.len() > MAX_EVENT_ID {
            return None;
        }
        if let Some(call) = self.unanswered.take(session, event) {
            return Some(self.asked(session, call));
        }
        let peers = self.peers.alive(self.own);
        if peers.is_empty() {
            return None;
        }
        let (sessions, event) = (Arc::clone(self), Box::<[u8]>::from(event));
        // In a task of its own: what a replica gives away must not be lost with who asks, or comes too late.
        let found = tokio::spawn(async move {
            let asked =
                peers.iter().map(|(_, address)| sessions.ask_for_rest(*address, session, &event));
            let mut asked: FuturesUnordered<_> = asked.collect();
            while let Some(said) = asked.next().await {
                if let Some(call) = said {
                    return Some(sessions.asked(session, call));
                }
            }
            None
        });
        tokio::time::timeout(ANSWER, found).await.ok()?.ok()?
    }

    fn asked(self: &Arc<Self>, session: TokenId, call: Call) -> Asked {
        Asked { sessions: Arc::clone(self), session, call, taken: false }
    }

    /// What a replica is told that asks for a call, and has it from now on.
    pub(super) fn say_rest(&self, session: TokenId, event: &[u8]) -> PeerResponse {
        match self.unanswered.take(session, event) {
            Some(call) => PeerResponse::Rest(call.answers, call.since),
            None => PeerResponse::Nothing,
        }
    }

    /// Whoever does not answer this is not taken for dead: one of an older release does not know the question.
    async fn ask_for_rest(
        &self,
        address: SocketAddr,
        session: TokenId,
        event: &[u8],
    ) -> Option<Call> {
        match self.exchange(address, PeerRequest::Rest(session, event.to_vec())).await.ok()?.text {
            PeerResponse::Rest(answers, since) => {
                Some(Call { answers, since, event: event.into() })
            }
            _ => None,
        }
    }
}

// === impl Asked ===

impl Asked {
    /// Where its session lived, as in [`Call::since`].
    #[must_use]
    pub const fn since(&self) -> u64 {
        self.call.since
    }

    /// The call, for whoever takes charge of it.
    #[must_use]
    pub fn into_call(mut self) -> Call {
        self.taken = true;
        self.call.clone()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.taken {
            self.sessions.unanswered.keep(self.session, self.call.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SessionsConfig;
    use crate::telemetry::peers::PeerMetrics;

    #[test]
    fn a_call_is_found_once_by_its_session_and_its_last_event() {
        let calls = Unanswered::default();
        let [a, b] = [1, 2].map(|n| TokenId([n; 16]));
        let call = |event: &str, length| Call {
            answers: vec![StandIn { id: "1".to_owned(), answer: "x".repeat(length - 1) }],
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

    #[tokio::test]
    async fn who_asks_and_takes_no_charge_of_the_call_leaves_it() {
        let sessions =
            Arc::new(Sessions::new(&SessionsConfig::default(), PeerMetrics::noop()).unwrap());
        let session = TokenId([1; 16]);
        let call = Call { answers: Vec::new(), since: 3, event: b"1"[..].into() };
        sessions.unanswered.keep(session, call.clone());
        for event in [&b""[..], b"2", &[b'1'; MAX_EVENT_ID + 1]] {
            assert!(sessions.rest_of(session, event).await.is_none());
        }
        for _ in 0..2 {
            let asked = sessions.rest_of(session, b"1").await.unwrap();
            assert_eq!(asked.since(), 3);
            assert!(sessions.rest_of(session, b"1").await.is_none(), "one at a time");
        }
        assert_eq!(sessions.rest_of(session, b"1").await.unwrap().into_call(), call);
        assert!(sessions.rest_of(session, b"1").await.is_none());
    }
}
