//! Finds what tells one JSON-RPC 2.0 message from another in the first bytes of it (JSON-RPC 2.0 section 4):
//! `id`, `method` and the name in `params`.
//!
//! A body may hold a batch of them (section 6). It may be cut anywhere: what stands whole in front of the cut is found.
//! Nothing is judged; a body that is no JSON has none of them.

use std::borrow::Cow;

/// What the bytes of one message say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message<'b> {
    /// As [`request_id`].
    pub id: Option<&'b str>,
    /// `method`, of requests and notifications.
    pub method: Option<Cow<'b, str>>,
    /// `params.name`: the tool of a `tools/call`.
    pub name: Option<Cow<'b, str>>,
    /// Nothing stands behind what was read.
    pub whole: bool,
}

/// A number without the fraction 0, which writers of JSON add that know only floating point.
pub(super) fn integer(number: &[u8]) -> &[u8] {
    number.strip_suffix(b".0").unwrap_or(number)
}

/// Whether a response with one of these ids, as they stand in JSON, answers a request with the other one.
#[must_use]
pub fn is_same_id(one: &str, other: &str) -> bool {
    integer(one.as_bytes()) == integer(other.as_bytes())
}

// === impl Message ===

impl<'b> Message<'b> {
    /// Reads as far as the bytes reach.
    #[must_use]
    pub fn read(body: &'b [u8]) -> Self {
        let mut message = Self::default();
        let mut scan = Scan { body, at: 0 };
        message.whole = members(&mut scan, |key, value| match key {
            b"id" => message.id = id_text(value),
            b"method" => message.method = string_text(value),
            b"params" => {
                let mut scan = Scan { body: value, at: 0 };
                let _as_far_as_it_goes = members(&mut scan, |key, value| {
                    if key == b"name" {
                        message.name = string_text(value);
                    }
                });
            }
            _ => {}
        })
        .is_some();
        message
    }

    /// Whether nobody waits for an answer to it: a notification, or a response of the client's.
    #[must_use]
    pub fn is_one_way(&self) -> bool {
        self.whole && (self.id.is_none() || self.method.is_none())
    }
}

/// The message of a body, or all of a batch that is whole.
#[must_use]
pub fn messages(body: &[u8]) -> Vec<Message<'_>> {
    batch(body).unwrap_or_else(|| vec![Message::read(body)])
}

/// The messages of a batch; `None` if the body is none, or is cut.
#[must_use]
pub fn batch(body: &[u8]) -> Option<Vec<Message<'_>>> {
    let mut scan = Scan { body, at: 0 };
    scan.expect(b'[')?;
    let mut all = Vec::new();
    loop {
        all.push(Message::read(scan.value()?));
        if scan.expect(b']').is_some() {
            return Some(all);
        }
        scan.expect(b',')?;
    }
}

/// Whether nobody waits for an answer to any of a body's messages.
#[must_use]
pub fn is_one_way(body: &[u8]) -> bool {
    messages(body).iter().all(Message::is_one_way)
}

/// Shows every member of an object; none behind a cut, where there is no end either.
fn members<'b>(scan: &mut Scan<'b>, mut member: impl FnMut(&[u8], &'b [u8])) -> Option<()> {
    scan.expect(b'{')?;
    if scan.expect(b'}').is_some() {
        return Some(());
    }
    loop {
        let key = scan.string()?;
        scan.expect(b':')?;
        member(&key_text(key), scan.value()?);
        if scan.expect(b'}').is_some() {
            return Some(());
        }
        scan.expect(b',')?;
    }
}

/// What a key says, with its quotes; one that is no text is as it is written, and like no other.
fn key_text(key: &[u8]) -> Cow<'_, [u8]> {
    let inner = key.get(1..key.len().saturating_sub(1)).unwrap_or_default();
    let said = inner.contains(&b'\\').then(|| serde_json::from_slice::<String>(key).ok()).flatten();
    said.map_or(Cow::Borrowed(inner), |said| Cow::Owned(said.into_bytes()))
}

/// What a string says.
fn string_text(value: &[u8]) -> Option<Cow<'_, str>> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if inner.contains(&b'\\') {
        return serde_json::from_slice(value).ok().map(Cow::Owned);
    }
    std::str::from_utf8(inner).ok().map(Cow::Borrowed)
}

/// The id as it stands in the body: a number, a string with its quotes, or `null`. `None` for a batch,
/// a notification, a body that is not JSON, and an id that the bytes do not reach.
#[must_use]
pub fn request_id(body: &[u8]) -> Option<&str> {
    let mut scan = Scan { body, at: 0 };
    scan.expect(b'{')?;
    loop {
        let key = scan.string()?;
        scan.expect(b':')?;
        let value = scan.value()?;
        if *key_text(key) == *b"id" {
            return id_text(value);
        }
        scan.expect(b',')?;
    }
}

/// Ids are strings, numbers or null; anything else is not repeated to the client.
fn id_text(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    let json: serde_json::Value = serde_json::from_str(text).ok()?;
    (json.is_string() || json.is_number() || json.is_null()).then_some(text)
}

struct Scan<'b> {
    body: &'b [u8],
    at: usize,
}

// === impl Scan ===

impl<'b> Scan<'b> {
    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Steps over white space and this byte.
    fn expect(&mut self, byte: u8) -> Option<()> {
        self.skip_space();
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// A string with its quotes.
    fn string(&mut self) -> Option<&'b [u8]> {
        self.skip_space();
        let start = self.at;
        (self.peek()? == b'"').then_some(())?;
        self.at += 1;
        loop {
            let rest = self.body.get(self.at..)?;
            self.at += memchr::memchr2(b'"', b'\\', rest)? + 1;
            if self.body.get(self.at - 1) == Some(&b'"') {
                return self.body.get(start..self.at);
            }
            self.at += 1;
        }
    }

    /// A whole value; one that may go on behind the cut is none.
    fn value(&mut self) -> Option<&'b [u8]> {
        self.skip_space();
        let start = self.at;
        let mut depth = 0usize;
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                b'}' | b']' if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' if depth > 0 => {
                    self.at += 1;
                    continue;
                }
                _ => self.literal()?,
            }
            if depth == 0 {
                return self.body.get(start..self.at);
            }
        }
    }

    /// A number or a word, which ends before the next delimiter.
    fn literal(&mut self) -> Option<()> {
        let start = self.at;
        while !matches!(self.peek()?, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n') {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_same_with_a_fraction_of_0() {
        for (one, other, same) in [
            ("7", "7", true),
            ("7", "7.0", true),
            ("-7.0", "-7", true),
            ("7", "70", false),
            ("\"7.0\"", "\"7\"", false),
            ("\"7\"", "7", false),
        ] {
            assert_eq!(
                (is_same_id(one, other), is_same_id(other, one)),
                (same, same),
                "{one} {other}"
            );
        }
    }

    #[test]
    fn a_message_says_what_it_is_as_far_as_it_is_read() {
        let call = r#"{"method":"tools/call","params":{"name":"a\u0062","arguments":{"name":"x"}},"id":7}"#;
        let message = Message::read(call.as_bytes());
        assert_eq!((message.id, message.method.as_deref()), (Some("7"), Some("tools/call")));
        assert_eq!(message.name.as_deref(), Some("ab"));
        assert!(message.whole && !message.is_one_way());
        for cut in 0..call.len() {
            let part = Message::read(&call.as_bytes()[..cut]);
            assert!(!part.whole && !part.is_one_way(), "cut at {cut}");
            assert!(part.id.is_none() && (part.method.is_none() || cut >= 22), "cut at {cut}");
        }
        for one_way in [
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            "{}",
        ] {
            assert!(Message::read(one_way.as_bytes()).is_one_way(), "{one_way}");
        }
        for other in ["", "[]", "[{\"id\":1,\"method\":\"a\"}]", "null", "{\"id\":1,}", "{,}"] {
            assert!(!Message::read(other.as_bytes()).is_one_way(), "{other}");
        }
    }

    #[test]
    fn the_id_is_found_wherever_it_stands() {
        for (body, id) in [
            (r#"{"jsonrpc":"2.0","id":7,"method":"tools/call"}"#, "7"),
            (
                r#" { "method" : "a" , "params" : {"id": 1, "x": [1, {"y": "}]"}]}, "id" : "q\"1" } "#,
                r#""q\"1""#,
            ),
            (r#"{"id":null}"#, "null"),
            (r#"{"a":[],"b":{},"c":"","d":true,"id":-1.5e3}"#, "-1.5e3"),
            (r#"{"\"id\"":1,"id":2}"#, "2"),
            (r#"{"\\u0069d":1,"\u0069\u0064":2}"#, "2"),
        ] {
            assert_eq!(request_id(body.as_bytes()), Some(id), "{body}");
        }
    }

    #[test]
    fn what_has_no_id_that_may_be_repeated_has_none() {
        for body in [
            "",
            "[]",
            r#"[{"id":1}]"#,
            r#"{"method":"a"}"#,
            r#"{"id":{"a":1}}"#,
            r#"{"id":[1]}"#,
            r#"{"id":tru}"#,
            r#"{"id" 1}"#,
            r#"{id:1}"#,
            r#"{"params":{"id":1}}"#,
            "null",
            r#"{"id":,}"#,
            "{\"id\":\"\u{0}\"}",
            r#"{"a":}"id":1}"#,
        ] {
            assert_eq!(request_id(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn a_batch_is_read_message_by_message_when_it_is_whole() {
        let body = r#" [ {"id":1,"method":"a","params":{"x":[1,"]"]}} , {"method":"b"},{"id":2,"result":[]} ] "#;
        let all = batch(body.as_bytes()).unwrap();
        let found: Vec<_> = all.iter().map(|one| (one.id, one.method.as_deref())).collect();
        assert_eq!(found, [(Some("1"), Some("a")), (None, Some("b")), (Some("2"), None)]);
        assert!(!is_one_way(body.as_bytes()));
        for cut in 0..body.trim_end().len() {
            assert_eq!(batch(&body.as_bytes()[..cut]), None, "cut at {cut}");
        }
        assert!(is_one_way(br#"[{"method":"b"},{"id":2,"result":[]}]"#));
        for other in ["", "[]", "[", "{}", "[1", "[{},]", "[{}{}]", "null"] {
            assert_eq!(batch(other.as_bytes()), None, "{other}");
        }
        assert_eq!(messages(br#"{"id":1}"#).len(), 1);
    }

    /// A cut never makes an id of another value: it is the whole id or none.
    #[test]
    fn every_cut_gives_the_whole_id_or_none() {
        let body =
            r#"{"method":"tools/call","params":{"name":"a\\","n":[1,2,{"id":9}]},"id":1234,"x":1}"#;
        let mut found = 0;
        for cut in 0..=body.len() {
            match request_id(&body.as_bytes()[..cut]) {
                None => {}
                Some(id) => {
                    assert_eq!(id, "1234", "cut at {cut}");
                    found += 1;
                }
            }
        }
        assert_eq!(
            found,
            body.len() - body.find(",\"x\"").unwrap(),
            "found as soon as it is whole"
        );
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _any_result = (request_id(&body), Message::read(&body), batch(&body));
        }

        #[test]
        fn serialised_requests_give_back_their_id(id in "[ -~]{0,20}", extra in "[ -~]{0,20}") {
            let value = serde_json::json!({"params": {"id": 1, &extra: [&extra, null]}, "id": id});
            let body = value.to_string();
            let found = request_id(body.as_bytes()).map(str::to_owned);
            proptest::prop_assert_eq!(found, Some(serde_json::json!(id).to_string()));
        }
    }
}
