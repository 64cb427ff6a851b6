//! What a client holds instead of a server's session id: where the session lives, sealed.
//!
//! Never changes in a session's life, and needs no store: every replica that has the key can read it. Pure;
//! knows neither how a session is brought back nor what a request is.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::keys::{Keyring, TAG_LEN};

/// What tells a token from ids of servers, which are passed as they are.
const PREFIX: &str = "kp1.";
/// A longer `params` of `initialize` is left out: the token travels with each request.
pub const MAX_PARAMS: usize = 2048;
/// A server's id that is longer is not replaced.
pub const MAX_ID: usize = 4096;
/// A longer text is no token of ours.
const MAX_TOKEN: usize = 12 * 1024;
/// How what is sealed is written: its first byte.
const VERSION: u8 = 2;
/// Characters of a token that tell its key.
const KEY_CHARS: usize = 8;

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
    /// The `protocolVersion` that its server has chosen, where that was seen.
    pub version: Option<String>,
}

/// The same as it was sealed before there was a version of the writing, for the route's host only.
#[derive(Deserialize)]
struct First {
    issued: u64,
    address: SocketAddr,
    uid: Option<String>,
    id: Vec<u8>,
    caller: Option<String>,
    params: Option<String>,
}

/// What tells one token from every other one: its authentication tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TokenId(pub [u8; TAG_LEN]);

/// Why a text is no token of this route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoToken {
    /// It does not look like one: it is a server's own id.
    Foreign,
    /// It looks like one, and was sealed by a key that this proxy does not have: it may be another proxy's.
    OtherKey,
    /// It was sealed by our key, or is cut so that nobody can tell, and cannot be opened here.
    Bad(&'static str),
}

/// Whether a text is meant to be a token.
#[must_use]
pub fn looks_like_one(text: &[u8]) -> bool {
    text.starts_with(PREFIX.as_bytes())
}

// === impl Session ===

impl Session {
    /// The token for a route, by what tells that from all others: its host, a NUL, and the rest. `None` if nothing
    /// can be sealed.
    #[must_use]
    pub fn seal(&self, keys: &Keyring, route: &str) -> Option<(String, TokenId)> {
        let text = postcard::to_extend(self, vec![VERSION]).ok()?;
        let sealed = keys.seal(route.as_bytes(), &text)?;
        let id = TokenId::of(&sealed)?;
        let mut token = String::with_capacity(PREFIX.len() + sealed.len() * 4 / 3 + 3);
        token.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(&sealed, &mut token);
        Some((token, id))
    }

    /// What a token for this route holds.
    ///
    /// # Errors
    /// [`NoToken`]; whatever the text is, it is never another session.
    pub fn open(keys: &Keyring, route: &str, token: &[u8]) -> Result<(Self, TokenId), NoToken> {
        const UNREADABLE: NoToken =
            NoToken::Bad("it is cut or changed, or was issued for another route");
        let text = token.strip_prefix(PREFIX.as_bytes()).ok_or(NoToken::Foreign)?;
        let start = text.get(..KEY_CHARS).and_then(|start| URL_SAFE_NO_PAD.decode(start).ok());
        if !start.is_some_and(|start| keys.have_sealed(&start)) {
            return Err(NoToken::OtherKey);
        }
        if token.len() > MAX_TOKEN {
            return Err(NoToken::Bad("it is longer than a token"));
        }
        let mut sealed = URL_SAFE_NO_PAD.decode(text).map_err(|_| UNREADABLE)?;
        let id = TokenId::of(&sealed).ok_or(UNREADABLE)?;
        if let Ok(opened) = keys.open(route.as_bytes(), &mut sealed) {
            return match opened.split_first() {
                Some((&VERSION, session)) => {
                    Ok((postcard::from_bytes(session).map_err(|_| UNREADABLE)?, id))
                }
                _ => Err(NoToken::Bad("a later release has issued it")),
            };
        }
        // What could not be opened is no more what it was.
        let mut sealed = URL_SAFE_NO_PAD.decode(text).map_err(|_| UNREADABLE)?;
        let host = route.split('\0').next().unwrap_or_default();
        let opened = keys.open(host.as_bytes(), &mut sealed).map_err(|_| UNREADABLE)?;
        let first: First = postcard::from_bytes(opened).map_err(|_| UNREADABLE)?;
        Ok((first.into(), id))
    }
}

impl From<First> for Session {
    fn from(first: First) -> Self {
        let First { issued, address, uid, id, caller, params } = first;
        Self { issued, address, uid, id, caller, params, version: None }
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
            version: Some("2025-06-18".to_owned()),
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
        let stranger = Session::open(&other_keys(), "tools.team-a", token.as_bytes());
        assert_eq!(stranger, Err(NoToken::OtherKey));
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
            // Too little is left to tell whose it is.
            let whose = at < PREFIX.len() + KEY_CHARS;
            assert!(
                if whose {
                    cut == Err(NoToken::OtherKey)
                } else {
                    matches!(cut, Err(NoToken::Bad(_)))
                },
                "cut at {at}: {cut:?}"
            );
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(Session::open(&keys, "a", &changed).is_err(), "changed at {at}");
        }
        let long = format!("{token}{}", "A".repeat(MAX_TOKEN));
        assert!(matches!(Session::open(&keys, "a", long.as_bytes()), Err(NoToken::Bad(_))));
    }

    #[test]
    fn a_token_of_before_is_read_and_one_of_later_is_not() {
        let keys = keys();
        let Session { issued, address, uid, id, caller, params, .. } = session();
        let first = postcard::to_stdvec(&(issued, address, uid, id, caller, params)).unwrap();
        let token = |purpose: &[u8], text: &[u8]| {
            format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(keys.seal(purpose, text).unwrap()))
        };
        let opened = Session::open(&keys, "a\0/x", token(b"a", &first).as_bytes());
        assert_eq!(opened.unwrap().0, Session { version: None, ..session() });
        let later = Session::open(&keys, "a\0/x", token(b"a\0/x", &[VERSION + 1, 7]).as_bytes());
        assert!(matches!(later, Err(NoToken::Bad(why)) if why.contains("later")), "{later:?}");
        assert!(Session::open(&keys, "b\0/x", token(b"a", &first).as_bytes()).is_err());
    }

    proptest::proptest! {
        /// Behind what our own tokens begin with, the key's id among it, so that bytes reach the seal.
        #[test]
        fn no_bytes_behind_a_true_beginning_are_a_session(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), kept in 0..64_usize,
        ) {
            let keys = keys();
            let (token, _) = session().seal(&keys, "a").unwrap();
            let sealed = URL_SAFE_NO_PAD.decode(&token[PREFIX.len()..]).unwrap();
            let kept = kept.min(sealed.len() - 1);
            let text = [&sealed[..kept], &bytes].concat();
            proptest::prop_assume!(text != sealed);
            let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(text));
            proptest::prop_assert!(Session::open(&keys, "a", text.as_bytes()).is_err());
        }

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
