//! What the scanners of calls, outcomes and tools have to say of a body, by serde_json on the whole of it.
//!
//! Plain and slow. Knows no scanner, no state and no pieces. Shared with the fuzz target of the same name.

use kagent_proxy::protocol::calls::{Call, CallId};
use kagent_proxy::protocol::methods::{Method, Names};
use kagent_proxy::protocol::outcomes::Ended;
use kagent_proxy::protocol::places::Found;
use kagent_proxy::protocol::trace_context::TraceContext;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Bytes of a string or number, as it is written, that a scanner reads.
pub(super) const MAX_TEXT: usize = 512;
/// Calls of a batch that are shown.
pub(super) const MAX_CALLS: usize = 64;

pub(super) type Outcome = (Option<CallId>, Ended);

/// The calls of a request; `None` if it does not begin with a value of JSON.
pub(super) fn calls(body: &[u8]) -> Option<Vec<Call>> {
    Some(messages(body)?.into_iter().filter_map(|message| call(&message)).collect())
}

/// The outcomes in a response; `None` if it does not begin with a value of JSON.
pub(super) fn outcomes(body: &[u8]) -> Option<Vec<Outcome>> {
    Some(messages(body)?.into_iter().filter_map(|message| outcome(&message)).collect())
}

/// The names of the tools that a response lists; `None` if it does not begin with a value of JSON.
pub(super) fn tools(body: &[u8]) -> Option<Vec<String>> {
    Some(messages(body)?.into_iter().flat_map(|message| names(&message)).collect())
}

/// The same of each event of a stream; `None` if there is one of which it cannot be said.
pub(super) fn of_events<T>(
    stream: &[u8],
    read: impl Fn(&[u8]) -> Option<Vec<T>>,
) -> Option<Vec<T>> {
    let mut all = Vec::new();
    for data in events(stream) {
        all.extend(read_data(&data, &read)?);
    }
    Some(all)
}

/// Whether an event that has ended brings a response; `None` if there is one of which it cannot be said.
pub(super) fn is_answered(stream: &[u8]) -> Option<bool> {
    let mut events = events(stream);
    // The last one has not ended.
    events.pop();
    let read = |body: &[u8]| Some(messages(body)?.iter().map(is_response).collect());
    let all: Option<Vec<_>> = events.iter().map(|data| read_data(data, read)).collect();
    Some(all?.concat().contains(&true))
}

/// An error or a result; a result that is `null` only where an id says of what, and nothing is asked.
fn is_response(message: &Json<'_>) -> bool {
    let is_there = |key| message.at(&[key]).iter().any(|value| value.0 != "null");
    let has_id = message.at(&["id"]).last().is_some_and(|id| id.0 != "null");
    let is_null = !message.at(&["result"]).is_empty() && has_id && !is_there("method");
    is_there("error") || is_there("result") || is_null
}

/// Every id of a message, as it stands there: `None` for what is none.
pub(super) fn ids(body: &[u8]) -> Option<Vec<Option<String>>> {
    let message = *messages(body)?.first()?;
    let is_id = |id: &Json<'_>| {
        let value = serde_json::from_str::<serde_json::Value>(id.0);
        value.is_ok_and(|value| value.is_string() || value.is_number() || value.is_null())
    };
    let ids = message.at(&["id"]).into_iter();
    Some(ids.map(|id| is_id(&id).then(|| id.0.to_owned())).collect())
}

/// Everything at a place of a message that is an object: `None` for what is no text.
pub(super) fn texts(body: &[u8], path: &[&str]) -> Option<Vec<Option<String>>> {
    let message = *messages(body)?.first()?;
    let found = message.at(path).into_iter();
    Some(found.map(|value| serde_json::from_str(value.0).ok()).collect())
}

fn read_data<T>(data: &[u8], read: impl Fn(&[u8]) -> Option<Vec<T>>) -> Option<Vec<T>> {
    // What does not even begin as a message has nothing of one: a path, a word, nothing at all.
    match data.iter().find(|byte| !b" \t\r\n".contains(byte)) {
        Some(b'{' | b'[') => read(data),
        _ => Some(Vec::new()),
    }
}

/// The `data` of each event (WHATWG HTML, section 9.2.6), and what has come of the last one.
pub(super) fn events(stream: &[u8]) -> Vec<Vec<u8>> {
    let stream = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
    let mut unified = Vec::new();
    for (at, byte) in stream.iter().enumerate() {
        match byte {
            b'\n' if at > 0 && stream[at - 1] == b'\r' => {}
            b'\r' => unified.push(b'\n'),
            byte => unified.push(*byte),
        }
    }
    // Behind the end of the last line there is no empty one.
    let lines = unified.strip_suffix(b"\n").unwrap_or(&unified);
    let (mut all, mut event) = (Vec::new(), Vec::new());
    for line in lines.split(|byte| *byte == b'\n') {
        if line.is_empty() {
            all.push(std::mem::take(&mut event));
        } else if let Some(data) = line.strip_prefix(b"data:") {
            event.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
            event.push(b'\n');
        }
    }
    all.push(event);
    all
}

fn call(message: &Json<'_>) -> Option<Call> {
    let method = Method::of(&message.text(&["method"])?);
    let name = match method.names() {
        Names::Name => message.text(&["params", "name"]),
        Names::Uri => message.text(&["params", "uri"]),
        Names::Nothing => None,
    };
    let trace = message.text(&["params", "_meta", "traceparent"]);
    Some(Call {
        id: id(message),
        method,
        name: name.map(Into::into),
        trace: trace.and_then(|text| TraceContext::parse(text.as_bytes())).map(Box::new),
    })
}

fn outcome(message: &Json<'_>) -> Option<Outcome> {
    let is_there = |key| message.at(&[key]).iter().any(|value| value.0 != "null");
    let is_true = |value: Json<'_>| match value.0 {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    };
    let failed = message.at(&["result", "isError"]).into_iter().filter_map(is_true).next_back();
    let code =
        message.at(&["error", "code"]).into_iter().filter_map(|code| code.integer()).next_back();
    let ended = if is_there("error") {
        Ended::Error(code.unwrap_or(0))
    } else if failed == Some(true) {
        Ended::ToolError
    } else if !message.at(&["result"]).is_empty() {
        Ended::Result
    } else {
        return None;
    };
    (!is_there("method")).then(|| (id(message), ended))
}

fn names(message: &Json<'_>) -> Vec<String> {
    let lists = message.at(&["result", "tools"]);
    let tools = lists.iter().flat_map(|list| list.items());
    let names = tools.flat_map(|tool| tool.at(&["name"]));
    names.filter_map(|name| name.string()).collect()
}

/// Of several the last one.
fn id(message: &Json<'_>) -> Option<CallId> {
    let id = *message.at(&["id"]).last()?;
    if let Some(text) = id.string() {
        return CallId::of(&Found::Text(text.into()));
    }
    let is_number = id.0.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    let number = id.0.strip_suffix(".0").unwrap_or(id.0);
    (is_number && id.0.len() <= MAX_TEXT)
        .then(|| CallId::of(&Found::Literal(number.as_bytes())).unwrap())
}

/// The message that a body is, or those of its batch.
fn messages(body: &[u8]) -> Option<Vec<Json<'_>>> {
    let first = serde_json::Deserializer::from_slice(body).into_iter::<&RawValue>().next()?;
    let first = Json(first.ok()?.get());
    Some(match first.0.starts_with('[') {
        true => first.items().into_iter().filter(|item| item.0.starts_with('{')).collect(),
        false => vec![first],
    })
}

/// A value of JSON, as it is written.
#[derive(Clone, Copy, Debug)]
struct Json<'j>(&'j str);

impl<'j> Json<'j> {
    /// The items of an array; nothing else has any.
    fn items(self) -> Vec<Self> {
        let items = serde_json::from_str::<Vec<&RawValue>>(self.0).unwrap_or_default();
        items.into_iter().map(|item| Json(item.get())).collect()
    }

    /// All that stands at this place, in order, whatever key on the way to it is repeated.
    fn at(self, path: &[&str]) -> Vec<Self> {
        let Some((first, rest)) = path.split_first() else { return vec![self] };
        let members = serde_json::from_str::<Members<'_>>(self.0).map(|all| all.0);
        let members = members.unwrap_or_default().into_iter();
        let named = members.filter(|(key, _)| key == first.as_bytes());
        named.flat_map(|(_, value)| Json(value.get()).at(rest)).collect()
    }

    /// The last string at this place.
    fn text(self, path: &[&str]) -> Option<String> {
        self.at(path).into_iter().filter_map(Json::string).next_back()
    }

    fn string(self) -> Option<String> {
        let fits = self.0.starts_with('"') && self.0.len() - 2 <= MAX_TEXT;
        fits.then(|| serde_json::from_str(self.0).ok())?
    }

    fn integer(self) -> Option<i64> {
        let written = self.0.strip_suffix(".0").unwrap_or(self.0);
        written.parse().ok().filter(|_| self.0.len() <= MAX_TEXT)
    }
}

/// The members of an object, as they are written; of any other value none.
struct Members<'j>(Vec<(Vec<u8>, &'j RawValue)>);

impl<'de: 'j, 'j> Deserialize<'de> for Members<'j> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(MembersVisitor).map(Members)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Vec<(Vec<u8>, &'de RawValue)>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some((Key(key), value)) = map.next_entry()? {
            all.push((key, value));
        }
        Ok(all)
    }
}

/// A key, which may hold half of a surrogate pair and be no string.
struct Key(Vec<u8>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_bytes(KeyVisitor).map(Key)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(bytes.to_vec())
    }
}
