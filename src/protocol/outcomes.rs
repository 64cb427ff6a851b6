//! Reads how JSON-RPC calls ended (JSON-RPC 2.0 section 5): with a result, with an error and its code, or, in MCP, with
//! a tool's own error (`result.isError`, MCP 2025-11-25, "Tools"), from a response in JSON or from an event stream of
//! them.
//!
//! Pure: bytes in, outcomes out, at any split, with a few bytes of state. `isError` may stand behind any content, and
//! is never matched within one. Requests and notifications of a server are no outcomes.

use std::sync::LazyLock;

use super::calls::CallId;
use super::event_data::{Messages, Signs};
use super::jsonrpc::integer;
use super::places::{Found, Places};

/// How one call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With a result.
    Result,
    /// With a result that says that the tool has failed.
    ToolError,
    /// With an error of this code; 0 if it has none that fits.
    Error(i64),
}

/// Reads a response's body.
#[derive(Debug)]
pub struct OutcomeScanner {
    messages: Messages<Place>,
    now: Parts,
}

/// A message as far as it has come.
#[derive(Clone, Copy, Debug, Default)]
struct Parts {
    id: Option<CallId>,
    has_result: bool,
    has_tool_error: bool,
    has_error: bool,
    code: Option<i64>,
    /// It is the server's own request, or a notification.
    asks: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Response,
    Id,
    Method,
    Result,
    IsError,
    Error,
    Code,
}

// === impl OutcomeScanner ===

impl OutcomeScanner {
    /// Nothing has come yet of a response, or of a stream of `events` that are responses.
    #[must_use]
    pub fn new(events: bool) -> Self {
        let places = Places::batched(Place::Response, place);
        Self { messages: Messages::new(places, events), now: Parts::default() }
    }

    /// Takes the next bytes, and shows the outcomes that they complete; without an id, that of a call which the server
    /// could not read.
    pub fn feed(&mut self, bytes: &[u8], show: &mut impl FnMut(Option<CallId>, Ended)) {
        /// The keys of an answer, which most events of a stream are not.
        static SIGNS: LazyLock<Signs> = LazyLock::new(|| Signs::of_keys(&["result", "error"]));
        let Self { messages, now } = self;
        if messages.are_without(&SIGNS, bytes) {
            return;
        }
        messages.feed(bytes, &mut |place, found| now.take(place, &found, show));
    }

    /// Whether the next bytes are whole events in which no call ends but with a result. Who knows that the calls have
    /// results may leave them out.
    #[must_use]
    pub fn are_results(&self, bytes: &[u8]) -> bool {
        static SIGNS: LazyLock<Signs> = LazyLock::new(|| Signs::of_keys(&["error", "isError"]));
        self.messages.are_without(&SIGNS, bytes)
    }

    /// Whether the bytes to come cannot show another outcome.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.messages.is_ended()
    }
}

// === impl Parts ===

impl Parts {
    fn take(
        &mut self,
        place: Place,
        found: &Found<'_>,
        show: &mut impl FnMut(Option<CallId>, Ended),
    ) {
        match (place, found) {
            (Place::Response, Found::Object) => *self = Self::default(),
            (Place::Response, Found::End) => {
                if let (Some(ended), false) = (self.ended(), self.asks) {
                    show(self.id, ended);
                }
            }
            (Place::Id, found) => self.id = CallId::of(found),
            // Some servers write every member, and `null` for those that are not there.
            (Place::Method | Place::Error, Found::Literal(b"null")) => {}
            (Place::Method, _) => self.asks = true,
            (Place::Result, _) => self.has_result = true,
            (Place::IsError, Found::Literal(b"true")) => self.has_tool_error = true,
            (Place::IsError, Found::Literal(b"false")) => self.has_tool_error = false,
            (Place::Error, _) => self.has_error = true,
            (Place::Code, Found::Literal(code)) => {
                let code = std::str::from_utf8(integer(code)).ok();
                self.code = code.and_then(|code| code.parse().ok()).or(self.code);
            }
            _ => {}
        }
    }

    /// An error counts before a result, in whatever order they stand.
    fn ended(&self) -> Option<Ended> {
        if self.has_error {
            return Some(Ended::Error(self.code.unwrap_or(0)));
        }
        let result = if self.has_tool_error { Ended::ToolError } else { Ended::Result };
        self.has_result.then_some(result)
    }
}

fn place(around: Place, key: &[u8]) -> Option<Place> {
    Some(match (around, key) {
        (Place::Response, b"id") => Place::Id,
        (Place::Response, b"method") => Place::Method,
        (Place::Response, b"result") => Place::Result,
        (Place::Response, b"error") => Place::Error,
        (Place::Result, b"isError") => Place::IsError,
        (Place::Error, b"code") => Place::Code,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &'static str) -> Option<CallId> {
        CallId::of(&Found::Literal(text.as_bytes()))
    }

    fn read(events: bool, pieces: &[&[u8]]) -> Vec<(Option<CallId>, Ended)> {
        let (mut scanner, mut all) = (OutcomeScanner::new(events), Vec::new());
        for piece in pieces {
            scanner.feed(piece, &mut |id, ended| all.push((id, ended)));
        }
        all
    }

    type Expected = &'static [(&'static str, Ended)];

    const MESSAGES: &[(&str, Expected)] = &[
        (r#"{"jsonrpc":"2.0","id":7,"result":{"content":[]}}"#, &[("7", Ended::Result)]),
        (
            r#"{"id":7,"result":{"content":[{"type":"text","text":"\"isError\":true"}],"isError":false}}"#,
            &[("7", Ended::Result)],
        ),
        (
            r#"{"result":{"content":[{"isError":false}],"isError":true},"id":7}"#,
            &[("7", Ended::ToolError)],
        ),
        (
            r#"{"id":7,"result":{"structuredContent":{"isError":true},"_meta":{"isError":true}}}"#,
            &[("7", Ended::Result)],
        ),
        (
            r#"{"id":7,"error":{"data":{"code":1},"code":-32601,"message":"x"}}"#,
            &[("7", Ended::Error(-32601))],
        ),
        (r#"{"id":null,"error":{"code":1e400}}"#, &[("null", Ended::Error(0))]),
        (r#"{"id":7,"method":"sampling/createMessage","params":{}}"#, &[]),
        (r#"{"method":"notifications/progress","params":{"result":{}}}"#, &[]),
        (
            r#"[{"id":1,"result":{}},{"id":2,"result":{"isError":true}},{"id":3,"error":{}}]"#,
            &[("1", Ended::Result), ("2", Ended::ToolError), ("3", Ended::Error(0))],
        ),
        (r#"{"id":7,"result":null}"#, &[("7", Ended::Result)]),
        // As `tasks/pushNotificationConfig/list` of A2A 0.3 is answered.
        (r#"{"id":7,"result":[]}"#, &[("7", Ended::Result)]),
        (r#"{"id":7,"result":[{"isError":true},[]]}"#, &[("7", Ended::Result)]),
        (r#"{"id":7,"result":"text"}"#, &[("7", Ended::Result)]),
        (r#"{"id":7,"result":"a broken \ud800 text"}"#, &[("7", Ended::Result)]),
        (r#"{"id":7,"result":-1.5}"#, &[("7", Ended::Result)]),
        (r#"{"id":7,"result":true}"#, &[("7", Ended::Result)]),
        (r#"{"id":7,"result":null,"error":{"code":-1}}"#, &[("7", Ended::Error(-1))]),
        (r#"{"id":7,"error":{"code":-1},"result":null}"#, &[("7", Ended::Error(-1))]),
        (r#"{"id":7,"error":null,"result":{}}"#, &[("7", Ended::Result)]),
        (r#"{"id":7,"error":"text"}"#, &[("7", Ended::Error(0))]),
        (r#"{"id":7,"error":["text"]}"#, &[("7", Ended::Error(0))]),
        // Whatever is not asked for, in any order: an error before a result, and of one key the last value that fits.
        (r#"{"id":7,"result":{"isError":true},"error":{"code":-1}}"#, &[("7", Ended::Error(-1))]),
        (r#"{"id":7,"error":{"code":-1},"result":{"isError":true}}"#, &[("7", Ended::Error(-1))]),
        (r#"{"id":7,"result":{"isError":true,"isError":false}}"#, &[("7", Ended::Result)]),
        (r#"{"id":7,"result":{"isError":true,"isError":1}}"#, &[("7", Ended::ToolError)]),
        (r#"{"id":7,"error":{"code":-1,"code":null}}"#, &[("7", Ended::Error(-1))]),
        (r#"{"id":7,"error":{"code":-1},"error":{}}"#, &[("7", Ended::Error(-1))]),
        // As writers do that know every field, and only floating point.
        (r#"{"id":7,"method":null,"result":{}}"#, &[("7", Ended::Result)]),
        (r#"{"id":7.0,"error":{"code":-32601.0}}"#, &[("7", Ended::Error(-32601))]),
        (r#"{"id":7,"result":{"content":[]}"#, &[]),
        ("<html>", &[]),
    ];

    #[test]
    fn outcomes_are_read_at_every_split_in_json_and_in_events() {
        for &(message, expected) in MESSAGES {
            let expected: Vec<_> =
                expected.iter().map(|(text, ended)| (id(text), *ended)).collect();
            let event = format!("event: message\r\nid: 1\r\ndata: {message}\r\n\r\n");
            for (events, text) in [(false, message), (true, &event)] {
                let bytes = text.as_bytes();
                for at in 0..=bytes.len() {
                    let found = read(events, &[&bytes[..at], &bytes[at..]]);
                    assert_eq!(found, expected, "{text} split at {at}");
                }
            }
        }
    }

    #[test]
    fn calls_that_share_a_stream_end_one_by_one() {
        let stream = "data: {\"id\":2,\"result\":{}}\n\n: ping\n\n\
                      data: {\"method\":\"notifications/message\"}\n\n\
                      data: {\"id\":1,\ndata: \"error\":{\"code\":-1}}\n\n";
        let expected = [(id("2"), Ended::Result), (id("1"), Ended::Error(-1))];
        assert_eq!(read(true, &[stream.as_bytes()]), expected);
    }

    #[test]
    fn what_is_left_out_of_a_stream_hides_no_answer() {
        let silent = "event: message\ndata: {\"method\":\"notifications/progress\"}\n\n";
        let answer = "data: {\"id\":7,\"result\":{}}\n\n";
        let expected = [(id("7"), Ended::Result)];
        for pieces in [
            &[silent, silent, answer][..],
            &[silent, ": ping\r\n\r\n", answer],
            &[silent, "\r", "\n\n", silent, answer],
            // Of an event that has begun, nothing may be.
            &[silent, "data: {\"result\":{},\n", "data: \"id\":7}\n\n"],
            &[silent, "data: {\"result\":{},", "\"id\":7}\n\n"],
            &[silent, "data: {\"result\":{},\"id\":7}\n", ": behind\n\n"],
            &[silent, "data: {\"resu", "lt\":{},\"id\":7}\n\n"],
            &[silent, "data: {\"r\\u0065sult\":{},\"id\":7}\n\n"],
            &[silent, "data: {\"id\":7,\"result\":{}}\r\r"],
            &["\u{feff}data: {\"method\":\"x\"}\n\n", answer],
            &["\n\n", answer],
        ] {
            let pieces: Vec<&[u8]> = pieces.iter().map(|piece| piece.as_bytes()).collect();
            assert_eq!(read(true, &pieces), expected, "{pieces:?}");
        }
        // A line break is no part of a key, whether the event is left out or not.
        let parted: &[u8] = b"data: {\"id\":7,\"resu\ndata:lt\":{}}\n\n";
        assert_eq!([read(true, &[parted]), read(true, &[b"\n\n", parted])], [[], []]);
        // A mark is one only at the start.
        assert_eq!(read(true, &[b"\n\n", b"\xef\xbb\xbfdata: {\"id\":7,\"result\":{}}\n\n"]), []);
    }

    #[test]
    fn a_result_that_is_not_kept_is_a_result() {
        let long = "x".repeat(4096);
        for value in [format!("\"{long}\""), "7".repeat(4096), format!("[\"{long}\"]")] {
            let message = format!(r#"{{"id":7,"result":{value}}}"#);
            for at in [0, 18, 19, 600, message.len() - 1] {
                let (one, two) = message.as_bytes().split_at(at);
                assert_eq!(read(false, &[one, two]), [(id("7"), Ended::Result)], "{at} {message}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_do_no_harm(
            bytes in proptest::collection::vec(0u8.., 0..200), events in proptest::bool::ANY
        ) {
            let _whatever = read(events, &[&bytes]);
        }

        #[test]
        fn nothing_within_a_content_counts(text in ".{0,30}", is_error in proptest::bool::ANY) {
            let body = serde_json::json!({
                "id": 1, "result": {"content": [{"text": &text, "isError": true}, &text], "isError": is_error}
            });
            let ended = if is_error { Ended::ToolError } else { Ended::Result };
            proptest::prop_assert_eq!(read(false, &[body.to_string().as_bytes()]), [(id("1"), ended)]);
        }
    }
}
