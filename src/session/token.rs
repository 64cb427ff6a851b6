//! What a client holds instead of a server's session id: where the session lives, sealed.
//!
//! Never changes in a session's life, and needs no store: every replica that has the key can read it. Pure;
//! knows neither how a session is brought back nor what a request is.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::keys::{Keyring, TAG_LEN, Unopened};

/// What tells a token from ids of servers, which are passed as they are.
const PREFIX: &str = "kp1.";
/// A longer `params` of `initialize` is left out: the token travels with each request.
pub const MAX_PARAMS: usize = 2048;
/// A server's id that is longer is not replaced.
pub const MAX_ID: usize = 4096;
/// A longer text is no token of ours.
const MAX_TOKEN: usize = 12 * 1024;

/// What is sealed in a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// When it began, in seconds since 1970.
    pub issued: u64,
    /// The endpoint that minted the server's id.
    pub address: SocketAddr,
    /// The pod that lives there, where that is known.
    pub uid: Option<String>,
    /// The server's id byte for byte (MCP 2025-11-25, "Session Management").
    pub id: Vec<u8>,
    /// The Agent that began it, as `namespace/name`, where its address named one.
    pub caller: Option<String>,
    /// `params` of the `initialize` that began it; without them it cannot be brought back.
    pub params: Option<String>,
}

/// What tells one token from every other one: its authentication tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TokenId(pub [u8; TAG_LEN]);

/// Why a text is no token of this route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoToken {
    /// It does not look like one: it is a server's own id.
    Foreign,
    /// It does, and cannot be opened here.
    Bad(&'static str),
}

/// Whether a text is meant to be a token.
#[must_use]
pub fn looks_like_one(text: &[u8]) -> bool {
    text.starts_with(PREFIX.as_bytes())
}

// === impl Session ===

impl Session {
    /// The token for a route's host. `None` if nothing can be sealed.
    #[must_use]
    pub fn seal(&self, keys: &Keyring, host: &str) -> Option<(String, TokenId)> {
        let sealed = keys.seal(host.as_bytes(), &postcard::to_stdvec(self).ok()?)?;
        let id = TokenId::of(&sealed)?;
        let mut token = String::with_capacity(PREFIX.len() + sealed.len() * 4 / 3 + 3);
        token.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(&sealed, &mut token);
        Some((token, id))
    }

    /// What a token for this host holds.
    ///
    /// # Errors
    /// [`NoToken`]; whatever the text is, it is never another session.
    pub fn open(keys: &Keyring, host: &str, token: &[u8]) -> Result<(Self, TokenId), NoToken> {
        let sealed = token.strip_prefix(PREFIX.as_bytes()).ok_or(NoToken::Foreign)?;
        if token.len() > MAX_TOKEN {
            return Err(NoToken::Bad("it is longer than a token"));
        }
        let unreadable = NoToken::Bad("it is cut or changed, or was issued for another route");
        let mut sealed = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| unreadable)?;
        let id = TokenId::of(&sealed).ok_or(unreadable)?;
        let opened = keys.open(host.as_bytes(), &mut sealed).map_err(|why| match why {
            Unopened::UnknownKey => {
                NoToken::Bad("it was sealed by a key that this proxy does not have")
            }
            Unopened::Forged => unreadable,
        })?;
        let session = postcard::from_bytes(opened).map_err(|_| unreadable)?;
        Ok((session, id))
    }
}

// === impl TokenId ===

impl TokenId {
    fn of(sealed: &[u8]) -> Option<Self> {
        sealed.last_chunk().copied().map(Self)
    }

    /// A few digits for logs, which do not lead back to the token.
    #[must_use]
    pub fn short(self) -> u32 {
        // Three quarters of the tag are lost by this.
        let parts = self.0.as_chunks::<4>().0.iter().copied().map(u32::from_be_bytes);
        parts.fold(0, |all, part| all ^ part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session {
            issued: 1_790_000_000,
            address: ([10, 0, 0, 7], 8080).into(),
            uid: Some("3b1c".to_owned()),
            id: vec![0x21, 0x7e, 0x5f],
            caller: Some("team-a/helper".to_owned()),
            params: Some(r#"{"protocolVersion":"2025-06-18"}"#.to_owned()),
        }
    }

    fn other_keys() -> Keyring {
        keys()
    }

    fn keys() -> Keyring {
        Keyring::random().unwrap()
    }

    #[test]
    fn a_token_is_visible_ascii_and_opens_for_its_route_only() {
        let keys = keys();
        let (token, id) = session().seal(&keys, "tools.team-a").unwrap();
        assert!(token.bytes().all(|byte| (0x21..=0x7e).contains(&byte)), "{token}");
        let open = |host, token: &str| Session::open(&keys, host, token.as_bytes());
        assert_eq!(open("tools.team-a", &token), Ok((session(), id)));
        assert!(matches!(open("tools.team-b", &token), Err(NoToken::Bad(_))));
        assert!(matches!(Session::open(&other_keys(), "tools.team-a", token.as_bytes()),
            Err(NoToken::Bad(why)) if why.contains("key")));
        let (again, other) = session().seal(&keys, "tools.team-a").unwrap();
        assert!(token != again && id != other, "two sessions are never one");
    }

    #[test]
    fn an_id_of_a_server_is_foreign() {
        for id in ["", "k", "kp1", "1868a90c-1f7e-4a5c", "kp2.AAAA"] {
            assert_eq!(Session::open(&keys(), "a", id.as_bytes()), Err(NoToken::Foreign), "{id}");
        }
    }

    #[test]
    fn a_cut_or_changed_token_is_no_session() {
        let keys = keys();
        let (token, _) = session().seal(&keys, "a").unwrap();
        for at in PREFIX.len()..token.len() {
            let cut = Session::open(&keys, "a", token.as_bytes().get(..at).unwrap());
            assert!(matches!(cut, Err(NoToken::Bad(_))), "cut at {at}");
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(Session::open(&keys, "a", &changed).is_err(), "changed at {at}");
        }
        let long = format!("{PREFIX}{}", "A".repeat(MAX_TOKEN));
        assert!(matches!(Session::open(&keys, "a", long.as_bytes()), Err(NoToken::Bad(_))));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_a_session(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), own in proptest::bool::ANY,
        ) {
            let text = if own { [PREFIX.as_bytes(), &bytes].concat() } else { bytes };
            proptest::prop_assert!(Session::open(&keys(), "a", &text).is_err());
        }

        #[test]
        fn whatever_a_server_calls_its_session_comes_back(
            id in proptest::collection::vec(0x21u8..=0x7e, 1..300), params in ".{0,300}", known in proptest::bool::ANY,
        ) {
            let keys = keys();
            let uid = known.then(|| "uid".to_owned());
            let session = Session { id, params: Some(params), uid, ..session() };
            let (token, _) = session.seal(&keys, "a").unwrap();
            let opened = Session::open(&keys, "a", token.as_bytes());
            proptest::prop_assert_eq!(opened.map(|(session, _)| session), Ok(session));
        }
    }
}
