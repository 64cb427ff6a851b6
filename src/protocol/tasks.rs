//! Which task a message names, and which task an answer has begun, in the words of A2A and of MCP.
//!
//! | | a request names a task by | an answer names it by |
//! |---|---|---|
//! | A2A 0.3, JSON-RPC (`a2a.json`; a2a-python 0.3, a2a-go 0.3) | `params.id` or `params.taskId` of `tasks/…`; `params.message.taskId` of `message/send` and `message/stream` | `result.id` of a Task, `result.taskId` of updates and messages |
//! | A2A 1.0, JSON-RPC (`a2a.proto`; a2a-python 1, a2a-go 2) | the same of `GetTask`, `CancelTask`, `SubscribeToTask`, `…TaskPushNotificationConfig(s)`; of `SendMessage`, `SendStreamingMessage` | `result.task.id`, `result.statusUpdate.taskId`, `result.artifactUpdate.taskId`, `result.message.taskId` |
//! | A2A 0.3 and 1.0, HTTP+JSON (A2A 1.0 section 11.3; below `/v1` in 0.3) | the path: `/tasks/{id}` and what is below or behind it; `message.taskId` of `/message:send`, `/message:stream` | what stands in `result` in JSON-RPC 1.0 |
//! | MCP 2025-11-25 (SEP-1686, "Tasks") | `params.taskId` of `tasks/…` | `result.task.taskId`, to a `tools/call` with `params.task` |
//! | MCP tasks extension (SEP-2663, `io.modelcontextprotocol/tasks`) | `params.taskId` of `tasks/…`, and `Mcp-Name` | `result.taskId`, to a `tools/call` that declares the extension |
//!
//! Pure: bytes in, ids out, at any split, with a few bytes of state.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::event_data::Messages;
use super::places::{Found, Places};

/// Bytes of an answer that are looked at: the Python SDK of A2A 0.3 writes a task's artifacts and history before its
/// id.
const MAX_ANSWER: usize = 1024 * 1024;
/// The key by which a client of MCP says that it takes tasks.
const EXTENSION: &[u8] = b"io.modelcontextprotocol/tasks";
const CAPABILITIES: &[u8] = b"io.modelcontextprotocol/clientCapabilities";

/// What a JSON-RPC request says of tasks, as far as its bytes have come.
#[derive(Debug)]
pub struct TaskRequest {
    places: Places<RequestPlace>,
    said: Said,
}

#[derive(Debug, Default)]
struct Said {
    kind: Option<MethodKind>,
    id: Option<String>,
    task_id: Option<String>,
    /// That of the message that is sent.
    continued: Option<String>,
    /// A task is taken for an answer.
    takes_task: bool,
}

/// What a method does with tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MethodKind {
    /// It asks about one, or changes it.
    Names,
    /// It sends a message, which begins a task or continues one.
    Sends,
    /// It may begin one, if the client takes tasks.
    Calls,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestPlace {
    Request,
    Method,
    Params,
    Id,
    TaskId,
    Message,
    MessageTask,
    Meta,
    Capabilities,
    Extensions,
    TakesTask,
}

/// What the path of a request says of tasks, in A2A's binding to HTTP and JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestPath<'p> {
    /// It is about this one.
    Names(Cow<'p, str>),
    /// It sends the message in its body.
    Sends,
    /// Nothing.
    Other,
}

/// Finds the task that an answer names: a JSON-RPC response, or a stream of them.
#[derive(Debug)]
pub struct TaskAnswer {
    messages: Messages<AnswerPlace>,
    task: Option<String>,
    left: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnswerPlace {
    Response,
    Result,
    /// A task, by its own name.
    Task,
    /// What tells of a task.
    Update,
    Id,
}

// === impl TaskRequest ===

impl Default for TaskRequest {
    fn default() -> Self {
        Self { places: Places::new(RequestPlace::Request, asked), said: Said::default() }
    }
}

impl TaskRequest {
    /// All of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut request = Self::default();
        request.feed(bytes);
        request
    }

    /// A body that is sent to the path of [`RestPath::Sends`].
    #[must_use]
    pub fn rest() -> Self {
        let said = Said { kind: Some(MethodKind::Sends), ..Said::default() };
        Self { places: Places::new(RequestPlace::Params, asked), said }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        let Self { places, said } = self;
        places.feed(bytes, &mut |place, found| said.take(place, found));
    }

    /// Whether the bytes to come cannot say of another task.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let said = &self.said;
        self.places.is_ended()
            || match said.kind {
                None => false,
                Some(MethodKind::Names) => said.task_id.is_some(),
                Some(MethodKind::Sends) => said.continued.is_some(),
                Some(MethodKind::Calls | MethodKind::Other) => true,
            }
    }

    /// The task that it is about.
    #[must_use]
    pub fn task(self) -> Option<String> {
        match self.said.kind? {
            MethodKind::Names => self.said.task_id.or(self.said.id),
            MethodKind::Sends => self.said.continued,
            MethodKind::Calls | MethodKind::Other => None,
        }
    }

    /// Whether its answer may name a task that begins with it.
    #[must_use]
    pub fn may_begin_task(&self) -> bool {
        match self.said.kind {
            Some(MethodKind::Sends) => true,
            Some(MethodKind::Calls) => self.said.takes_task,
            Some(MethodKind::Names | MethodKind::Other) | None => false,
        }
    }
}

// === impl Said ===

impl Said {
    fn take(&mut self, place: RequestPlace, found: Found<'_>) {
        match (place, found) {
            (RequestPlace::TakesTask, Found::Object | Found::Text(_)) => self.takes_task = true,
            (RequestPlace::Method, Found::Text(method)) => {
                self.kind = Some(MethodKind::of(&method))
            }
            (RequestPlace::Id, Found::Text(id)) => self.id = is_id(id.into_owned()),
            (RequestPlace::TaskId, Found::Text(id)) => self.task_id = is_id(id.into_owned()),
            (RequestPlace::MessageTask, Found::Text(id)) => self.continued = is_id(id.into_owned()),
            _ => {}
        }
    }
}

/// An empty id is none: Protobuf writes what was not set so.
fn is_id(id: String) -> Option<String> {
    Some(id).filter(|id| !id.is_empty())
}

// === impl MethodKind ===

impl MethodKind {
    fn of(method: &str) -> Self {
        match method {
            "message/send" | "message/stream" | "SendMessage" | "SendStreamingMessage" => {
                Self::Sends
            }
            "tools/call" => Self::Calls,
            "GetTask" | "CancelTask" | "SubscribeToTask" => Self::Names,
            _ if method.starts_with("tasks/") || method.contains("TaskPushNotificationConfig") => {
                Self::Names
            }
            _ => Self::Other,
        }
    }
}

fn asked(place: RequestPlace, key: &[u8]) -> Option<RequestPlace> {
    Some(match (place, key) {
        (RequestPlace::Request, b"method") => RequestPlace::Method,
        (RequestPlace::Request, b"params") => RequestPlace::Params,
        (RequestPlace::Params, b"id") => RequestPlace::Id,
        (RequestPlace::Params, b"taskId") => RequestPlace::TaskId,
        (RequestPlace::Params, b"message") => RequestPlace::Message,
        (RequestPlace::Message, b"taskId") => RequestPlace::MessageTask,
        (RequestPlace::Params, b"task") => RequestPlace::TakesTask,
        (RequestPlace::Params, b"_meta") => RequestPlace::Meta,
        (RequestPlace::Meta, CAPABILITIES) => RequestPlace::Capabilities,
        (RequestPlace::Capabilities, b"extensions") => RequestPlace::Extensions,
        (RequestPlace::Extensions, EXTENSION) => RequestPlace::TakesTask,
        _ => return None,
    })
}

// === impl RestPath ===

impl<'p> RestPath<'p> {
    /// Reads a path, under any prefix, of a request that is a POST or is none. A POST is about a task only where its
    /// path says what is to be done with it.
    #[must_use]
    pub fn of(path: &'p str, is_post: bool) -> Self {
        if is_post && (path.ends_with("/message:send") || path.ends_with("/message:stream")) {
            return Self::Sends;
        }
        let Some((_, rest)) = path.rsplit_once("/tasks/") else { return Self::Other };
        let (id, below) = rest.split_once('/').map_or((rest, None), |(id, rest)| (id, Some(rest)));
        let verbs = [":cancel", ":subscribe"];
        let asked = verbs.iter().find_map(|verb| id.strip_suffix(verb));
        let id = match (below, asked) {
            (Some(below), _) if below.starts_with("pushNotificationConfigs") => id,
            (None, Some(id)) => id,
            (None, None) if !is_post => id,
            _ => return Self::Other,
        };
        match percent_decode_str(id).decode_utf8() {
            Ok(id) if !id.is_empty() => Self::Names(id),
            _ => Self::Other,
        }
    }
}

// === impl TaskAnswer ===

impl TaskAnswer {
    /// Nothing has come yet of a response, or of a stream of `events` that are responses.
    #[must_use]
    pub fn new(events: bool) -> Self {
        Self::at(AnswerPlace::Response, events)
    }

    /// The same of an answer of A2A's binding to HTTP and JSON, which has nothing around its result.
    #[must_use]
    pub fn rest(events: bool) -> Self {
        Self::at(AnswerPlace::Result, events)
    }

    fn at(root: AnswerPlace, events: bool) -> Self {
        let places = Places::new(root, told);
        Self { messages: Messages::new(places, events), task: None, left: MAX_ANSWER }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        let bytes = bytes.get(..self.left).unwrap_or(bytes);
        self.left -= bytes.len();
        let Self { messages, task, .. } = self;
        messages.feed(bytes, &mut |place, found| {
            if let (AnswerPlace::Id, Found::Text(id), None) = (place, found, &task) {
                *task = is_id(id.into_owned());
            }
        });
    }

    /// The task, once its id has come.
    #[must_use]
    pub fn task(&self) -> Option<&str> {
        self.task.as_deref()
    }

    /// Whether the bytes to come are not looked at any more.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.task.is_some() || self.messages.is_ended() || self.left == 0
    }
}

fn told(place: AnswerPlace, key: &[u8]) -> Option<AnswerPlace> {
    Some(match (place, key) {
        (AnswerPlace::Response, b"result") => AnswerPlace::Result,
        (AnswerPlace::Result | AnswerPlace::Task, b"id" | b"taskId")
        | (AnswerPlace::Update, b"taskId") => AnswerPlace::Id,
        (AnswerPlace::Result, b"task") => AnswerPlace::Task,
        (AnswerPlace::Result, b"statusUpdate" | b"artifactUpdate" | b"message") => {
            AnswerPlace::Update
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request, the task that it names, and whether its answer may begin one.
    const REQUESTS: &[(&str, Option<&str>, bool)] = &[
        // A2A 0.3, as a2a-python and a2a-go write it.
        (
            r#"{"id":"1","jsonrpc":"2.0","method":"tasks/get","params":{"id":"t","historyLength":1}}"#,
            Some("t"),
            false,
        ),
        (
            r#"{"jsonrpc":"2.0","method":"tasks/cancel","params":{"id":"t"},"id":"1"}"#,
            Some("t"),
            false,
        ),
        (r#"{"params":{"id":"t"},"method":"tasks/resubscribe"}"#, Some("t"), false),
        (
            r#"{"method":"tasks/pushNotificationConfig/set","params":{"pushNotificationConfig":{"id":"x"},"taskId":"t"}}"#,
            Some("t"),
            false,
        ),
        (
            r#"{"method":"message/send","params":{"message":{"kind":"message","parts":[{"taskId":"x"}],"taskId":"t"}}}"#,
            Some("t"),
            true,
        ),
        (
            r#"{"method":"message/stream","params":{"message":{"messageId":"m"},"id":"x"}}"#,
            None,
            true,
        ),
        // A2A 1.0.
        (r#"{"method":"GetTask","params":{"tenant":"","id":"t"}}"#, Some("t"), false),
        (r#"{"method":"CancelTask","params":{"id":"t"}}"#, Some("t"), false),
        (r#"{"method":"SubscribeToTask","params":{"id":"t"}}"#, Some("t"), false),
        (
            r#"{"method":"GetTaskPushNotificationConfig","params":{"id":"x","taskId":"t"}}"#,
            Some("t"),
            false,
        ),
        (
            r#"{"method":"ListTaskPushNotificationConfigs","params":{"taskId":"t"}}"#,
            Some("t"),
            false,
        ),
        (r#"{"method":"SendMessage","params":{"message":{"taskId":"t"}}}"#, Some("t"), true),
        (r#"{"method":"SendStreamingMessage","params":{"message":{"taskId":""}}}"#, None, true),
        // MCP.
        (r#"{"method":"tasks/result","params":{"taskId":"t\u0031"},"id":7}"#, Some("t1"), false),
        (
            r#"{"method":"tools/call","params":{"name":"x","task":{"ttl":1},"taskId":"x"}}"#,
            None,
            true,
        ),
        (
            r#"{"method":"tools/call","params":{"arguments":{"task":{}},"name":"task"}}"#,
            None,
            false,
        ),
        (
            r#"{"method":"tools/call","params":{"_meta":{"io.modelcontextprotocol/clientCapabilities":{"extensions":{"io.modelcontextprotocol/tasks":{}}}}}}"#,
            None,
            true,
        ),
        // What is no business of ours.
        (r#"{"method":"tasks/list","params":{}}"#, None, false),
        (r#"{"method":"tools/list","params":{"id":"t","taskId":"t"}}"#, None, false),
        (r#"{"id":"t","params":{"taskId":"t"}}"#, None, false),
        (r#"{"method":"tasks/get","params":{"id":7}}"#, None, false),
        (r#"{"method":"tasks/get","params":"t"}"#, None, false),
        (r#"[{"method":"tasks/get","params":{"id":"t"}}]"#, None, false),
        ("tasks/get", None, false),
        ("", None, false),
    ];

    #[test]
    fn a_request_names_its_task_at_every_split() {
        for &(text, task, begins) in REQUESTS {
            let bytes = text.as_bytes();
            for at in 0..=bytes.len() {
                for to in at..=bytes.len() {
                    let mut request = TaskRequest::default();
                    for part in [&bytes[..at], &bytes[at..to], &bytes[to..]] {
                        request.feed(part);
                    }
                    assert_eq!(request.may_begin_task(), begins, "{text} split at {at}, {to}");
                    assert_eq!(request.task().as_deref(), task, "{text} split at {at}, {to}");
                }
            }
        }
    }

    /// What is settled at a cut is what the whole says.
    #[test]
    fn a_request_is_settled_as_soon_as_it_can_be_and_never_too_soon() {
        for &(text, task, _) in REQUESTS {
            for cut in 0..=text.len() {
                let request = TaskRequest::of(&text.as_bytes()[..cut]);
                if request.is_settled() {
                    assert_eq!(request.task().as_deref(), task, "{text} cut at {cut}");
                }
            }
        }
        for settled in [
            r#"{"method":"tools/call""#,
            r#"{"method":"message/send","params":{"message":{"taskId":"t""#,
            r#"{"params":{"taskId":"t"},"method":"tasks/get""#,
            r#"{"method":"tasks/get","params":{"id":"t"}}"#,
            "[",
            "x",
        ] {
            assert!(TaskRequest::of(settled.as_bytes()).is_settled(), "{settled}");
            let cut = &settled[..settled.len() - 1];
            assert!(!TaskRequest::of(cut.as_bytes()).is_settled(), "{cut}");
        }
    }

    const TASK_0_3: &str = r#"{"id":"1","jsonrpc":"2.0","result":{"artifacts":[{"id":"x","taskId":"x"}],"contextId":"c","history":[{"taskId":"x"}],"id":"t","kind":"task","status":{"state":"working"}}}"#;

    /// An answer and the task that it names.
    const ANSWERS: &[(&str, Option<&str>)] = &[
        (TASK_0_3, Some("t")),
        (
            r#"{"jsonrpc":"2.0","id":"x","result":{"kind":"message","messageId":"x","parts":[]}}"#,
            None,
        ),
        (
            r#"{"id":"x","result":{"contextId":"c","final":false,"kind":"status-update","taskId":"t"}}"#,
            Some("t"),
        ),
        (r#"{"id":"x","result":{"task":{"id":"t","contextId":"c"}}}"#, Some("t")),
        (r#"{"id":"x","result":{"message":{"messageId":"x","id":"x"}}}"#, None),
        (r#"{"id":"x","result":{"statusUpdate":{"id":"x","taskId":"t"}}}"#, Some("t")),
        (
            r#"{"id":"x","result":{"artifactUpdate":{"artifact":{"taskId":"x"},"taskId":"t"}}}"#,
            Some("t"),
        ),
        (r#"{"id":"x","result":{"task":{"taskId":"t","status":"working"}}}"#, Some("t")),
        (r#"{"id":"x","result":{"resultType":"task","taskId":"t"}}"#, Some("t")),
        (r#"{"id":"x","result":{"content":[{"type":"text","taskId":"x"}]}}"#, None),
        (r#"{"id":"x","result":{"taskId":"","task":{"id":"t"}}}"#, Some("t")),
        (r#"{"id":"x","error":{"code":-32602,"data":{"taskId":"x"}}}"#, None),
        (r#"{"method":"notifications/message","params":{"taskId":"x"}}"#, None),
        (r#"{"id":"x","result":"#, None),
        ("not found", None),
        ("", None),
    ];

    #[test]
    fn the_path_of_a_rest_request_names_its_task() {
        let names = |id: &'static str| RestPath::Names(Cow::Borrowed(id));
        for (path, post, get) in [
            ("/tasks/t", RestPath::Other, names("t")),
            ("/v1/tasks/t", RestPath::Other, names("t")),
            ("/agents/ns/a/tasks/t:cancel", names("t"), names("t")),
            ("/tasks/t:subscribe", names("t"), names("t")),
            ("/tasks/a:b", RestPath::Other, names("a:b")),
            ("/tasks/t/pushNotificationConfigs", names("t"), names("t")),
            ("/tasks/t/pushNotificationConfigs/c", names("t"), names("t")),
            ("/tasks/tasks/t", RestPath::Other, names("t")),
            ("/tasks/a%2Fb%20c:cancel", names("a/b c"), names("a/b c")),
            ("/tasks/%ff", RestPath::Other, RestPath::Other),
            ("/tasks/", RestPath::Other, RestPath::Other),
            ("/tasks/:cancel", RestPath::Other, RestPath::Other),
            ("/tasks/t/other", RestPath::Other, RestPath::Other),
            ("/tasks", RestPath::Other, RestPath::Other),
            ("/mytasks/t", RestPath::Other, RestPath::Other),
            ("/message:send", RestPath::Sends, RestPath::Other),
            ("/v1/message:stream", RestPath::Sends, RestPath::Other),
            ("/amessage:send", RestPath::Other, RestPath::Other),
            ("/", RestPath::Other, RestPath::Other),
            ("", RestPath::Other, RestPath::Other),
        ] {
            assert_eq!(RestPath::of(path, true), post, "POST {path}");
            assert_eq!(RestPath::of(path, false), get, "GET {path}");
        }
    }

    #[test]
    fn the_bodies_of_rest_have_nothing_around_them() {
        for (body, task) in [
            (r#"{"message":{"messageId":"m","parts":[{"taskId":"x"}],"taskId":"t"}}"#, Some("t")),
            (r#"{"tenant":"x","message":{"taskId":""},"taskId":"x"}"#, None),
            (r#"{"method":"GetTask","params":{"id":"x"},"message":{"taskId":"t"}}"#, Some("t")),
        ] {
            for at in 0..=body.len() {
                let mut request = TaskRequest::rest();
                request.feed(&body.as_bytes()[..at]);
                request.feed(&body.as_bytes()[at..]);
                assert!(request.is_settled());
                assert_eq!(request.task().as_deref(), task, "{body} at {at}");
            }
        }
        for (body, task) in [
            (r#"{"task":{"artifacts":[{"id":"x"}],"id":"t","contextId":"c"}}"#, Some("t")),
            (r#"{"message":{"messageId":"x","taskId":"t"}}"#, Some("t")),
            (r#"{"error":{"id":"x","taskId":"x"}}"#, None),
        ] {
            for at in 0..=body.len() {
                let mut answer = TaskAnswer::rest(false);
                answer.feed(&body.as_bytes()[..at]);
                answer.feed(&body.as_bytes()[at..]);
                assert_eq!(answer.task(), task, "{body} at {at}");
            }
        }
        let mut stream = TaskAnswer::rest(true);
        stream.feed(b"data: {\"statusUpdate\":{\"taskId\":\"t\"}}\n\n");
        assert_eq!(stream.task(), Some("t"));
    }

    fn answered(events: bool, pieces: &[&[u8]]) -> (Option<String>, bool) {
        let mut answer = TaskAnswer::new(events);
        pieces.iter().for_each(|piece| answer.feed(piece));
        (answer.task().map(str::to_owned), answer.is_done())
    }

    #[test]
    fn an_answer_names_its_task_at_every_split() {
        for &(text, task) in ANSWERS {
            let bytes = text.as_bytes();
            for at in 0..=bytes.len() {
                for to in at..=bytes.len() {
                    let pieces = [&bytes[..at], &bytes[at..to], &bytes[to..]];
                    let (found, done) = answered(false, &pieces);
                    assert_eq!(found.as_deref(), task, "{text} split at {at}, {to}");
                    assert!(done || text.is_empty() || text.ends_with(':'), "{text}");
                }
            }
        }
    }

    #[test]
    fn a_stream_names_its_task_at_every_split() {
        let log = r#"{"method":"notifications/message","params":{"taskId":"x"}}"#;
        for end in ["\n", "\r\n", "\r"] {
            for (stream, task) in [
                (
                    format!(
                        ": ping{end}{end}event: message{end}data: {log}{end}{end}id: 7{end}data:{TASK_0_3}{end}{end}"
                    ),
                    Some("t"),
                ),
                (
                    format!("data: {{\"result\":{end}data: {{\"taskId\":\"t\"}}}}{end}{end}"),
                    Some("t"),
                ),
                // No event goes on in the next one.
                (
                    format!("data: {{\"result\":{{{end}{end}data: \"taskId\":\"x\"}}}}{end}{end}"),
                    None,
                ),
                (
                    format!(
                        "datax: {TASK_0_3}{end}dat: {TASK_0_3}{end}: data: {TASK_0_3}{end}data{end}{end}"
                    ),
                    None,
                ),
            ] {
                let bytes = stream.as_bytes();
                for at in 0..=bytes.len() {
                    let (found, done) = answered(true, &[&bytes[..at], &bytes[at..]]);
                    assert_eq!(
                        (found.as_deref(), done),
                        (task, task.is_some()),
                        "{stream:?} at {at}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_long_answer_is_looked_at_up_to_a_bound() {
        let padded =
            |length: usize| format!(r#"{{"result":{{"x":"{}","id":"t"}}}}"#, "x".repeat(length));
        let (near, far) = (padded(MAX_ANSWER - 100), padded(MAX_ANSWER));
        assert_eq!(answered(false, &[near.as_bytes()]), (Some("t".to_owned()), true));
        assert_eq!(answered(false, &[far.as_bytes()]), (None, true));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_same(
            stream in "(data: |\\{|\"result\":|\"taskId\":|\"task\":|\"id\":|\"t\"|\\}|,|\n|\r|x){0,30}",
            size in 1usize..9, events in proptest::bool::ANY,
        ) {
            let bytes = stream.as_bytes();
            let pieces: Vec<_> = bytes.chunks(size).collect();
            proptest::prop_assert_eq!(answered(events, &pieces), answered(events, &[bytes]));
            let mut request = TaskRequest::default();
            pieces.iter().for_each(|piece| request.feed(piece));
            let whole = TaskRequest::of(bytes);
            proptest::prop_assert_eq!(request.is_settled(), whole.is_settled());
            proptest::prop_assert_eq!(request.task(), whole.task());
        }
    }
}
