//! The keys that seal sessions: the first seals, all of them open.
//!
//! Knows bytes, and how a key is written in a file; never what is sealed.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

/// Bytes of a key (AES-256).
pub const KEY_LEN: usize = 32;
/// Bytes that say which key has sealed.
const ID_LEN: usize = 4;
/// Bytes of the authentication tag (RFC 5116 section 5.1).
pub const TAG_LEN: usize = 16;
/// What sealing adds to the bytes.
const OVERHEAD: usize = ID_LEN + NONCE_LEN + TAG_LEN;

/// Keys, the one that seals first.
pub struct Keyring {
    keys: Vec<Key>,
    random: SystemRandom,
}

struct Key {
    id: [u8; ID_LEN],
    key: LessSafeKey,
}

/// Why a text is no key.
#[derive(Debug, thiserror::Error)]
pub enum BadKey {
    /// Not base64.
    #[error("is not base64; write 32 random bytes as base64, such as by `openssl rand -base64 32`")]
    NotBase64,
    /// Nothing but white space.
    #[error("holds no key; write 32 random bytes as base64, such as by `openssl rand -base64 32`")]
    Empty,
    /// Too long or too short.
    #[error(
        "has {0} bytes behind its base64; write 32 random bytes, such as by `openssl rand -base64 32`"
    )]
    Length(usize),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    NoRandom,
}

/// Why bytes cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unopened {
    /// Sealed by a key that we do not have.
    UnknownKey,
    /// Cut, changed, or sealed for something else.
    Forged,
}

// === impl Keyring ===

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyring({} keys)", self.keys.len())
    }
}

impl Keyring {
    /// No key: nothing can be sealed.
    #[must_use]
    pub fn none() -> Self {
        Self { keys: Vec::new(), random: SystemRandom::new() }
    }

    /// Adds the keys of a file: one on each line, 32 bytes as base64, in the standard alphabet or that of URLs.
    ///
    /// # Errors
    /// [`BadKey`] of the first line that is none, or of a file without any.
    pub fn add(&mut self, text: &str) -> Result<(), BadKey> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let before = self.keys.len();
        for line in lines {
            self.keys.push(Key::new(&decode(line).ok_or(BadKey::NotBase64)?)?);
        }
        if self.keys.len() == before { Err(BadKey::Empty) } else { Ok(()) }
    }

    /// One key that nobody else has.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn random() -> Result<Self, BadKey> {
        let random = SystemRandom::new();
        let mut bytes = [0; KEY_LEN];
        random.fill(&mut bytes).map_err(|_| BadKey::NoRandom)?;
        Ok(Self { keys: vec![Key::new(&bytes)?], random })
    }

    /// Seals these bytes for one purpose: key id, nonce, ciphertext, tag. `None` without a key, or if the system
    /// gives no random bytes.
    #[must_use]
    pub fn seal(&self, purpose: &[u8], bytes: &[u8]) -> Option<Vec<u8>> {
        let key = self.keys.first()?;
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let mut sealed = Vec::with_capacity(bytes.len() + OVERHEAD);
        sealed.extend_from_slice(&key.id);
        sealed.extend_from_slice(&nonce);
        let start = sealed.len();
        sealed.extend_from_slice(bytes);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let text = sealed.get_mut(start..)?;
        let tag = key.key.seal_in_place_separate_tag(nonce, Aad::from(purpose), text).ok()?;
        sealed.extend_from_slice(tag.as_ref());
        Some(sealed)
    }

    /// Whether what begins so was sealed by one of them.
    #[must_use]
    pub fn have_sealed(&self, start: &[u8]) -> bool {
        start
            .first_chunk()
            .is_some_and(|id: &[u8; ID_LEN]| self.keys.iter().any(|key| key.id == *id))
    }

    /// Opens in place what was sealed for this purpose.
    ///
    /// # Errors
    /// [`Unopened`].
    pub fn open<'s>(&self, purpose: &[u8], sealed: &'s mut [u8]) -> Result<&'s [u8], Unopened> {
        let (id, rest) = sealed.split_at_mut_checked(ID_LEN).ok_or(Unopened::UnknownKey)?;
        let key = self.keys.iter().find(|key| key.id == *id).ok_or(Unopened::UnknownKey)?;
        if rest.len() < OVERHEAD - ID_LEN {
            return Err(Unopened::Forged);
        }
        let (nonce, text) = rest.split_at_mut(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unopened::Forged)?;
        let opened = key.key.open_in_place(nonce, Aad::from(purpose), text);
        opened.map(|text| &*text).map_err(|_| Unopened::Forged)
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let url = || URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok();
    STANDARD.decode(text).ok().or_else(url)
}

// === impl Key ===

impl Key {
    fn new(bytes: &[u8]) -> Result<Self, BadKey> {
        let key = UnboundKey::new(&AES_256_GCM, bytes).map_err(|_| BadKey::Length(bytes.len()))?;
        let mut id = [0; ID_LEN];
        for (id, byte) in id.iter_mut().zip(digest(&SHA256, bytes).as_ref()) {
            *id = *byte;
        }
        Ok(Self { id, key: LessSafeKey::new(key) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const B: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

    fn ring(texts: &[&str]) -> Result<Keyring, BadKey> {
        let mut ring = Keyring::none();
        texts.iter().try_for_each(|text| ring.add(text))?;
        Ok(ring)
    }

    #[test]
    fn what_one_seals_all_open_that_have_its_key() {
        let (old, both, new) =
            (ring(&[A]).unwrap(), ring(&[&format!("{B}\n{A}\n")]).unwrap(), ring(&[B]).unwrap());
        let mut sealed = old.seal(b"a", b"text").unwrap();
        assert_eq!(both.open(b"a", &mut sealed.clone()), Ok(&b"text"[..]));
        assert_eq!(new.open(b"a", &mut sealed), Err(Unopened::UnknownKey));
        let sealed = both.seal(b"a", b"text").unwrap();
        assert_eq!(new.open(b"a", &mut sealed.clone()), Ok(&b"text"[..]), "the first seals");
        assert_eq!(new.open(b"b", &mut { sealed }), Err(Unopened::Forged), "another purpose");
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_noticed() {
        let ring = ring(&[A]).unwrap();
        let sealed = ring.seal(b"a", b"text").unwrap();
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[at] ^= 1 << bit;
                assert!(ring.open(b"a", &mut changed).is_err(), "byte {at}, bit {bit}");
            }
            assert!(ring.open(b"a", &mut sealed.clone()[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn keys_are_read_in_both_alphabets_and_refused_with_a_remedy() {
        let url = "-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_8";
        assert!(ring(&[&format!(" {A}\r\n\n"), url]).is_ok());
        for (text, said) in
            [("!", "not base64"), ("AAAA", "has 3 bytes"), ("", "no key"), (" \n", "no key")]
        {
            let why = ring(&[A, text]).unwrap_err().to_string();
            assert!(why.contains(said) && why.contains("openssl rand"), "{text:?}: {why}");
        }
    }

    #[test]
    fn a_random_key_is_nobody_elses() {
        let (one, other) = (Keyring::random().unwrap(), Keyring::random().unwrap());
        let mut sealed = one.seal(b"a", b"text").unwrap();
        assert_eq!(other.open(b"a", &mut sealed.clone()), Err(Unopened::UnknownKey));
        assert!(one.open(b"a", &mut sealed).is_ok());
        assert!(Keyring::none().seal(b"a", b"text").is_none());
    }
}
