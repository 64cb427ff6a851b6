//! One structured line for each finished request, on the log target `access`.
//!
//! Lines are formatted here, each thread in a buffer of its own, because a line through the general log
//! costs as much as relaying a request. Fields are fixed. Knows nothing of how a request came to its
//! end, nor of who reads the lines.

use std::cell::RefCell;
use std::io::Write;
use std::time::{Duration, SystemTime};

use super::log::Log;
use super::record::Record;
use crate::config::LogFormat;
use crate::protocol::json_text;

/// Takes lines from any thread.
#[derive(Clone, Debug)]
pub struct AccessLog(Option<(LogFormat, Log)>);

/// What a thread formats its lines in.
#[derive(Debug, Default)]
struct Sheet {
    line: Vec<u8>,
    stamp: Stamp,
}

/// The time in text; all lines of a second share most of it.
#[derive(Debug, Default)]
struct Stamp {
    second: Option<u64>,
    /// Up to the second, and the point.
    text: String,
}

thread_local! {
    static SHEET: RefCell<Sheet> = RefCell::default();
}

// === impl AccessLog ===

impl AccessLog {
    /// A log that takes nothing.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// Lines in this format, among the others of `log`.
    #[must_use]
    pub fn new(format: LogFormat, log: Log) -> Self {
        Self(Some((format, log)))
    }

    /// Writes the line of a request, unless the log's filter has the target `access` off. Never waits for a
    /// reader.
    pub fn finish(&self, record: &Record<'_>) {
        let Some((format, log)) = &self.0 else { return };
        if tracing::enabled!(target: "access", tracing::Level::INFO) {
            // Only a thread that ends has none any more.
            let _nothing_to_say = SHEET.try_with(|sheet| {
                if let Ok(mut sheet) = sheet.try_borrow_mut() {
                    log.push(sheet.format(*format, record, SystemTime::now()));
                }
            });
        }
    }
}

// === impl Sheet ===

impl Sheet {
    fn format(&mut self, format: LogFormat, record: &Record<'_>, now: SystemTime) -> &[u8] {
        let Self { line: out, stamp } = self;
        out.clear();
        match format {
            LogFormat::Json => record.json(out, stamp.at(now)),
            LogFormat::Text => {
                // Writing into a vector does not fail.
                let _infallible = record.text(out, stamp.at(now));
            }
        }
        out
    }
}

// === impl Stamp ===

impl Stamp {
    /// Text up to the point, and the microseconds behind it.
    fn at(&mut self, now: SystemTime) -> (&str, u32) {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            self.text = humantime::format_rfc3339_seconds(now).to_string();
            self.text.pop();
            self.text.push('.');
        }
        (&self.text, since.subsec_micros())
    }
}

// === impl Record ===

impl Record<'_> {
    /// One object, with the members that every line of the log has. A line is made for every request: keys stand
    /// in one piece with what is around them, and are copied without a call.
    fn json(&self, out: &mut Vec<u8>, (second, micros): (&str, u32)) {
        out.extend_from_slice(b"{\"timestamp\":\"");
        out.extend_from_slice(second.as_bytes());
        fraction(out, micros);
        out.extend_from_slice(b"Z\",\"level\":\"INFO\",\"target\":\"access\",\"peer\":\"");
        out.extend_from_slice(self.peer.as_bytes());
        out.extend_from_slice(b"\",\"method\":\"");
        escaped(out, self.method);
        out.extend_from_slice(b"\",\"path\":\"");
        escaped(out, self.path);
        out.extend_from_slice(b"\",\"host\":\"");
        escaped(out, self.target);
        out.extend_from_slice(b"\",\"route\":\"");
        escaped(out, self.route);
        out.extend_from_slice(b"\",\"class\":\"");
        out.extend_from_slice(self.class.as_bytes());
        out.extend_from_slice(b"\",\"outcome\":\"");
        out.extend_from_slice(self.outcome.detail().as_bytes());
        out.extend_from_slice(b"\",\"traceparent\":\"");
        escaped(out, self.traceparent);
        out.extend_from_slice(b"\",\"status\":");
        number(out, self.status.into());
        out.extend_from_slice(b",\"bytes\":");
        number(out, self.bytes);
        out.extend_from_slice(b",\"events\":");
        number(out, self.events);
        out.extend_from_slice(b",\"request_bytes\":");
        number(out, self.request_bytes);
        if let Some(status) = self.grpc_status {
            out.extend_from_slice(b",\"grpc_status\":");
            number(out, status.into());
        }
        if let Some(connect) = self.connect {
            out.extend_from_slice(b",\"connect_ms\":");
            milliseconds(out, connect);
        }
        if let Some(headers) = self.response_headers {
            out.extend_from_slice(b",\"response_headers_ms\":");
            milliseconds(out, headers);
        }
        if let Some(first) = self.first {
            out.extend_from_slice(b",\"first_ms\":");
            milliseconds(out, first);
        }
        out.extend_from_slice(b",\"whole_ms\":");
        milliseconds(out, self.whole);
        self.json_calls(out);
        if let Some(session) = self.session {
            out.extend_from_slice(b",\"session\":\"");
            for digit in (0..8).rev().map(|place| (session >> (4 * place)) & 0xf) {
                out.extend(
                    u8::try_from(digit)
                        .ok()
                        .and_then(|digit| b"0123456789abcdef".get(usize::from(digit))),
                );
            }
            out.extend_from_slice(b"\",\"session_event\":\"");
            out.extend_from_slice(self.care.as_bytes());
            out.push(b'"');
        }
        out.extend_from_slice(b"}\n");
    }

    /// Who calls what, where that is known.
    fn json_calls(&self, out: &mut Vec<u8>) {
        if !self.caller.is_empty() {
            out.extend_from_slice(b",\"caller\":\"");
            escaped(out, self.caller);
            out.push(b'"');
        }
        if !self.caller_by.is_empty() {
            out.extend_from_slice(b",\"caller_by\":\"");
            out.extend_from_slice(self.caller_by.as_bytes());
            out.push(b'"');
        }
        if let Some(error) = self.rpc_error {
            out.extend_from_slice(b",\"protocol\":\"");
            out.extend_from_slice(self.protocol.as_bytes());
            out.extend_from_slice(b"\",\"rpc_method\":\"");
            escaped(out, self.rpc_method);
            out.extend_from_slice(b"\",\"tool\":\"");
            escaped(out, self.tool);
            out.extend_from_slice(b"\",\"rpc_error\":\"");
            if error.is_error() {
                // Writing into a vector does not fail.
                let _infallible = write!(out, "{error}");
            }
            out.extend_from_slice(b"\",\"calls\":");
            number(out, self.calls.into());
        }
        if !self.conversation.is_empty() {
            out.extend_from_slice(b",\"conversation\":\"");
            escaped(out, self.conversation);
            out.push(b'"');
        }
    }

    /// The same for people: texts in quotes, so that nothing in a path can look like a field.
    fn text(&self, out: &mut Vec<u8>, (second, micros): (&str, u32)) -> std::io::Result<()> {
        write!(out, "{second}{micros:06}Z  INFO access: peer={}", self.peer)?;
        for (name, value) in [
            ("method", self.method),
            ("path", self.path),
            ("host", self.target),
            ("route", self.route),
            ("class", self.class),
            ("outcome", self.outcome.detail()),
            ("traceparent", self.traceparent),
        ] {
            write!(out, " {name}={value:?}")?;
        }
        for (name, value) in [
            ("status", u64::from(self.status)),
            ("bytes", self.bytes),
            ("events", self.events),
            ("request_bytes", self.request_bytes),
        ] {
            write!(out, " {name}={value}")?;
        }
        if let Some(status) = self.grpc_status {
            write!(out, " grpc_status={status}")?;
        }
        for (name, value) in [
            ("connect_ms", self.connect),
            ("response_headers_ms", self.response_headers),
            ("first_ms", self.first),
            ("whole_ms", Some(self.whole)),
        ] {
            if let Some(time) = value {
                write!(out, " {name}=")?;
                milliseconds(out, time);
            }
        }
        for (name, value) in [("caller", self.caller), ("caller_by", self.caller_by)] {
            if !value.is_empty() {
                write!(out, " {name}={value:?}")?;
            }
        }
        if let Some(error) = self.rpc_error {
            let (method, tool, error) = (self.rpc_method, self.tool, error.to_string());
            write!(out, " protocol={} rpc_method={method:?} tool={tool:?}", self.protocol)?;
            write!(out, " rpc_error={error:?} calls={}", self.calls)?;
        }
        if !self.conversation.is_empty() {
            write!(out, " conversation={:?}", self.conversation)?;
        }
        if let Some(session) = self.session {
            write!(out, " session={session:08x} session_event={:?}", self.care)?;
        }
        out.write_all(b"\n")
    }
}

/// The value as the inside of a JSON string (RFC 8259 section 7).
fn escaped(out: &mut Vec<u8>, value: &str) {
    if json_text::is_plain(value.as_bytes()) {
        return out.extend_from_slice(value.as_bytes());
    }
    let text = serde_json::Value::from(value).to_string();
    let inside = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    out.extend_from_slice(inside.unwrap_or_default().as_bytes());
}

fn number(out: &mut Vec<u8>, mut number: u64) {
    if number < 10 {
        return out.push(digit(number));
    }
    let mut digits = [0; 20];
    let mut left = digits.len();
    for place in digits.iter_mut().rev() {
        *place = digit(number);
        number /= 10;
        left -= 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(left..).unwrap_or_default());
}

/// Milliseconds with their thousandths.
fn milliseconds(out: &mut Vec<u8>, time: Duration) {
    let micros = u64::from(time.subsec_micros() % 1000);
    let millis = time.as_secs().saturating_mul(1000).saturating_add(time.subsec_millis().into());
    number(out, millis);
    out.extend_from_slice(&[b'.', digit(micros / 100), digit(micros / 10), digit(micros)]);
}

/// The last one.
fn digit(number: u64) -> u8 {
    b'0' + u8::try_from(number % 10).unwrap_or_default()
}

/// The six digits of microseconds.
fn fraction(out: &mut Vec<u8>, mut micros: u32) {
    let mut digits = [0; 6];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(micros % 10).unwrap_or_default();
        micros /= 10;
    }
    out.extend_from_slice(&digits);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::telemetry::operations::ErrorType;
    use crate::telemetry::record::Outcome;

    fn line() -> Record<'static> {
        Record {
            peer: "127.0.0.1:80",
            method: "POST",
            path: "/mcp\"\n",
            target: "a.ns",
            route: "a.ns",
            is_stream: true,
            bytes: 9,
            events: 2,
            request_bytes: 3,
            response_headers: Some(Duration::from_micros(1_050)),
            whole: Duration::from_secs(2),
            ..Record::bare("stream", 200, Outcome::Complete)
        }
    }

    #[test]
    fn a_line_says_which_session_it_is_of_and_what_was_done_for_it() {
        let line = Record { session: Some(0x0a1b), care: "revived", ..line() };
        let mut out = Vec::new();
        line.json(&mut out, Stamp::default().at(SystemTime::UNIX_EPOCH));
        let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            (&read["session"], &read["session_event"]),
            (&"00000a1b".into(), &"revived".into())
        );
        out.clear();
        line.text(&mut out, Stamp::default().at(SystemTime::UNIX_EPOCH)).unwrap();
        assert!(out.ends_with(b" session=00000a1b session_event=\"revived\"\n"));
    }

    #[test]
    fn a_line_says_who_calls_what() {
        let line = Record {
            caller: "team-a/parent",
            caller_by: "pod",
            protocol: "mcp",
            rpc_method: "tools/call",
            tool: "add\"",
            rpc_error: Some(ErrorType::Code(-32_602)),
            calls: 2,
            conversation: "c-1",
            ..line()
        };
        let mut out = Vec::new();
        line.json(&mut out, Stamp::default().at(SystemTime::UNIX_EPOCH));
        let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
        for (name, value) in [
            ("caller", "team-a/parent"),
            ("caller_by", "pod"),
            ("protocol", "mcp"),
            ("rpc_method", "tools/call"),
            ("tool", "add\""),
            ("rpc_error", "-32602"),
            ("conversation", "c-1"),
        ] {
            assert_eq!(read[name], value, "{name}");
        }
        assert_eq!(read["calls"], 2);
        out.clear();
        line.text(&mut out, Stamp::default().at(SystemTime::UNIX_EPOCH)).unwrap();
        let end = b" protocol=mcp rpc_method=\"tools/call\" tool=\"add\\\"\" rpc_error=\"-32602\" calls=2 conversation=\"c-1\"\n";
        assert!(out.ends_with(end), "{}", String::from_utf8_lossy(&out));
    }

    #[test]
    fn a_json_line_is_one_object_with_every_field() {
        let mut out = Vec::new();
        line().json(&mut out, Stamp::default().at(SystemTime::UNIX_EPOCH));
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
        let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let expected = serde_json::json!({
            "timestamp": "1970-01-01T00:00:00.000000Z", "level": "INFO", "target": "access",
            "peer": "127.0.0.1:80", "method": "POST", "path": "/mcp\"\n", "host": "a.ns",
            "route": "a.ns", "class": "stream", "outcome": "complete", "traceparent": "",
            "status": 200, "bytes": 9, "events": 2, "request_bytes": 3, "response_headers_ms": 1.05,
            "whole_ms": 2000.0,
        });
        assert_eq!(read, expected);
    }

    #[test]
    fn the_documented_fields_are_those_of_a_full_line() {
        let page = include_str!("../../docs/metrics-and-logs.md");
        let section = page.split("## Access log").nth(1).unwrap().split("##").next().unwrap();
        let rows = section.lines().filter(|line| line.starts_with("| `"));
        let column = rows.filter_map(|row| row.split('|').nth(1));
        let documented: BTreeSet<&str> =
            column.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
        let some = Some(Duration::ZERO);
        let full = Record {
            session: Some(1),
            care: "opened",
            caller: "a/b",
            caller_by: "pod",
            rpc_error: Some(ErrorType::Tool),
            conversation: "c",
            grpc_status: Some(14),
            connect: some,
            first: some,
            ..line()
        };
        let mut out = Vec::new();
        full.json(&mut out, Stamp::default().at(SystemTime::UNIX_EPOCH));
        let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let written: BTreeSet<&str> =
            read.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(documented, written);
        out.clear();
        full.text(&mut out, Stamp::default().at(SystemTime::UNIX_EPOCH)).unwrap();
        let text = String::from_utf8(out).unwrap();
        let first = ["timestamp", "level", "target"];
        let rest = written.iter().filter(|name| !first.contains(name));
        let missing: Vec<_> = rest.filter(|name| !text.contains(&format!(" {name}="))).collect();
        assert!(missing.is_empty(), "{missing:?} in {text}");
    }

    #[test]
    fn the_time_goes_on_within_a_second_and_beyond() {
        let mut stamp = Stamp::default();
        for micros in [0, 1, 20_300, 999_999, 1_000_000, 86_400_000_001] {
            let now = SystemTime::UNIX_EPOCH + Duration::from_micros(micros);
            let mut out = Vec::new();
            line().text(&mut out, stamp.at(now)).unwrap();
            let expected = humantime::format_rfc3339_micros(now).to_string();
            let text = String::from_utf8(out).unwrap();
            assert!(text.starts_with(&format!("{expected}  INFO ")), "{text}");
        }
    }

    #[test]
    fn a_text_line_is_one_line_whatever_the_path_holds() {
        let mut out = Vec::new();
        line().text(&mut out, Stamp::default().at(SystemTime::UNIX_EPOCH)).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(r#" path="/mcp\"\n" host="a.ns" "#), "{text}");
        assert!(text.ends_with(" response_headers_ms=1.050 whole_ms=2000.000\n"), "{text}");
    }

    proptest::proptest! {
        #[test]
        fn whatever_texts_and_numbers_a_record_has_its_line_is_json(
            text in "\\PC{0,20}[\"\\\\\\x00-\\x20\\x7f]{0,3}\\PC{0,20}",
            count in proptest::num::u64::ANY,
            micros in proptest::num::u64::ANY,
        ) {
            let whole = Duration::from_micros(micros);
            let record = Record {
                path: &text, target: &text, traceparent: &text, bytes: count, whole, ..line()
            };
            let mut out = Vec::new();
            record.json(&mut out, Stamp::default().at(SystemTime::UNIX_EPOCH));
            let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
            for name in ["path", "host", "traceparent"] {
                proptest::prop_assert_eq!(&read[name], &text);
            }
            proptest::prop_assert_eq!(&read["bytes"], count);
            let expected = format!(",\"whole_ms\":{}.{:03}}}\n", micros / 1000, micros % 1000);
            proptest::prop_assert!(out.ends_with(expected.as_bytes()));
        }
    }

    #[test]
    fn a_sheet_holds_one_line_at_a_time() {
        let mut sheet = Sheet::default();
        for format in [LogFormat::Json, LogFormat::Text, LogFormat::Json] {
            let mut alone = Sheet::default();
            let expected = alone.format(format, &line(), SystemTime::UNIX_EPOCH).to_vec();
            assert_eq!(sheet.format(format, &line(), SystemTime::UNIX_EPOCH), expected);
        }
    }
}
