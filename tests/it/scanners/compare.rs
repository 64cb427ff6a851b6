//! Asserts that the scanners say the same of a body in pieces as of the whole, and of the whole what the oracle says.
//!
//! Shared with the fuzz target of the same name.

use kagent_proxy::protocol::answered::AnswerScanner;
use kagent_proxy::protocol::batch::BatchScanner;
use kagent_proxy::protocol::calls::{Call, CallScanner};
use kagent_proxy::protocol::jsonrpc::{Message, request_id};
use kagent_proxy::protocol::outcomes::OutcomeScanner;
use kagent_proxy::protocol::tasks::{TaskAnswer, TaskRequest};
use kagent_proxy::protocol::tool_list::ToolListScanner;

use super::oracle::{self, MAX_CALLS, MAX_TEXT, Outcome};

/// All that is read of bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Read {
    calls: (Vec<Call>, u64, bool),
    outcomes: [(Vec<Outcome>, bool); 2],
    tools: [Vec<String>; 2],
    tasks: [[Option<String>; 2]; 2],
    batch: Vec<String>,
    answered: bool,
}

impl Read {
    /// What these pieces say, as a message and as a stream of events.
    pub(super) fn of(pieces: &[&[u8]]) -> Self {
        const EVENTS: [bool; 2] = [false, true];
        Self {
            calls: calls(pieces),
            outcomes: EVENTS.map(|events| outcomes(events, pieces)),
            tools: EVENTS.map(|events| tools(events, pieces)),
            tasks: EVENTS.map(|events| tasks(events, pieces)),
            batch: batch(pieces),
            answered: answered(pieces),
        }
    }

    /// Asserts that these pieces say the same.
    pub(super) fn agrees(&self, pieces: &[&[u8]]) {
        let lengths = || pieces.iter().map(|piece| piece.len()).collect::<Vec<_>>();
        assert_eq!(&Self::of(pieces), self, "{:?} in {:?}", text(&pieces.concat()), lengths());
    }
}

/// Asserts that a body of JSON is read as the oracle reads it; whether it is one.
pub(super) fn body_agrees(body: &[u8]) -> bool {
    let Some(expected) = oracle::calls(body) else { return false };
    let (shown, beyond, done) = calls(&[body]);
    let few = &expected[..expected.len().min(MAX_CALLS)];
    assert_eq!(shown, few, "calls of {:?}", text(body));
    assert_eq!(beyond, (expected.len() - few.len()) as u64, "calls of {:?}", text(body));
    assert!(done, "the end of {:?}", text(body));
    let (shown, done) = outcomes(false, &[body]);
    assert_eq!(Some(shown), oracle::outcomes(body), "outcomes in {:?}", text(body));
    assert!(done, "the end of {:?}", text(body));
    assert_eq!(Some(tools(false, &[body])), oracle::tools(body), "tools of {:?}", text(body));
    true
}

/// Asserts that a stream of events that are JSON is read as the oracle reads it; whether it is one.
pub(super) fn stream_agrees(stream: &[u8]) -> bool {
    let Some(expected) = oracle::of_events(stream, oracle::outcomes) else { return false };
    let (shown, done) = outcomes(true, &[stream]);
    assert_eq!(shown, expected, "outcomes in {:?}", text(stream));
    assert!(!done, "no stream has an end");
    let expected = oracle::of_events(stream, oracle::tools);
    assert_eq!(Some(tools(true, &[stream])), expected, "tools of {:?}", text(stream));
    let expected = oracle::is_answered(stream);
    assert_eq!(Some(answered(&[stream])), expected, "the answer in {:?}", text(stream));
    true
}

/// Asserts that a message, which is an object, is read as the oracle reads it; and of what a cut leaves of it nothing
/// that it does not say.
pub(super) fn message_agrees(body: &[u8]) {
    let Some(ids) = oracle::ids(body) else { return };
    let methods = oracle::texts(body, &["method"]).unwrap_or_default();
    let names = oracle::texts(body, &["params", "name"]).unwrap_or_default();
    let last = |all: &[Option<String>]| all.last().cloned().flatten();
    let read = |body| {
        let Message { id, method, name, whole } = Message::read(body);
        (id.map(str::to_owned), method.map(String::from), name.map(String::from), whole)
    };
    let expected = (last(&ids), last(&methods), last(&names), true);
    assert_eq!(read(body), expected, "{:?}", text(body));
    let first = ids.first().cloned().flatten();
    assert_eq!(request_id(body), first.as_deref(), "{:?}", text(body));
    for cut in 0..body.len() {
        let (id, method, name, _) = read(&body[..cut]);
        for (found, all) in [(id, &ids), (method, &methods), (name, &names)] {
            let said = found.is_none() || all.contains(&found);
            assert!(said, "{found:?} in {:?} cut at {cut}", text(body));
        }
        let found = request_id(&body[..cut]);
        assert!(found.is_none() || found == first.as_deref(), "{:?} cut at {cut}", text(body));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The calls that are shown, how many are not, and whether no more can come.
fn calls(pieces: &[&[u8]]) -> (Vec<Call>, u64, bool) {
    let (mut scanner, mut all) = (CallScanner::default(), Vec::new());
    for piece in pieces {
        scanner.feed(piece, &mut |call| all.push(call));
    }
    let fits = |call: &Call| call.name.as_ref().is_none_or(|name| name.len() <= MAX_TEXT);
    assert!(all.len() <= MAX_CALLS && all.iter().all(fits), "kept beyond the bound");
    (all, scanner.beyond(), scanner.is_done())
}

fn outcomes(events: bool, pieces: &[&[u8]]) -> (Vec<Outcome>, bool) {
    let (mut scanner, mut all) = (OutcomeScanner::new(events), Vec::new());
    for piece in pieces {
        scanner.feed(piece, &mut |id, ended| all.push((id, ended)));
    }
    (all, scanner.is_done())
}

fn tools(events: bool, pieces: &[&[u8]]) -> Vec<String> {
    let (mut scanner, mut all) = (ToolListScanner::new(events), Vec::new());
    for piece in pieces {
        scanner.feed(piece, &mut |name| all.push(name.to_owned()));
    }
    all
}

/// Whether a stream has brought an answer.
fn answered(pieces: &[&[u8]]) -> bool {
    let mut scanner = AnswerScanner::default();
    pieces.iter().for_each(|piece| scanner.feed(piece));
    scanner.is_answered()
}

/// What request and answer say of tasks.
fn tasks(events: bool, pieces: &[&[u8]]) -> [Option<String>; 2] {
    let (mut request, mut answer) = (TaskRequest::default(), TaskAnswer::new(events));
    for piece in pieces {
        request.feed(piece);
        answer.feed(piece);
    }
    [request.task(), answer.task().map(str::to_owned)]
}

fn batch(pieces: &[&[u8]]) -> Vec<String> {
    let (mut scanner, mut all) = (BatchScanner::default(), Vec::new());
    for piece in pieces {
        scanner.feed(piece, |seen| all.push(format!("{seen:?}")));
    }
    all
}
