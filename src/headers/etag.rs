//! Entity tags: one of our own for bytes that no server has tagged, and those that a client has (RFC 9110 sections
//! 8.8.3 and 13.1.2).
//!
//! Pure. Knows bytes and values; not what they are of.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{HeaderMap, HeaderValue, IF_NONE_MATCH};
use ring::digest::{SHA256, digest};

/// Bytes of the digest that are kept.
const KEPT: usize = 16;

/// The strong entity tag of these bytes, which depends on nothing else: every replica says the same of them, and says it
/// after a restart.
#[must_use]
pub fn of(bytes: &[u8]) -> String {
    let digest = digest(&SHA256, bytes);
    let kept = digest.as_ref().get(..KEPT).unwrap_or_default();
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(kept))
}

/// What a client has already, as its `If-None-Match` says it.
#[derive(Clone, Debug)]
pub struct IfNoneMatch(Vec<HeaderValue>);

// === impl IfNoneMatch ===

impl IfNoneMatch {
    /// That of a request. Boxed, for few have one.
    #[must_use]
    pub fn of(map: &HeaderMap) -> Box<Self> {
        Box::new(Self(map.get_all(IF_NONE_MATCH).iter().cloned().collect()))
    }

    /// Whether it names this entity tag.
    #[must_use]
    pub fn names(&self, tag: &str) -> bool {
        is_named(&self.0, tag)
    }
}

/// Whether the values of `If-None-Match` name this entity tag, by the weak comparison, or everything that there is. What
/// cannot be read names nothing.
fn is_named<'v>(values: impl IntoIterator<Item = &'v HeaderValue>, tag: &str) -> bool {
    values
        .into_iter()
        .map(|value| value.as_bytes().trim_ascii())
        .any(|value| value == b"*" || Tags(value).any(|opaque| opaque == tag.as_bytes()))
}

/// The opaque tags of a list, each with its quotes.
struct Tags<'v>(&'v [u8]);

// === impl Tags ===

impl<'v> Iterator for Tags<'v> {
    type Item = &'v [u8];

    fn next(&mut self) -> Option<&'v [u8]> {
        let between = |byte: &u8| b" \t,".contains(byte);
        // Elements may be empty (RFC 9110 section 5.6.1.2), and commas may stand inside a tag.
        let start = self.0.iter().position(|byte| !between(byte))?;
        let tag = self.0.get(start..).unwrap_or_default();
        let tag = tag.strip_prefix(b"W/").unwrap_or(tag);
        let inner = tag.strip_prefix(b"\"")?;
        let end = memchr::memchr(b'"', inner)? + 2;
        self.0 = tag.get(end..).unwrap_or_default();
        // The next one is told by a comma.
        if self.0.trim_ascii_start().first().is_some_and(|byte| *byte != b',') {
            self.0 = &[];
        }
        tag.get(..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_of_its_bytes_only_and_stays() {
        // The first half of SHA-256 of nothing and of "abc" (FIPS 180-2, appendix B.1), in base64url.
        assert_eq!(of(b""), "\"47DEQpj8HBSa-_TImW-5JA\"");
        assert_eq!(of(b"abc"), "\"ungWv48Bz-pBQUDeXa4iIw\"");
    }

    #[test]
    fn a_list_names_a_tag_by_the_weak_comparison() {
        let named = [
            "\"a\"",
            "W/\"a\"",
            " \"a\" ",
            "\"b\", \"a\"",
            "\"b\",W/\"a\",\"c\"",
            ", ,\"b\" ,, W/\"a\"",
            "\"x,y\", \"a\"",
            "\"\",\"a\"",
            "*",
            "\t*\t",
        ];
        let others = [
            "",
            ",",
            "a",
            "\"A\"",
            "\"aa\"",
            "\"b, \"a",
            "\"b\"\"a\"",
            "w/\"a\"",
            "W/ \"a\"",
            "W/a",
            "W/*",
            "\"*\"",
            "*, \"b\"",
            "b, \"a\"",
            "\"b, W/\"a\"",
        ];
        for (values, expected) in [(&named[..], true), (&others[..], false)] {
            for value in values {
                let list = [HeaderValue::from_static(value)];
                assert_eq!(is_named(&list, "\"a\""), expected, "{value:?}");
            }
        }
    }

    #[test]
    fn several_fields_are_one_list() {
        let fields = ["\"b\"", "\"c\", W/\"a\""].map(HeaderValue::from_static);
        assert!(is_named(&fields, "\"a\""));
        assert!(!is_named(&fields[..1], "\"a\""));
        assert!(!is_named([], "\"a\""));
        let bytes = [HeaderValue::from_bytes(b"\"\xff\", \"a\"").unwrap()];
        assert!(is_named(&bytes, "\"a\""));
    }
}
