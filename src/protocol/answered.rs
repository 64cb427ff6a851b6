//! Follows the event stream that answers one JSON-RPC request (MCP 2025-11-25, "Streamable HTTP"): whether the
//! response has come, and by which id the client could ask for the rest.
//!
//! Keeps the id of the last event and nothing else of the stream's, at any split. Looks only at the members of each
//! message, never into what they hold.

use super::places::{Found, Places};
use super::sse::Start;

/// A longer id of an event is not remembered.
pub const MAX_EVENT_ID: usize = 1024;

/// What has been seen of one stream.
#[derive(Debug, Default)]
pub struct AnswerScanner {
    start: Start,
    line: Line,
    /// The last line ended by a CR, which a LF may complete.
    cr: bool,
    json: Json,
    answered: bool,
    /// The value of the `id` that is being read, or was read last.
    text: Vec<u8>,
    /// That value counts from the end of its event on.
    named: bool,
    last: Vec<u8>,
    /// An event with an `id` has ended.
    has_last: bool,
}

/// The id of the last event that has ended (WHATWG HTML, section 9.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastId<'s> {
    /// None had one.
    None,
    /// This; empty if the stream has taken it back.
    Is(&'s [u8]),
    /// It is too long to be remembered.
    TooLong,
}

/// Where in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// In the field's name; the bytes that have come, five at most.
    Name([u8; 5], usize),
    /// Behind `data:`.
    Data,
    /// Behind `id:`; whether a space may follow that is no part of the value.
    Id(bool),
    /// Behind any other name.
    Other,
}

/// A message as far as it has come.
#[derive(Debug)]
struct Json {
    places: Places<Place>,
    /// It has an id that is not `null`.
    has_id: bool,
    /// It has `result`, and that is `null`.
    has_null: bool,
    /// It is the server's own request, or a notification.
    asks: bool,
    response: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Message,
    Id,
    Method,
    Result,
    Error,
}

impl Default for Line {
    fn default() -> Self {
        Self::Name([0; 5], 0)
    }
}

// === impl AnswerScanner ===

impl AnswerScanner {
    /// Takes the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        bytes = self.start.skip(bytes, || self.line = Line::Other);
        if self.cr && !bytes.is_empty() {
            self.cr = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while !bytes.is_empty() {
            let end = memchr::memchr2(b'\n', b'\r', bytes);
            let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            self.part(line);
            let Some(&last) = rest.first() else { return };
            self.end_line();
            bytes = rest.get(1..).unwrap_or_default();
            if last == b'\r' {
                self.cr = bytes.is_empty();
                bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            }
        }
    }

    /// Whether a whole event with a response has passed.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.answered
    }

    /// The id by which the client would ask for the rest.
    #[must_use]
    pub fn last_id(&self) -> LastId<'_> {
        match self.has_last {
            false => LastId::None,
            true if self.last.len() > MAX_EVENT_ID => LastId::TooLong,
            true => LastId::Is(&self.last),
        }
    }

    /// Bytes of one line.
    fn part(&mut self, mut bytes: &[u8]) {
        while let (Line::Name(name, length), Some((&byte, rest))) =
            (&mut self.line, bytes.split_first())
        {
            bytes = rest;
            if byte == b':' {
                let name = name.get(..*length).unwrap_or_default();
                let next = match name {
                    b"data" => Line::Data,
                    b"id" => Line::Id(true),
                    _ => Line::Other,
                };
                if next == Line::Id(true) {
                    self.text.clear();
                }
                self.line = next;
            } else if let Some(slot) = name.get_mut(*length) {
                *slot = byte;
                *length += 1;
            } else {
                self.line = Line::Other;
            }
        }
        match &mut self.line {
            Line::Data => self.json.feed(bytes),
            Line::Id(first) if !bytes.is_empty() => {
                let value = bytes.strip_prefix(b" ").filter(|_| *first).unwrap_or(bytes);
                *first = false;
                let room = (MAX_EVENT_ID + 1).saturating_sub(self.text.len());
                self.text.extend_from_slice(value.get(..room).unwrap_or(value));
            }
            _ => {}
        }
    }

    fn end_line(&mut self) {
        match self.line {
            Line::Name(_, 0) => {
                self.answered |= self.json.end();
                if std::mem::take(&mut self.named) {
                    std::mem::swap(&mut self.last, &mut self.text);
                    self.has_last = true;
                }
            }
            // A value with a NUL is none.
            Line::Id(_) if !self.text.contains(&0) => self.named = true,
            Line::Name([b'i', b'd', ..], 2) => {
                self.text.clear();
                self.named = true;
            }
            _ => {}
        }
        self.line = Line::default();
    }
}

// === impl Json ===

impl Default for Json {
    fn default() -> Self {
        let places = Places::batched(Place::Message, place);
        Self { places, has_id: false, has_null: false, asks: false, response: false }
    }
}

impl Json {
    fn feed(&mut self, bytes: &[u8]) {
        // The rest of a response is of no interest.
        if !self.response {
            let Self { places, has_id, has_null, asks, response } = self;
            places.feed(bytes, &mut |place, found| match (place, found) {
                (Place::Message, Found::Object) => (*has_id, *has_null, *asks) = Default::default(),
                // Some servers write every member, and `null` for those that are not there.
                (Place::Message, Found::End) => *response |= *has_null && *has_id && !*asks,
                (Place::Id, found) => *has_id = found != Found::Literal(b"null"),
                (Place::Method, found) => *asks |= found != Found::Literal(b"null"),
                (Place::Result, Found::Literal(b"null")) => *has_null = true,
                (Place::Error, Found::Literal(b"null")) => {}
                (Place::Result | Place::Error, _) => *response = true,
                (Place::Message, _) => {}
            });
        }
    }

    /// The event has ended: whether it had a response. Another message follows.
    fn end(&mut self) -> bool {
        self.places.restart();
        std::mem::take(&mut self.response)
    }
}

fn place(around: Place, key: &[u8]) -> Option<Place> {
    Some(match (around, key) {
        (Place::Message, b"id") => Place::Id,
        (Place::Message, b"method") => Place::Method,
        (Place::Message, b"result") => Place::Result,
        (Place::Message, b"error") => Place::Error,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stream, whether it has the answer, the id of its last event.
    const STREAMS: &[(&str, bool, Option<&str>)] = &[
        ("", false, None),
        ("data: {\"id\":1,\"result\":{}}\n\n", true, None),
        ("data: {\"id\":1,\"result\":{}}\r\n\r\n", true, None),
        ("data: {\"id\":1,\"result\":{}}\r\r", true, None),
        ("event: message\ndata:{\"error\":{},\"id\":1}\n\n", true, None),
        ("data: {\"id\":1,\"result\":{}}\n", false, None),
        ("\u{feff}data: {\"id\":1,\"result\":{}}\n\n", true, None),
        ("\u{feff}\u{feff}data: {\"id\":1,\"result\":{}}\n\n", false, None),
        ("\u{feff}id: 7\n\n\u{feff}id: 8\n\n", false, Some("7")),
        ("data: {\"method\":\"a\",\"params\":{\"result\":1}}\n\n", false, None),
        ("data: {\"method\":\"result\",\"params\":[\"error\",{\"error\":1}]}\n\n", false, None),
        ("data: {\"a\\\"result\":1,\"resultx\":2,\"resul\":3,\"x\":\"result\"}\n\n", false, None),
        ("data: {\"method\":\"a\"}\n\ndata: {\ndata: \"result\": 1}\n\n", true, None),
        ("id: 7\ndata: {\"method\":\"a\"}\n\n", false, Some("7")),
        ("id: 7\ndata: {\"method\":\"a\"}\n", false, None),
        ("id:7\r\ndata: {}\r\n\r\nid:  8 \r\n\r\n", false, Some(" 8 ")),
        ("id: 7\n\nid: 8\ndata: {}", false, Some("7")),
        ("id: 7\n\ndata: {}\n\n", false, Some("7")),
        ("id: 7\n\nid: 8\nid: 9\n\n", false, Some("9")),
        ("id: 7\n\nid: a\0b\n\n", false, Some("7")),
        ("id: 7\n\nid\n\n", false, Some("")),
        ("idx: 1\n\n: id: 1\n\nevent: id\n\n", false, None),
        ("data: [{\"result\":1}]\n\n", true, None),
        ("data: [{\"method\":\"a\"},{\"id\":1,\"error\":{}}]\n\n", true, None),
        ("data: [{\"params\":[\"result\"]},[{\"a\":{\"result\":1}}],\"result\"]\n\n", false, None),
        ("data: {\"a\":{\"b\":[1,2]},\"id\":1,\"result\":null}\n\n", true, None),
        ("data: {\"result\":null,\"id\":\"x\"}\n\n", true, None),
        ("data: [{\"id\":1},{\"result\":null},{\"result\":null,\"id\":1}]\n\n", true, None),
        // As those write them that know every member: notifications, a request, and what answers nothing.
        ("data: {\"method\":\"a\",\"params\":{},\"result\":null,\"error\":null}\n\n", false, None),
        ("data: {\"id\":null,\"result\":null,\"error\":null,\"method\":\"a\"}\n\n", false, None),
        ("data: {\"id\":1,\"result\":null,\"error\":null,\"method\":\"a\"}\n\n", false, None),
        ("data: {\"id\":1,\"result\":null,\"error\":null,\"method\":null}\n\n", true, None),
        ("data: [{\"id\":1},{\"result\":null}]\n\n", false, None),
        ("data: {\"id\":1}\n\ndata: {\"result\":null}\n\n", false, None),
        ("data: {\"result\":null,\"error\":{}}\n\n", true, None),
        // Keys may be written with escapes.
        ("data: {\"re\\u0073ult\":{},\"id\":1}\n\n", true, None),
        ("data: {\"\\u0065rro\\u0072\":{}}\n\n", true, None),
        ("data: {\"re\\\\u0073ult\":{},\"id\":1}\n\n", false, None),
    ];

    #[test]
    fn answers_and_ids_are_found_at_every_split() {
        for &(stream, answered, last) in STREAMS {
            for at in 0..=stream.len() {
                for to in at..=stream.len() {
                    let mut scanner = AnswerScanner::default();
                    let bytes = stream.as_bytes();
                    for part in [&bytes[..at], &bytes[at..to], &bytes[to..]] {
                        scanner.feed(part);
                    }
                    let last = last.map_or(LastId::None, |last| LastId::Is(last.as_bytes()));
                    let found = (scanner.is_answered(), scanner.last_id());
                    assert_eq!(found, (answered, last), "{stream:?} split at {at}, {to}");
                }
            }
        }
    }

    #[test]
    fn an_id_that_is_too_long_is_not_taken_for_another() {
        let mut scanner = AnswerScanner::default();
        let (most, more) = ("x".repeat(MAX_EVENT_ID), "y".repeat(MAX_EVENT_ID + 1));
        scanner.feed(format!("id: {most}\n\n").as_bytes());
        assert_eq!(scanner.last_id(), LastId::Is(most.as_bytes()));
        for byte in format!("id: {more}zz\n\n").bytes() {
            scanner.feed(&[byte]);
        }
        assert_eq!(scanner.last_id(), LastId::TooLong);
        scanner.feed(b"id: 1\n\n");
        assert_eq!(scanner.last_id(), LastId::Is(b"1"));
    }

    proptest::proptest! {
        #[test]
        fn serde_sees_the_same_members(key in "[a-z\"\\\\]{0,8}", value in ".{0,20}", own in proptest::bool::ANY) {
            let key = if own { "result".to_owned() } else { key };
            let message = serde_json::json!({"id": 1, "x": {"result": &value}, &key: [&value, {"error": 1}]});
            let mut scanner = AnswerScanner::default();
            scanner.feed(format!("data: {message}\n\n").as_bytes());
            let expected = message.get("result").is_some() || message.get("error").is_some();
            proptest::prop_assert_eq!(scanner.is_answered(), expected);
        }
    }
}
