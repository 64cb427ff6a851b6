//! Finds the values that stand at chosen places of a JSON object (RFC 8259), or of each object of an array, across any
//! split of its bytes. An array at a chosen place is looked into where its items have a place.
//!
//! Keeps a few bytes of state and none of the object's, but for the one value that is being read and that a split has
//! cut. Judges nothing: what is no JSON object has nothing at any place.

use std::borrow::Cow;

use super::json_text;

/// Objects within each other that matter.
const MAX_DEPTH: usize = 6;
/// A key, string or number is not read that is written in more bytes.
const MAX_TEXT: usize = 512;

/// What has been seen of one object. `P` names the places that matter.
#[derive(Debug)]
pub struct Places<P> {
    root: P,
    /// The place of a key's value in the object at a place.
    rule: fn(P, &[u8]) -> Option<P>,
    /// The place of the items of the array at a place.
    items: fn(P) -> Option<P>,
    /// The open objects that matter, outermost first.
    path: [P; MAX_DEPTH],
    depth: usize,
    /// Which of them are arrays, whose items are at the place that is written there: a bit for each.
    arrays: u8,
    /// The place of the value that comes next.
    value: Option<P>,
    key_next: bool,
    /// Objects and arrays that are open and do not matter.
    skipped: u32,
    string: Option<TextKind>,
    escaped: bool,
    /// A number or a word at a place that matters is being read.
    literal: bool,
    /// The value so far, as it is written: of a string that is cut or escaped, and of a literal that is cut.
    text: Vec<u8>,
    too_long: bool,
    /// Objects may stand in an array.
    batches: bool,
    in_batch: bool,
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
    /// A number, `true`, `false` or `null`, as it is written.
    Literal(&'t [u8]),
    /// A value that is there and is not kept: an array, or a string or number that is too long or cannot be read.
    Unkept,
    /// The end of the outermost object.
    End,
}

// === impl Places ===

impl<P: Copy> Places<P> {
    /// Nothing has come yet of the object at the place `root`.
    #[must_use]
    pub fn new(root: P, rule: fn(P, &[u8]) -> Option<P>) -> Self {
        Self {
            root,
            rule,
            items: |_| None,
            path: [root; MAX_DEPTH],
            depth: 0,
            arrays: 0,
            value: None,
            key_next: false,
            skipped: 0,
            string: None,
            escaped: false,
            literal: false,
            text: Vec::new(),
            too_long: false,
            batches: false,
            in_batch: false,
            ended: false,
        }
    }

    /// The same where an array of such objects may stand in place of one (JSON-RPC 2.0 section 6).
    #[must_use]
    pub fn batched(root: P, rule: fn(P, &[u8]) -> Option<P>) -> Self {
        Self { batches: true, ..Self::new(root, rule) }
    }

    /// The same where arrays at places have items at places.
    #[must_use]
    pub fn with_items(self, items: fn(P) -> Option<P>) -> Self {
        Self { items, ..self }
    }

    /// Takes the next bytes, and shows what they complete.
    pub fn feed(&mut self, mut bytes: &[u8], found: &mut impl FnMut(P, Found<'_>)) {
        while !self.ended {
            let rest = match self.string {
                Some(kind) => self.in_string(kind, bytes, found),
                None if self.literal => self.in_literal(bytes, found),
                None if self.skipped > 0 => self.skip(bytes),
                None => self.outside(bytes, found),
            };
            let Some(rest) = rest else { return };
            bytes = rest;
        }
    }

    /// What follows as many parts as come whole; `None` if that is nothing.
    fn outside<'b>(
        &mut self,
        mut bytes: &'b [u8],
        found: &mut impl FnMut(P, Found<'_>),
    ) -> Option<&'b [u8]> {
        loop {
            let (&byte, mut rest) = bytes.split_first()?;
            match byte {
                b'"' => match self.whole_string(rest, found) {
                    Some(behind) => rest = behind,
                    None => {
                        self.begin_string();
                        self.ended = self.depth == 0 && !self.in_batch;
                        return Some(rest);
                    }
                },
                b'{' => self.open(found),
                b'}' | b']' => self.close(found),
                b'[' => self.open_array(found),
                b',' => self.next(),
                // What stands between two parts says nothing, within an object.
                b' ' | b'\n' | b'\r' | b'\t' | b':' if byte != b':' || self.depth > 0 => {
                    bytes = rest;
                    continue;
                }
                _ if self.value.is_some() => {
                    let Some(end) = bytes.iter().position(ends_literal) else {
                        self.literal = true;
                        self.begin_text();
                        return Some(bytes);
                    };
                    let (whole, behind) = bytes.split_at(end);
                    self.end_literal(Some(whole), found);
                    rest = behind;
                }
                _ => {}
            }
            if self.depth == 0 && !self.in_batch {
                // Only an object has places.
                self.ended = true;
                return None;
            }
            if self.skipped > 0 {
                return Some(rest);
            }
            bytes = rest;
        }
    }

    /// What follows an object or array that does not matter; `None` if it goes on.
    fn skip<'b>(&mut self, mut bytes: &'b [u8]) -> Option<&'b [u8]> {
        while self.skipped > 0 {
            let (&byte, rest) = bytes.split_first()?;
            bytes = rest;
            match byte {
                b'"' => match json_text::end(rest).and_then(|end| rest.get(end..)?.split_first()) {
                    Some((b'"', behind)) => bytes = behind,
                    _ => {
                        self.begin_string();
                        return Some(rest);
                    }
                },
                b'{' | b'[' => self.skipped = self.skipped.saturating_add(1),
                b'}' | b']' => self.skipped -= 1,
                _ => {}
            }
        }
        (self.key_next, self.value) = (false, None);
        Some(bytes)
    }

    /// What follows a string that is whole and as it is written; `None` if it is not.
    fn whole_string<'b>(
        &mut self,
        bytes: &'b [u8],
        found: &mut impl FnMut(P, Found<'_>),
    ) -> Option<&'b [u8]> {
        let end = json_text::end(bytes)?;
        let (part, rest) = bytes.split_at_checked(end)?;
        let (b'"', rest) = rest.split_first()? else { return None };
        if self.key_next {
            self.end_key(Some(part));
            // What nearly always follows.
            let rest = rest.strip_prefix(b":").unwrap_or(rest);
            return Some(rest.strip_prefix(b" ").unwrap_or(rest));
        }
        if self.value.is_some() {
            let said = std::str::from_utf8(part).ok().map(Cow::Borrowed);
            self.end_string(TextKind::Value, said, found);
        }
        Some(rest)
    }

    /// Whether the object has ended, or what came is none.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Another object follows.
    pub fn restart(&mut self) {
        let (text, items, batches) = (std::mem::take(&mut self.text), self.items, self.batches);
        *self = Self { text, items, batches, ..Self::new(self.root, self.rule) };
        self.text.clear();
    }

    /// Another member or item follows.
    fn next(&mut self) {
        let item = self.array();
        (self.key_next, self.value) = (self.depth > 0 && item.is_none(), item);
    }

    /// The place of the items of the innermost array; `None` in an object.
    fn array(&self) -> Option<P> {
        let last = self.depth.checked_sub(1)?;
        if self.arrays & (1 << last) == 0 { None } else { self.path.get(last).copied() }
    }

    fn open_array(&mut self, found: &mut impl FnMut(P, Found<'_>)) {
        if self.depth == 0 && self.batches && !self.in_batch {
            self.in_batch = true;
            return;
        }
        let place = self.value.take();
        if let Some(place) = place {
            found(place, Found::Unkept);
        }
        let items = place.and_then(self.items);
        match (items, self.path.get_mut(self.depth)) {
            (Some(items), Some(room)) => {
                *room = items;
                self.arrays |= 1 << self.depth;
                self.depth += 1;
                (self.key_next, self.value) = (false, Some(items));
            }
            _ => self.skipped = 1,
        }
    }

    fn open(&mut self, found: &mut impl FnMut(P, Found<'_>)) {
        let place = if self.depth == 0 { Some(self.root) } else { self.value.take() };
        match (place, self.path.get_mut(self.depth)) {
            (Some(place), Some(room)) => {
                *room = place;
                self.depth += 1;
                self.key_next = true;
                found(place, Found::Object);
            }
            _ => self.skipped = 1,
        }
    }

    fn close(&mut self, found: &mut impl FnMut(P, Found<'_>)) {
        (self.key_next, self.value) = (false, None);
        match self.depth {
            0 => self.in_batch = false,
            1 => found(self.root, Found::End),
            _ => {}
        }
        self.depth = self.depth.saturating_sub(1);
        self.arrays &= !(1 << self.depth);
    }

    fn begin_string(&mut self) {
        self.string = Some(match self.value {
            _ if self.skipped > 0 => TextKind::Other,
            _ if self.key_next => TextKind::Key,
            Some(_) => TextKind::Value,
            None => TextKind::Other,
        });
        self.begin_text();
    }

    fn begin_text(&mut self) {
        self.text.clear();
        (self.escaped, self.too_long) = (false, false);
    }

    /// What follows the literal; `None` if it goes on.
    fn in_literal<'b>(
        &mut self,
        bytes: &'b [u8],
        found: &mut impl FnMut(P, Found<'_>),
    ) -> Option<&'b [u8]> {
        let end = bytes.iter().position(ends_literal);
        let (part, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        if end.is_none() {
            self.keep(TextKind::Value, part);
            return None;
        }
        self.literal = false;
        self.keep(TextKind::Value, part);
        let text = std::mem::take(&mut self.text);
        self.end_literal(Some(&*text).filter(|_| !self.too_long), found);
        self.text = text;
        Some(rest)
    }

    /// A number or a word has ended; `None` is that it was too long.
    fn end_literal(&mut self, whole: Option<&[u8]>, found: &mut impl FnMut(P, Found<'_>)) {
        let whole = whole.filter(|whole| whole.len() <= MAX_TEXT);
        if let Some(place) = self.value.take() {
            found(place, whole.map_or(Found::Unkept, Found::Literal));
        }
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
        let end = json_text::end(bytes);
        let part = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
        self.keep(kind, part);
        let end = end?;
        if bytes.get(end) == Some(&b'\\') {
            self.escaped = true;
            self.keep(kind, b"\\");
        } else {
            self.string = None;
            let text = std::mem::take(&mut self.text);
            let said = if self.too_long { None } else { unescaped(&text) };
            self.end_string(kind, said, found);
            self.text = text;
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

    fn end_key(&mut self, key: Option<&[u8]>) {
        let around = self.depth.checked_sub(1).and_then(|last| self.path.get(last));
        self.value = around.zip(key).and_then(|(place, key)| (self.rule)(*place, key));
        self.key_next = false;
    }

    fn end_string(
        &mut self,
        kind: TextKind,
        said: Option<Cow<'_, str>>,
        found: &mut impl FnMut(P, Found<'_>),
    ) {
        let said = said.filter(|said| said.len() <= MAX_TEXT);
        match kind {
            TextKind::Key => self.end_key(said.as_deref().map(str::as_bytes)),
            TextKind::Value => {
                if let Some(place) = self.value.take() {
                    found(place, said.map_or(Found::Unkept, Found::Text));
                }
            }
            TextKind::Other => {}
        }
    }
}

fn ends_literal(byte: &u8) -> bool {
    matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace()
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
        read_by(Places::new(Place::Root, rule), pieces)
    }

    fn read_by(mut places: Places<Place>, pieces: &[&[u8]]) -> (Vec<(Place, String)>, bool) {
        let mut all = Vec::new();
        for piece in pieces {
            places.feed(piece, &mut |place, found| {
                all.push((
                    place,
                    match found {
                        Found::Object => "{".to_owned(),
                        Found::Text(text) => text.into_owned(),
                        Found::Literal(text) => format!("={}", String::from_utf8_lossy(text)),
                        Found::Unkept => "~".to_owned(),
                        Found::End => "}".to_owned(),
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
        (r#" {"b":"x"} "#, &[(Place::Root, "{"), (Place::B, "x"), (Place::Root, "}")], true),
        (r#"{"b":"x""#, &[(Place::Root, "{"), (Place::B, "x")], false),
        (
            r#"{"c":{"b":"no"},"b":["no",7,{"b":"no"}],"a":1}"#,
            &[(Place::Root, "{"), (Place::B, "~"), (Place::A, "=1"), (Place::Root, "}")],
            true,
        ),
        (
            r#"{"b" : -1.5e3 , "a":{"b":false},"x":true,"b":null"#,
            &[(Place::Root, "{"), (Place::B, "=-1.5e3"), (Place::A, "{"), (Place::B, "=false")],
            false,
        ),
        (
            r#"{"a":{"x":"b","b":"1\"\u0032\\"},"b":"3"}"#,
            &[
                (Place::Root, "{"),
                (Place::A, "{"),
                (Place::B, "1\"2\\"),
                (Place::B, "3"),
                (Place::Root, "}"),
            ],
            true,
        ),
        (
            r#"{"\u0061":{"\u0062":"x"}"#,
            &[(Place::Root, "{"), (Place::A, "{"), (Place::B, "x")],
            false,
        ),
        (r#"{"b":"a","x":"b"}"#, &[(Place::Root, "{"), (Place::B, "a"), (Place::Root, "}")], true),
        (r#"[{"b":"x"}]"#, &[], true),
        (r#""b""#, &[], true),
        ("null", &[], true),
        ("}", &[], true),
        (r#"{}{"b":"x"}"#, &[(Place::Root, "{"), (Place::Root, "}")], true),
        (r#"{"b" "x"}"#, &[(Place::Root, "{"), (Place::B, "x"), (Place::Root, "}")], true),
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
    fn each_object_of_an_array_is_read_where_one_may_stand() {
        const X: Expected = &[(Place::Root, "{"), (Place::B, "x"), (Place::Root, "}")];
        const TWICE: Expected = &[X[0], X[1], X[2], X[0], X[1], X[2]];
        let cases: [(&str, Expected, bool); 7] = [
            (r#"{"b":"x"}"#, X, true),
            (r#" [{"b":"x"} , {"b":"x"}] "#, TWICE, true),
            (r#"[{"b":"x"},7,"b","x",null,[{"b":"no"}],{"b":"x"}"#, TWICE, false),
            ("[]", &[], true),
            ("[[]", &[], false),
            (r#"[{"b":"x"}]{"b":"no"}"#, X, true),
            (r#"}{"b":"no"}"#, &[], true),
        ];
        for (document, expected, ended) in cases {
            let expected: Vec<_> =
                expected.iter().map(|(place, text)| (*place, (*text).to_owned())).collect();
            let bytes = document.as_bytes();
            for at in 0..=bytes.len() {
                let places = Places::batched(Place::Root, rule);
                let found = read_by(places, &[&bytes[..at], &bytes[at..]]);
                assert_eq!(found, (expected.clone(), ended), "{document} split at {at}");
            }
        }
    }

    #[test]
    fn what_is_too_long_or_too_deep_is_passed_over() {
        let long = "x".repeat(MAX_TEXT + 1);
        let document = format!(r#"{{"{long}":"no","b":"{long}","a":{{"b":"x"}}}}"#);
        let (found, ended) = read(&[document.as_bytes()]);
        let (unkept, a) = ((Place::B, "~"), (Place::A, "{"));
        let (b, end) = ((Place::B, "x"), (Place::Root, "}"));
        let expected = [unkept, a, b, end].map(|(place, text)| (place, text.to_owned()));
        assert_eq!(found[1..], expected);
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
        fn little_is_kept_of_any_document(
            parts in proptest::collection::vec(
                proptest::sample::select(vec!["\"", "\\", "é", "xxxxxxxxxxxxxxxxx", "7777777", "{\"a\":", "\"b\":\"", "{", "[", "}", ","]), 0..40,
            ),
            times in 1usize..300, size in 1usize..2000,
        ) {
            let document: String = parts.iter().map(|part| part.repeat(times)).collect();
            let mut places = Places::batched(Place::Root, rule).with_items(Some);
            for piece in document.as_bytes().chunks(size) {
                places.feed(piece, &mut |_, _| {});
                proptest::prop_assert!(places.text.capacity() <= 2 * MAX_TEXT);
            }
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
