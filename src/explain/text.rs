//! An explanation for people: the decision in one line, then what it follows from.
//!
//! Reads the JSON, which may be that of a running proxy of another version: what is missing is left out.

use serde_json::{Map, Value};

use crate::columns::{self, Side};

/// Columns of what a line is about, such as `considered`.
const NAMES: usize = 10;
/// What the JSON says of a request for anything else than an agent card.
const NO_CARD: &str = "not a card";

/// The explanation as lines, without colours.
#[must_use]
pub fn to_text(answer: &Value) -> String {
    let mut lines = Lines::default();
    lines.decision(answer);
    lines.one("route", &route(answer));
    lines.one("caller", &text(answer, "caller"));
    lines.one("query", &text(answer, "query"));
    lines.many("targets", items(answer, "targets").map(plain));
    lines.one("why", &text(answer, "detail"));
    lines.many("candidates", items(answer, "candidates").map(plain));
    lines.many("considered", items(answer, "chain").map(considered));
    lines.many("left out", items(answer, "leftOut").map(considered));
    lines.many("applies", applies(answer).into_iter());
    lines.many("set", set(answer).into_iter());
    lines.one("to do", &text(answer, "action"));
    lines.one("note", &text(answer, "note"));
    lines.0
}

/// The lines so far.
#[derive(Debug, Default)]
struct Lines(String);

// === impl Lines ===

impl Lines {
    fn push(&mut self, line: &str) {
        self.0.push_str(&columns::harmless(line));
        self.0.push('\n');
    }

    fn decision(&mut self, answer: &Value) {
        let host = match answer.get("host").and_then(Value::as_str) {
            Some(host) => format!("for {host}"),
            None => "without x-kagent-host".to_owned(),
        };
        let asked = format!("{} {} {host}", text(answer, "method"), text(answer, "path"));
        let targets: Vec<_> = items(answer, "targets").map(plain).collect();
        self.push(&match answer.get("error").map(plain) {
            Some(wrong) => format!("This is no request: {wrong}"),
            None if answer.get("reason").is_some() => {
                format!("{asked} is refused: {} {}", text(answer, "status"), text(answer, "reason"))
            }
            None => format!("{asked} goes to {}", targets.join(", ")),
        });
    }

    fn one(&mut self, name: &str, what: &str) {
        self.many(name, (!what.is_empty()).then(|| what.to_owned()).into_iter());
    }

    fn many(&mut self, name: &str, all: impl Iterator<Item = String>) {
        for (at, what) in all.enumerate() {
            let name = if at == 0 { name } else { "" };
            self.push(&columns::line([(name, NAMES, Side::Left), (&what, 0, Side::Left)]));
        }
    }
}

/// A value as it would be written: no quotes around text, lists with commas.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Null => "none".to_owned(),
        other => other.to_string(),
    }
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).filter(|value| !value.is_null()).map(plain).unwrap_or_default()
}

fn items<'v>(value: &'v Value, key: &str) -> std::slice::Iter<'v, Value> {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default().iter()
}

fn members<'v>(value: &'v Value, key: &str) -> Option<&'v Map<String, Value>> {
    value.get(key).and_then(Value::as_object)
}

fn route(answer: &Value) -> String {
    let Some(route) = answer.get("route") else { return String::new() };
    let (host, prefix) = (text(route, "host"), text(route, "prefix"));
    let prefix = if prefix == "/" { "" } else { &prefix };
    format!("{host}{prefix}, {}: {}", text(route, "kind"), text(route, "why"))
}

fn considered(item: &Value) -> String {
    format!("{}: {}", text(item, "candidate"), text(item, "verdict"))
}

/// The simple ones in one line, then one for each kind of call, without limits that are off.
fn applies(answer: &Value) -> Vec<String> {
    let Some(all) = members(answer, "applies") else { return Vec::new() };
    let simple = all.iter().filter(|(_, value)| !value.is_object() && *value != NO_CARD);
    let simple: Vec<_> =
        simple.map(|(key, value)| format!("{} {}", words(key), plain(value))).collect();
    let mut lines = vec![simple.join(", ")];
    for (key, limits) in all {
        let Value::Object(limits) = limits else { continue };
        let on = limits.iter().filter(|(_, value)| *value != "0");
        let on: Vec<_> = on.map(|(key, value)| format!("{key} {}", plain(value))).collect();
        let on = if on.is_empty() { "no time limit".to_owned() } else { on.join(", ") };
        lines.push(format!("{}: {on}", words(key)));
    }
    lines
}

/// What somebody has set, with where.
fn set(answer: &Value) -> Vec<String> {
    let Some(values) = members(answer, "values") else { return Vec::new() };
    let own = values.iter().filter(|(_, value)| text(value, "source") != "default");
    let mut lines: Vec<_> = own
        .map(|(key, value)| {
            let shown = value.get("value").map(plain).unwrap_or_default();
            format!("{key} {shown} ({})", text(value, "source"))
        })
        .collect();
    lines.push("everything else has its default; --output json shows it".to_owned());
    lines
}

/// A key such as `keepAlive` in words.
fn words(key: &str) -> String {
    let mut words = String::with_capacity(key.len() + 2);
    for c in key.chars() {
        if c.is_ascii_uppercase() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_route_is_told_with_what_was_set() {
        let answer = json!({
            "host": "helper.team-a", "path": "/mcp", "method": "POST", "normalised": "helper.team-a",
            "caller": "team-a/parent",
            "route": {"host": "helper.team-a", "prefix": "/", "kind": "static", "why": "the host has this route"},
            "targets": ["http://10.0.0.1:8081", "http://10.0.0.2:8081"],
            "leftOut": [{"candidate": "10.0.0.3", "verdict": "not ready"}],
            "applies": {
                "hold": "2s", "card": "not a card",
                "unary": {"head": "3s", "idle": "0", "total": "1m"},
                "eventStream": {"head": "0", "idle": "0", "total": "0"},
                "upgrade": "stripped", "keepAlive": "30s",
            },
            "values": {
                "targets": {"value": ["http://10.0.0.1:8081", "http://10.0.0.2:8081"], "source": "--route"},
                "cards": {"value": "rewrite", "source": "default"},
                "timeouts.unary.head": {"value": "3s", "source": "proxy.yaml:7"},
            },
            "chain": [{"candidate": "static route helper.team-a/", "verdict": "taken: static routes win"}],
        });
        let expected = "\
POST /mcp for helper.team-a goes to http://10.0.0.1:8081, http://10.0.0.2:8081
route       helper.team-a, static: the host has this route
caller      team-a/parent
targets     http://10.0.0.1:8081
            http://10.0.0.2:8081
considered  static route helper.team-a/: taken: static routes win
left out    10.0.0.3: not ready
applies     hold 2s, upgrade stripped, keep alive 30s
            unary: head 3s, total 1m
            event stream: no time limit
set         targets http://10.0.0.1:8081, http://10.0.0.2:8081 (--route)
            timeouts.unary.head 3s (proxy.yaml:7)
            everything else has its default; --output json shows it
";
        assert_eq!(to_text(&answer), expected);
    }

    #[test]
    fn a_refusal_is_told_with_what_to_do() {
        let answer = json!({
            "host": null, "path": "/\u{1b}[2J", "method": "POST", "reason": "unknown_target", "status": 503,
            "detail": "no route", "candidates": ["helper.team-a"], "chain": [], "action": "add a route",
        });
        let expected = "\
POST /\\u{1b}[2J without x-kagent-host is refused: 503 unknown_target
why         no route
candidates  helper.team-a
to do       add a route
";
        assert_eq!(to_text(&answer), expected);
        let wrong = to_text(&json!({"error": "\"x\" is not a path; begin it with /"}));
        assert_eq!(wrong, "This is no request: \"x\" is not a path; begin it with /\n");
        assert_eq!(to_text(&Value::Null).lines().count(), 1, "whatever it is, one line says so");
    }
}
