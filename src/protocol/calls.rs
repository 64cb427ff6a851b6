//! Reads which JSON-RPC calls a request carries (JSON-RPC 2.0 sections 4 and 6): each with its id, its method, and what
//! it names: the tool or prompt of MCP (`params.name`), or its resource (`params.uri`); and the trace that it belongs to
//! (`params._meta.traceparent`, MCP SEP-414).
//!
//! Pure: bytes in, calls out, at any split, with a few bytes of state; a value that is whole in one piece is not
//! copied. A body that is no JSON has no calls. Judges nothing, and never matches a word within an argument.

use compact_str::CompactString;

use super::jsonrpc::integer;
use super::methods::{Method, Names};
use super::places::{Found, Places};
use super::trace_context::TraceContext;

/// Calls of one batch that are shown; those behind are counted.
const MAX_CALLS: usize = 64;

/// What tells one call from the others that are under way on one connection: a digest of its id, which may be a
/// number or a string (JSON-RPC 2.0 section 4). A number counts as it is written, but for a fraction 0: 7.0 is 7, and
/// 10 and 1e1 are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId(u64);

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// `None` for a notification, which nobody answers.
    pub id: Option<CallId>,
    /// Its `method`.
    pub method: Method,
    /// What it names, if its method names one.
    pub name: Option<CompactString>,
    /// The trace that it says it belongs to; boxed, for few do.
    pub trace: Option<Box<TraceContext>>,
}

/// Reads a request's body.
#[derive(Debug)]
pub struct CallScanner {
    places: Places<Place>,
    now: Parts,
    left: usize,
    beyond: u64,
    has_messages: bool,
}

/// A call as far as it has come.
#[derive(Debug, Default)]
struct Parts {
    id: Option<CallId>,
    method: Option<Method>,
    name: Option<CompactString>,
    uri: Option<CompactString>,
    trace: Option<Box<TraceContext>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Call,
    Id,
    Method,
    Params,
    Name,
    Uri,
    Meta,
    Trace,
}

// === impl CallId ===

impl CallId {
    /// Of what stands at the place of an id; `None` for what is none, such as `null`.
    #[must_use]
    pub fn of(found: &Found<'_>) -> Option<Self> {
        let (kind, bytes) = match found {
            Found::Text(text) => (b'"', text.as_bytes()),
            Found::Literal(b"null" | b"true" | b"false") => return None,
            Found::Literal(number) => (b'0', integer(number)),
            Found::Object | Found::Unkept | Found::End => return None,
        };
        // FNV-1a, 64 bits: an id is a client's own, and who makes two alike deceives nobody else.
        let digest =
            std::iter::once(&kind).chain(bytes).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
            });
        Some(Self(digest))
    }
}

// === impl CallScanner ===

impl Default for CallScanner {
    fn default() -> Self {
        Self {
            places: Places::batched(Place::Call, place),
            now: Parts::default(),
            left: MAX_CALLS,
            beyond: 0,
            has_messages: false,
        }
    }
}

impl CallScanner {
    /// Takes the next bytes, and shows the calls that they complete.
    pub fn feed(&mut self, bytes: &[u8], show: &mut impl FnMut(Call)) {
        let Self { places, now, left, beyond, has_messages } = self;
        places.feed(bytes, &mut |place, found| match (place, found) {
            (Place::Call, Found::Object) => (*now, *has_messages) = (Parts::default(), true),
            (Place::Call, Found::End) => match std::mem::take(now).call() {
                Some(call) if *left > 0 => {
                    *left -= 1;
                    show(call);
                }
                Some(_) => *beyond += 1,
                None => {}
            },
            (Place::Id, found) => now.id = CallId::of(&found),
            (Place::Method, Found::Text(text)) => now.method = Some(Method::of(&text)),
            (Place::Name, Found::Text(text)) => now.name = Some(text.into()),
            (Place::Uri, Found::Text(text)) => now.uri = Some(text.into()),
            (Place::Trace, Found::Text(text)) => {
                now.trace = TraceContext::parse(text.as_bytes()).map(Box::new);
            }
            _ => {}
        });
    }

    /// Whether the bytes to come cannot show another call.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.places.is_ended()
    }

    /// Whether there is an object in the body, call or not.
    #[must_use]
    pub const fn has_messages(&self) -> bool {
        self.has_messages
    }

    /// How many calls have come behind those that were shown.
    #[must_use]
    pub const fn beyond(&self) -> u64 {
        self.beyond
    }
}

// === impl Parts ===

impl Parts {
    fn call(self) -> Option<Call> {
        let method = self.method?;
        let name = match method.names() {
            Names::Name => self.name,
            Names::Uri => self.uri,
            Names::Nothing => None,
        };
        Some(Call { id: self.id, method, name, trace: self.trace })
    }
}

fn place(around: Place, key: &[u8]) -> Option<Place> {
    Some(match (around, key) {
        (Place::Call, b"id") => Place::Id,
        (Place::Call, b"method") => Place::Method,
        (Place::Call, b"params") => Place::Params,
        (Place::Params, b"name") => Place::Name,
        (Place::Params, b"uri") => Place::Uri,
        (Place::Params, b"_meta") => Place::Meta,
        (Place::Meta, b"traceparent") => Place::Trace,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::option;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn read(pieces: &[&[u8]]) -> Vec<Call> {
        let (mut scanner, mut all) = (CallScanner::default(), Vec::new());
        for piece in pieces {
            scanner.feed(piece, &mut |call| all.push(call));
        }
        all
    }

    fn call(id: Option<&Value>, method: &str, name: Option<&str>) -> Call {
        let id = id.and_then(|id| match id {
            Value::String(text) => CallId::of(&Found::Text(text.into())),
            other => CallId::of(&Found::Literal(other.to_string().as_bytes())),
        });
        Call { id, method: Method::of(method), name: name.map(Into::into), trace: None }
    }

    #[test]
    fn the_calls_of_a_body_are_read_at_every_split() {
        let (seven, text) = (json!(7), json!("7"));
        let cases: &[(&str, &[Call])] = &[
            // As the Python SDK of MCP writes it: the id stands behind the arguments.
            (
                r#"{"method":"tools/call","params":{"name":"a\u0062","arguments":{"name":"x","id":9,"method":"y"}},"jsonrpc":"2.0","id":7}"#,
                &[call(Some(&seven), "tools/call", Some("ab"))],
            ),
            (
                r#"{"id":"7","method":"resources/read","params":{"uri":"file:///a","name":"b"}}"#,
                &[call(Some(&text), "resources/read", Some("file:///a"))],
            ),
            (
                r#"{"id":7,"method":"message/send","params":{"message":{"name":"x"},"name":"y"}}"#,
                &[call(Some(&seven), "message/send", None)],
            ),
            (
                r#"[{"method":"notifications/initialized"},{"id":7,"result":{}},{"id":7,"method":"ping"}]"#,
                &[call(None, "notifications/initialized", None), call(Some(&seven), "ping", None)],
            ),
            (r#"{"id":null,"method":"ping"}"#, &[call(None, "ping", None)]),
            (r#"{"id":{},"method":["ping"],"params":"x"}"#, &[]),
            (r#"{"id":7,"method":"ping""#, &[]),
            ("text", &[]),
        ];
        for (body, expected) in cases {
            let bytes = body.as_bytes();
            for at in 0..=bytes.len() {
                for to in at..=bytes.len() {
                    let found = read(&[&bytes[..at], &bytes[at..to], &bytes[to..]]);
                    assert_eq!(found, *expected, "{body} split at {at}, {to}");
                }
            }
        }
    }

    #[test]
    fn an_id_is_the_same_however_its_integer_is_written_and_none_if_it_is_too_long() {
        let of = |number: &str| CallId::of(&Found::Literal(number.as_bytes()));
        assert_eq!(of("7.0"), of("7"));
        let others = ["70", "7.00", "7.5", ".0", "70.0", "-7.0"].map(of);
        assert!(others.iter().all(|id| id.is_some() && *id != of("7")));
        for (length, is_kept) in [(512, true), (513, false), (4096, false)] {
            let body = format!(r#"{{"method":"ping","id":{}}}"#, "7".repeat(length));
            for at in 0..=body.len() {
                let found = read(&[&body.as_bytes()[..at], &body.as_bytes()[at..]]);
                assert_eq!(found[0].id.is_some(), is_kept, "{length} split at {at}");
            }
        }
    }

    #[test]
    fn the_trace_of_a_call_is_read_where_it_stands_only() {
        const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let body = |params: Value| json!({"method": "ping", "id": 1, "params": params}).to_string();
        for (body, told) in [
            (body(json!({"_meta": {"progressToken": 1, "traceparent": TRACE}})), true),
            (body(json!({"_meta": {"traceparent": "00-0-0-00"}})), false),
            (body(json!({"_meta": {"traceparent": 7}})), false),
            (body(json!({"_meta": {"x": {"traceparent": TRACE}}})), false),
            (
                body(json!({"traceparent": TRACE, "arguments": {"_meta": {"traceparent": TRACE}}})),
                false,
            ),
            (json!({"method": "ping", "_meta": {"traceparent": TRACE}}).to_string(), false),
        ] {
            for at in 0..=body.len() {
                let found = read(&[&body.as_bytes()[..at], &body.as_bytes()[at..]]);
                let trace = found[0].trace.as_ref().map(|trace| trace.to_string());
                assert_eq!(trace.as_deref(), told.then_some(TRACE), "{body} split at {at}");
            }
        }
    }

    #[test]
    fn a_batch_is_shown_within_its_bound_and_counted_beyond() {
        let one = r#"{"id":1,"method":"ping"}"#;
        let batch = format!("[{},{{\"result\":1}}]", [one; MAX_CALLS + 9].join(","));
        let mut scanner = CallScanner::default();
        let mut calls = 0;
        scanner.feed(batch.as_bytes(), &mut |_| calls += 1);
        assert_eq!((calls, scanner.beyond()), (MAX_CALLS, 9));
        assert!(scanner.is_done());
    }

    proptest! {
        #[test]
        fn a_parser_of_json_sees_the_same(
            id in option::of(prop_oneof![
                any::<i64>().prop_map(Value::from), ".{0,8}".prop_map(Value::from)
            ]),
            method in "tools/call|prompts/get|ping|.{0,8}",
            name in ".{0,12}",
            key in "name|id|method|params|.{0,3}",
            text in ".{0,12}",
        ) {
            let mut body = json!({
                "params": {"arguments": {&key: &text, "name": [&text]}, "name": &name}, "method": &method
            });
            if let Some(id) = &id {
                body["id"] = id.clone();
            }
            let named = matches!(&*method, "tools/call" | "prompts/get").then_some(&*name);
            let expected = call(id.as_ref(), &method, named);
            if !method.starts_with("resources/") {
                prop_assert_eq!(read(&[body.to_string().as_bytes()]), [expected]);
            }
        }

        #[test]
        fn any_bytes_do_no_harm(bytes in prop::collection::vec(0u8.., 0..200)) {
            let _whatever = read(&[&bytes]);
        }
    }
}
