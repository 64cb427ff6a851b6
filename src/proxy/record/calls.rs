//! The calls of a request, counted and shown as they end.
//!
//! Each exactly once, with the time from the request's arrival to its own end. Knows metrics and the feed; reads no
//! message.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::head::HeadCopy;
use crate::body::tap::Tap;
use crate::protocol::calls::Call;
use crate::protocol::grpc::Code;
use crate::protocol::methods::{Method, Names, OTHER};
use crate::proxy::posted::{AnswerStream, PostedCall};
use crate::proxy::sight::{Rest, Sight, Told};
use crate::route::{Caller, Route};
use crate::telemetry::feed::{Feed, FinishedCall};
use crate::telemetry::metrics::Counted;
use crate::telemetry::operations::{ErrorType, Operation, UNKNOWN};
use crate::telemetry::record::Outcome;
use crate::telemetry::tools::ToolNames;
use crate::workers::moment;

/// Characters of a name that are shown.
const SHOWN: usize = 128;
/// What a call is said to have ended with to which the response has no answer.
const UNANSWERED: ErrorType = ErrorType::Word("unanswered");

/// What a caller is called whose address names no Agent.
static UNKNOWN_CALLER: LazyLock<Arc<str>> = LazyLock::new(|| UNKNOWN.into());

/// The exchange that calls belong to, as far as it has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exchange<'r> {
    pub(super) route: &'r Route,
    pub(super) caller: &'r Arc<str>,
    pub(super) head: &'r HeadCopy,
    pub(super) peer: &'r str,
    pub(super) status: u16,
    pub(super) session: Option<u32>,
    /// When the request arrived.
    pub(super) started: Instant,
    pub(super) feed: &'r Feed,
    /// The stream that it is, if posts are answered on it.
    pub(super) answers: Option<&'r AnswerStream>,
}

/// The caller as labels say it.
pub(super) fn caller_label(caller: Option<&Caller>) -> &Arc<str> {
    caller.map_or(&*UNKNOWN_CALLER, |caller| &caller.label)
}

/// How the calls end that no answer has ended. Of a call of gRPC its status says it, which is `None` if the response
/// ended without one. A client that leaves once it has results wants no more of them.
pub(super) fn unheard(outcome: Outcome, status: u16, grpc: Option<Option<Code>>) -> Rest {
    let error = match outcome {
        Outcome::Complete if status == 200 && grpc.is_some() => match grpc.flatten() {
            Some(Code::OK) => ErrorType::None,
            Some(code) => ErrorType::Word(code.word()),
            None => UNANSWERED,
        },
        Outcome::Complete | Outcome::Drained if status >= 300 => ErrorType::Status(status),
        Outcome::Complete | Outcome::Drained => ErrorType::None,
        other => ErrorType::Word(other.detail()),
    };
    let unanswered = if error.is_error() { error } else { UNANSWERED };
    let begun = if outcome == Outcome::ClientGone { ErrorType::None } else { error };
    Rest { plain: error, unanswered, begun }
}

impl Exchange<'_> {
    /// The calls of the request that have come whole by now. Of one without any the path may be a call.
    pub(super) fn take_calls(&self, sight: &mut Sight, tap: &Tap) {
        if sight.is_whole() {
            return;
        }
        let (beyond, whole) = tap.take_calls(|call| {
            if self.head.contradicts(&call) {
                self.route.metrics.add(Counted::HeaderMismatch, 1);
            }
            sight.add(call);
        });
        sight.add_beyond(beyond, whole);
        if sight.first().is_none()
            && let Some(method) = self.method_of_head()
        {
            sight.add(Call { id: None, method, name: None, trace: None });
        }
    }

    /// The exchange has ended. Where its body did not say what it calls, because it is encoded or did not come whole,
    /// the head does.
    pub(super) fn take_call_of_head(&self, sight: &mut Sight, tap: &Tap) {
        if sight.first().is_none()
            && self.head.method() == "POST"
            && !tap.has_said_all()
            && let Some(call) = self.head.call()
        {
            sight.add(call);
        }
    }

    /// The calls of a long batch that were not read one by one: they end as the exchange does.
    pub(super) fn count_beyond(&self, sight: &Sight, error: ErrorType) {
        let calls = sight.beyond();
        let Some(first) = sight.first().filter(|_| calls > 0) else { return };
        let (mcp, a2a) = self.head.speaks();
        let (caller, protocol) = (self.caller, first.call.method.protocol(mcp, a2a));
        let operation = Operation { caller, protocol, method: OTHER, tool: "", error };
        self.route.metrics.operations(&operation, self.age(), calls);
    }

    /// The method that verb and path of the request are.
    fn method_of_head(&self) -> Option<Method> {
        let head = self.head;
        match head.speaks_grpc {
            true => Method::of_grpc(head.path()),
            false => Method::of_rest(head.method(), head.path(), head.speaks_a2a),
        }
    }

    /// Bytes of the response pass.
    pub(super) fn pass(&self, sight: &mut Sight, bytes: &[u8]) {
        let mut tools = Vec::<Box<str>>::new();
        sight.pass(bytes, &mut |told| match told {
            Told::Ended(call, error) => self.count(call, error),
            Told::Tool(name) => tools.push(name.into()),
            Told::Others(id, error) => {
                let posted = self.answers.and_then(|stream| stream.answered(id, error));
                if let Some(posted) = posted {
                    self.count_posted(&posted, error, moment::now());
                }
            }
        });
        if !tools.is_empty() {
            self.route.metrics.tools().add(tools.iter().map(|name| &**name));
        }
    }

    /// The call is answered on that stream, and may be already.
    pub(super) fn post(&self, stream: &AnswerStream, posted: PostedCall) {
        match stream.wait(posted) {
            Ok(None) => {}
            Ok(Some((posted, error, when))) => self.count_posted(&posted, error, when),
            Err(posted) => self.count(&posted.call, ErrorType::Unknown),
        }
    }

    /// Nothing answers these any more: the stream has ended like this.
    pub(super) fn give_up(&self, all: &[PostedCall], error: ErrorType) {
        let error = if error.is_error() { error } else { UNANSWERED };
        all.iter().for_each(|posted| self.count_posted(posted, error, moment::now()));
    }

    fn count_posted(&self, posted: &PostedCall, error: ErrorType, when: Instant) {
        let age = when.saturating_duration_since(posted.started);
        self.count_after(age, &posted.call, error);
    }

    /// How long ago the request arrived.
    fn age(&self) -> Duration {
        moment::now().saturating_duration_since(self.started)
    }

    /// Counts a call that ends now.
    pub(super) fn count(&self, call: &Call, error: ErrorType) {
        self.count_after(self.age(), call, error);
    }

    /// Counts one that took so long.
    fn count_after(&self, age: Duration, call: &Call, error: ErrorType) {
        let Self { route, caller, head, .. } = *self;
        let (mcp, a2a) = head.speaks();
        let protocol = call.method.protocol(mcp, a2a);
        let (method, tool) = (call.method.label(), tool_label(route.metrics.tools(), call));
        let operation = Operation { caller, protocol, method, tool, error };
        route.metrics.operation(&operation, age);
        self.feed.show(|| FinishedCall {
            at: SystemTime::now(),
            route: route.config.host.as_str().into(),
            caller: Arc::clone(caller),
            protocol,
            method: cut(call.method.as_str()).into(),
            tool: cut(shown_name(call)).into(),
            error,
            status: self.status,
            took: age,
            peer: self.peer.into(),
            path: head.path().into(),
            session: self.session,
            conversation: head.conversation().into(),
            trace: head.trace().into(),
        });
    }
}

/// The tool as the label says it: one that somebody has declared.
fn tool_label<'c>(tools: &ToolNames, call: &'c Call) -> &'c str {
    match (&call.method, call.name.as_deref()) {
        (Method::Known("tools/call", _), Some(name)) if tools.has(name) => name,
        (Method::Known("tools/call", _), _) => OTHER,
        _ => "",
    }
}

/// The tool or prompt that a call names. Addresses of resources may hold what nobody should read.
pub(super) fn shown_name(call: &Call) -> &str {
    match call.method.names() {
        Names::Name => call.name.as_deref().unwrap_or_default(),
        Names::Uri | Names::Nothing => "",
    }
}

/// At most so much of it as is shown.
pub(super) fn cut(text: &str) -> &str {
    // No character is shorter than a byte.
    if text.len() <= SHOWN {
        return text;
    }
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => text.get(..end).unwrap_or_default(),
        None => text,
    }
}

/// What the log says of the calls of an exchange.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LoggedCalls<'s> {
    pub(super) protocol: &'static str,
    pub(super) method: &'s str,
    pub(super) tool: &'s str,
    pub(super) error: Option<ErrorType>,
    pub(super) count: u32,
}

impl<'s> LoggedCalls<'s> {
    /// Of those that were seen.
    pub(super) fn of(sight: &'s Sight, (mcp, a2a): (bool, bool)) -> Self {
        let Some(first) = sight.first() else { return Self::default() };
        let call = &first.call;
        Self {
            protocol: call.method.protocol(mcp, a2a).word(),
            method: cut(call.method.as_str()),
            tool: cut(shown_name(call)),
            error: first.error,
            count: u32::try_from(sight.count()).unwrap_or(u32::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::seen::SeenCalls;
    use crate::telemetry::metrics::Metrics;

    /// As many bodies as somebody may send in a minute, none like another: names of methods and tools, escapes, batches,
    /// nesting, and what is no JSON.
    #[test]
    fn a_hundred_thousand_hostile_bodies_make_two_series() {
        let metrics = Metrics::new();
        let route = metrics.route("r");
        route.tools().add(["add"]);
        let mut calls = 0;
        for n in 0..100_000 {
            let body = match n % 7 {
                0 => format!(r#"{{"method":"tools/call","params":{{"name":"add{n}"}},"id":{n}}}"#),
                1 => format!(r#"{{"method":"tools/call{n}","params":{{"name":"add"}}}}"#),
                2 => format!(r#"[{{"id":"{n}","method":"m\u{n:04x}"}},{{"method":"{n}"}}]"#),
                3 => format!(r#"{{"params":{{"params":{{"method":"{n}"}}}},"method":["{n}"]}}"#),
                4 => format!(
                    r#"{{"method":"tools/call","params":{{"arguments":{{"name":"add"}},"name":"{n}"}}}}"#
                ),
                5 => format!("{}\"method\":\"{n}\"", "{\"params\":".repeat(n % 50)),
                _ => format!("\u{0}{n}{{\"method\":\"ping\"}}"),
            };
            let mut seen = SeenCalls::default();
            seen.feed(body.as_bytes());
            seen.take(|call| {
                calls += 1;
                let (method, tool) = (call.method.label(), tool_label(route.tools(), &call));
                let (caller, protocol) = (UNKNOWN, call.method.protocol(false, false));
                let error = ErrorType::None;
                let operation = Operation { caller, protocol, method, tool, error };
                route.operation(&operation, Duration::ZERO);
            });
        }
        assert!(calls > 50_000, "only {calls} are calls");
        assert_eq!(metrics.series_cap().state().0, 2, "tools/call of other, and other");
    }

    #[test]
    fn names_are_cut_between_characters() {
        assert_eq!(cut("äb"), "äb");
        let long = "ä".repeat(SHOWN + 1);
        assert_eq!(cut(&long), &long[..2 * SHOWN]);
    }

    #[test]
    fn addresses_of_resources_are_not_shown() {
        let of = |method, name: &str| Call {
            id: None,
            method: Method::of(method),
            name: Some(name.into()),
            trace: None,
        };
        assert_eq!(shown_name(&of("tools/call", "add")), "add");
        assert_eq!(shown_name(&of("prompts/get", "ask")), "ask");
        assert_eq!(shown_name(&of("resources/read", "postgres://u:p@db")), "");
    }
}
