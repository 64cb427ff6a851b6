//! The calls of one exchange: which the request makes, and how each ends.
//!
//! Passive: bytes and calls in, ends out; what cannot be read is told by how the exchange itself ends. Knows no metric,
//! no log and no connection.

use crate::headers::noted::Noted;
use crate::protocol::calls::{Call, CallId};
use crate::protocol::methods::Method;
use crate::protocol::outcomes::{Ended, OutcomeScanner};
use crate::protocol::tool_list::ToolListScanner;
use crate::telemetry::operations::ErrorType;

/// The calls of one exchange.
#[derive(Debug, Default)]
pub struct Sight {
    /// Most requests make one call.
    first: Option<SeenCall>,
    more: Vec<SeenCall>,
    /// Calls that are only counted: those behind the first ones of a long batch.
    beyond: u32,
    /// The request makes no other calls.
    is_whole: bool,
    /// Calls that the response may still answer.
    open: u32,
    answers: Answers,
    /// The response is an event stream.
    is_stream: bool,
    /// The response answers calls of other requests.
    for_others: bool,
}

/// One call.
#[derive(Debug)]
pub struct SeenCall {
    /// As it was made.
    pub call: Call,
    /// How it ended, once it has.
    pub error: Option<ErrorType>,
    /// It has results, of which more may come.
    goes_on: bool,
}

/// How calls end with their exchange that no answer has ended.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    /// Those that no answer could have ended.
    pub plain: ErrorType,
    /// Those that an answer could have ended.
    pub unanswered: ErrorType,
    /// Those that have results, and might have had more.
    pub begun: ErrorType,
}

/// What reads the response.
#[derive(Debug, Default)]
enum Answers {
    /// Nothing: there is no response yet, or none that can be read.
    #[default]
    Unread,
    /// Its type does not say whether it can be read: the first byte that is no white space will.
    Untyped,
    /// It can be read, and nothing of its body has come.
    Readable { events: bool },
    /// This.
    Reading(Box<Reader>),
    /// All that was waited for has come.
    Read,
}

#[derive(Debug)]
struct Reader {
    outcomes: OutcomeScanner,
    /// Of a response that lists tools; boxed, for most list none.
    tools: Option<Box<ToolListScanner>>,
}

/// What a piece of a response tells.
#[derive(Clone, Copy, Debug)]
pub enum Told<'t> {
    /// This call has ended.
    Ended(&'t Call, ErrorType),
    /// The server has this tool.
    Tool(&'t str),
    /// A call of another request has ended.
    Others(CallId, ErrorType),
}

// === impl Sight ===

impl Sight {
    /// The request makes this call too.
    pub fn add(&mut self, call: Call) {
        self.open += u32::from(call.id.is_some());
        let seen = SeenCall { call, error: None, goes_on: false };
        match &self.first {
            None => self.first = Some(seen),
            Some(_) => self.more.push(seen),
        }
    }

    /// The request makes so many calls beyond those that were added; if `whole`, no others will come.
    pub fn add_beyond(&mut self, calls: u64, whole: bool) {
        self.beyond = u32::try_from(calls).unwrap_or(u32::MAX);
        self.is_whole = whole;
    }

    /// How many it makes beyond those that were added.
    #[must_use]
    pub fn beyond(&self) -> u64 {
        self.beyond.into()
    }

    /// Whether all calls of the request are here.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The response has come, of whose fields this was noted; its body can be read unless it is `encoded`.
    pub fn answered(&mut self, noted: Noted, encoded: bool) {
        if encoded || self.open == 0 {
            return;
        }
        self.is_stream = noted.is_events;
        if noted.is_json || noted.is_events {
            self.answers = Answers::Readable { events: noted.is_events };
        } else if noted.is_untyped() {
            self.answers = Answers::Untyped;
        }
    }

    /// The response is an event stream that answers calls of other requests.
    pub fn answers_others(&mut self) {
        (self.answers, self.for_others) = (Answers::Readable { events: true }, true);
    }

    /// Whether the response's bytes to come matter.
    #[must_use]
    pub const fn listens(&self) -> bool {
        !matches!(self.answers, Answers::Unread | Answers::Read)
    }

    /// The next bytes of the response pass.
    pub fn pass(&mut self, bytes: &[u8], tell: &mut impl FnMut(Told<'_>)) {
        if matches!(self.answers, Answers::Untyped) {
            let Some(is_json) = begins_json(bytes) else { return };
            self.answers =
                if is_json { Answers::Readable { events: false } } else { Answers::Unread };
        }
        let mut reader = match std::mem::take(&mut self.answers) {
            Answers::Readable { events } => {
                // On the stack, where most responses are read in one piece.
                let mut reader = self.reader(events);
                self.read(&mut reader, bytes, tell);
                self.answers = self.goes_on(reader.is_done(), || Box::new(reader));
                return;
            }
            Answers::Reading(reader) => reader,
            other => return self.answers = other,
        };
        self.read(&mut reader, bytes, tell);
        let done = reader.is_done();
        self.answers = self.goes_on(done, || reader);
    }

    /// The exchange has ended: what is open ends with it, like this.
    pub fn rest(&mut self, rest: Rest, tell: &mut impl FnMut(&Call, ErrorType)) {
        let readable = !matches!(self.answers, Answers::Unread | Answers::Untyped);
        for seen in self.first.iter_mut().chain(&mut self.more) {
            if seen.error.is_none() {
                let unheard = readable && seen.call.id.is_some();
                let error = match unheard {
                    _ if seen.goes_on => rest.begun,
                    true => rest.unanswered,
                    false => rest.plain,
                };
                seen.error = Some(error);
                tell(&seen.call, error);
            }
        }
        self.open = 0;
    }

    /// The first call, if one was seen.
    #[must_use]
    pub const fn first(&self) -> Option<&SeenCall> {
        self.first.as_ref()
    }

    /// Takes the calls out that have ids and no answer: they are answered elsewhere, and said to have ended like this.
    pub fn take_open(&mut self, error: ErrorType) -> Vec<Call> {
        let mut open = Vec::new();
        for seen in self.first.iter_mut().chain(&mut self.more) {
            if seen.error.is_none() && seen.call.id.is_some() {
                seen.error = Some(error);
                open.push(seen.call.clone());
            }
        }
        self.open = 0;
        open
    }

    /// How many calls were seen.
    #[must_use]
    pub fn count(&self) -> usize {
        let beyond = usize::try_from(self.beyond).unwrap_or(usize::MAX);
        (usize::from(self.first.is_some()) + self.more.len()).saturating_add(beyond)
    }

    fn goes_on(&self, done: bool, reader: impl FnOnce() -> Box<Reader>) -> Answers {
        if done || self.open == 0 && !self.for_others {
            Answers::Read
        } else {
            Answers::Reading(reader())
        }
    }

    fn reader(&self, events: bool) -> Reader {
        let mut calls = self.first.iter().chain(&self.more);
        let lists = self.for_others
            || calls.any(|seen| matches!(seen.call.method, Method::Known("tools/list", _)));
        let tools = lists.then(|| Box::new(ToolListScanner::new(events)));
        Reader { outcomes: OutcomeScanner::new(events), tools }
    }

    /// Whether the only call has a result, of which more may come.
    fn only_goes_on(&self) -> bool {
        let goes_on = self.first.as_ref().is_some_and(|seen| seen.goes_on);
        goes_on && self.more.is_empty() && !self.for_others
    }

    fn read(&mut self, reader: &mut Reader, bytes: &[u8], tell: &mut impl FnMut(Told<'_>)) {
        // A stream of an agent's words is results, one like the other.
        if self.only_goes_on() && reader.outcomes.are_results(bytes) {
            return;
        }
        if let Some(tools) = &mut reader.tools {
            tools.feed(bytes, &mut |name| tell(Told::Tool(name)));
        }
        reader.outcomes.feed(bytes, &mut |id, ended| self.end(id, ended, tell));
    }

    /// The call of this id has ended; without one, the only call that is open: of a request that it cannot read a
    /// server knows no id (JSON-RPC 2.0 section 5). A call of A2A may have many results on a stream, and an error after
    /// them (A2A 1.0 section 9.4.2).
    fn end(&mut self, id: Option<CallId>, ended: Ended, tell: &mut impl FnMut(Told<'_>)) {
        let only = self.open == 1;
        let fits = |seen: &&mut SeenCall| {
            let is_open = seen.error.is_none() && seen.call.id.is_some();
            is_open && (id.is_some() && seen.call.id == id || id.is_none() && only)
        };
        let error = match ended {
            Ended::Result => ErrorType::None,
            Ended::ToolError => ErrorType::Tool,
            Ended::Error(code) => ErrorType::Code(code),
        };
        let Some(seen) = self.first.iter_mut().chain(&mut self.more).find(fits) else {
            if let Some(id) = id.filter(|_| self.for_others) {
                tell(Told::Others(id, error));
            }
            return;
        };
        if ended == Ended::Result && self.is_stream && seen.call.method.streams() {
            seen.goes_on = true;
            return;
        }
        seen.error = Some(error);
        self.open -= 1;
        tell(Told::Ended(&seen.call, error));
    }
}

/// Whether bytes begin an object or an array of JSON (RFC 8259 section 2); `None` where white space is all there is.
#[must_use]
pub fn begins_json(bytes: &[u8]) -> Option<bool> {
    let first = bytes.trim_ascii_start().first()?;
    Some(matches!(first, b'{' | b'['))
}

// === impl Reader ===

impl Reader {
    fn is_done(&self) -> bool {
        self.outcomes.is_done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::names::Known;
    use crate::protocol::calls::CallScanner;

    const JSON: Noted = noted(false);
    const EVENTS: Noted = noted(true);

    const fn noted(is_events: bool) -> Noted {
        let names = crate::headers::names::Names::all(&[]);
        Noted { names, is_events, is_json: !is_events, is_text: false }
    }

    fn sight(request: &str, noted: Noted) -> Sight {
        let mut sight = Sight::default();
        CallScanner::default().feed(request.as_bytes(), &mut |call| sight.add(call));
        sight.answered(noted, false);
        sight
    }

    /// What is told of a response in these pieces, and at its end.
    fn told(sight: &mut Sight, pieces: &[&[u8]]) -> Vec<String> {
        let mut all = Vec::new();
        for piece in pieces {
            sight.pass(piece, &mut |told| {
                all.push(match told {
                    Told::Ended(call, error) => format!("{}:{error}", call.method.as_str()),
                    Told::Tool(name) => format!("has {name}"),
                    Told::Others(_, error) => format!("another's:{error}"),
                });
            });
        }
        let [unanswered, begun] = ["unanswered", "begun"].map(ErrorType::Word);
        let rest = Rest { plain: ErrorType::Status(502), unanswered, begun };
        sight.rest(rest, &mut |call, error| {
            all.push(format!("end {}:{error}", call.method.as_str()));
        });
        all
    }

    #[test]
    fn calls_on_one_stream_end_each_with_its_own_answer_at_every_split() {
        let request = r#"[{"id":1,"method":"tools/call","params":{"name":"a"}},{"id":"1","method":"ping"},{"method":"notifications/cancelled"},{"id":3,"method":"tools/list"}]"#;
        let answer = "data: {\"id\":\"1\",\"result\":{}}\n\ndata: {\"id\":9,\"result\":{}}\n\n\
                      data: {\"id\":1,\"result\":{\"content\":[],\"isError\":true}}\n\n";
        let expected = [
            "ping:",
            "tools/call:tool_error",
            "end notifications/cancelled:502",
            "end tools/list:unanswered",
        ];
        for at in 0..=answer.len() {
            let (one, two) = answer.as_bytes().split_at(at);
            let mut sight = sight(request, EVENTS);
            assert_eq!(told(&mut sight, &[one, two]), expected, "split at {at}");
            assert_eq!(sight.count(), 4);
            assert_eq!(sight.first().unwrap().error, Some(ErrorType::Tool));
        }
    }

    #[test]
    fn a_stream_of_results_ends_with_an_error_or_with_the_exchange() {
        let results = "data: {\"id\":1,\"result\":{\"task\":{}}}\n\n".repeat(2);
        let fails = format!("{results}data: {{\"id\":1,\"error\":{{\"code\":-32603}}}}\n\n");
        for method in
            ["message/stream", "SendStreamingMessage", "tasks/resubscribe", "SubscribeToTask"]
        {
            let request = format!(r#"{{"id":1,"method":"{method}"}}"#);
            for (answer, expected) in [
                (&results, format!("end {method}:begun")),
                (&fails, format!("{method}:-32603")),
                (&String::new(), format!("end {method}:unanswered")),
            ] {
                for at in 0..=answer.len() {
                    let (one, two) = answer.as_bytes().split_at(at);
                    let told = told(&mut sight(&request, EVENTS), &[one, two]);
                    assert_eq!(told, [&*expected], "{answer} at {at}");
                }
            }
            let one: &[u8] = br#"{"id":1,"result":{}}"#;
            assert_eq!(told(&mut sight(&request, JSON), &[one]), [format!("{method}:")]);
        }
    }

    #[test]
    fn an_error_without_an_id_ends_the_only_call() {
        let answer: &[u8] = br#"{"id":null,"error":{"code":-32700,"message":""}}"#;
        let one = r#"{"id":1,"method":"ping"}"#;
        assert_eq!(told(&mut sight(one, JSON), &[answer]), ["ping:-32700"]);
        let two = r#"[{"id":1,"method":"ping"},{"id":2,"method":"ping"}]"#;
        let unanswered = ["end ping:unanswered", "end ping:unanswered"];
        assert_eq!(told(&mut sight(two, JSON), &[answer]), unanswered);
    }

    #[test]
    fn the_tools_that_a_server_lists_are_told() {
        let mut sight = sight(r#"{"id":1,"method":"tools/list"}"#, JSON);
        let answer = br#"{"id":1,"result":{"tools":[{"name":"a"},{"name":"b"}]}}"#;
        assert_eq!(told(&mut sight, &[answer]), ["has a", "has b", "tools/list:"]);
    }

    #[test]
    fn a_stream_for_posts_tells_the_ends_of_calls_of_other_requests() {
        let mut sight = Sight::default();
        sight.answers_others();
        let events = b"data: {\"id\":1,\"result\":{\"isError\":true}}\n\n\
            data: {\"method\":\"notifications/message\"}\n\ndata: {\"id\":2,\"result\":{}}\n\n";
        let expected = ["another's:tool_error", "another's:"];
        for at in 0..events.len() {
            let mut sight = Sight::default();
            sight.answers_others();
            assert_eq!(told(&mut sight, &[&events[..at], &events[at..]]), expected, "{at}");
        }
    }

    #[test]
    fn what_cannot_be_read_ends_as_the_exchange_does() {
        let names = JSON.names.with(Known::ContentType);
        let html = Noted { names, is_json: false, ..JSON };
        let mut html = sight(r#"{"id":1,"method":"ping"}"#, html);
        let answer = br#"{"id":1,"result":{}}"#;
        assert_eq!(told(&mut html, &[answer]), ["end ping:502"]);
    }

    #[test]
    fn the_first_byte_of_an_answer_without_a_type_tells_whether_it_is_read() {
        let call = r#"{"id":1,"method":"message/send"}"#;
        let text = Noted { is_json: false, is_text: true, ..JSON };
        for untyped in [text, Noted::default()] {
            for (answer, expected) in [
                (r#"{"id":1,"error":{"code":-32001}}"#, "message/send:-32001"),
                (" \r\n\t[{\"id\":1,\"result\":{}}]\n", "message/send:"),
                (r#"{"detail":"Not found"}"#, "end message/send:unanswered"),
                ("Not {found}", "end message/send:502"),
                (" \n", "end message/send:502"),
                ("", "end message/send:502"),
            ] {
                for at in 0..=answer.len() {
                    let (one, two) = answer.as_bytes().split_at(at);
                    let mut sight = sight(call, untyped);
                    assert_eq!(told(&mut sight, &[one, two]), [expected], "{answer:?} at {at}");
                }
            }
            let mut sight = Sight::default();
            sight.answered(untyped, false);
            assert!(!sight.listens(), "nobody has called");
        }
    }
}
