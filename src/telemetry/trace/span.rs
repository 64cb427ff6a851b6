//! One exchange as a span, by the semantic conventions of OpenTelemetry for HTTP, MCP and GenAI.
//!
//! Of kind SERVER: it times what the client waits for, from the request's arrival to the response's end, and is the
//! parent of the server's own span behind the proxy. Plain data; bodies, credentials and ids of sessions are never in it.

use std::net::SocketAddr;
use std::time::SystemTime;

use http::Version;

use super::Hop;
use crate::protocol::trace_context::TraceContext;
use crate::telemetry::operations::ErrorType;
use crate::telemetry::record::{Outcome, Record};

/// One span.
#[derive(Clone, Debug, PartialEq)]
pub struct FinishedSpan {
    /// What it is called: of few names, whoever sends what.
    pub name: Box<str>,
    /// Its trace and itself.
    pub context: TraceContext,
    /// The span that sent the request; 0 if there is none.
    pub parent: u64,
    /// `tracestate` as sent.
    pub state: Box<str>,
    /// When the request arrived.
    pub start: SystemTime,
    /// When the response ended.
    pub end: SystemTime,
    /// What is known of it, by name.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// Something went wrong.
    pub failed: bool,
}

/// What is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// A text.
    Text(Box<str>),
    /// A number.
    Number(i64),
}

/// Bytes of a text: a queue of spans with whole paths could be large.
const MAX_TEXT: usize = 256;
/// The methods of the convention; others are named `_OTHER` (RFC 9110 section 9, RFC 5789, RFC 10008).
const METHODS: [&str; 10] =
    ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"];

// === impl FinishedSpan ===

impl FinishedSpan {
    /// That of a request that ended just now.
    pub(super) fn of(record: &Record<'_>, hop: &Hop, now: SystemTime) -> Self {
        let mut list = List(Vec::with_capacity(24));
        list.http(record, hop);
        list.rpc(record);
        list.own(record);
        let error = error(record);
        if let Some(error) = &error {
            list.text("error.type", error);
        }
        Self {
            name: name(record),
            context: hop.context,
            parent: hop.parent,
            state: hop.state.clone(),
            start: now.checked_sub(record.whole).unwrap_or(now),
            end: now,
            attributes: list.0,
            failed: error.is_some(),
        }
    }
}

/// `{mcp.method.name} {gen_ai.tool.name}`; of what is no call, the method of HTTP.
fn name(record: &Record<'_>) -> Box<str> {
    match (record.rpc_method, record.tool) {
        ("", _) => match known(record.method) {
            Some(method) => method.into(),
            None => "HTTP".into(),
        },
        (method, "") => method.into(),
        (method, tool) => format!("{method} {tool}").into(),
    }
}

fn known(method: &str) -> Option<&str> {
    METHODS.contains(&method).then_some(method)
}

/// What went wrong: in the call, in the exchange, or by status. A client that leaves a stream ends it as it should.
fn error(record: &Record<'_>) -> Option<String> {
    match (record.rpc_error, record.outcome) {
        (Some(error), _) if error.is_error() => Some(error.to_string()),
        (_, Outcome::UpstreamBroke | Outcome::IdleTimeout | Outcome::TotalTimeout) => {
            Some(record.outcome.word().to_owned())
        }
        (_, Outcome::Refused(reason)) => Some(reason.to_owned()),
        _ if record.status >= 500 => Some(record.status.to_string()),
        _ => None,
    }
}

struct List(Vec<(&'static str, Attribute)>);

// === impl List ===

impl List {
    /// Unless it is empty.
    fn text(&mut self, name: &'static str, text: &str) {
        if !text.is_empty() {
            let end = text.floor_char_boundary(MAX_TEXT);
            let text = text.get(..end).unwrap_or_default();
            self.0.push((name, Attribute::Text(text.into())));
        }
    }

    /// Unless it is 0.
    fn number(&mut self, name: &'static str, number: u64) {
        if number != 0 {
            let number = i64::try_from(number).unwrap_or(i64::MAX);
            self.0.push((name, Attribute::Number(number)));
        }
    }

    fn http(&mut self, record: &Record<'_>, hop: &Hop) {
        match known(record.method) {
            Some(method) => self.text("http.request.method", method),
            None => {
                self.text("http.request.method", "_OTHER");
                self.text("http.request.method_original", record.method);
            }
        }
        self.text("url.scheme", hop.scheme);
        self.text("url.path", record.path);
        self.text("server.address", record.target);
        self.number("http.response.status_code", record.status.into());
        self.text("network.protocol.version", version(hop.version));
        match record.peer.parse::<SocketAddr>() {
            Ok(peer) => {
                self.text("network.peer.address", &peer.ip().to_canonical().to_string());
                self.number("network.peer.port", peer.port().into());
            }
            Err(_) => self.text("network.peer.address", record.peer),
        }
        self.number("http.request.body.size", record.request_bytes);
        self.number("http.response.body.size", record.bytes);
    }

    fn rpc(&mut self, record: &Record<'_>) {
        match record.protocol {
            "mcp" => self.text("mcp.method.name", record.rpc_method),
            "a2a" => self.text("a2a.method.name", record.rpc_method),
            _ => return,
        }
        match record.rpc_method {
            "tools/call" => {
                self.text("gen_ai.operation.name", "execute_tool");
                self.text("gen_ai.tool.name", record.tool);
            }
            "prompts/get" => self.text("gen_ai.prompt.name", record.tool),
            _ => {}
        }
        if let Some(ErrorType::Code(code)) = record.rpc_error {
            self.text("rpc.response.status_code", &code.to_string());
        }
        if record.calls > 1 {
            self.number("kagent_proxy.calls", record.calls.into());
        }
    }

    fn own(&mut self, record: &Record<'_>) {
        self.text("kagent_proxy.route", record.route);
        self.text("kagent_proxy.caller", record.caller);
        self.text("kagent_proxy.caller_by", record.caller_by);
        self.text("kagent_proxy.conversation", record.conversation);
        self.text("kagent_proxy.class", record.class);
        self.text("kagent_proxy.outcome", record.outcome.word());
        self.text("kagent_proxy.session_event", record.care);
        self.number("kagent_proxy.events", record.events);
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_11 => "1.1",
        Version::HTTP_2 => "2",
        _ => "",
    }
}
