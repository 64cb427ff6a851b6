//! What the fields of a response's head say that is asked of every response, found in one look at each.
//!
//! Judges nothing. What is taken out of the head later stays in here. Knows one head.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::names::{Known, Names};
use super::{is_events, is_json, is_plain_text};

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// Which of the known ones are there.
    pub names: Names,
    /// The body is an event stream, by the first `Content-Type`.
    pub is_events: bool,
    /// The body is JSON, by the same.
    pub is_json: bool,
    /// The body is plain text, by the same: so Go calls whatever its handlers give no type.
    pub is_text: bool,
}

// === impl Noted ===

impl Noted {
    /// Looks at each.
    #[must_use]
    pub fn of(map: &HeaderMap) -> Self {
        let mut noted = Self::default();
        map.iter().for_each(|(name, value)| noted.see(name, value));
        noted
    }

    /// Looks at the next one.
    pub fn see(&mut self, name: &HeaderName, value: &HeaderValue) {
        let Some(known) = Known::of(name) else { return };
        if known == Known::ContentType && !self.names.has(known) {
            (self.is_events, self.is_json) = (is_events(value), is_json(value));
            self.is_text = is_plain_text(value);
        }
        self.names = self.names.with(known);
    }

    /// Whether no type says what the body is, which may be JSON all the same: its first byte tells. Answers of a2a-go
    /// to JSON-RPC are so.
    #[must_use]
    pub const fn is_untyped(self) -> bool {
        self.is_text || !self.names.has(Known::ContentType)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_content_type_counts_in_any_spelling() {
        for (types, events, json, untyped) in [
            (&["text/event-stream"][..], true, false, false),
            (&["Text/Event-Stream; charset=utf-8", "application/json"], true, false, false),
            (&["application/json"], false, true, false),
            (&["Application/JSON ;charset=utf-8", "text/event-stream"], false, true, false),
            (&["application/a2a+json; charset=utf-8"], false, true, false),
            (&["application/json-patch+json"], false, false, false),
            (&["application/jsonl"], false, false, false),
            (&["text/plain", "application/json"], false, false, true),
            (&["Text/Plain; charset=utf-8"], false, false, true),
            (&["text/plainer"], false, false, false),
            (&[""], false, false, false),
            (&[], false, false, true),
        ] {
            let mut map = HeaderMap::new();
            for kind in types {
                map.append("content-type", HeaderValue::from_static(kind));
            }
            map.append("via", HeaderValue::from_static("1.1 a"));
            let noted = Noted::of(&map);
            let found = (noted.is_events, noted.is_json, noted.is_untyped());
            assert_eq!(found, (events, json, untyped), "{types:?}");
            assert_eq!(noted.names, Names::of(&map));
        }
    }
}
