//! What replicas tell each other of sessions, sealed with the key of sessions: who has no key learns nothing, and
//! is not heard.
//!
//! Pure: bytes in, bytes out. Knows neither where they come from nor what is remembered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::homes::Home;
use super::keys::Keyring;
use super::probes::Prober;
use super::tasks::TaskKey;
use super::token::TokenId;
use crate::protocol::mcp::StandIn;
use crate::upstream::EndpointId;

/// A letter that is older, or from further ahead, is not read: somebody may have kept it.
const FRESH: Duration = Duration::from_secs(60);
/// No host of a route begins so: no token can be taken for a letter.
const PURPOSE: [&[u8]; 2] = [b"\0ask", b"\0say"];

/// What one replica asks another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerRequest {
    /// Who are you?
    Hello,
    /// Do you know of a home after that of this time?
    Find(TokenId, u64),
    /// The same; and if not, may I begin the session anew?
    Claim(TokenId, u64),
    /// It lives here now.
    Moved(TokenId, WireHome),
    /// These live there: for one that was not there to hear it.
    Know(Vec<(TokenId, WireHome)>),
    /// I have not begun it.
    Release(TokenId),
    /// I am still about to begin these.
    Renew(Vec<TokenId>),
    /// Its client has ended it.
    Ended(TokenId),
    /// Do you know which endpoint has this task?
    Task(TaskKey),
    /// Do you remember a call of the session that ended behind this event? I answer for it from now on.
    Rest(TokenId, Vec<u8>),
    /// These were used then (seconds since 1970).
    Used(Vec<(TokenId, u64)>),
    /// I am about to refuse a `server/discover` of this client.
    Probed(Prober),
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerResponse {
    /// So be it.
    Noted,
    /// It lives there.
    Home(WireHome),
    /// Nothing is known of it; to a claim: do.
    Nothing,
    /// Somebody else is about to begin it anew.
    Busy,
    /// Its client has ended it.
    Ended,
    /// A call: what it is answered with if its server is gone, and since when its session lived there.
    Rest(Vec<StandIn>, u64),
}

/// A [`Home`] on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireHome {
    address: SocketAddr,
    uid: Option<String>,
    id: Option<Vec<u8>>,
    since: u64,
}

/// A question or its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter<T> {
    /// The replica that writes; drawn at its start.
    pub from: u64,
    /// When it writes, in seconds since 1970.
    at: u64,
    /// Drawn for a question, and the same in its answer: no other answer can take its place.
    pub number: u64,
    /// What it writes.
    pub text: T,
}

/// Questions and answers, which are never taken for each other.
pub trait Text: Serialize + DeserializeOwned {
    /// What it is sealed for.
    const PURPOSE: &'static [u8];
}

impl Text for PeerRequest {
    const PURPOSE: &'static [u8] = PURPOSE[0];
}

impl Text for PeerResponse {
    const PURPOSE: &'static [u8] = PURPOSE[1];
}

// === impl PeerRequest ===

impl PeerRequest {
    /// Whether it waits for no other letter: by these replicas know that one lives and what it is about to do.
    #[must_use]
    pub const fn is_urgent(&self) -> bool {
        matches!(self, Self::Hello | Self::Renew(_))
    }
}

// === impl Letter ===

impl<T: Text> Letter<T> {
    /// A letter of this moment (time since 1970); an answer has the number of its question.
    #[must_use]
    pub fn new(from: u64, now: Duration, number: u64, text: T) -> Self {
        Self { from, at: now.as_secs(), number, text }
    }

    /// Its bytes. `None` if nothing can be sealed.
    #[must_use]
    pub fn seal(&self, keys: &Keyring) -> Option<Vec<u8>> {
        keys.seal(T::PURPOSE, &postcard::to_stdvec(self).ok()?)
    }

    /// A letter that somebody with our key wrote about `now`; `None` for all other bytes.
    #[must_use]
    pub fn open(keys: &Keyring, now: Duration, sealed: &mut [u8]) -> Option<Self> {
        let letter: Self = postcard::from_bytes(keys.open(T::PURPOSE, sealed).ok()?).ok()?;
        (letter.at.abs_diff(now.as_secs()) <= FRESH.as_secs()).then_some(letter)
    }
}

// === impl WireHome ===

impl From<&Home> for WireHome {
    fn from(home: &Home) -> Self {
        Self {
            address: home.endpoint.address,
            uid: home.endpoint.uid.as_deref().map(str::to_owned),
            id: home.id.as_ref().map(|id| id.as_bytes().to_vec()),
            since: home.since,
        }
    }
}

impl WireHome {
    /// As it is remembered. `None` for an id that no header may have.
    #[must_use]
    pub fn home(self) -> Option<Home> {
        let id = match self.id {
            Some(id) => Some(HeaderValue::from_bytes(&id).ok()?),
            None => None,
        };
        let endpoint = EndpointId { address: self.address, uid: self.uid.map(Arc::from) };
        Some(Home { endpoint, id, since: self.since })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> Home {
        let endpoint = EndpointId { address: ([10, 0, 0, 1], 80).into(), uid: Some("u".into()) };
        Home { endpoint, id: Some(HeaderValue::from_static("x")), since: 7 }
    }

    #[test]
    fn a_letter_is_read_by_who_has_the_key_and_about_its_time() {
        let keys = Keyring::random().unwrap();
        let now = Duration::from_secs(1_000_000);
        let token = TokenId([7; 16]);
        let letter = Letter::new(5, now, 9, PeerRequest::Moved(token, (&home()).into()));
        let sealed = letter.seal(&keys).unwrap();
        let open =
            |keys: &Keyring, now| Letter::<PeerRequest>::open(keys, now, &mut sealed.clone());
        assert_eq!(open(&keys, now), Some(letter));
        assert_eq!(open(&Keyring::random().unwrap(), now), None, "another key");
        for late in [now + FRESH * 2, now.checked_sub(FRESH * 2).unwrap()] {
            assert_eq!(open(&keys, late), None, "kept by somebody");
        }
        assert_eq!(
            Letter::<PeerResponse>::open(&keys, now, &mut sealed.clone()),
            None,
            "no answer"
        );
        assert_eq!(WireHome::from(&home()).home(), Some(home()));
    }
}
