//! Finds the strings that stand at chosen places of a JSON object (RFC 8259), across any split of its bytes.
//!
//! Keeps a few bytes of state and none of the object's, but for the one string that is being read. Judges nothing:
//! what is no JSON object has nothing at any place.

use std::borrow::Cow;

/// Objects within each other that matter.
const MAX_DEPTH: usize = 6;
/// A longer key or string is not read.
const MAX_TEXT: usize = 512;

/// What has been seen of one object. `P` names the places that matter.
#[derive(Debug)]
pub struct Places<P> {
    root: P,
    /// The place of a key's value in the object at a place.
    rule: fn(P, &[u8]) -> Option<P>,
    /// The open objects that matter, outermost first.
    path: [P; MAX_DEPTH],
    depth: usize,
    /// The place of the value that comes next.
    value: Option<P>,
    key_next: bool,
    /// Objects and arrays that are open and do not matter.
    skipped: u32,
    string: Option<TextKind>,
    escaped: bool,
    /// The string so far, as it is written.
    text: Vec<u8>,
    too_long: bool,
    ended: bool,
}

/// What a string is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TextKind {
    Key,
    /// The value at a place that matters.
    Value,
    Other,
}

/// What stands at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'t> {
    /// An object, of which nothing has been read yet.
    Object,
    /// A string.
    Text(Cow<'t, str>),
}

// === impl Places ===

impl<P: Copy> Places<P> {
    /// Nothing has come yet of the object at the place `root`.
    #[must_use]
    pub fn new(root: P, rule: fn(P, &[u8]) -> Option<P>) -> Self {
        Self {
            root,
            rule,
            path: [root; MAX_DEPTH],
            depth: 0,
            value: None,
            key_next: false,
            skipped: 0,
            string: None,
            escaped: false,
            text: Vec::new(),
            too_long: false,
            ended: false,
        }
    }

    /// Takes the next bytes, and shows what they complete.
    pub fn feed(&mut self, mut bytes: &[u8], found: &mut impl FnMut(P, Found<'_>)) {
        while !self.ended {
            if let Some(kind) = self.string {
                let Some(rest) = self.in_string(kind, bytes, found) else { return };
                bytes = rest;
                continue;
            }
            let Some((&byte, rest)) = bytes.split_first() else { return };
            bytes = rest;
            match byte {
                b'"' => self.begin_string(),
                b'{' => self.open(found),
                b'[' => self.skipped += 1,
                b'}' | b']' => self.close(),
                b',' if self.skipped == 0 => (self.key_next, self.value) = (true, None),
                _ => {}
            }
            // Only an object has places.
            self.ended |= self.depth == 0 && !byte.is_ascii_whitespace();
        }
    }

    /// Whether the object has ended, or what came is none.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Another object follows.
    pub fn restart(&mut self) {
        let text = std::mem::take(&mut self.text);
        *self = Self { text, ..Self::new(self.root, self.rule) };
        self.text.clear();
    }

    fn open(&mut self, found: &mut impl FnMut(P, Found<'_>)) {
        let place = if self.depth == 0 { Some(self.root) } else { self.value.take() };
        match (place, self.path.get_mut(self.depth)) {
            (Some(place), Some(room)) if self.skipped == 0 => {
                *room = place;
                self.depth += 1;
                self.key_next = true;
                found(place, Found::Object);
            }
            _ => self.skipped = self.skipped.saturating_add(1),
        }
    }

    fn close(&mut self) {
        if self.skipped > 0 {
            self.skipped -= 1;
        } else {
            self.depth = self.depth.saturating_sub(1);
        }
        (self.key_next, self.value) = (false, None);
    }

    fn begin_string(&mut self) {
        self.string = Some(match self.value {
            _ if self.skipped > 0 => TextKind::Other,
            _ if self.key_next => TextKind::Key,
            Some(_) => TextKind::Value,
            None => TextKind::Other,
        });
        self.text.clear();
        (self.escaped, self.too_long) = (false, false);
    }

    /// What follows the string; `None` if it goes on.
    fn in_string<'b>(
        &mut self,
        kind: TextKind,
        bytes: &'b [u8],
        found: &mut impl FnMut(P, Found<'_>),
    ) -> Option<&'b [u8]> {
        if self.escaped {
            let (one, rest) = bytes.split_at_checked(1)?;
            self.escaped = false;
            self.keep(kind, one);
            return Some(rest);
        }
        let end = memchr::memchr2(b'"', b'\\', bytes);
        self.keep(kind, bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default());
        let end = end?;
        if bytes.get(end) == Some(&b'\\') {
            self.escaped = true;
            self.keep(kind, b"\\");
        } else {
            self.string = None;
            self.end_string(kind, found);
        }
        bytes.get(end + 1..)
    }

    fn keep(&mut self, kind: TextKind, some: &[u8]) {
        if kind != TextKind::Other && !self.too_long {
            self.too_long = self.text.len() + some.len() > MAX_TEXT;
            if !self.too_long {
                self.text.extend_from_slice(some);
            }
        }
    }

    fn end_string(&mut self, kind: TextKind, found: &mut impl FnMut(P, Found<'_>)) {
        let said = if self.too_long { None } else { unescaped(&self.text) };
        match kind {
            TextKind::Key => {
                let around = self.depth.checked_sub(1).and_then(|last| self.path.get(last));
                let key = said.as_deref().map(str::as_bytes);
                self.value = around.zip(key).and_then(|(place, key)| (self.rule)(*place, key));
                self.key_next = false;
            }
            TextKind::Value => {
                if let (Some(place), Some(said)) = (self.value.take(), said) {
                    found(place, Found::Text(said));
                }
            }
            TextKind::Other => {}
        }
    }
}

/// What a string says that is written so, without its quotes.
fn unescaped(text: &[u8]) -> Option<Cow<'_, str>> {
    if text.contains(&b'\\') {
        let quoted = [b"\"", text, b"\""].concat();
        return serde_json::from_slice(&quoted).ok().map(Cow::Owned);
    }
    std::str::from_utf8(text).ok().map(Cow::Borrowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Place {
        Root,
        A,
        B,
    }

    fn rule(place: Place, key: &[u8]) -> Option<Place> {
        match (place, key) {
            (Place::Root, b"a") => Some(Place::A),
            (Place::A | Place::Root, b"b") => Some(Place::B),
            _ => None,
        }
    }

    /// What is found, and whether the object has ended.
    fn read(pieces: &[&[u8]]) -> (Vec<(Place, String)>, bool) {
        let mut places = Places::new(Place::Root, rule);
        let mut all = Vec::new();
        for piece in pieces {
            places.feed(piece, &mut |place, found| {
                all.push((
                    place,
                    match found {
                        Found::Object => "{".to_owned(),
                        Found::Text(text) => text.into_owned(),
                    },
                ));
            });
        }
        (all, places.is_ended())
    }

    type Expected = &'static [(Place, &'static str)];

    const DOCUMENTS: &[(&str, Expected, bool)] = &[
        ("", &[], false),
        (" \r\n", &[], false),
        (r#" {"b":"x"} "#, &[(Place::Root, "{"), (Place::B, "x")], true),
        (r#"{"b":"x""#, &[(Place::Root, "{"), (Place::B, "x")], false),
        (r#"{"c":{"b":"no"},"b":["no",{"b":"no"}],"a":1}"#, &[(Place::Root, "{")], true),
        (
            r#"{"a":{"x":"b","b":"1\"\u0032\\"},"b":"3"}"#,
            &[(Place::Root, "{"), (Place::A, "{"), (Place::B, "1\"2\\"), (Place::B, "3")],
            true,
        ),
        (
            r#"{"\u0061":{"\u0062":"x"}"#,
            &[(Place::Root, "{"), (Place::A, "{"), (Place::B, "x")],
            false,
        ),
        (r#"{"b":"a","x":"b"}"#, &[(Place::Root, "{"), (Place::B, "a")], true),
        (r#"[{"b":"x"}]"#, &[], true),
        (r#""b""#, &[], true),
        ("null", &[], true),
        ("}", &[], true),
        (r#"{}{"b":"x"}"#, &[(Place::Root, "{")], true),
        (r#"{"b" "x"}"#, &[(Place::Root, "{"), (Place::B, "x")], true),
    ];

    #[test]
    fn what_stands_at_a_place_is_found_at_every_split() {
        for &(document, expected, ended) in DOCUMENTS {
            let expected: Vec<_> =
                expected.iter().map(|(place, text)| (*place, (*text).to_owned())).collect();
            let bytes = document.as_bytes();
            for at in 0..=bytes.len() {
                for to in at..=bytes.len() {
                    let found = read(&[&bytes[..at], &bytes[at..to], &bytes[to..]]);
                    assert_eq!(found, (expected.clone(), ended), "{document} split at {at}, {to}");
                }
            }
        }
    }

    #[test]
    fn what_is_too_long_or_too_deep_is_passed_over() {
        let long = "x".repeat(MAX_TEXT + 1);
        let document = format!(r#"{{"{long}":"no","b":"{long}","a":{{"b":"x"}}}}"#);
        let (found, ended) = read(&[document.as_bytes()]);
        assert_eq!(found[1..], [(Place::A, "{".to_owned()), (Place::B, "x".to_owned())]);
        assert!(ended);
        let deep = r#"{"b":"#.repeat(MAX_DEPTH + 100) + &"}".repeat(MAX_DEPTH + 100);
        assert!(read(&[deep.as_bytes()]).1, "its end is found");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_same(
            document in "[ab\"\\\\{}\\[\\]:, u0061x]{0,60}",
            pieces in proptest::collection::vec(1usize..6, 0..60),
        ) {
            let whole = read(&[document.as_bytes()]);
            let mut rest = document.as_bytes();
            let mut cut = Vec::new();
            for piece in pieces {
                let (now, later) = rest.split_at(piece.min(rest.len()));
                cut.push(now);
                rest = later;
            }
            cut.push(rest);
            proptest::prop_assert_eq!(read(&cut), whole);
        }

        #[test]
        fn serde_sees_the_same(a in ".{0,20}", b in ".{0,20}", key in "[cd\"\\\\é]{0,3}") {
            let document = serde_json::json!({&key: {&key: [&a, {"b": &a}]}, "a": {"b": &a, "c": "b"}, "b": &b});
            let (found, ended) = read(&[document.to_string().as_bytes()]);
            let texts: Vec<_> = found.iter().filter(|(place, text)| {
                *place == Place::B && text != "{"
            }).map(|(_, text)| text.as_str()).collect();
            let expected = [document["a"]["b"].as_str().unwrap(), document["b"].as_str().unwrap()];
            proptest::prop_assert!(ended);
            if a != "{" && b != "{" {
                proptest::prop_assert_eq!(texts, expected);
            }
        }
    }
}
